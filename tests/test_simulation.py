"""Bodies at their tasks: as the environments step them, pushed, weakened, and fallen over."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch

from mbta_helpers.ants import Walkers, load_controller
from mbta_helpers.errors import UserError
from mbta_helpers.evaluation import evaluate
from mbta_helpers.mazes import Tasks, get_maze, make_env, sample_tasks
from mbta_helpers.simulation import Disturbance, begin


@pytest.fixture(scope="module")
def antmaze():
    return get_maze("antmaze-umaze")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def ant_env(maze):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        env = gym.make(maze.env_id, continuing_task=True, max_episode_steps=10**9)
    env.reset(seed=0)
    return env


def put(env, state, goal):
    env.unwrapped.goal = goal
    env.unwrapped.ant_env.set_state(state[:15], state[15:])


def state_of(seen):
    return np.concatenate([seen["achieved_goal"], seen["observation"]])


# -- the environments' own steps --------------------------------------------------------------


def test_ants_and_their_success_are_those_of_the_environment(antmaze, rng):
    """The goal is as far as an ant drifts under noise, so that both answers occur."""
    start = antmaze.centre((1, 2))
    tasks = Tasks(start[None], start[None] + [[0.46, 0.0]])
    bodies = begin(antmaze, tasks, rng)
    env = ant_env(antmaze)
    put(env, bodies.states[0], tasks.goals[0])
    successes = []
    for _ in range(60):
        action = rng.uniform(-1, 1, 8).astype(np.float32)
        seen, _, _, _, info = env.step(action)
        bodies.step(np.array([0]), action[None])
        assert np.allclose(bodies.states[0], state_of(seen), atol=1e-6)
        assert bodies.success[0] == info["success"]
        successes.append(bool(bodies.success[0]))
    env.close()
    assert len(set(successes)) == 2, "the rule was tested on one side only"


def test_points_and_their_success_are_those_of_the_environment(umaze, rng):
    start = umaze.centre((1, 1))
    tasks = Tasks(start[None], start[None] + [[0.5, 0.0]])
    bodies, env = begin(umaze, tasks, rng), make_env(umaze)
    env.reset(seed=0)
    env.unwrapped.goal = tasks.goals[0]
    env.unwrapped.point_env.set_state(start, np.zeros(2))
    successes = []
    for _ in range(40):
        seen, _, _, _, info = env.step(np.array([0.3, 0.0]))
        bodies.step(np.array([0]), np.array([[0.3, 0.0]]))
        assert np.allclose(bodies.states[0], seen["observation"])
        assert bodies.success[0] == info["success"]
        successes.append(bool(bodies.success[0]))
    bodies.close()
    env.close()
    assert len(set(successes)) == 2


def test_only_the_rows_that_are_named_move(antmaze, rng):
    bodies = begin(antmaze, sample_tasks(antmaze, 4, seed=0), rng)
    before = bodies.states.copy()
    bodies.step(np.array([1, 3]), np.zeros((2, 8)))
    moved = (bodies.states != before).any(1)
    assert moved.tolist() == [False, True, False, True]


def test_threads_do_not_change_the_numbers(antmaze, monkeypatch):
    tasks = sample_tasks(antmaze, 5, seed=1)
    ends = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        bodies = begin(antmaze, tasks, np.random.default_rng(2))
        actions = np.random.default_rng(3).uniform(-1, 1, (20, 5, 8))
        for each in actions:
            bodies.step(np.arange(5), each)
        ends.append(bodies.states.copy())
    assert np.array_equal(*ends)


# -- disturbances -----------------------------------------------------------------------------


def test_kicks_come_on_time_with_their_speed_in_all_directions(rng):
    disturbance = Disturbance(push_speed=1.5, push_every=100)
    kicks = {now: disturbance.kicks(500, now, rng) for now in range(301)}
    assert [now for now, kick in kicks.items() if kick is not None] == [100, 200, 300]
    every = np.concatenate([kicks[100], kicks[200], kicks[300]])
    assert np.allclose(np.linalg.norm(every, axis=1), 1.5)
    assert np.abs(every.mean(0)).max() < 0.15


def test_nothing_is_drawn_where_nothing_disturbs(rng):
    state = rng.bit_generator.state
    assert all(Disturbance().kicks(3, now, rng) is None for now in range(300))
    assert rng.bit_generator.state == state


@pytest.mark.parametrize("name", ["pointmaze-umaze", "antmaze-umaze"])
def test_a_push_changes_the_horizontal_velocity_alone(name, rng):
    maze = get_maze(name)
    bodies = begin(maze, sample_tasks(maze, 3, seed=0), rng)
    velocity = slice(2, 4) if maze.body == "point" else slice(15, 17)
    before = bodies.states.copy()
    kicks = rng.standard_normal((2, 2))
    bodies.push(np.array([0, 2]), kicks)
    change = bodies.states - before
    assert np.allclose(change[[0, 2], velocity], kicks)
    change[[0, 2], velocity] = 0
    assert not change.any()
    free = begin(maze, sample_tasks(maze, 3, seed=0), np.random.default_rng(0))
    for each in (bodies, free):
        each.step(np.arange(3), np.zeros((3, 2 if maze.body == "point" else 8)))
    drift = bodies.states[:, :2] - free.states[:, :2]
    assert (np.sign(drift[[0, 2]]) == np.sign(kicks)).all(), "the simulator did not see the push"
    assert np.allclose(drift[1], 0)
    bodies.close()
    free.close()


class Recorder:
    """Always asks for the same action."""

    replan_every = 5

    def decide(self, state, goal, running):
        return torch.zeros(len(state), 1)

    def act(self, state, goal, decision, step):
        return torch.full((len(state), 2), 0.5)


def test_weaker_motors_move_less(umaze):
    tasks = Tasks(umaze.centre((1, 1))[None], umaze.centre((3, 1))[None])
    runs = [
        evaluate(Recorder(), umaze, tasks, max_steps=20, disturbance=Disturbance(motors=share))
        for share in (1.0, 0.5)
    ]
    moved = [run.paths[0][-1, 0] - run.paths[0][0, 0] for run in runs]
    assert moved[1] == pytest.approx(0.5 * moved[0], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"push_speed": -1.0}, "not a speed"),
        ({"push_every": 0}, "every 1 steps"),
        ({"motors": 0.0}, r"share in \(0, 1\]"),
        ({"motors": 1.2}, r"share in \(0, 1\]"),
    ],
)
def test_bad_disturbances_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Disturbance(**options)


# -- ants at tasks ----------------------------------------------------------------------------


class Follower:
    """The trained controller, straight to the goal."""

    replan_every = 10

    def __init__(self, count):
        self.walkers = Walkers(load_controller(), count)
        self.count = count

    def decide(self, state, goal, running):
        return torch.from_numpy(running)[:, None].float()

    def act(self, state, goal, decision, step):
        rows = decision[:, 0].long().numpy()
        states, goals = np.zeros((self.count, 29)), np.ones((self.count, 2))
        states[:, 3] = 1.0
        states[rows], goals[rows] = state.double().numpy(), goal.double().numpy()
        return torch.from_numpy(self.walkers.act(states, goals)[rows])


class Toppler:
    """Throws itself about until it lies on its back."""

    replan_every = 10

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def decide(self, state, goal, running):
        return torch.rand((len(state), 8), generator=self.generator).round() * 2 - 1

    def act(self, state, goal, decision, step):
        return decision * (1 if step < 5 else -1)


def test_ants_reach_goals_in_sight(antmaze):
    count = 6
    starts = np.repeat(antmaze.centre((1, 1))[None], count, axis=0)
    tasks = Tasks(starts, starts + np.linspace([3.0, -0.5], [5.0, 0.5], count))
    result = evaluate(Follower(count), antmaze, tasks, max_steps=200, seed=1)
    assert result.success.mean() >= 0.5
    for number in np.flatnonzero(result.success):
        assert np.linalg.norm(result.paths[number][-1] - tasks.goals[number]) <= 0.45
        assert len(result.paths[number]) == result.steps[number] + 1


def test_an_ant_on_its_back_fell(antmaze):
    tasks = sample_tasks(antmaze, 8, seed=0)
    result = evaluate(Toppler(), antmaze, tasks, max_steps=400)
    assert "fell" in result.causes
    assert set(result.causes) <= {"fell", "stuck", "late", "lost", "reached"}


def test_an_evaluation_of_ants_is_reproducible(antmaze):
    tasks = sample_tasks(antmaze, 2, seed=0)
    pushed = Disturbance(push_speed=1.0, push_every=10)
    runs = [
        evaluate(Follower(2), antmaze, tasks, max_steps=30, seed=seed, disturbance=pushed)
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(runs[0].paths[0], runs[1].paths[0])
    assert not np.array_equal(runs[0].paths[0], runs[2].paths[0])
