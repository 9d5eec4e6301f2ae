"""The lake: the wind is a fair coin that blows on the water alone, and nobody's doing."""

import numpy as np
import pytest
import torch

from mbta_helpers import lake
from mbta_helpers.errors import UserError
from mbta_helpers.mazes import Tasks

EAST = np.array([[1.0, 0.0]])


class Walker:
    """Walks straight to the goal at full speed."""

    replan_every = 3

    def __init__(self):
        self.asked = []

    def decide(self, state, goal, running):
        self.asked.append(running.copy())
        return goal

    def act(self, state, goal, decision, step):
        assert torch.equal(goal, decision)  # each running episode carries out its own decision
        away = goal - state
        return away / away.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize(("y", "wind", "x"), [(1.0, 1, 0.5), (-1.0, 1, 2.0), (-1.0, -1, -1.0)])
def test_the_wind_blows_on_the_lake_alone(y, wind, x):
    after = lake.move(np.array([[0.0, y]]), EAST, np.array([wind]))
    assert np.allclose(after, [[x, y]])


def test_a_command_is_clipped():
    after = lake.move(np.array([[0.0, 1.0]]), np.array([[3.0, -9.0]]), np.array([1]))
    assert np.allclose(after, [[lake.STEP, 1.0 - lake.STEP]])


def test_the_wind_is_a_fair_coin_that_no_action_knows():
    data = lake.wander(20_000, 2, seed=0)
    assert set(data.winds) == {-1, 1}
    assert abs(data.winds.mean()) < 4 / np.sqrt(20_000)
    actions = data.transitions.actions.reshape(-1, 2, 2)
    starts = data.transitions.states.reshape(-1, 3, 2)[:, 0]
    for seen in (*actions.reshape(-1, 4).T, *starts.T):
        assert abs(np.corrcoef(seen, data.winds)[0, 1]) < 4 / np.sqrt(20_000)


def test_the_data_moves_as_the_lake_says():
    data = lake.wander(50, 6, seed=1)
    states = data.transitions.states.reshape(50, 7, 2).astype(float)
    actions = data.transitions.actions.reshape(50, 6, 2).astype(float)
    for step in range(6):
        after = lake.move(states[:, step], actions[:, step], data.winds)
        clear = np.abs(states[:, step, 1]) > 1e-4  # rounding may decide on the very shore
        assert np.allclose(after[clear], states[clear, step + 1], atol=1e-5)
    wet = (states[:, :-1, 1] < 0).any(1)
    assert 0.3 < wet.mean() < 0.8


def test_the_same_seed_gives_the_same_data():
    first, again, other = (lake.wander(10, 5, seed) for seed in (3, 3, 4))
    assert first.transitions.digest() == again.transitions.digest()
    assert (first.winds == again.winds).all()
    assert first.transitions.digest() != other.transitions.digest()


def test_tasks_lie_on_the_land_and_lead_both_ways():
    tasks = lake.along_the_shore(200, seed=0)
    away = np.abs(tasks.goals[:, 0] - tasks.starts[:, 0])
    assert (tasks.starts[:, 1] > 0).all() and (tasks.goals[:, 1] > 0).all()
    assert away.min() >= 10 and away.max() <= 12
    assert 0.3 < (tasks.goals[:, 0] > 0).mean() < 0.7


def test_attempt_walks_until_each_goal_is_reached():
    tasks = Tasks(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[2.0, 1.0], [4.0, 1.0]]))
    walker = Walker()
    outcome = lake.attempt(walker, tasks, steps=20, seed=0)
    assert outcome.success.all()
    assert outcome.steps.tolist() == [3, 7]  # 1.25 and 3.25 units at 0.5 a step
    assert outcome.paths.shape == (2, 8, 2)
    assert np.allclose(outcome.paths[0, 3:], outcome.paths[0, 3])
    assert (outcome.wet == 0).all()
    assert [rows.tolist() for rows in walker.asked] == [[0, 1], [1], [1]]


def test_attempt_on_the_lake_fails_against_the_wind():
    tasks = Tasks(np.tile([0.0, -2.0], (40, 1)), np.tile([8.0, -2.0], (40, 1)))
    outcome = lake.attempt(Walker(), tasks, steps=30, seed=5)
    assert (outcome.success == (outcome.winds == 1)).all()
    assert 0 < outcome.success.sum() < 40
    assert (outcome.wet == 1).all()
    assert (outcome.steps[~outcome.success] == 30).all()


@pytest.mark.parametrize(
    "bad",
    [
        lambda: lake.wander(0, 5, 0),
        lambda: lake.wander(5, 0, 0),
        lambda: lake.move(np.zeros((2, 2)), np.zeros((2, 3)), np.ones(2)),
        lambda: lake.move(np.zeros((2, 2)), np.zeros((2, 2)), np.ones(3)),
        lambda: lake.attempt(Walker(), lake.along_the_shore(2, 0), 0, 0),
    ],
)
def test_bad_input_is_refused(bad):
    with pytest.raises(UserError):
        bad()
