"""Windows: subtrajectories of T actions and T + 1 states, gathered by index from flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mbta_helpers.datasets import Transitions
from mbta_helpers.errors import require


@dataclass(frozen=True)
class WindowBatch:
    """A batch of subtrajectories τ_T.

    states: (B, T + 1, S), s_0 … s_T; the posterior and the policy see only the first T.
    actions: (B, T, A), a_0 … a_{T−1}.
    """

    states: Tensor
    actions: Tensor

    @property
    def before(self) -> Tensor:
        """s̄ = s_0 … s_{T−1}, the states in which the actions were taken, (B, T, S)."""
        return self.states[:, :-1]

    @property
    def first(self) -> Tensor:
        """s_0, (B, S)."""
        return self.states[:, 0]

    @property
    def last(self) -> Tensor:
        """s_T, (B, S): the state after the last action, one later than the last of s̄."""
        return self.states[:, -1]


def stretches(rows: Tensor, length: int) -> Tensor:
    """Every run of successive rows, (N, D) to (N − length + 1, length, D): a view, not a copy."""
    return rows.unfold(0, length, 1).transpose(1, 2)


class Windows:
    """All windows of some episodes of a dataset, none across an episode's end.

    Holds the flat arrays once and one index a window; a batch is gathered when it is asked for.
    """

    def __init__(
        self,
        transitions: Transitions,
        window_length: int,
        episodes: np.ndarray | None = None,
        stride: int = 1,
        min_displacement: float = 0.0,
        device: str | torch.device = "cpu",
    ):
        """Index the windows.

        episodes: indices of the episodes to use, all by default.
        stride: keep every stride-th start in an episode.
        min_displacement: drop idle windows, whose map position moves less than this (map units).
        Raises UserError if no window is left.
        """
        require(window_length >= 1, f"T must be at least 1 action, not {window_length}.")
        require(stride >= 1, f"The stride must be at least 1, not {stride}.")
        if episodes is None:
            episodes = np.arange(len(transitions.lengths))
        lengths = transitions.lengths[episodes]
        longest = int(lengths.max(initial=0))
        require(
            longest >= window_length,
            f"No episode is as long as a window: the longest has {longest} actions and T is "
            f"{window_length}. Take a smaller T or collect longer episodes.",
        )
        count = np.maximum((lengths - window_length) // stride + 1, 0)  # (E,)
        offset = stride * (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count))
        first = np.repeat(transitions.state_starts[episodes], count) + offset
        if min_displacement > 0:
            xy = transitions.states[:, :2]
            moved = np.linalg.norm(xy[first + window_length] - xy[first], axis=1)
            keep = moved >= min_displacement
            require(
                bool(keep.any()),
                f"Every window moves less than {min_displacement:g} map units: nothing is left.",
            )
            first = first[keep]
        self.window_length = window_length
        self._first = torch.from_numpy(first.astype(np.int32)).to(device)
        later = transitions.state_starts[1:].astype(np.int32)
        self._later_starts = torch.from_numpy(later).to(device)
        self._state_rows = torch.from_numpy(transitions.states).to(device)
        self._action_rows = torch.from_numpy(transitions.actions).to(device)
        self._states = stretches(self._state_rows, window_length + 1)
        self._actions = stretches(self._action_rows, window_length)

    @property
    def state_index(self) -> Tensor:
        """The row of each window's s_0 among the states, (len(self),)."""
        return self._first.long()

    @property
    def action_index(self) -> Tensor:
        """The row of each window's a_0 among the actions, (len(self),)."""
        return self._first_actions(self._first).long()

    def _first_actions(self, first: Tensor) -> Tensor:
        """Rows of actions for rows of states: every episode before has one state more."""
        return first - torch.bucketize(first, self._later_starts, out_int32=True, right=True)

    def __len__(self) -> int:
        return len(self._first)

    def gather(self, index: Tensor) -> WindowBatch:
        """The windows of those numbers; index: (B,) integers below len(self)."""
        first = self._first.index_select(0, index)  # (B,)
        return WindowBatch(
            self._states.index_select(0, first),
            self._actions.index_select(0, self._first_actions(first)),
        )

    def ends(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """First and last states only, s_0 and s_T of those windows, each (B, S)."""
        first = self._first[index]
        return self._states[first, 0], self._states[first, self.window_length]

    def steps(self, index: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """s_t and a_t of those windows, (B, S) and (B, A); step: (B,) the t of each, below T."""
        first = self._first[index]
        return self._state_rows[first + step], self._action_rows[self._first_actions(first) + step]

    def sample(
        self, batch_size: int, generator: torch.Generator, rows: slice = slice(None)
    ) -> WindowBatch:
        """A batch of windows, uniformly with replacement; the generator lives on the CPU.

        rows: of the batch that are gathered; the generator draws all of it in any case.
        """
        index = torch.randint(len(self), (batch_size,), generator=generator)[rows]
        return self.gather(index.to(self._first.device))


def split_episodes(
    episodes: int, held_out: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out episodes.

    Whole episodes, because windows of one episode overlap: a split by window leaks.
    Raises UserError where one side would be empty.
    """
    order = rng.permutation(episodes)
    count = round(held_out * episodes)
    require(
        0 < count < episodes,
        f"A split of {episodes} episodes that holds out {held_out:g} leaves one side empty.",
    )
    return np.sort(order[count:]), np.sort(order[:count])
