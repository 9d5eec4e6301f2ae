"""Replay of sequences: what came in at each step, with the starts of episodes marked.

A row of time t holds what came with o_t: the action a_{t−1} that led there, the reward r_t for
arriving, whether an episode starts with o_t, whether it ends there. So no picture is lost, neither
the first nor the last, and a model reads a row from left to right: predict from a_{t−1}, correct by
o_t, explain r_t.

Symbols: N environments side by side, B sequences of T rows, A dimensions of an action.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mbta_helpers.errors import require


class Sequences(NamedTuple):
    """Rows of time; (B, T) here stands for any two leading axes.

    observation: (B, T, *O). action: (B, T, A), a_{t−1}, 0 where an episode starts.
    reward: (B, T), for arriving at o_t. is_first, is_terminal: (B, T), 0 or 1; an episode that is
    cut off by a time limit does not end in a terminal row.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    is_first: Tensor
    is_terminal: Tensor


class SequenceReplay:
    """The last `capacity` rows of each of N environments."""

    def __init__(self, capacity: int, environments: int, observation_shape: tuple, action_dim: int):
        require(capacity >= 2, f"The capacity must be at least 2 rows, not {capacity}.")
        shapes = (observation_shape, (action_dim,), (), (), ())
        self.columns = Sequences(*(torch.zeros(capacity, environments, *each) for each in shapes))
        self.capacity, self.added = capacity, 0

    def __len__(self) -> int:
        """Rows of each environment that are there."""
        return min(self.added, self.capacity)

    def add(self, row: Sequences) -> None:
        """Store a row of all environments; each part (N, ...). The oldest row makes room."""
        for column, part in zip(self.columns, row, strict=True):
            require(
                part.shape == column.shape[1:],
                f"A row's part is {tuple(part.shape)}; this replay has {tuple(column.shape[1:])}.",
            )
            column[self.added % self.capacity] = part
        self.added += 1

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Sequences:
        """Windows of consecutive rows of one environment, each (B, T, ...), all equally likely.

        A window may hold the end of one episode and the start of the next. None crosses from the
        newest row to the oldest.
        """
        require(
            length <= len(self),
            f"There are {len(self)} rows, and sequences of {length} are wanted: add rows first.",
        )
        environments = self.columns.reward.shape[1]
        column = torch.randint(environments, (batch, 1), generator=generator)
        start = torch.randint(len(self) - length + 1, (batch, 1), generator=generator)
        oldest = self.added - len(self)
        rows = (oldest + start + torch.arange(length)) % self.capacity  # (B, T)
        return Sequences(*(part[rows, column] for part in self.columns))
