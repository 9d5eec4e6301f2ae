"""C, the hand of a world model: a linear rule, evolved in reality or in a dream.

Ha and Schmidhuber (2018), "World Models"; the search is CMA-ES (Hansen 2016). Chapter 14 derives
what is here.

Symbols: P candidates, E episodes of each, D numbers of a rule, F features, Z of a code, H of
memory. All P · E games run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cma
import numpy as np
import torch
from torch import Tensor

from mbta_helpers.errors import require
from mbta_helpers.latent.stones import MAX_STEPS, Stones
from mbta_helpers.latent.vision_memory import VisionAndMemory

Play = Callable[[Tensor, int], np.ndarray]  # rules (P, D) and E to steps survived (P, E)


def act(rules: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """Actions 0, 1, 2 for left, stay, right: w·[z, h] + b below −1/3, between, above 1/3 (14.12).

    rules: (P, D), z: (P E, Z), h: (P E, H). Returns (P E,).
    """
    features = torch.cat([z, h], -1).unflatten(0, (len(rules), -1))  # (P, E, F)
    score = torch.einsum("pef,pf->pe", features, rules[:, :-1]) + rules[:, -1:]
    return (1 + (score > 1 / 3).long() - (score < -1 / 3).long()).flatten()


@torch.no_grad()
def play_in_reality(
    model: VisionAndMemory, rules: Tensor, episodes: int, rng: np.random.Generator
) -> np.ndarray:
    """Steps survived, (P, E); the eye gives means, the memory follows."""
    count = len(rules) * episodes
    games, memory = Stones(count, rng), model.memory.begin(count)
    alive, steps = np.ones(count, bool), np.zeros(count, int)
    for _ in range(MAX_STEPS):
        z = model.vae.encode(torch.from_numpy(games.pictures())).loc
        action = act(rules, z, memory[0])
        memory = model.memory.remember(memory, z, action)
        steps += alive
        alive &= ~games.step(action.numpy())
        if not alive.any():
            break
    return steps.reshape(len(rules), episodes)


@torch.no_grad()
def play_in_dream(
    model: VisionAndMemory,
    rules: Tensor,
    episodes: int,
    temperature: float,
    generator: torch.Generator,
) -> np.ndarray:
    """Steps survived in the dream, (P, E): every picture after the first is the memory's."""
    count = len(rules) * episodes
    first = torch.randint(len(model.mean), (count,), generator=generator)
    noise = torch.randn(count, model.mean.shape[1], generator=generator)
    z, memory = model.mean[first] + model.std[first] * noise, model.memory.begin(count)
    alive, steps = torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.long)
    for _ in range(MAX_STEPS):
        memory = model.memory.remember(memory, z, act(rules, z, memory[0]))
        z = model.memory.predict(memory[0]).sample(temperature, generator)
        steps += alive
        ends = model.memory.end_logit(memory[0], z).sigmoid()
        alive &= torch.rand(count, generator=generator) >= ends
        if not alive.any():
            break
    return steps.reshape(len(rules), episodes).numpy()


@dataclass(frozen=True)
class EvolutionConfig:
    """How to search: P candidates in a generation, E episodes for each; step_size: the first σ."""

    generations: int = 40
    population: int = 24
    episodes: int = 8
    step_size: float = 0.3

    def __post_init__(self):
        require(self.population >= 4, f"population must be at least 4, not {self.population}.")
        require(self.step_size > 0, f"step_size must be positive, not {self.step_size}.")


def evolve(play: Play, size: int, config: EvolutionConfig, seed: int) -> tuple[Tensor, np.ndarray]:
    """The mean rule of CMA-ES at the end, (1, D), and the mean return of each generation.

    CMA-ES minimises, so it is told the negative return.
    """
    options = {"popsize": config.population, "seed": seed + 1, "verbose": -9}  # 0 is "any" to cma
    search = cma.CMAEvolutionStrategy(np.zeros(size), config.step_size, options)
    returns = []
    for _ in range(config.generations):
        rules = search.ask()
        lived = play(torch.tensor(np.stack(rules)).float(), config.episodes).mean(1)
        search.tell(rules, (-lived).tolist())
        returns.append(lived.mean())
    return torch.tensor(search.mean).float()[None], np.array(returns)
