"""The lake: the wind is a fair coin that blows on the water alone, and nobody's doing."""

import json
import math

import numpy as np
import pytest
import torch

from mbta_helpers import ablations, lake
from mbta_helpers.errors import UserError
from mbta_helpers.mazes import Tasks
from mbta_helpers.training import Trainer

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


@pytest.mark.parametrize(("y", "wind", "x"), [(1.0, 1, 0.5), (-1.0, 1, 3.5), (-1.0, -1, -2.5)])
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


def test_tasks_begin_on_the_land_and_lead_both_ways_to_where_it_reaches():
    tasks = lake.along_the_shore(200, seed=0)
    away = np.abs(tasks.goals[:, 0] - tasks.starts[:, 0])
    assert (tasks.starts[:, 1] > 0).all()
    assert (np.abs(tasks.goals[:, 1]) < lake.REACHED).all()
    assert away.min() >= 10 and away.max() <= 12
    assert 0.3 < (tasks.goals[:, 0] > 0).mean() < 0.7


def test_who_walks_along_the_shore_needs_no_wind():
    class OnLand(Walker):
        def act(self, state, goal, decision, step):
            return torch.stack([(goal - state)[:, 0].sign(), torch.zeros(len(state))], 1)

    outcome = lake.attempt(OnLand(), lake.along_the_shore(50, seed=1), lake.LIMIT, seed=1)
    assert outcome.success.all() and (outcome.wet == 0).all()
    assert outcome.steps.max() <= 24


def test_attempt_walks_until_each_goal_is_reached():
    tasks = Tasks(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[2.25, 1.0], [4.25, 1.0]]))
    walker = Walker()
    outcome = lake.attempt(walker, tasks, steps=20, seed=0)
    assert outcome.success.all()
    assert outcome.steps.tolist() == [2, 6]  # at 0.5 a step, to less than 1.5 from the goal
    assert outcome.paths.shape == (2, 7, 2)
    assert np.allclose(outcome.paths[0, 2:], outcome.paths[0, 2])
    assert (outcome.wet == 0).all()
    assert [rows.tolist() for rows in walker.asked] == [[0, 1], [1]]


def test_attempt_on_the_lake_fails_against_the_wind():
    tasks = Tasks(np.tile([0.0, -2.0], (40, 1)), np.tile([8.0, -2.0], (40, 1)))
    outcome = lake.attempt(Walker(), tasks, steps=30, seed=5)
    assert (outcome.success == (outcome.winds == 1)).all()
    assert 0 < outcome.success.sum() < 40
    assert (outcome.wet == 1).all()
    assert (outcome.steps[~outcome.success] == 30).all()


def afloat_with(z: torch.Tensor, winds: np.ndarray) -> lake.Afloat:
    return lake.Afloat(torch.rand(len(z), 2), z, winds)


def test_a_skill_that_holds_the_wind_is_told_from_one_that_does_not():
    rng = np.random.default_rng(0)
    winds = lake.draw_winds(3000, rng)
    noise = torch.from_numpy(rng.standard_normal((3000, 4))).float()
    assert abs(lake.wind_in_skill(afloat_with(noise, winds))) < 0.05
    told = noise.clone()
    told[:, 2] = torch.from_numpy(winds) + 0.1 * noise[:, 2]
    assert lake.wind_in_skill(afloat_with(told, winds)) > 0.95
    told[:, 2] = torch.from_numpy(winds) * noise[:, 1].sign()  # in the sign of a product
    told[:, 1] = noise[:, 1].sign()
    assert lake.wind_in_skill(afloat_with(told, winds)) > 0.95


def test_the_wind_is_judged_on_windows_that_it_was_not_fitted_on():
    """120 windows and 153 terms: a fit explains its own windows whole, and knows nothing."""
    rng = np.random.default_rng(1)
    winds = lake.draw_winds(120, rng)
    z, first = (torch.from_numpy(rng.standard_normal((120, n))).float() for n in (14, 2))
    assert lake.wind_in_skill(lake.Afloat(first, z, winds)) < 0.2


def test_the_windows_asked_are_those_that_stay_on_the_lake():
    data = lake.wander(300, 8, seed=0)
    model = Trainer(lake.TRAINING, data.transitions, 0).model
    seen = lake.skills_afloat(model, data)
    states = data.transitions.states.reshape(300, 9, 2)
    stays = (states[:, : lake.WINDOW, 1] < 0).all(1)
    assert np.allclose(seen.first, states[stays, 0])
    assert (seen.winds == data.winds[stays]).all()
    assert seen.z.shape == (stays.sum(), lake.TRAINING.skill_dim)
    scale = model.world_model(seen.first, seen.z).scale[:, 0]
    assert math.isclose(lake.doubt(model, seen), scale.mean().item(), rel_tol=1e-6)


def test_the_shipped_study_counts_as_it_should():
    runs = json.loads((ablations.TABLE.parent / "lake.json").read_text("utf-8"))["runs"]
    seeds = {method: [run["seed"] for run in runs if run["method"] == method]
             for method in ("EM", "joint")}  # fmt: skip
    assert seeds["EM"] == seeds["joint"] and len(set(seeds["EM"])) == len(seeds["EM"]) >= 3
    for run in runs:
        for planner in ("cautious", "mean"):
            row = run[planner]
            head = row["successes"] - row["successes_with_tail_wind"]
            assert 0 <= row["successes_with_tail_wind"] <= row["tail_winds"] <= run["tasks"]
            assert 0 <= head <= run["tasks"] - row["tail_winds"]
            assert max(row["promised"], row["went_afloat"]) <= run["tasks"]
            assert 0 <= row["wet"] <= 1


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
