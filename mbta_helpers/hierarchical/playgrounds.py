"""Playgrounds: worlds without a reward, in which an agent looks for skills, many bodies at once.

A square in the plane, and the point of PointMaze in MuJoCo. A world keeps no state of its own: a
step takes states and actions to the next states, a row for each body.

Symbols: N bodies side by side, S dimensions of a state, A of an action.
"""

from __future__ import annotations

import math
from typing import Protocol

import gymnasium as gym
import mujoco
import mujoco.rollout
import numpy as np
import torch
from torch import Tensor

from mbta_helpers.errors import require
from mbta_helpers.mazes import Maze, make_env, random_position

ENV_ID = "mbta/Square-v0"
STRIDE = 0.1  # of the largest action in the square, whose sides are 2 long
MAX_STEPS = 30
SHOWN = 2  # components of a view, the first ones, by which skills are told apart
WAVELENGTHS = (1.0, 2.0, 4.0)  # of the waves of the position that networks see in a maze
FASTEST = 5.0  # the point's velocity is cut off there, per axis, in map units a second


class World(Protocol):
    """What skills are looked for in.

    view_dim: V. steps_each: steps of the simulator that one step of the world takes.
    """

    view_dim: int
    action_dim: int
    steps_each: int

    def start(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """First states of episodes, (N, S)."""

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The next states, (N, S); action: (N, A) in [−1, 1]."""

    def view(self, state: Tensor) -> Tensor:
        """What networks see of states, (..., S) to (..., V); the first SHOWN tell skills apart."""


class SquareWorld:
    """[−1, 1]² with walls around it: an action moves the point by STRIDE times itself."""

    view_dim, action_dim, steps_each = 2, 2, 1

    def start(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Near the middle, (N, 2)."""
        return rng.uniform(-0.02, 0.02, (count, 2))

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.clip(state + STRIDE * np.clip(action, -1, 1), -1, 1)

    def view(self, state: Tensor) -> Tensor:
        return state


class PointWorld:
    """The point of a PointMaze, anywhere at rest at first; a state is x, y, v_x, v_y.

    Physics is that of the environment itself: MuJoCo's roll-out of many states, one time step at a
    time, because the environment cuts the velocity off in between. repeat: time steps for which an
    action is held.
    """

    view_dim, action_dim = 4 + 4 * len(WAVELENGTHS), 2

    def __init__(self, maze: Maze, repeat: int = 5):
        require(maze.body == "point", f"{maze.name} has an {maze.body} in it; take a PointMaze.")
        require(repeat >= 1, f"An action is held for at least 1 step, not {repeat}.")
        self.maze, self.steps_each = maze, repeat
        left, right, low, high = maze.extent
        self._half = max(right - left, high - low) / 2
        self._env = make_env(maze)  # it owns the model
        self._model = self._env.unwrapped.point_env.model
        self._data = mujoco.MjData(self._model)

    def start(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Anywhere in the maze, also at walls and in corners, (N, 4)."""
        places = np.stack([random_position(self.maze, rng) for _ in range(count)])
        return np.concatenate([places, np.zeros((count, 2))], 1)

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        physics = np.concatenate([np.zeros((len(state), 1)), state], 1)  # the time comes first
        control = np.clip(action, -1, 1).astype(np.float64)[:, None]  # (N, 1, 2)
        for _ in range(self.steps_each):
            physics[:, 3:] = np.clip(physics[:, 3:], -FASTEST, FASTEST)
            after, _ = mujoco.rollout.rollout(self._model, self._data, physics, control, nstep=1)
            physics = after[:, 0]
        return physics[:, 1:].copy()

    def view(self, state: Tensor) -> Tensor:
        """Position and velocity in [−1, 1], and waves of the position, as in chapter 3."""
        position, velocity = state[..., :2], state[..., 2:]
        phases = [2 * math.pi / length * position for length in WAVELENGTHS]
        waves = [wave for phase in phases for wave in (phase.sin(), phase.cos())]
        return torch.cat([position / self._half, velocity / FASTEST, *waves], -1)


class Displaced:
    """A world whose states begin with the displacement from the episode's start, (S + 2,)."""

    def __init__(self, world: World):
        self.world = world
        self.view_dim, self.action_dim = world.view_dim + 2, world.action_dim
        self.steps_each = world.steps_each

    def start(self, count: int, rng: np.random.Generator) -> np.ndarray:
        first = self.world.start(count, rng)
        return displaced(first, first)

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        first = state[:, 2:4] - state[:, :2]
        return displaced(self.world.step(state[:, 2:], action), first)

    def view(self, state: Tensor) -> Tensor:
        return torch.cat([state[..., :2], self.world.view(state[..., 2:])], -1)


def displaced(state: np.ndarray, first: np.ndarray) -> np.ndarray:
    """States with their displacement from first ones in front; (N, S) to (N, S + 2)."""
    return np.concatenate([state[:, :2] - first[:, :2], state], 1)


# -- one body at a time, for gymnasium ------------------------------------------------------------


class Square(gym.Env):
    """The square for one agent: no reward, and no end but the time limit."""

    metadata = {"render_modes": []}  # noqa: RUF012 gymnasium's way

    def __init__(self):
        self.world = SquareWorld()
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.state = np.zeros((1, 2))

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = self.world.start(1, self.np_random)
        return self.state[0].copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.state = self.world.step(self.state, np.asarray(action, float)[None])
        return self.state[0].copy(), 0.0, False, False, {}


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point=Square, max_episode_steps=MAX_STEPS)


def world_of(env: gym.Env) -> World:
    """The world behind an environment; a UserError says what it lacks."""
    require(
        isinstance(env.action_space, gym.spaces.Box) and len(env.action_space.shape) == 1,
        f"Skills act in a Box of numbers, but the action space is {env.action_space}. Take "
        f"{ENV_ID}, or options for choices that can be counted (chapter 9).",
    )
    world = getattr(env.unwrapped, "world", None)
    require(
        hasattr(world, "start") and hasattr(world, "step"),
        f"{type(env.unwrapped).__name__} has no attribute `world` with `start` and `step`, which "
        f"many bodies at once need. Give it one, take {ENV_ID}, or PointWorld(maze) for a maze.",
    )
    return world
