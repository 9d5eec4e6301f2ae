"""Windows: every index against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import numbered_transitions

from mbta_helpers.errors import UserError
from mbta_helpers.windows import Windows, split_episodes

lengths_of_episodes = st.lists(st.integers(1, 14), min_size=1, max_size=6)


def by_hand(transitions, window_length, episodes, stride, least):
    """All windows, cut episode by episode from copies."""
    states, actions = [], []
    ends = np.cumsum(transitions.lengths)
    for episode in episodes:
        length = transitions.lengths[episode]
        action = transitions.actions[ends[episode] - length : ends[episode]]
        first = ends[episode] - length + episode  # one more state than actions in each before
        state = transitions.states[first : first + length + 1]
        for t in range(0, length - window_length + 1, stride):
            cut = state[t : t + window_length + 1]
            if np.linalg.norm(cut[-1, :2] - cut[0, :2]) >= least:
                states.append(cut)
                actions.append(action[t : t + window_length])
    return states, actions


@settings(max_examples=150, deadline=None)
@given(data=st.data(), lengths=lengths_of_episodes)
def test_windows_equal_brute_force(data, lengths):
    window_length = data.draw(st.integers(1, 8), "T")
    stride = data.draw(st.integers(1, 4), "stride")
    least = data.draw(st.sampled_from([0.0, 1.0, 2.5]), "least displacement")
    everyone = list(range(len(lengths)))
    episodes = data.draw(st.lists(st.sampled_from(everyone), unique=True, min_size=1), "episodes")
    transitions = numbered_transitions(lengths)
    states, actions = by_hand(transitions, window_length, episodes, stride, least)
    if not states:
        with pytest.raises(UserError):
            Windows(transitions, window_length, np.array(episodes), stride, least)
        return
    windows = Windows(transitions, window_length, np.array(episodes), stride, least)
    assert len(windows) == len(states)
    index = torch.arange(len(windows))
    batch = windows.gather(index)
    assert np.array_equal(batch.states, np.stack(states))
    assert np.array_equal(batch.actions, np.stack(actions))
    first, last = windows.ends(index)
    assert torch.equal(first, batch.first) and torch.equal(last, batch.last)


def test_all_episodes_by_default():
    transitions = numbered_transitions([5, 2, 9])
    windows = Windows(transitions, 3)
    assert len(windows) == 3 + 0 + 7


def test_idle_windows_are_dropped():
    transitions = numbered_transitions([6])
    transitions.states[:, :2] = np.array([[0, 0], [0, 0], [0, 1], [0, 3], [0, 3], [0, 3], [0, 4]])
    windows = Windows(transitions, 2, min_displacement=1.0)  # moves 1, 3, 2, 0 and 1
    assert windows.state_index.tolist() == [0, 1, 2, 4]


def test_window_is_one_step_longer_in_states():
    transitions = numbered_transitions([4, 6])
    windows = Windows(transitions, 4)
    batch = windows.gather(torch.tensor([1]))  # the first window of the second episode
    second = transitions.states[5:]
    assert np.array_equal(batch.before[0], second[:4])
    assert np.array_equal(batch.first[0], second[0])
    assert np.array_equal(batch.last[0], second[4]), "s_T comes after the last of s̄"
    assert np.array_equal(batch.actions[0], transitions.actions[4:8])


def test_no_copies_of_windows():
    """Memory: the flat arrays once, shared with the data, and one number a window."""
    transitions = numbered_transitions([500, 700], state_dim=29)
    windows = Windows(transitions, 40)
    assert windows._states.data_ptr() == transitions.states.ctypes.data
    assert windows._actions.data_ptr() == transitions.actions.ctypes.data
    tensors = [value for value in vars(windows).values() if isinstance(value, torch.Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    own = sum(storage.nbytes() for storage in storages.values())
    shared = transitions.states.nbytes + transitions.actions.nbytes
    assert own - shared == 4 * len(windows) + 4 * (len(transitions.lengths) - 1)


def test_indices_are_rows_of_the_flat_arrays():
    transitions = numbered_transitions([5, 3, 9, 4])
    windows = Windows(transitions, 4, episodes=np.array([0, 2, 3]))
    assert windows.state_index.tolist() == [0, 1, *range(10, 16), 20]
    assert windows.action_index.tolist() == [0, 1, *range(8, 14), 17]


def test_steps_are_those_of_the_windows():
    windows = Windows(numbered_transitions([5, 3, 9, 4]), 4)
    every = torch.arange(len(windows))
    batch = windows.gather(every)
    for step in range(4):
        state, action = windows.steps(every, torch.full_like(every, step))
        assert torch.equal(state, batch.states[:, step])
        assert torch.equal(action, batch.actions[:, step])


def test_sample_is_uniform_and_comes_from_the_generator():
    windows = Windows(numbered_transitions([3, 4, 6]), 3)  # 1 + 2 + 4 windows
    before = torch.get_rng_state()
    draws = [windows.sample(7000, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(draws[0].states, draws[1].states)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    other = windows.sample(7000, torch.Generator().manual_seed(6))
    assert not torch.equal(draws[0].states, other.states)
    firsts = windows.gather(torch.arange(7)).first
    counts = (draws[0].first[:, None] == firsts).all(-1).sum(0)
    assert counts.sum() == 7000
    # Chi-squared with six degrees of freedom is above 22.5 once in a thousand times.
    assert ((counts - 1000) ** 2 / 1000).sum() < 22.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_length": 0}, "T must be at least 1"),
        ({"window_length": 7}, "longest has 6 actions and T is 7"),
        ({"window_length": 3, "stride": 0}, "stride"),
        ({"window_length": 3, "min_displacement": 1e6}, "nothing is left"),
        ({"window_length": 3, "episodes": np.zeros(0, int)}, "longest has 0"),
    ],
)
def test_impossible_windows_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Windows(numbered_transitions([4, 6]), **options)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_split_is_by_episode_and_leaves_nothing_out(episodes, held_out, seed):
    count = round(held_out * episodes)
    if not 0 < count < episodes:
        with pytest.raises(UserError, match="empty"):
            split_episodes(episodes, held_out, np.random.default_rng(seed))
        return
    training, test = split_episodes(episodes, held_out, np.random.default_rng(seed))
    assert len(test) == count
    assert sorted([*training, *test]) == list(range(episodes))


def test_split_depends_on_the_seed():
    splits = [split_episodes(50, 0.2, np.random.default_rng(seed))[1] for seed in (0, 0, 1)]
    assert np.array_equal(splits[0], splits[1])
    assert not np.array_equal(splits[0], splits[2])
