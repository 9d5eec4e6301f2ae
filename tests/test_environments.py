"""The small tasks: their motion by hand, their pictures pixel by pixel."""

import gymnasium as gym
import numpy as np
import pytest

from mbta_helpers.latent.environments import (
    BLOB,
    DRAG,
    HELD,
    PUSH,
    SIDE,
    STEPS,
    HeldAction,
    constant_gain,
    draw_spots,
)


@pytest.mark.parametrize("name", ["PointTask", "PointPictures", "Pendulum"])
def test_environments_keep_the_interface(name):
    env = gym.make(f"mbta/{name}-v0")
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert env.action_space.low.min() == -1 and env.action_space.high.max() == 1
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(200)]
    rows = []
    for action in actions:
        rows.append(env.step(action))
        assert env.observation_space.contains(rows[-1][0])
        if rows[-1][3]:
            break
    assert len(rows) == (100 if name == "Pendulum" else STEPS) and not any(r[2] for r in rows)
    again, _ = env.reset(seed=3)
    assert np.array_equal(again, observation)
    assert all(env.step(a)[1] == r[1] for a, r in zip(actions, rows, strict=False))


def test_the_point_moves_as_its_equation_says():
    env = gym.make("mbta/PointTask-v0").unwrapped
    env.reset(seed=0)
    env.position, env.velocity, env.goal = np.zeros(2), np.array([0.1, 0.0]), np.array([0.6, 0.0])
    observation, reward, *_ = env.step(np.array([0.5, -7.0]))  # cut off at −1
    velocity = np.array([DRAG * 0.1 + PUSH * 0.5, -PUSH])
    assert np.allclose(env.velocity, velocity) and np.allclose(env.position, velocity)
    assert np.isclose(reward, -np.linalg.norm(velocity - [0.6, 0.0]))
    fastest = PUSH / (1 - DRAG)
    assert np.allclose(observation, [*velocity, *velocity / fastest, 0.6, 0.0], atol=1e-6)


def test_a_wall_stops_the_point_across_and_not_along():
    env = gym.make("mbta/PointTask-v0").unwrapped
    env.reset(seed=0)
    env.position, env.velocity = np.array([0.99, 0.0]), np.array([0.1, 0.1])
    env.step(np.array([1.0, 0.0]))
    assert env.position[0] == 1.0 and env.velocity[0] == 0.0
    assert np.isclose(env.velocity[1], DRAG * 0.1) and np.isclose(env.position[1], DRAG * 0.1)


def test_a_spot_is_a_gaussian_where_it_should_be():
    """Right is a greater column, up a smaller row; the brighter spot is seen where two overlap."""
    places = np.array([[-1.0, 1.0], [1.0, -1.0], [1 / 15, 1 / 15], [3 / 15, 1 / 15]])
    picture = draw_spots(places, np.array([0.5, 1.0, 0.8, 0.7]))
    assert picture.shape == (SIDE, SIDE) and picture.dtype == np.float32
    assert picture[0, 0] == 0.5 and picture[-1, -1] == 1.0
    for r in range(SIDE):
        for c in range(SIDE):
            spots = []
            for (x, y), light in zip(places, (0.5, 1.0, 0.8, 0.7), strict=True):
                column, line = (x + 1) / 2 * 15, (1 - y) / 2 * 15
                squared = (c - column) ** 2 + (r - line) ** 2
                spots.append(light * np.exp(-0.5 * squared / BLOB**2))
            assert np.isclose(picture[r, c], max(spots), atol=1e-6)


def test_pictures_are_drawn_side_by_side():
    places = np.random.default_rng(0).uniform(-1, 1, (4, 5, 2, 2))
    together = draw_spots(places, np.array([0.5, 1.0]))
    assert together.shape == (4, 5, SIDE, SIDE)
    assert np.allclose(together[2, 3], draw_spots(places[2, 3], np.array([0.5, 1.0])))


def test_pictures_show_the_task_of_the_numbers():
    numbers, pictures = (gym.make(f"mbta/Point{kind}-v0") for kind in ("Task", "Pictures"))
    numbers.reset(seed=4), pictures.reset(seed=4)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 2)):
        state, reward, *_ = numbers.step(action)
        picture, other, *_ = pictures.step(action)
        assert reward == other
    assert np.allclose(picture, draw_spots(state[[4, 5, 0, 1]].reshape(2, 2), np.array([0.5, 1.0])))


def test_the_controller_of_constant_gains_reaches_the_goal():
    env = gym.make("mbta/PointTask-v0")
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        for _ in range(STEPS):
            observation, reward, *_ = env.step(constant_gain(observation, 4.0, 2.0))
        assert reward > -0.05


class Counter(gym.Env):
    """Each step gives 1, and the episode ends with the given step."""

    observation_space = gym.spaces.Box(0, 99, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, end, truncates):
        self.end, self.truncates, self.count = end, truncates, 0

    def step(self, action):
        self.count += 1
        over = self.count == self.end
        seen = np.array([self.count], np.float32)
        return seen, 1.0, over and not self.truncates, over and self.truncates, {}


@pytest.mark.parametrize("truncates", [False, True])
def test_a_held_action_adds_rewards_and_stops_at_the_end(truncates):
    env = HeldAction(Counter(5, truncates), 3)
    assert env.step(None)[:4] == (3.0, 3.0, False, False)
    assert env.step(None)[:4] == (5.0, 2.0, not truncates, truncates)


def test_the_pendulum_is_gymnasiums_with_actions_scaled_and_held():
    ours, theirs = gym.make("mbta/Pendulum-v0"), gym.make("Pendulum-v1")
    ours.reset(seed=1), theirs.reset(seed=1)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 1)).astype(np.float32):
        observation, reward, *_ = ours.step(action)
        rows = [theirs.step(2 * action) for _ in range(HELD)]
        assert np.allclose(observation, rows[-1][0], atol=1e-5)
        assert np.isclose(reward, sum(r[1] for r in rows), rtol=1e-5)
