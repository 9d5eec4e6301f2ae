"""The grid with teleports: its table by hand, its frequencies, and what follows from both."""

import gymnasium as gym
import numpy as np
import pytest

from mbta_helpers.latent import grids
from mbta_helpers.latent.grids import CELLS, EXITS, GOAL, SIDE, STARTS

UP, DOWN, LEFT, RIGHT = range(4)
TABLE = grids.transition_table()


def cell(row: int, column: int) -> int:
    return row * SIDE + column


@pytest.mark.parametrize(
    ("place", "action", "target"),
    [
        ((2, 2), UP, (1, 2)),
        ((2, 2), DOWN, (3, 2)),
        ((2, 1), LEFT, (2, 0)),
        ((2, 1), RIGHT, (2, 2)),
        ((0, 3), UP, (0, 3)),  # the edge
        ((3, 5), DOWN, (3, 5)),  # a wall
        ((7, 6), RIGHT, (7, 7)),  # the goal
    ],
)
def test_a_move_by_hand(place, action, target):
    assert TABLE[cell(*place), action].argmax() == cell(*target)
    assert TABLE[cell(*place), action].max() == 1


def test_a_pad_leads_to_each_exit_alike():
    outcome = TABLE[cell(2, 1), UP]  # (1, 1) is a pad
    assert outcome[EXITS].tolist() == [0.25] * 4
    assert np.isclose(outcome.sum(), 1)
    assert np.allclose(TABLE.sum(-1), 1)


def test_the_goal_is_reached_through_a_pad_alone():
    """Without teleports nobody comes from a start to the goal."""
    walked = TABLE * (TABLE == 1)
    reached = np.isin(np.arange(CELLS), STARTS)
    for _ in range(CELLS):
        reached |= np.einsum("s,sat->t", reached.astype(float), walked) > 0
    assert not reached[GOAL]
    assert not np.isin(STARTS, [*EXITS, GOAL]).any()


def test_the_environment_has_the_frequencies_of_the_table():
    env = gym.make("mbta/TeleportGrid-v0").unwrapped
    env.reset(seed=3)
    counts, trials = np.zeros(CELLS), 4000
    for _ in range(trials):
        env.cell = cell(2, 1)
        picture, reward, terminated, _, _ = env.step(UP)
        counts[picture[::2, ::2].argmax()] += 1
        assert reward == 0 and not terminated
    error = np.sqrt(0.25 * 0.75 / trials)
    assert np.abs(counts[EXITS] / trials - 0.25).max() < 4 * error
    assert counts.sum() == counts[EXITS].sum()


def test_an_episode_ends_at_the_goal_with_the_reward():
    env = gym.make("mbta/TeleportGrid-v0").unwrapped
    env.reset(seed=0)
    env.cell = cell(7, 6)
    picture, reward, terminated, _, _ = env.step(RIGHT)
    assert (reward, terminated) == (1.0, True)
    assert picture.shape == (16, 16) and picture[14:, 14:].sum() == picture.sum() == 4


def test_an_episode_is_cut_off_and_one_hot_actions_are_the_same_moves():
    env, other = gym.make("mbta/TeleportGrid-v0"), gym.make("mbta/TeleportChoices-v0")
    assert (env.reset(seed=5)[0] == other.reset(seed=5)[0]).all()
    for step in range(grids.STEPS):
        action = step % 4
        one, two = env.step(action), other.step(np.eye(4)[action])
        assert (one[0] == two[0]).all() and one[1:4] == two[1:4]
        if one[2]:
            return
    assert one[3]


def test_entropy_is_that_of_the_exits():
    entropy = grids.outcome_entropy(TABLE)
    assert np.isclose(entropy[cell(2, 1), UP], np.log(4))
    assert np.isclose(entropy.sum(), np.log(4) * (TABLE.max(-1) < 1).sum())


def test_optimal_values_are_what_the_greedy_policy_earns():
    gamma = 0.9
    value = grids.optimal_values(TABLE, gamma)
    arrived = np.arange(CELLS) == GOAL
    greedy = (TABLE @ (arrived + gamma * ~arrived * value)).argmax(-1)
    rng, returns = np.random.default_rng(0), []
    start = cell(2, 2)
    for _ in range(2000):
        here, weight = start, 1.0
        while here != GOAL and weight > 1e-4:
            here = rng.choice(CELLS, p=TABLE[here, greedy[here]])
            weight *= gamma
        returns.append((weight / gamma) * (here == GOAL))
    error = np.std(returns) / np.sqrt(len(returns))
    assert abs(np.mean(returns) - value[start]) < 4 * error
    assert np.isclose(value[cell(7, 6)], 1) and np.isclose(value[cell(7, 5)], gamma)
