"""The point of a PointMaze, seen in small pictures, and its play in steps of a held action.

`mbta/PointMazePictures-v0` is PointMaze Medium as registered, but for what is seen: a picture of
the point, and the goal as a place on the map. No wall is drawn: the walls never change, and what
they do shows in how the point moves. An action is held for HELD steps of the simulator.

Symbols: N states, M rows of the coarse play, E episodes.
"""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor

from mbta_helpers.datasets import Transitions
from mbta_helpers.errors import require
from mbta_helpers.latent.environments import SIDE, draw_spots
from mbta_helpers.mazes import Maze, get_maze, make_env, place, sample_tasks

ENV_ID = "mbta/PointMazePictures-v0"
HELD = 5  # steps of the simulator for which an action is held
MOVE = 10.0  # moves in a decision are a tenth of a map unit; networks see them this much larger
DECISIONS = 120  # in an episode: 600 steps of the simulator


def outermost(maze: Maze) -> float:
    """Where the outermost pixels have their centres, in map units from the middle."""
    return max(maze.extent) * (1 - 1 / SIDE)


def draw_point(maze: Maze, position: np.ndarray) -> np.ndarray:
    """Pictures of a white spot on black, (..., SIDE, SIDE); position: (..., 2) in map units."""
    return draw_spots(np.asarray(position)[..., None, :] / outermost(maze), np.ones(1))


def locate(maze: Maze, pictures: Tensor) -> Tensor:
    """Where the spot of each picture is: the mean place of its squared light, (..., 2)."""
    light = pictures.square()
    along = torch.linspace(-1, 1, SIDE)
    x = (light.sum(-2) * along).sum(-1)
    y = (light.sum(-1) * along.flip(0)).sum(-1)
    return outermost(maze) * torch.stack([x, y], -1) / light.sum((-2, -1))[..., None]


def sight(maze: Maze, pairs: Tensor) -> Tensor:
    """Where the spot is, and MOVE times how far it came; (..., 2, SIDE, SIDE) to (..., 4)."""
    now, before = locate(maze, pairs).unbind(-2)
    return torch.cat([now, MOVE * (now - before)], -1)


def draw_pair(maze: Maze, shown: np.ndarray) -> np.ndarray:
    """Two pictures, (..., 2, SIDE, SIDE); shown: (..., 4), the place now and a decision before."""
    return draw_point(maze, np.asarray(shown).reshape(*np.shape(shown)[:-1], 2, 2))


def coarsen(transitions: Transitions, held: int = HELD) -> Transitions:
    """Every `held`-th state, and the mean of the actions in between; M rows of actions.

    What is left at an episode's end is cut off, and episodes shorter than `held` are left out.
    """
    counts = transitions.lengths // held
    kept = np.flatnonzero(counts)
    require(len(kept) > 0, f"No episode has {held} actions: collect longer ones.")
    starts = zip(transitions.state_starts[kept], transitions.action_starts[kept], strict=True)
    states, actions = [], []
    for (state, action), count in zip(starts, counts[kept], strict=True):
        states.append(transitions.states[state : state + held * count + 1 : held])
        moves = transitions.actions[action : action + held * count]
        actions.append(moves.reshape(count, held, -1).mean(1))
    return Transitions(
        np.concatenate(states), np.concatenate(actions), counts[kept], transitions.goals[kept]
    )


def shown(coarse: Transitions) -> Transitions:
    """Coarse play with what pictures show for states, (M + E, 4): the place now and before.

    An episode begins as if the point had stood still before it.
    """
    places = coarse.states[:, :2]
    before = np.concatenate([places[:1], places[:-1]])
    before[coarse.state_starts] = places[coarse.state_starts]
    return replace(coarse, states=np.concatenate([places, before], 1))


class PointMazePictures(gym.Env):
    """One point on its way between two cells of PointMaze Medium; DECISIONS decisions an episode.

    An observation has the pictures now and a decision before, (2, SIDE, SIDE), and the goal in map
    units, (2,); at the start the two pictures are the same. The reward of a
    decision is 1 where one of its steps of the simulator was within reach of the goal, which ends
    the episode.
    """

    action_space = Box(-1.0, 1.0, (2,), np.float32)
    observation_space = Dict(
        pictures=Box(0.0, 1.0, (2, SIDE, SIDE), np.float32),
        goal=Box(-np.inf, np.inf, (2,), np.float64),
    )

    def __init__(self):
        self.maze = get_maze("pointmaze-medium")
        self.simulator = make_env(self.maze)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """options: `start` and `goal` in map units, else between random cells."""
        super().reset(seed=seed)
        if options is None:
            tasks = sample_tasks(self.maze, 1, int(self.np_random.integers(2**31)))
            options = {"start": tasks.starts[0], "goal": tasks.goals[0]}
        self.goal = np.array(options["goal"], float)
        self.state = place(self.simulator, options["start"], self.goal)
        self.before = self.state
        return self.observe(), {"position": self.state[:2].copy()}

    def step(self, action):
        self.before = self.state
        for _ in range(HELD):
            observation, _, _, _, info = self.simulator.step(np.asarray(action, float))
            self.state = observation["observation"]
            if info["success"]:
                break
        there = bool(info["success"])
        return self.observe(), float(there), there, False, {"position": self.state[:2].copy()}

    def observe(self) -> dict[str, np.ndarray]:
        places = np.concatenate([self.state[:2], self.before[:2]])
        return {"pictures": draw_pair(self.maze, places), "goal": self.goal.copy()}

    def close(self) -> None:
        self.simulator.close()


gym.register(ENV_ID, entry_point=PointMazePictures, max_episode_steps=DECISIONS)
