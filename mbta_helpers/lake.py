"""Lake: a shore, a lake, and a wind that nobody controls.

A point moves on a plane, one velocity command a step. North of y = 0 is land: it moves as
commanded. South of it is the lake, where the wind adds a drift along x, eastwards or westwards. A
fair coin decides which, once for an episode. The point does not see the coin, only where it
drifts. The coin is independent of everything that the point does, so no skill, which acts
through the actions alone, can choose it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mbta_helpers.datasets import Transitions
from mbta_helpers.errors import require
from mbta_helpers.evaluation import Agent
from mbta_helpers.mazes import Tasks

STEP = 0.5  # map units a step at full speed
DRIFT = 0.9  # map units a step on the lake: faster than the point
REACHED = 0.75  # of the goal


def draw_winds(count: int, rng: np.random.Generator) -> np.ndarray:
    """A wind for each episode, 1 eastwards or −1 westwards with equal chances; (count,)."""
    return np.where(rng.random(count) < 0.5, 1, -1)


def move(position: np.ndarray, action: np.ndarray, wind: np.ndarray) -> np.ndarray:
    """One step of N points; position, action: (N, 2), wind: (N,). Returns positions, (N, 2)."""
    require(
        position.shape == action.shape == (len(wind), 2),
        f"Positions and actions are (N, 2) and winds (N,), not {position.shape}, {action.shape} "
        f"and {wind.shape}.",
    )
    after = position + STEP * np.clip(action, -1.0, 1.0)
    after[:, 0] += DRIFT * wind * (position[:, 1] < 0)
    return after


@dataclass(frozen=True)
class Wanderings:
    """Data of E episodes, with what the agent is not told.

    transitions: as any dataset. winds: (E,).
    """

    transitions: Transitions
    winds: np.ndarray


def wander(episodes: int, steps: int, seed: int, noise: float = 0.2) -> Wanderings:
    """Points that walk or row in one random direction each, whatever the wind does."""
    require(episodes >= 1, f"There is at least 1 episode, not {episodes}.")
    require(steps >= 1, f"An episode has at least 1 step, not {steps}.")
    rng = np.random.default_rng(seed)
    position = rng.uniform([-8.0, -4.0], [8.0, 4.0], (episodes, 2))
    direction = rng.uniform(-np.pi, np.pi, episodes)
    heading = np.stack([np.cos(direction), np.sin(direction)], 1)  # (E, 2)
    winds = draw_winds(episodes, rng)
    states, actions = [position], []
    for _ in range(steps):
        action = np.clip(heading + noise * rng.standard_normal((episodes, 2)), -1.0, 1.0)
        position = move(position, action, winds)
        states.append(position)
        actions.append(action)
    transitions = Transitions(
        np.stack(states, 1).reshape(-1, 2).astype(np.float32),
        np.stack(actions, 1).reshape(-1, 2).astype(np.float32),
        np.full(episodes, steps),
        position,
    )
    return Wanderings(transitions, winds)


def along_the_shore(count: int, seed: int) -> Tasks:
    """From the land to a place on the land 10 to 12 units east or west of it."""
    rng = np.random.default_rng(seed)
    side = np.where(rng.random(count) < 0.5, 1.0, -1.0)
    far = rng.uniform(5.0, 6.0, (count, 2)) * side[:, None]
    height = rng.uniform(0.5, 1.5, (count, 2))
    return Tasks(np.stack([-far[:, 0], height[:, 0]], 1), np.stack([far[:, 1], height[:, 1]], 1))


@dataclass(frozen=True)
class Attempt:
    """What happened in P tasks.

    success: (P,) bool. winds: (P,), which blew. wet: (P,) share of the steps on the lake.
    steps: (P,) until success, or all. paths: (P, n + 1, 2), which stand still after success.
    """

    success: np.ndarray
    winds: np.ndarray
    wet: np.ndarray
    steps: np.ndarray
    paths: np.ndarray


@torch.no_grad()
def attempt(agent: Agent, tasks: Tasks, steps: int, seed: int) -> Attempt:
    """Let an agent try all tasks side by side; success is to come within REACHED of the goal."""
    require(steps >= 1, f"A task has at least 1 step, not {steps}.")
    count = len(tasks)
    winds = draw_winds(count, np.random.default_rng(seed))
    position, goals = tasks.starts.copy(), torch.from_numpy(tasks.goals).float()
    taken, wet = np.full(count, steps), np.zeros(count)
    running, paths = np.arange(count), [position]
    for now in range(steps):
        state = torch.from_numpy(position[running]).float()
        if now % agent.replan_every == 0:
            decision = agent.decide(state, goals[running], running)
        action = agent.act(state, goals[running], decision, now % agent.replan_every).numpy()
        wet[running] += position[running, 1] < 0
        position = position.copy()
        position[running] = move(position[running], action, winds[running])
        paths.append(position)
        there = np.linalg.norm(position[running] - tasks.goals[running], axis=1) < REACHED
        taken[running[there]] = now + 1
        decision, running = decision[torch.from_numpy(~there)], running[~there]
        if not len(running):
            break
    success = ~np.isin(np.arange(count), running)
    return Attempt(success, winds, wet / taken, taken, np.stack(paths, 1))
