"""Windows gathered by index against a list of copied windows with a collate of single items.

A million transitions. The list holds a hundred thousand of the windows, because all of them would
need gigabytes; that favours the list, whose memory is nearer.
"""

from statistics import median

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mbta_helpers.datasets import Transitions
from mbta_helpers.windows import Windows

STEPS, EPISODE, COPIES = 1_000_000, 1000, 100_000


class CopiedWindows(Dataset):
    """Every window a copy of its own, made into tensors when it is asked for."""

    def __init__(self, transitions: Transitions, window_length: int):
        self.items = []
        for first in range(COPIES):
            begin = first % (EPISODE - window_length) + EPISODE * (first // EPISODE)
            states = transitions.states[begin : begin + window_length + 1].copy()
            actions = transitions.actions[begin : begin + window_length].copy()
            self.items.append((states[0], states[:-1], actions, states[-1]))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        names = ("first", "before", "actions", "last")
        return {
            name: torch.as_tensor(value, dtype=torch.float32)
            for name, value in zip(names, self.items[number], strict=True)
        }


def collate(items: list[dict]) -> dict:
    """Stack the items of a batch, name by name."""
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


@pytest.mark.parametrize(
    ("name", "states", "actions", "window_length", "batch", "least"),
    [("PointMaze", 4, 2, 30, 64, 18), ("AntMaze", 29, 8, 40, 100, 8)],
)
def test_windows_by_index_against_copies(
    name, states, actions, window_length, batch, least, take_turns, ratio, report
):
    rng = np.random.default_rng(0)
    episodes = STEPS // EPISODE
    data = Transitions(
        rng.standard_normal((STEPS + episodes, states), np.float32),
        rng.standard_normal((STEPS, actions), np.float32),
        np.full(episodes, EPISODE),
        np.zeros((episodes, 2)),
    )
    raw = data.states.nbytes + data.actions.nbytes
    windows = Windows(data, window_length)
    tensors = (value for value in vars(windows).values() if isinstance(value, torch.Tensor))
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    copied = len(windows) * 4 * ((window_length + 1) * states + window_length * actions)

    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(CopiedWindows(data, window_length), batch, shuffle=True, collate_fn=collate)
    endless = (item for _ in iter(int, 1) for item in loader)

    def by_index():
        for _ in range(500):
            windows.sample(batch, generator)

    def from_list():
        for _ in range(50):
            next(endless)

    slow, fast = take_turns(from_list, by_index, rounds=9)
    times = ratio(slow, fast) * 500 / 50
    report(
        f"windows, {name}: {500 * batch / median(fast):,.0f} a second by index, "
        f"{50 * batch / median(slow):,.0f} from the list: {times:.1f} times as many"
    )
    report(
        f"windows, {name}: {len(windows):,} in {held / 1e6:.0f} MB, {held / raw:.3f} times the raw "
        f"data ({raw / 1e6:.0f} MB); copies would take {copied / 1e6:,.0f} MB"
    )
    assert held < 1.3 * raw
    assert times >= least
