"""Gusts: a plane with a ravine in which a gust, that nobody controls, throws whoever steps in.

A point walks on a plane, x in [−4, 5] and y in [−3, 3], one velocity command a step. A ravine,
|x| < 0.5, cuts the plane in two. Where y > 1 a bridge crosses it. Anywhere else, whoever steps
into the ravine is thrown at once, by a fair coin: 4 units to the right, which leads from the left
side to the right one, or 9 units to the left, into a marsh that nobody leaves.

The coin is independent of everything that the point has done. So no skill, which acts through the
actions alone, can know it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mbta_helpers.datasets import Transitions
from mbta_helpers.errors import require
from mbta_helpers.evaluation import Agent
from mbta_helpers.mazes import Tasks

WEST, EAST, SOUTH, NORTH = -4.0, 5.0, -3.0, 3.0  # fences that a walking point does not pass
HALF_WIDTH = 0.5  # of the ravine
BRIDGE = 1.0  # the ravine is safe to cross where y is greater
FORWARD, BACK = 4.0, -9.0  # how far a gust throws, in x
MARSH = -6.0  # who is farther west stays there
STEP = 0.5  # map units a step at full speed
REACHED = 0.5  # of the goal


def in_ravine(position: np.ndarray) -> np.ndarray:
    """Whether gusts blow there; position: (..., 2)."""
    return (np.abs(position[..., 0]) < HALF_WIDTH) & (position[..., 1] <= BRIDGE)


def in_marsh(position: np.ndarray) -> np.ndarray:
    """Whether a point there is stuck for good; position: (..., 2)."""
    return position[..., 0] < MARSH


def move(
    position: np.ndarray, action: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One step of N points; position, action: (N, 2).

    Returns the next positions and the gusts, (N,): 1 forward, −1 back, 0 where none blew. A coin
    is drawn for every point at every step, so that it depends on nothing that the point does.
    """
    require(
        position.shape == action.shape and position.ndim == 2 and position.shape[1] == 2,
        f"Positions and actions are (N, 2) each, not {position.shape} and {action.shape}.",
    )
    coin = np.where(rng.random(len(position)) < 0.5, 1, -1)
    walked = position + STEP * np.clip(action, -1.0, 1.0)
    walked = np.clip(walked, [WEST, SOUTH], [EAST, NORTH])
    stuck = in_marsh(position)
    gust = np.where(in_ravine(walked) & ~stuck, coin, 0)
    thrown = walked + np.stack([np.select([gust > 0, gust < 0], [FORWARD, BACK]), 0 * coin], 1)
    # A gust forward from the right side ends at the fence.
    thrown[:, 0] = np.minimum(thrown[:, 0], EAST)
    return np.where(stuck[:, None], position, thrown), gust


@dataclass(frozen=True)
class Wanderings:
    """Data of E episodes of n steps, with what the agent is not told.

    transitions: as any dataset. gusts: (E, n), what blew at each step.
    """

    transitions: Transitions
    gusts: np.ndarray


def wander(episodes: int, steps: int, seed: int, noise: float = 0.2) -> Wanderings:
    """Points that walk in a random direction, and in another after 6 to 12 steps, and so on.

    The direction does not depend on the position nor on the gusts.
    """
    require(episodes >= 1, f"There is at least 1 episode, not {episodes}.")
    require(steps >= 1, f"An episode has at least 1 step, not {steps}.")
    rng = np.random.default_rng(seed)
    position = outside_ravine(episodes, rng)
    direction, left = np.zeros(episodes), np.zeros(episodes, int)
    states, actions, gusts = [position], [], []
    for _ in range(steps):
        fresh = left == 0
        direction = np.where(fresh, rng.uniform(-np.pi, np.pi, episodes), direction)
        left = np.where(fresh, rng.integers(6, 13, episodes), left) - 1
        heading = np.stack([np.cos(direction), np.sin(direction)], 1)
        action = np.clip(heading + noise * rng.standard_normal((episodes, 2)), -1.0, 1.0)
        position, gust = move(position, action, rng)
        states.append(position)
        actions.append(action)
        gusts.append(gust)
    transitions = Transitions(
        np.stack(states, 1).reshape(-1, 2).astype(np.float32),
        np.stack(actions, 1).reshape(-1, 2).astype(np.float32),
        np.full(episodes, steps),
        np.stack(states, 1)[:, -1],
    )
    return Wanderings(transitions, np.stack(gusts, 1))


def outside_ravine(count: int, rng: np.random.Generator) -> np.ndarray:
    """Positions drawn evenly from the plane, but not from where gusts blow; (count, 2)."""
    position = rng.uniform([WEST, SOUTH], [EAST, NORTH], (count, 2))
    while (blown := in_ravine(position)).any():
        position[blown] = rng.uniform([WEST, SOUTH], [EAST, NORTH], (blown.sum(), 2))
    return position


def crossing_tasks(count: int, seed: int) -> Tasks:
    """From the left side to the right one, both far from the bridge."""
    rng = np.random.default_rng(seed)
    starts = rng.uniform([-3.0, -2.5], [-1.5, -0.5], (count, 2))
    return Tasks(starts, rng.uniform([2.0, -2.5], [4.0, -0.5], (count, 2)))


@dataclass(frozen=True)
class Attempt:
    """What happened in P tasks.

    success: (P,) bool. lost: (P,) bool, whether it ended in the marsh. met: (P,) bool, whether a
    gust blew on the way. paths: (P, n + 1, 2), which stand still after success.
    """

    success: np.ndarray
    lost: np.ndarray
    met: np.ndarray
    paths: np.ndarray


@torch.no_grad()
def attempt(agent: Agent, tasks: Tasks, steps: int, seed: int) -> Attempt:
    """Let an agent try all tasks side by side; success is to come within REACHED of the goal."""
    rng = np.random.default_rng(seed)
    position, goals = tasks.starts.copy(), torch.from_numpy(tasks.goals).float()
    success, met = np.zeros(len(tasks), bool), np.zeros(len(tasks), bool)
    paths = [position]
    for now in range(steps):
        state = torch.from_numpy(position[~success]).float()
        if now % agent.replan_every == 0:
            decision = agent.decide(state, goals[~success], np.flatnonzero(~success))
            decided_for = ~success
        kept = torch.from_numpy(~success[decided_for])
        action = np.zeros_like(position)
        goal = goals[~success]
        chosen = decision[kept]
        action[~success] = agent.act(state, goal, chosen, now % agent.replan_every).numpy()
        after, gust = move(position, action, rng)
        position = np.where(success[:, None], position, after)
        met |= (gust != 0) & ~success
        success |= np.linalg.norm(position - tasks.goals, axis=1) < REACHED
        paths.append(position)
        if success.all():
            break
    return Attempt(success, in_marsh(position), met, np.stack(paths, 1))
