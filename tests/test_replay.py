"""Replay of sequences: rows come out as they went in, and windows stay within what is there."""

import pytest
import torch

from mbta_helpers.errors import UserError
from mbta_helpers.latent.replay import SequenceReplay, Sequences


def row(number, environments=2):
    """A row that says when and where it was added, in every part."""
    stamp = 10.0 * number + torch.arange(environments)
    observation = stamp[:, None, None].expand(-1, 2, 3)
    return Sequences(observation, -stamp[:, None], stamp + 0.5, (stamp % 3 == 0).float(), stamp)


def filled(rows, capacity=7, environments=2):
    replay = SequenceReplay(capacity, environments, (2, 3), 1)
    for number in range(rows):
        replay.add(row(number, environments))
    return replay


@pytest.mark.parametrize("rows", [4, 7, 8, 13, 30])
@pytest.mark.parametrize("length", [1, 3, 4])
def test_windows_are_consecutive_rows_of_one_environment(rows, length):
    """Also after the buffer has wrapped: none goes from the newest row to the oldest."""
    replay = filled(rows)
    assert len(replay) == min(rows, 7)
    batch = replay.sample(500, length, torch.Generator().manual_seed(0))
    stamp = batch.is_terminal  # (B, T)
    number, environment = stamp // 10, stamp % 10
    assert stamp.shape == (500, length)
    assert (number.diff(dim=1) == 1).all() and (environment == environment[:, :1]).all()
    assert number.max() == rows - 1 and number.min() == rows - len(replay)
    starts = torch.unique(number[:, 0] * 10 + environment[:, 0], return_counts=True)[1]
    assert len(starts) == 2 * (len(replay) - length + 1)  # each start and environment occurs
    assert starts.min() > 0.5 * starts.float().mean()  # … about equally often


def test_the_parts_of_a_row_stay_together():
    batch = filled(9).sample(50, 3, torch.Generator().manual_seed(1))
    stamp = batch.is_terminal
    assert batch.observation.shape == (50, 3, 2, 3) and batch.action.shape == (50, 3, 1)
    assert torch.equal(batch.observation, stamp[..., None, None].expand(-1, -1, 2, 3))
    assert torch.equal(batch.action[..., 0], -stamp)
    assert torch.equal(batch.reward, stamp + 0.5)
    assert torch.equal(batch.is_first, (stamp % 3 == 0).float())


def test_what_was_added_is_a_copy():
    replay, given = filled(0), row(0)
    replay.add(given)
    given.reward.add_(99)
    assert replay.sample(1, 1, torch.Generator()).reward.max() < 2


@pytest.mark.parametrize(("rows", "length"), [(0, 1), (3, 4), (20, 8)])
def test_a_window_longer_than_what_is_there_is_refused(rows, length):
    with pytest.raises(UserError, match=f"sequences of {length}"):
        filled(rows).sample(2, length, torch.Generator())


def test_bad_rows_are_refused():
    with pytest.raises(UserError, match="capacity"):
        SequenceReplay(1, 2, (2, 3), 1)
    with pytest.raises(UserError, match="row's part"):
        filled(1).add(row(1, environments=3))
    with pytest.raises(UserError, match="row's part"):
        filled(1).add(row(1)._replace(action=torch.zeros(2, 4)))
