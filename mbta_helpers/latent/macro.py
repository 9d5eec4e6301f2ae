"""A world model of the maze's pictures, in steps of a held action, and what reads the map in it.

The RSSM of chapter 15 with a head more: where on the map the point is, and where it was a decision
before. An observation is the two pictures of these places, and the head learns from them alone.
From a state of the model a goal is a distance between two places.

Symbols: B sequences, T rows, N episodes side by side, A = 2 numbers in an action, D numbers in h,
Z in z.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mbta_helpers.datasets import Transitions
from mbta_helpers.latent.environments import SIDE
from mbta_helpers.latent.maze_pictures import draw_pair, locate
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import RSSM, GaussianLatent, State, mlp
from mbta_helpers.latent.world_model import gaussian_error
from mbta_helpers.mazes import Maze
from mbta_helpers.training import one_cycle
from mbta_helpers.windows import Windows

ACTION_DIM = 2
PIXELS = 2 * SIDE**2


@dataclass(frozen=True)
class MacroConfig:
    """Sizes, weights and how to learn.

    observation_scale, place_scale: weights 1/σ² of pixels and of places in map units.
    batch, length: B and T of an update; updates: how many.
    """

    latent: GaussianLatent = field(default_factory=lambda: GaussianLatent(4))
    deterministic: int = 16
    hidden: int = 128
    embedding: int = 64
    observation_scale: float = 100.0
    place_scale: float = 1000.0
    learning_rate: float = 3e-3
    batch: int = 24
    length: int = 10
    updates: int = 2000
    gradient_norm: float = 100.0


class MacroModel(nn.Module):
    """Encoder, RSSM, a decoder of pictures, and a head that says where on the map."""

    def __init__(self, maze: Maze, config: MacroConfig, seed: int):
        super().__init__()
        self.maze, self.config = maze, config
        width, features = config.hidden, config.deterministic + config.latent.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = mlp(PIXELS, width, config.embedding, 2)
            self.rssm = RSSM(
                ACTION_DIM, config.embedding, config.latent, config.deterministic, width
            )
            self.decoder = mlp(features, width, PIXELS, 2)
            self.place_head = mlp(features, width, 4, 2)

    def see(self, shown: np.ndarray) -> Tensor:
        """The two pictures, as one row of pixels (..., PIXELS), of what `shown` has, (..., 4)."""
        return torch.from_numpy(draw_pair(self.maze, shown)).flatten(-3)

    def places(self, features: Tensor) -> Tensor:
        """Where the point is and where it was a decision before, (..., 4) in map units."""
        return self.place_head(features)

    def place(self, features: Tensor) -> Tensor:
        """Where the point is, (..., 2) in map units."""
        return self.places(features)[..., :2]

    def loss(self, batch: Sequences, generator: torch.Generator) -> dict[str, Tensor]:
        """The parts of the loss (19.1), in nats a step."""
        seen, c = batch.observation, self.config
        states, priors = self.rssm.observe(
            self.encoder(seen), batch.action, batch.is_first, generator
        )
        features = states.features
        found = locate(self.maze, seen.unflatten(-1, (2, SIDE, SIDE))).flatten(-2)
        return {
            "pixels": c.observation_scale * gaussian_error(self.decoder(features), seen, 1).mean(),
            "place": c.place_scale * gaussian_error(self.places(features), found, 1).mean(),
            "kl": c.latent.kl(states.parameters, priors).mean(),
        }

    @torch.no_grad()
    def follow(self, state: State, action: Tensor, seen: Tensor) -> State:
        """The next state of the filter, at the posterior's mean; seen: (N, PIXELS)."""
        h = self.rssm.advance(state, action)
        parameters = self.rssm.posterior(torch.cat([h, self.encoder(seen)], -1))
        return State(h, self.config.latent.mode(parameters), parameters)


def sequences(model: MacroModel, windows: Windows, generator: torch.Generator) -> Sequences:
    """A batch of what play shows: T rows of pictures, with the action that led to each."""
    batch = windows.sample(model.config.batch, generator)
    before = torch.zeros_like(batch.actions[:, :1])
    none = torch.zeros(batch.states.shape[:2])
    is_first = none.clone()
    is_first[:, 0] = 1
    return Sequences(
        model.see(batch.states.numpy()),
        torch.cat([before, batch.actions], 1),
        none,
        is_first,
        none,
    )


def train_model(
    model: MacroModel, play: Transitions, seed: int, progress: bool = False
) -> list[dict[str, float]]:
    """Descend the loss on windows of what play shows (`shown`); returns its parts, each update."""
    c, generator = model.config, torch.Generator().manual_seed(seed)
    windows = Windows(play, c.length - 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=c.learning_rate, fused=True)
    history = []
    for update in tqdm(range(c.updates), desc="world model", disable=not progress):
        parts = model.loss(sequences(model, windows, generator), generator)
        optimiser.param_groups[0]["lr"] = c.learning_rate * one_cycle(update / c.updates)
        optimiser.zero_grad()
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), c.gradient_norm)
        optimiser.step()
        history.append({name: part.item() for name, part in parts.items()})
    return history


def filter_play(model: MacroModel, play: Transitions) -> State:
    """The filtered state of every row of what play shows, (M + E, ...), episodes side by side."""
    count = len(play.lengths)
    state, states = model.rssm.start(count), model.rssm.start(len(play.states))
    for t in range(play.lengths.max() + 1):
        alive = np.flatnonzero(play.lengths >= t)
        rows = play.state_starts[alive] + t
        action = torch.zeros(len(alive), ACTION_DIM)
        if t > 0:
            action = torch.from_numpy(play.actions[play.action_starts[alive] + t - 1])
        now = State(*(part[alive] for part in state))
        now = model.follow(now, action, model.see(play.states[rows]))
        for everywhere, filtered, part in zip(state, states, now, strict=True):
            everywhere[alive] = part
            filtered[rows] = part
    return states
