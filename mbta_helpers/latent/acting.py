"""Acting: an agent in vectorised environments, with a state that is filtered from what it sees.

Environments reset themselves in the step after an episode's end (gymnasium's NEXT_STEP): the action
of that step is ignored, and its observation starts an episode.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from mbta_helpers.errors import require
from mbta_helpers.latent.replay import SequenceReplay, Sequences
from mbta_helpers.latent.rssm import State
from mbta_helpers.latent.world_model import WorldModel


class Agent(Protocol):
    """A world model and what chooses actions by its states."""

    model: WorldModel

    def act(self, state: State, generator: torch.Generator, explore: bool) -> Tensor:
        """Actions in [−1, 1], (N, A)."""


class RandomAgent:
    """Uniform actions, for the first episodes and as a control."""

    def __init__(self, model: WorldModel):
        self.model = model

    def act(self, state: State, generator: torch.Generator, explore: bool) -> Tensor:
        shape = (len(state.h), self.model.action_dim)
        return 2 * torch.rand(shape, generator=generator) - 1


class Driver:
    """Steps environments with an agent, from where the last call stopped.

    row: what came last, a row of `Sequences` with N environments. state: s_t of each.
    """

    def __init__(self, environments: VectorEnv, model: WorldModel, seed: int):
        """seed: environment i starts with seed + i; draws come from a generator of the same."""
        require(
            environments.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP,
            "Make the environments with gymnasium's autoreset in the next step (its default).",
        )
        self.environments, self.model = environments, model
        self.generator = torch.Generator().manual_seed(seed)
        observation, _ = environments.reset(seed=seed)
        count = environments.num_envs
        zeros = torch.zeros(count)
        action = torch.zeros(count, model.action_dim)
        self.row = Sequences(
            torch.as_tensor(observation, dtype=torch.float32),
            action,
            zeros,
            torch.ones(count),
            zeros,
        )
        self.state = model.rssm.start(count)
        self.over = torch.zeros(count)

    @torch.no_grad()
    def step(self, agent: Agent, explore: bool) -> Sequences:
        """See, decide, act: returns the row that was seen, before the action."""
        seen = self.row
        embedding = self.model.embed(seen.observation)
        self.state, _ = self.model.rssm.observe_step(
            self.state, seen.action, seen.is_first, embedding, self.generator
        )
        action = agent.act(self.state, self.generator, explore)
        observation, reward, terminated, truncated, _ = self.environments.step(action.numpy())
        is_first = self.over  # where an episode was over, this step has reset
        keep = 1 - is_first
        self.over = torch.as_tensor(np.logical_or(terminated, truncated), dtype=torch.float32)
        self.row = Sequences(
            torch.as_tensor(observation, dtype=torch.float32),
            action * keep[:, None],
            torch.as_tensor(reward, dtype=torch.float32) * keep,
            is_first,
            torch.as_tensor(terminated, dtype=torch.float32),
        )
        return seen

    def collect(self, agent: Agent, replay: SequenceReplay, steps: int) -> None:
        """Add `steps` rows of each environment to the replay."""
        for _ in range(steps):
            replay.add(self.step(agent, explore=True))


def evaluate(agent: Agent, environments: VectorEnv, seed: int) -> np.ndarray:
    """Returns of one whole episode in each environment, without exploration; (N,)."""
    driver = Driver(environments, agent.model, seed)
    total, running = torch.zeros(environments.num_envs), torch.ones(environments.num_envs)
    while running.any():
        driver.step(agent, explore=False)
        total += running * driver.row.reward
        running = running * (1 - driver.over)
    return total.numpy()
