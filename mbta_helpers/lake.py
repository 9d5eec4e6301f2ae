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
from torch import Tensor

from mbta_helpers.datasets import Transitions
from mbta_helpers.errors import require
from mbta_helpers.evaluation import Agent, PlanningAgent
from mbta_helpers.mazes import Tasks
from mbta_helpers.networks import SkillModel
from mbta_helpers.planning import CEMConfig, Planner, PlannerConfig
from mbta_helpers.training import TrainingConfig
from mbta_helpers.windows import Windows

STEP = 0.5  # map units a step at full speed
DRIFT = 3.0  # map units a step on the lake: six times as fast as the point
JITTER = 0.5  # standard deviation of a command about the intended direction
REACHED = 1.5  # map units from the goal, which is success


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


def wander(episodes: int, steps: int, seed: int, noise: float = JITTER) -> Wanderings:
    """Points that walk or row in one random direction each, whatever the wind does.

    noise: standard deviation of each command about that direction.
    """
    require(episodes >= 1, f"There is at least 1 episode, not {episodes}.")
    require(steps >= 1, f"An episode has at least 1 step, not {steps}.")
    rng = np.random.default_rng(seed)
    position = rng.uniform([-4.0, -4.0], [4.0, 4.0], (episodes, 2))
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
    """From the land to a buoy 10 to 12 units east or west, which can be reached from the land."""
    rng = np.random.default_rng(seed)
    side = np.where(rng.random(count) < 0.5, 1.0, -1.0)
    far = rng.uniform(5.0, 6.0, (count, 2)) * side[:, None]
    start, goal = rng.uniform(0.5, 1.0, count), rng.uniform(-0.4, -0.1, count)
    return Tasks(np.stack([-far[:, 0], start], 1), np.stack([far[:, 1], goal], 1))


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


# -- what a model trained here believes -------------------------------------------------------

WINDOW = 4  # T
LIMIT = 40  # steps of a task; along the shore it takes about 20
TRAINING = TrainingConfig(
    window_length=WINDOW, skill_dim=4, hidden=64, model_hidden=64, gru_hidden=32, updates=800,
    batch_size=128, learning_rate=4e-3, beta=0.1, beta_warmup=400, settle_updates=600,
    settle_batch=256,
)  # fmt: skip
PLANNER = PlannerConfig(
    plan_length=6, replan_every=2, epsilon_penalty=0.3, time_penalty=1.0, variance_penalty=0.1,
    cem=CEMConfig(candidates=128, iterations=5, elites=16),
)  # fmt: skip


@dataclass(frozen=True)
class Afloat:
    """Windows that begin and stay on the lake, with skills of the posterior.

    first: (n, 2), s_0. z: (n, Z), one draw each. winds: (n,).
    """

    first: Tensor
    z: Tensor
    winds: np.ndarray


@torch.no_grad()
def skills_afloat(model: SkillModel, data: Wanderings, seed: int = 0) -> Afloat:
    """Of the data's first windows, those afloat, and a draw of z ~ q_φ(z|τ) for each."""
    windows = Windows(data.transitions, WINDOW, stride=10_000)
    batch = windows.gather(torch.arange(len(data.winds)))
    afloat = (batch.before[..., 1] < 0).all(1)
    q = model.posterior(batch.before[afloat], batch.actions[afloat])
    noise = torch.randn(q.loc.shape, generator=torch.Generator().manual_seed(seed))
    return Afloat(batch.first[afloat], q.loc + q.scale * noise, data.winds[afloat.numpy()])


def wind_in_skill(seen: Afloat) -> float:
    """Share of the wind's variance that a regression reads off z and s_0.

    It has linear and quadratic terms; it is fitted on two thirds and measured on the rest, so that
    it is about zero, or a little below, where z knows nothing.
    """
    inputs = torch.cat([seen.z, seen.first], 1)  # (n, Z + 2)
    products = (inputs[:, :, None] * inputs[:, None, :]).flatten(1)
    features = torch.cat([torch.ones(len(inputs), 1), inputs, products], 1).double()
    wind = torch.from_numpy(seen.winds).double()[:, None]
    fitted = 2 * len(inputs) // 3
    weights = torch.linalg.lstsq(features[:fitted], wind[:fitted], driver="gelsd").solution
    rest = wind[fitted:]
    left = (features[fitted:] @ weights - rest).square().mean()
    return 1 - (left / rest.var(correction=0)).item()


@torch.no_grad()
def doubt(model: SkillModel, seen: Afloat) -> float:
    """Mean standard deviation of x in p_ψ(s_T|s_0, z): how unsure the world model says it is."""
    return model.world_model(seen.first, seen.z).scale[:, 0].mean().item()


@dataclass(frozen=True)
class Beliefs:
    """What was imagined and what happened in P tasks.

    paths: (P, L + 1, 2), the first plans. promised: (P,) bool, whether they reach the goal.
    """

    paths: np.ndarray
    promised: np.ndarray
    attempt: Attempt


@torch.no_grad()
def hold_to_account(model: SkillModel, config: PlannerConfig, tasks: Tasks, seed: int) -> Beliefs:
    """Plan all tasks from their starts, then carry them out with replanning."""
    planner = Planner(model, config, WINDOW)
    start, goal = (torch.from_numpy(array).float() for array in (tasks.starts, tasks.goals))
    path = planner.plan(start, goal, torch.Generator().manual_seed(seed)).path
    promised = ((path[:, 1:] - goal[:, None]).norm(dim=-1) < REACHED).any(1)
    agent = PlanningAgent(planner, torch.Generator().manual_seed(seed))
    return Beliefs(path.numpy(), promised.numpy(), attempt(agent, tasks, LIMIT, seed))
