"""DIAYN with one mistake each, kept for chapter 13, which measures what they do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mbta_helpers.hierarchical.diayn import DIAYN
from mbta_helpers.hierarchical.sac import Batch


class StaleReward(DIAYN):
    """The reward is that of the discriminator at the time of the step, and is stored."""

    def remember(self, state: np.ndarray, z: Tensor, action: np.ndarray, after: np.ndarray) -> None:
        before, following = self.observation(state, z), self.observation(after, z)
        reward = self.reward(self.view(after), z)
        zeros = torch.zeros(len(z))
        self.replay.add(Batch(before, torch.as_tensor(action), reward, following, zeros))

    def update(self, batch: Batch) -> None:
        self.fit(*self.split(batch.next_observation))
        self.sac.update(batch)


class EarlyReward(DIAYN):
    """The reward is that of s, not of s'."""

    def update(self, batch: Batch) -> None:
        self.fit(*self.split(batch.next_observation))
        self.sac.update(batch._replace(reward=self.reward(*self.split(batch.observation))))


class NoPrior(DIAYN):
    """The reward is log q(z|s'), without − log p(z)."""

    @torch.no_grad()
    def reward(self, after: Tensor, z: Tensor) -> Tensor:
        return (self.discriminator(after) * z).sum(-1)


class SingleSamples(DIAYN):
    """The discriminator learns from one state at a time."""

    def fit(self, after: Tensor, z: Tensor) -> None:
        super().fit(after[:1], z[:1])


class RawNumber(DIAYN):
    """Policy and critics see the skill's number instead of one-hot."""

    def numbered(self, observation: Tensor) -> Tensor:
        """The number in the first of the skill's n places, zeros in the others; (..., V + n)."""
        view, z = observation.split([self.world.view_dim, self.config.skills], -1)
        number = z.argmax(-1, keepdim=True).float()
        return torch.cat([view, number, torch.zeros_like(z[..., 1:])], -1)

    def act(self, state: np.ndarray, z: Tensor, greedy: bool = False) -> np.ndarray:
        return self.sac.act(self.numbered(self.observation(state, z)), greedy).numpy()

    def update(self, batch: Batch) -> None:
        after, z = self.split(batch.next_observation)
        self.fit(after, z)
        seen = (self.numbered(batch.observation), self.numbered(batch.next_observation))
        batch = batch._replace(observation=seen[0], next_observation=seen[1])
        self.sac.update(batch._replace(reward=self.reward(after, z)))
