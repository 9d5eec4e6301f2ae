"""Evaluation: the interval from its definition, and what happens to agents that are scripted."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import SKILL, small_model

from mbta_helpers.datasets import Controller
from mbta_helpers.errors import UserError
from mbta_helpers.evaluation import (
    PlanningAgent,
    SkillAgent,
    evaluate,
    student_interval,
    table,
    wilson_interval,
)
from mbta_helpers.mazes import Tasks, sample_tasks, shortest_path_length, shortest_route
from mbta_helpers.planning import CEMConfig, Planner, PlannerConfig

Z = 1.959963984540054  # the normal's 97.5 % point, from tables


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (8, 10, 0.490162, 0.943318),
        (50, 100, 0.403832, 0.596168),
        (97, 100, 0.915477, 0.989746),
        (100, 100, 0.963007, 1.0),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_wilson_interval_has_the_values_of_the_literature(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("trials", [1, 3, 40, 1000])
def test_wilson_interval_solves_its_equation(trials):
    """Its ends are the p from which the rate is z deviations off: (r − p)² = z² p (1 − p) / n."""
    for successes in {0, 1, trials // 3, trials}:
        rate, spread = successes / trials, Z**2 / trials
        roots = np.sort(np.roots([1 + spread, -2 * rate - spread, rate**2]).real)
        assert wilson_interval(successes, trials) == pytest.approx(roots.clip(0, 1), abs=1e-5)


# -- scripted agents --------------------------------------------------------------------------


class Walker:
    """Follows the map to the goal, which no planner of the book may do."""

    def __init__(self, maze, replan_every=7):
        self.maze = maze
        self.replan_every = replan_every
        self.controller = Controller(noise=0.0)
        self.decisions = []
        self.steps = []
        self.where = {}
        self.mixed_up = False

    def decide(self, state, goal, running):
        self.decisions.append(running.copy())
        self.where = dict(zip(running.tolist(), state[:, :2], strict=True))
        return torch.from_numpy(running)[:, None].float()

    def act(self, state, goal, decision, step):
        self.steps.append(step)
        assert len(state) == len(goal) == len(decision)
        for number, xy in zip(decision[:, 0].int().tolist(), state[:, :2], strict=True):
            self.mixed_up |= bool((xy - self.where[number]).norm() > 0.1)
            self.where[number] = xy
        actions = []
        rng = np.random.default_rng(0)
        for each, target in zip(state.numpy(), goal.numpy(), strict=True):
            route = shortest_route(
                self.maze, self.maze.cell_at(each[:2]), self.maze.cell_at(target), rng
            )
            waypoint = self.maze.centre(route[1]) if len(route) > 2 else target
            actions.append(self.controller.act(each, waypoint, 3.0).clip(-1, 1))
        return torch.tensor(np.array(actions)).float()


class Pusher:
    """Pushes into one direction for ever."""

    replan_every = 10

    def __init__(self, direction):
        self.direction = torch.tensor(direction, dtype=torch.float32)

    def decide(self, state, goal, running):
        return torch.zeros(len(state), 1)

    def act(self, state, goal, decision, step):
        return self.direction.expand(len(state), 2)


@pytest.fixture(scope="module")
def walk(umaze):
    """A walker in six tasks."""
    agent = Walker(umaze)
    return agent, evaluate(agent, umaze, sample_tasks(umaze, 6, seed=0))


def test_a_good_agent_succeeds_everywhere(walk):
    _, result = walk
    assert result.success.all()
    assert set(result.causes) == {"reached"}
    summary = result.summary()
    assert summary["successes"] == summary["episodes"] == 6
    assert summary["success_rate"] == 1.0 and summary["failures"] == {}
    assert summary["mean_steps"] == pytest.approx(result.steps.mean())


def test_paths_lead_from_start_to_goal(walk, umaze):
    _, result = walk
    for number, path in enumerate(result.paths):
        assert np.allclose(path[0], result.tasks.starts[number])
        assert len(path) == result.steps[number] + 1
        assert np.linalg.norm(path[-1] - result.tasks.goals[number]) <= 0.45 + 1e-6
        hops = np.linalg.norm(np.diff(path, axis=0), axis=1)
        assert hops.max() < 0.1, "no step of the simulator is that long"
        before = np.linalg.norm(path[:-1] - result.tasks.goals[number], axis=1)
        assert (before > 0.45 - 1e-6).all(), "the episode should have ended sooner"
        shortest = shortest_path_length(umaze, path[0], path[-1])
        assert result.path_ratio[number] == pytest.approx(hops.sum() / shortest)
        assert 0.999 <= result.path_ratio[number] < 1.5


def test_decisions_are_made_on_time_and_for_those_who_run(walk):
    agent, result = walk
    longest = result.steps.max()
    assert agent.steps == [now % 7 for now in range(longest)]
    assert len(agent.decisions) == math.ceil(longest / 7)
    for number, running in enumerate(agent.decisions):
        assert running.tolist() == np.flatnonzero(result.steps > 7 * number).tolist()
    assert len(set(result.steps.tolist())) > 1, "some should end before others"
    assert not agent.mixed_up, "an episode was given what another one decided"


def test_side_by_side_equals_one_by_one(walk, umaze):
    _, together = walk
    for number in range(6):
        one = slice(number, number + 1)
        tasks = Tasks(together.tasks.starts[one], together.tasks.goals[one])
        alone = evaluate(Walker(umaze), umaze, tasks)
        assert alone.steps[0] == together.steps[number]
        assert np.allclose(alone.paths[0][1:], together.paths[number][1:], atol=1e-6)


@pytest.mark.parametrize(
    ("direction", "goal", "cause"),
    [
        ([-1.0, 0.0], [-1.0, -1.0], "stuck"),  # into the wall beside the start
        ([1.0, 0.0], [-1.0, -1.0], "lost"),  # away along the arm
        ([1.0, 0.0], [1.0, 0.0], "late"),  # it comes near as time runs out
    ],
)
def test_failures_are_told_apart(umaze, direction, goal, cause):
    tasks = Tasks(np.array([[-1.0, 1.0]]), np.array([goal]))
    result = evaluate(Pusher(direction), umaze, tasks, max_steps=45)
    assert not result.success[0] and result.steps[0] == 45
    assert result.causes.tolist() == [cause]
    summary = result.summary()
    assert summary["successes"] == 0 and summary["failures"] == {cause: 1}
    assert summary["mean_steps"] is None and summary["path_ratio"] is None


def test_a_way_that_ends_at_a_wall_has_no_shortest_one_to_be_held_against(umaze):
    """It counts as a success and not as a way of length 0."""
    wide = replace(umaze, radius=0.3)  # of a body that comes nearer to walls by leaning over
    tasks = Tasks(np.full((2, 2), [-1.0, 1.0]), np.full((2, 2), [-1.0, -1.0]))
    result = evaluate(Pusher([-1.0, 0.0]), wide, tasks, max_steps=45)
    assert np.isnan(result.path_ratio).all()
    success = np.ones(2, bool)
    both = replace(result, success=success, path_ratio=np.array([np.nan, 1.25]))
    assert both.summary()["path_ratio"] == 1.25
    none = replace(result, success=success, path_ratio=np.array([np.nan, np.nan]))
    lines = none.summary() | {"preset": "p", "planner": "cem", "seed": 0}
    assert lines["path_ratio"] is None and "steps to goal" in table(lines)
    assert "path length" not in table(lines)


def test_summary_can_be_written_as_json(walk):
    summary = json.loads(json.dumps(walk[1].summary()))
    assert {"successes", "episodes", "success_rate", "ci95", "mean_steps"} <= summary.keys()
    assert summary["ci95"] == [round(bound, 4) for bound in wilson_interval(6, 6)]
    assert summary["plan_ms_median"] >= 0
    text = table(summary | {"preset": "p", "planner": "cem", "seed": 3})
    assert "6 of 6" in text and "planner cem" in text


# -- agents of the package --------------------------------------------------------------------


def test_skill_agent_draws_from_the_prior_or_from_the_standard_normal():
    model = small_model(dtype=torch.float32)
    state, goal = torch.randn(4000, 4), torch.zeros(4000, 2)
    running = np.arange(4000)
    free, bound = (
        SkillAgent(model, 10, torch.Generator().manual_seed(1), use_prior)
        for use_prior in (False, True)
    )
    with torch.no_grad():
        skill = free.decide(state, goal, running)
        assert torch.allclose(skill.mean(0), torch.zeros(SKILL), atol=0.06)
        assert torch.allclose(skill.std(0), torch.ones(SKILL), atol=0.06)
        whitened = bound.decide(state, goal, running) - model.prior(state).loc
        assert torch.allclose(whitened / model.prior(state).scale, skill, atol=1e-4)
        action = bound.act(state, goal, skill, 0)
        assert torch.equal(action, model.policy.act(state, skill))


def planning_agent(seed=0, **settings):
    search = CEMConfig(candidates=20, iterations=2, elites=4, momentum=0.1, min_std=0.05)
    config = PlannerConfig(plan_length=2, replan_every=10, warm_start=True, cem=search, **settings)
    planner = Planner(small_model(dtype=torch.float32), config, 10)
    return PlanningAgent(planner, torch.Generator().manual_seed(seed))


def test_planning_agent_takes_up_each_episode_s_own_search():
    agent = planning_agent()
    state, goal = torch.randn(4, 4), torch.randn(4, 2)
    agent.decide(state, goal, np.array([0, 2, 3, 7]))
    first = agent.plan.search
    received = []
    plan = agent.planner.plan

    def spy(state, goal, generator, last=None):
        received.append(last)
        return plan(state, goal, generator, last)

    agent.planner.plan = spy
    skill = agent.decide(state[[1, 3]], goal[[1, 3]], np.array([2, 7]))
    assert torch.equal(received[0].best, first.best[[1, 3]])
    assert torch.equal(skill, agent.plan.skills[:, 0])
    agent.decide(state[[3]], goal[[3]], np.array([7]))
    assert len(received[1].best) == 1


def test_a_body_that_does_not_move_gets_a_skill_from_the_prior():
    agent = planning_agent(least_move=0.5)
    state, goal = torch.randn(3, 4), torch.randn(3, 2)
    first = agent.decide(state, goal, np.arange(3))
    assert torch.equal(first, agent.plan.skills[:, 0])  # nothing has had time to move yet
    after = state[1:].clone()  # the first episode is over
    after[0, 0] += 0.4
    after[1, 1] -= 0.6
    skill = agent.decide(after, goal[1:], np.array([1, 2]))
    assert torch.equal(skill[1], agent.plan.skills[1, 0])
    draws = torch.stack([agent.decide(after, goal[1:], np.array([1, 2]))[0] for _ in range(400)])
    with torch.no_grad():
        prior = agent.planner.model.prior(after[0])
    whitened = (draws - prior.loc) / prior.scale
    assert torch.allclose(whitened.mean(0), torch.zeros(SKILL), atol=0.2)
    assert torch.allclose(whitened.std(0), torch.ones(SKILL), atol=0.15)
    assert not torch.equal(skill[0], agent.plan.skills[0, 0])


def test_evaluation_is_reproducible(umaze):
    tasks = sample_tasks(umaze, 2, seed=5)
    runs = [evaluate(planning_agent(seed), umaze, tasks, max_steps=25) for seed in (0, 0, 1)]
    for one, two in zip(runs[0].paths, runs[1].paths, strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(runs[0].paths[0], runs[2].paths[0])
    assert len(runs[0].decision_ms) == 3 * 2  # at steps 0, 10 and 20, for both


def test_interval_of_a_mean_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = student_interval(rng.normal(3.0, 2.0, 6))
        held += low < 3.0 < high
    assert 0.92 < held / 400 < 0.98
    low, high = student_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert np.isclose(low + high, 6.0) and np.isclose(
        (high - low) / 2, 2.776445 * np.sqrt(0.5), rtol=1e-3
    )
    with pytest.raises(UserError, match="two numbers"):
        student_interval(np.ones(1))
