"""Simulation: the bodies of many tasks side by side, points or ants, undisturbed or not.

Symbols: N tasks, a body each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from mbta_helpers.ants import Ants, flipped, standing, world
from mbta_helpers.errors import require
from mbta_helpers.mazes import SUCCESS_RADIUS, Maze, Tasks, make_env, place


@dataclass(frozen=True)
class Disturbance:
    """What a body meets that its data did not show.

    push_speed: of a kick, added to the velocity every push_every steps in a random horizontal
    direction, in map units a second. motors: share of each action that arrives.
    """

    push_speed: float = 0.0
    push_every: int = 100
    motors: float = 1.0

    def __post_init__(self):
        require(self.push_speed >= 0, f"A push of {self.push_speed:g} is not a speed.")
        require(self.push_every >= 1, f"Pushes come every 1 steps or more, not {self.push_every}.")
        require(0 < self.motors <= 1, f"motors is a share in (0, 1], not {self.motors:g}.")

    def kicks(self, count: int, step: int, rng: np.random.Generator) -> np.ndarray | None:
        """Changes of horizontal velocity before a step, (N, 2); None where there are none."""
        if self.push_speed == 0 or step == 0 or step % self.push_every:
            return None
        angle = rng.uniform(-np.pi, np.pi, count)
        return self.push_speed * np.stack([np.cos(angle), np.sin(angle)], axis=1)


class Bodies(Protocol):
    """N bodies at their tasks.

    states: (N, S). success: (N,) bool, whether each stood at its goal after its last step.
    """

    states: np.ndarray
    success: np.ndarray

    def step(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """One step of the bodies of those rows; actions: (rows, A)."""

    def push(self, rows: np.ndarray, kicks: np.ndarray) -> None:
        """Add to their horizontal velocities, (rows, 2)."""

    def fallen(self) -> np.ndarray:
        """Whether each has fallen over, (N,) bool."""

    def close(self) -> None:
        """Let the simulator go."""


class Points:
    """Point masses, at rest at first, each in an environment of its own."""

    def __init__(self, maze: Maze, tasks: Tasks):
        self.envs = [make_env(maze) for _ in range(len(tasks))]
        placed = zip(self.envs, tasks.starts, tasks.goals, strict=True)
        self.states = np.stack([place(*each) for each in placed])
        self.success = np.zeros(len(tasks), bool)

    def step(self, rows: np.ndarray, actions: np.ndarray) -> None:
        for row, action in zip(rows, actions, strict=True):
            observation, _, _, _, info = self.envs[row].step(action)
            self.states[row] = observation["observation"]
            self.success[row] = info["success"]

    def push(self, rows: np.ndarray, kicks: np.ndarray) -> None:
        for row, kick in zip(rows, kicks, strict=True):
            self.envs[row].unwrapped.point_env.data.qvel[:] += kick
            self.states[row, 2:] += kick

    def fallen(self) -> np.ndarray:
        return np.zeros(len(self.envs), bool)

    def close(self) -> None:
        for env in self.envs:
            env.close()


class StandingAnts:
    """Ants, standing with a random heading at first, stepped on as many threads as PyTorch has.

    Success is the rule behind AntMaze's info["success"], without 100 environments to compile.
    """

    def __init__(self, maze: Maze, tasks: Tasks, rng: np.random.Generator):
        self.ants = Ants(world(maze.env_id), len(tasks), torch.get_num_threads())
        self.goals = tasks.goals
        for row, start in enumerate(tasks.starts):
            self.ants.place(row, standing(start, rng))
        self.states = self.ants.states
        self.success = np.zeros(len(tasks), bool)

    def step(self, rows: np.ndarray, actions: np.ndarray) -> None:
        self.states[rows] = self.ants.step(actions, rows)
        offset = self.states[rows, :2] - self.goals[rows]
        self.success[rows] = np.linalg.norm(offset, axis=1) <= SUCCESS_RADIUS

    def push(self, rows: np.ndarray, kicks: np.ndarray) -> None:
        for row, kick in zip(rows, kicks, strict=True):
            self.ants.data[row].qvel[:2] += kick
        self.states[rows, 15:17] += kicks

    def fallen(self) -> np.ndarray:
        return flipped(self.states)

    def close(self) -> None:
        pass


def begin(maze: Maze, tasks: Tasks, rng: np.random.Generator) -> Bodies:
    """The bodies of a maze at the starts of their tasks."""
    return StandingAnts(maze, tasks, rng) if maze.body == "ant" else Points(maze, tasks)
