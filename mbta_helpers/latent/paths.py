"""Why a state has two parts: models with one of them, and sequences that need both.

Hafner et al. (2019), figure 2, argue that a state of deterministic parts alone has one future, and
a state of random parts alone is slow to learn to remember. Chapter 15 measures it on sequences of
eleven numbers: a cue is shown once, a spot forks by the toss of a coin, the cue is asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbta_helpers.errors import unknown
from mbta_helpers.latent.planet import Learner, PlanetConfig, open_loop
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import RSSM, GaussianLatent
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig

WAIT, PLACES, STEPS = 3, 9, 14  # rows before the fork, places of the spot, rows of a sequence
CUE_AGAIN = 12  # the row from which the cue is shown again
SEEN = 2  # rows that a model sees before it imagines the rest
UPDATES = 800


@dataclass(frozen=True)
class SureLatent(GaussianLatent):
    """z is told without noise: a Gaussian of width 1 whose draw is its mean."""

    def moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, _ = parameters.chunk(2, -1)
        return mean, torch.ones_like(mean)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        return self.mode(parameters)


class Forgetful(nn.Module):
    """A cell that drops h_{t−1}: what goes on to the next step goes through z."""

    def __init__(self, inputs: int, size: int):
        super().__init__()
        self.layer = nn.Linear(inputs, size)

    def forward(self, inputs: Tensor, h: Tensor) -> Tensor:
        return self.layer(inputs).tanh()


class RandomPathRSSM(RSSM):
    """A state-space model without a deterministic path."""

    def make_cell(self, inputs: int, size: int) -> nn.Module:
        return Forgetful(inputs, size)


class RandomPathModel(WorldModel):
    """A world model without a deterministic path."""

    def make_rssm(self) -> RSSM:
        c = self.config
        return RandomPathRSSM(self.action_dim, c.embedding, c.latent, c.deterministic, c.hidden)


def forks(count: int, generator: torch.Generator) -> tuple[Sequences, Tensor, Tensor]:
    """Sequences, (count, STEPS, 11), the cue, (count,), and the side, (count,), −1 or 1 each.

    A spot waits in the middle of PLACES, then goes to one end. Number 9 is the cue, in the first
    row and from CUE_AGAIN on; number 10 is 1 where the cue is asked for.
    """
    cue, side = (2 * torch.randint(2, (2, count), generator=generator) - 1).unbind(0)
    gone = (torch.arange(STEPS) - WAIT).clamp(0, PLACES // 2)  # (T,)
    place = PLACES // 2 + side[:, None] * gone  # (count, T)
    observation = torch.zeros(count, STEPS, PLACES + 2)
    observation.scatter_(2, place[..., None], 1.0)
    observation[:, 0, PLACES] = cue.float()
    observation[:, CUE_AGAIN:, PLACES] = cue[:, None].float()
    observation[:, CUE_AGAIN:, PLACES + 1] = 1.0
    zeros = torch.zeros(count, STEPS)
    first = zeros.clone()
    first[:, 0] = 1.0
    return Sequences(observation, zeros[..., None], zeros, first, zeros), cue, side


KINDS = {
    "both parts": (WorldModel, GaussianLatent(4)),
    "deterministic alone": (WorldModel, SureLatent(4)),
    "random alone": (RandomPathModel, GaussianLatent(4)),
}


def untrained(kind: str, seed: int) -> WorldModel:
    """A model of one of KINDS."""
    if kind not in KINDS:
        raise unknown("kind of state", kind, KINDS)
    make, latent = KINDS[kind]
    sizes = {"deterministic": 32, "hidden": 32, "embedding": 32, "layers": 1}
    config = WorldModelConfig(latent, free_nats=0.0, observation_scale=25.0, **sizes)
    return make((PLACES + 2,), 1, config, seed)


def train_on_forks(kind: str, updates: int, seed: int) -> WorldModel:
    """A model of one of KINDS, trained on fresh sequences."""
    model = untrained(kind, seed)
    learner = Learner(model, PlanetConfig(model.config, learning_rate=3e-3))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        learner.update(forks(32, generator)[0], generator)
    return model


def judge_futures(model: WorldModel, seed: int, count: int = 500) -> dict[str, float]:
    """Shares of imagined futures, after SEEN rows.

    decided: the spot is at one end and not at the other (0.5 apart). right: at the right one.
    kept: decided, and at the same end three rows later. recalled: the cue has the right sign.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, cue, _ = forks(count, generator)
    seen, _ = open_loop(model, batch, SEEN, generator)
    ahead = seen[:, :, PLACES - 1] - seen[:, :, 0]  # right end less left end, (count, T)
    arrived = WAIT + PLACES // 2
    decided = ahead[:, arrived].abs() > 0.5
    kept = decided & (ahead[:, arrived] * ahead[:, arrived + 3] > 0)
    recalled = seen[:, CUE_AGAIN, PLACES] * cue > 0
    right = decided & (ahead[:, arrived] > 0)
    shares = {"decided": decided, "right": right, "kept": kept, "recalled": recalled}
    return {name: round(part.float().mean().item(), 3) for name, part in shares.items()}
