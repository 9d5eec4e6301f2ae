"""A world model of the maze's pictures, in steps of a held action, and what reads the map in it.

An RSSM as in chapter 15 whose eye is no network: an observation is two pictures, now and a decision
before, and what it sees of them is where the spot is and how far it came (`sight`). A head says the
same of a state, filtered or imagined, so that a goal is a distance on the map. The decoder draws
the picture, for the reader.

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
from mbta_helpers.latent.maze_pictures import draw_pair, sight
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import RSSM, GaussianLatent, State, mlp
from mbta_helpers.latent.world_model import gaussian_error
from mbta_helpers.mazes import Maze
from mbta_helpers.training import one_cycle
from mbta_helpers.windows import Windows

ACTION_DIM, SIGHT_DIM = 2, 4


@dataclass(frozen=True)
class MacroConfig:
    """Sizes, weights and how to learn.

    pixel_scale, sight_scale: weights 1/σ² of pixels and of what is seen, in map units.
    batch, length: B and T of an update; updates: how many.
    """

    latent: GaussianLatent = field(default_factory=lambda: GaussianLatent(4))
    deterministic: int = 16
    hidden: int = 64
    embedding: int = 32
    pixel_scale: float = 10.0
    sight_scale: float = 1000.0
    learning_rate: float = 3e-3
    batch: int = 32
    length: int = 10
    updates: int = 2000
    gradient_norm: float = 100.0


class MacroModel(nn.Module):
    """An RSSM of what is seen, a head that says it, and a decoder that draws the picture."""

    def __init__(self, maze: Maze, config: MacroConfig, seed: int):
        super().__init__()
        self.maze, self.config = maze, config
        width, features = config.hidden, config.deterministic + config.latent.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = mlp(SIGHT_DIM, width, config.embedding, 1)
            self.rssm = RSSM(
                ACTION_DIM, config.embedding, config.latent, config.deterministic, width
            )
            self.sight_head = mlp(features, width, SIGHT_DIM, 2)
            self.decoder = mlp(features, width, SIDE**2, 2)

    def sight(self, features: Tensor) -> Tensor:
        """Where the point is, and MOVE times how far it came, as `sight` has it; (..., 4)."""
        return self.sight_head(features)

    def place(self, features: Tensor) -> Tensor:
        """Where the point is, (..., 2) in map units."""
        return self.sight(features)[..., :2]

    def picture(self, features: Tensor) -> Tensor:
        """What the point would look like, (..., SIDE, SIDE)."""
        return self.decoder(features).unflatten(-1, (SIDE, SIDE))

    def loss(self, batch: Sequences, generator: torch.Generator) -> dict[str, Tensor]:
        """The parts of the loss (19.1), in nats a step."""
        pairs, c = batch.observation, self.config
        seen = sight(self.maze, pairs)
        states, priors = self.rssm.observe(
            self.encoder(seen), batch.action, batch.is_first, generator
        )
        features = states.features
        pixels = gaussian_error(self.picture(features.detach()), pairs[..., 0, :, :], 2)
        return {
            "pixels": c.pixel_scale * pixels.mean(),
            "sight": c.sight_scale * gaussian_error(self.sight(features), seen, 1).mean(),
            "kl": c.latent.kl(states.parameters, priors).mean(),
        }

    @torch.no_grad()
    def follow(self, state: State, action: Tensor, pairs: Tensor) -> State:
        """The next state of the filter, at the posterior's mean; pairs: (N, 2, SIDE, SIDE)."""
        h = self.rssm.advance(state, action)
        embedding = self.encoder(sight(self.maze, pairs))
        parameters = self.rssm.posterior(torch.cat([h, embedding], -1))
        return State(h, self.config.latent.mode(parameters), parameters)


def sequences(model: MacroModel, windows: Windows, generator: torch.Generator) -> Sequences:
    """A batch of what play shows: T rows of pictures, with the action that led to each."""
    batch = windows.sample(model.config.batch, generator)
    before = torch.zeros_like(batch.actions[:, :1])
    none = torch.zeros(batch.states.shape[:2])
    is_first = none.clone()
    is_first[:, 0] = 1
    return Sequences(
        torch.from_numpy(draw_pair(model.maze, batch.states.numpy())),
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
        pairs = torch.from_numpy(draw_pair(model.maze, play.states[rows]))
        now = model.follow(now, action, pairs)
        for everywhere, filtered, part in zip(state, states, now, strict=True):
            everywhere[alive] = part
            filtered[rows] = part
    return states
