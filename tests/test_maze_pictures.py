"""Pictures of the maze's point: where the spot is, what a decision is, what is cut off."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from samples import numbered_transitions

from mbta_helpers.errors import UserError
from mbta_helpers.latent import maze_pictures
from mbta_helpers.latent.environments import SIDE
from mbta_helpers.latent.maze_pictures import (
    DECISIONS,
    HELD,
    coarsen,
    draw_pair,
    draw_point,
    locate,
    shown,
    sight,
)
from mbta_helpers.mazes import get_maze, make_env, place, random_position

MAZE = get_maze("pointmaze-medium")


def test_the_spot_is_found_where_it_was_drawn():
    rng = np.random.default_rng(0)
    places = np.stack([random_position(MAZE, rng) for _ in range(200)]).reshape(10, 20, 2)
    pictures = draw_point(MAZE, places)
    assert pictures.shape == (10, 20, SIDE, SIDE)
    found = locate(MAZE, torch.from_numpy(pictures)).numpy()
    assert np.abs(found - places).max() < 0.02  # 0.02 map units are a 25th of a pixel


def test_right_is_a_later_column_and_up_an_earlier_row():
    right, up = draw_point(MAZE, np.array([[2.5, 0.0], [0.0, 2.5]]))
    assert right.sum(0).argmax() > SIDE // 2 and up.sum(1).argmax() < SIDE // 2


def test_coarse_play_has_every_fifth_state_and_the_mean_action_between():
    play = numbered_transitions([12, 3, 5])
    coarse = coarsen(play, 5)
    assert coarse.lengths.tolist() == [2, 1]
    assert np.array_equal(coarse.goals, play.goals[[0, 2]])
    rows = [0, 5, 10, 13 + 4, 13 + 4 + 5]  # episodes of 13, 4 and 6 states
    assert np.array_equal(coarse.states, play.states[rows])
    means = [play.actions[a : a + 5].mean(0) for a in (0, 5, 15)]
    assert np.allclose(coarse.actions, means)


def test_play_of_short_episodes_only_is_refused():
    with pytest.raises(UserError, match="5 actions"):
        coarsen(numbered_transitions([4, 3]), 5)


def test_what_is_shown_is_the_place_now_and_the_one_before():
    play = numbered_transitions([2, 1])
    x = play.states[:, :2]
    before = x[[0, 0, 1, 3, 3]]  # an episode begins as if nothing had moved
    rows = shown(play)
    assert np.array_equal(rows.states, np.concatenate([x, before], 1))
    assert np.array_equal(rows.actions, play.actions)
    pictures = draw_pair(MAZE, rows.states)
    assert np.array_equal(pictures[:, 0], draw_point(MAZE, x))
    assert np.array_equal(pictures[:, 1], draw_point(MAZE, before))


def test_sight_is_the_place_and_ten_times_the_move():
    places = np.array([[1.0, -0.5, 0.9, -0.45], [-2.0, 2.5, -2.0, 2.5]])
    seen = sight(MAZE, torch.from_numpy(draw_pair(MAZE, places))).numpy()
    assert np.allclose(seen, [[1.0, -0.5, 1.0, -0.5], [-2.0, 2.5, 0.0, 0.0]], atol=0.1)
    assert np.allclose(seen[:, :2], places[:, :2], atol=0.02)


@pytest.fixture
def env():
    env = gym.make(maze_pictures.ENV_ID)
    yield env
    env.close()


def test_the_environment_keeps_the_interface(env):
    first, info = env.reset(seed=3)
    assert env.observation_space.contains(first)
    assert np.array_equal(first["pictures"], draw_point(MAZE, np.stack([info["position"]] * 2)))
    again, _ = env.reset(seed=3)
    assert np.array_equal(again["pictures"], first["pictures"])
    assert np.array_equal(again["goal"], first["goal"])


def test_an_action_is_held_for_five_steps_of_the_simulator(env):
    start, goal, action = MAZE.centre((1, 1)), MAZE.centre((6, 6)), np.array([0.4, -0.7])
    env.reset(options={"start": start, "goal": goal})
    seen, reward, *_, info = env.step(action)
    simulator = make_env(MAZE)
    place(simulator, start, goal)
    for _ in range(HELD):
        expected = simulator.step(action)[0]["observation"]
    simulator.close()
    assert np.allclose(info["position"], expected[:2]) and reward == 0
    assert np.array_equal(seen["pictures"], draw_point(MAZE, np.stack([expected[:2], start])))


def test_reaching_the_goal_pays_and_ends_the_episode(env):
    start = MAZE.centre((1, 1))
    env.reset(options={"start": start, "goal": start + np.array([0.5, 0.0])})
    rows = [env.step(np.array([1.0, 0.0])) for _ in range(2)]
    assert [row[1] for row in rows] == [0.0, 1.0] or rows[0][1] == 1.0
    assert any(row[2] for row in rows)


def test_an_episode_is_cut_off_after_its_decisions(env):
    env.reset(options={"start": MAZE.centre((1, 1)), "goal": MAZE.centre((6, 6))})
    rows = [env.step(np.zeros(2)) for _ in range(DECISIONS)]
    assert [row[3] for row in rows] == [False] * (DECISIONS - 1) + [True]
    assert not any(row[2] for row in rows)
