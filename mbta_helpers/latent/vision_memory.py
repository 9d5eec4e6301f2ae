"""A world model from pictures: record random play, learn to see it, learn to foresee it.

Ha and Schmidhuber (2018), "World Models"; chapter 14.

Symbols: F pictures of all episodes one after the other, T steps of an episode, Z numbers of a code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbta_helpers.latent.mdn_rnn import MDNRNN, Episodes, MDNConfig, train_mdn_rnn
from mbta_helpers.latent.stones import MOVES, Stones
from mbta_helpers.latent.vae import VAE, VAEConfig, initialise, train_vae

KEEP = 0.9  # the chance that random play repeats its last move


class Recordings(NamedTuple):
    """Random play. pictures: (F, side, side). action, hit: for each episode (T,)."""

    pictures: Tensor
    action: list[Tensor]
    hit: list[Tensor]


def random_moves(last: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The last move again, or any; (N,). Moves that last show more of the world than a tremble."""
    new = rng.integers(0, len(MOVES), len(last))
    return np.where(rng.random(len(last)) < KEEP, last, new)


def record_play(episodes: int, steps: int, rng: np.random.Generator) -> Recordings:
    """Episodes of random play, until a hit or for that many steps."""
    games, alive = Stones(episodes, rng), np.ones(episodes, bool)
    action = rng.integers(0, len(MOVES), episodes)
    pictures, actions, hits, lived = [games.pictures()], [], [], np.zeros(episodes, int)
    for _ in range(steps):
        action = random_moves(action, rng)
        hit = games.step(action)
        lived += alive
        alive &= ~hit
        pictures.append(games.pictures())
        actions.append(action)
        hits.append(hit)
    seen = np.arange(steps + 1) <= lived[:, None]  # pictures up to the last of each episode
    return Recordings(
        torch.from_numpy(np.stack(pictures, 1)[seen]),
        [torch.from_numpy(a[:n]) for a, n in zip(np.stack(actions, 1), lived, strict=True)],
        [torch.from_numpy(h[:n]).float() for h, n in zip(np.stack(hits, 1), lived, strict=True)],
    )


@torch.no_grad()
def encode(vae: VAE, recording: Recordings) -> Episodes:
    """The recording as codes."""
    q, lengths = vae.encode(recording.pictures), [len(a) + 1 for a in recording.action]
    one_hot = torch.eye(len(MOVES))
    return Episodes(
        q.loc.split(lengths),
        q.scale.split(lengths),
        [one_hot[action] for action in recording.action],
        recording.hit,
    )


@dataclass(frozen=True)
class VisionAndMemoryConfig:
    """How much to record, and how to learn from it."""

    episodes: int = 4000
    steps: int = 50
    vae: VAEConfig = field(default_factory=VAEConfig)
    memory: MDNConfig = field(default_factory=MDNConfig)


class VisionAndMemory(NamedTuple):
    """Eye and memory; mean and std, (n, Z), are codes of first pictures, where dreams begin."""

    vae: VAE
    memory: MDNRNN
    mean: Tensor
    std: Tensor

    @property
    def rule_size(self) -> int:
        """D, the numbers of a linear rule on [z, h]."""
        return self.mean.shape[1] + self.memory.config.hidden + 1


def train_world_model(config: VisionAndMemoryConfig, seed: int) -> tuple[VisionAndMemory, Episodes]:
    """V and M from random play, and the play as codes."""
    generator = torch.Generator().manual_seed(seed)
    recording = record_play(config.episodes, config.steps, np.random.default_rng(seed))
    vae = train_vae(recording.pictures, config.vae, generator)
    episodes = encode(vae, recording)
    return dreaming_from(vae, train_mdn_rnn(episodes, config.memory, generator), episodes), episodes


def dreaming_from(vae: VAE, memory: MDNRNN, episodes: Episodes) -> VisionAndMemory:
    """The parts together, with the first codes of the episodes."""
    first = (torch.stack([each[0] for each in part]) for part in (episodes.mean, episodes.std))
    return VisionAndMemory(vae, memory, *first)


def with_untrained_memory(model: VisionAndMemory, seed: int) -> VisionAndMemory:
    """The same eye with a memory whose weights are as they were drawn: the control."""
    memory = MDNRNN(model.memory.config)
    initialise(memory, torch.Generator().manual_seed(seed))
    return model._replace(memory=memory)
