"""Evaluation: many tasks side by side in the simulator, success with intervals, failures by cause.

A skill chooser decides which skill each running episode carries out next; all its decisions of
one moment are one batch. The steps of the simulator are the only loop over episodes.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mbta_helpers.errors import require
from mbta_helpers.mazes import Maze, Tasks, shortest_path_length
from mbta_helpers.networks import SkillModel
from mbta_helpers.planning import Plan, Planner
from mbta_helpers.simulation import Bodies, Disturbance, begin

STUCK = 0.5  # cells; an episode that moves less than this in its last quarter is stuck
NEAR = 1.5  # cells; closer than this at the end is "late", farther "lost"


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a proportion by Wilson (1927, equation 8 ff.); (low, high)."""
    rate, spread = successes / trials, z * z / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def student_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of a few independent draws, by Student's t; values: (n, ...)."""
    free = len(values) - 1
    require(free >= 1, "An interval needs at least two numbers.")
    # The quantile of Student's distribution, from the sum of its density upwards of 0.
    x = np.arange(0.5e-4, 13.0, 1e-4)  # midpoints
    scale = math.gamma((free + 1) / 2) / math.gamma(free / 2) / math.sqrt(free * math.pi)
    density = scale * (1 + x**2 / free) ** (-(free + 1) / 2)
    quantile = x[np.searchsorted(density.cumsum() * 1e-4, 0.475)]
    half = quantile * values.std(0, ddof=1) / math.sqrt(free + 1)
    return values.mean(0) - half, values.mean(0) + half


class Agent(Protocol):
    """Acts in P episodes at once and decides anew every `replan_every` steps."""

    replan_every: int

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        """What the next steps carry out, (P, ...); state: (P, S), goal: (P, 2).

        running: (P,) the numbers of the episodes that still run, ascending; all at first.
        """

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        """The actions, (P, A), `step` steps after the decision."""


class SkillAgent:
    """Carries out skills, drawn from the prior or, for comparison, from N(0, I) in any state."""

    def __init__(
        self, model: SkillModel, replan_every: int, generator: torch.Generator, use_prior: bool
    ):
        self.model = model
        self.replan_every = replan_every
        self.generator = generator
        self.use_prior = use_prior

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        shape = (len(state), self.model.config.skill_dim)
        noise = torch.randn(shape, generator=self.generator)
        if not self.use_prior:
            return noise
        prior = self.model.prior(state)
        return prior.loc + prior.scale * noise

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        return self.model.policy.act(state, decision)


class PlanningAgent:
    """Carries out the first skill of each new plan, and takes up the last plan's search again.

    Where the last skill left the body where it was, it draws one from the prior instead.
    """

    def __init__(self, planner: Planner, generator: torch.Generator):
        self.planner = planner
        self.replan_every = planner.config.replan_every
        self.generator = generator
        self.plan: Plan | None = None
        self._running = np.zeros(0, int)

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        last, before = None, None
        if self.plan is not None:
            rows = torch.from_numpy(np.isin(self._running, running))
            last, before = self.plan.search.select(rows), self.plan.path[rows, 0]
        self.plan = self.planner.plan(state, goal, self.generator, last)
        self._running = running
        skill = self.plan.skills[:, 0]
        return skill if before is None else self._moving(state, before, skill)

    def _moving(self, state: Tensor, before: Tensor, skill: Tensor) -> Tensor:
        """The skill, or one of the prior's where the body is still where it was; all (P, ...)."""
        still = (state - before)[:, :2].norm(dim=1) < self.planner.config.least_move  # (P,)
        if not still.any():
            return skill
        prior = self.planner.model.prior(state)
        noise = torch.randn(prior.loc.shape, generator=self.generator)
        return torch.where(still[:, None], prior.loc + prior.scale * noise, skill)

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        return self.planner.model.policy.act(state, decision)


@dataclass(frozen=True)
class Evaluation:
    """What happened in N tasks.

    success: (N,) bool. steps: (N,) until success, or all. causes: (N,) "reached", "fell" (lay on
    its back), "stuck" (moved less than STUCK in its last quarter), "late" (nearer than NEAR at
    the end) or "lost".
    paths: N arrays (n + 1, 2). path_ratio: (N,), of their lengths to the shortest ways between
    their ends; NaN where an end is nearer to a wall than those ways come.
    decision_ms: planning time, milliseconds a decision of one episode.
    """

    tasks: Tasks
    success: np.ndarray
    steps: np.ndarray
    causes: np.ndarray
    paths: list[np.ndarray]
    path_ratio: np.ndarray
    decision_ms: np.ndarray

    def summary(self) -> dict:
        """The figures that are reported; None where nothing succeeded to be averaged."""
        successes, episodes = int(self.success.sum()), len(self.success)
        ratios = self.path_ratio[self.success & np.isfinite(self.path_ratio)]
        return {
            "successes": successes,
            "episodes": episodes,
            "success_rate": successes / episodes,
            "ci95": [round(bound, 4) for bound in wilson_interval(successes, episodes)],
            "mean_steps": float(self.steps[self.success].mean()) if successes else None,
            "path_ratio": float(ratios.mean()) if len(ratios) else None,
            "plan_ms_median": float(np.median(self.decision_ms)),
            "failures": dict(Counter(self.causes[~self.success].tolist())),
        }


@torch.no_grad()
def evaluate(
    agent: Agent,
    maze: Maze,
    tasks: Tasks,
    max_steps: int | None = None,
    progress: bool = False,
    seed: int = 0,
    disturbance: Disturbance | None = None,
) -> Evaluation:
    """Run all tasks side by side; success is the simulator's info["success"], or its rule.

    max_steps: the steps that each task may take, the maze's own number by default. seed: of the
    ants' headings at the start and of the pushes.
    """
    rng = np.random.default_rng(seed)
    bodies = begin(maze, tasks, rng)
    try:
        return _run(agent, maze, tasks, bodies, max_steps or maze.max_steps, progress, rng,
                    disturbance or Disturbance())  # fmt: skip
    finally:
        bodies.close()


def _run(
    agent: Agent,
    maze: Maze,
    tasks: Tasks,
    bodies: Bodies,
    limit: int,
    progress: bool,
    rng: np.random.Generator,
    disturbance: Disturbance,
) -> Evaluation:
    goals = torch.from_numpy(tasks.goals).float()
    paths = [[xy] for xy in bodies.states[:, :2].copy()]
    steps = np.full(len(tasks), limit)
    decision_ms = []
    running = np.arange(len(tasks))
    bar = tqdm(total=len(tasks), desc=f"tasks in {maze.name}", disable=not progress, unit="task")
    for now in range(limit):
        kicks = disturbance.kicks(len(tasks), now, rng)
        if kicks is not None:
            bodies.push(running, kicks[running])
        state, goal = torch.from_numpy(bodies.states[running]).float(), goals[running]
        if now % agent.replan_every == 0:
            start = time.perf_counter()
            decision = agent.decide(state, goal, running)
            decision_ms += [1e3 * (time.perf_counter() - start) / len(running)] * len(running)
        actions = agent.act(state, goal, decision, now % agent.replan_every).numpy()
        bodies.step(running, disturbance.motors * actions)
        for episode, xy in zip(running, bodies.states[running, :2], strict=True):
            paths[episode].append(xy)
        there = bodies.success[running]
        steps[running[there]] = now + 1
        bar.update(int(there.sum()))
        decision = decision[torch.from_numpy(~there)]
        running = running[~there]
        if not len(running):
            break
    bar.close()
    return _evaluation(maze, tasks, bodies, steps, [np.stack(path) for path in paths], decision_ms)


def _evaluation(
    maze: Maze,
    tasks: Tasks,
    bodies: Bodies,
    steps: np.ndarray,
    paths: list[np.ndarray],
    decision_ms: list[float],
) -> Evaluation:
    ends = zip(bodies.success, bodies.fallen(), paths, tasks.goals, strict=True)
    return Evaluation(
        tasks=tasks,
        success=bodies.success,
        steps=steps,
        causes=np.array([_cause(maze, *each) for each in ends]),
        paths=paths,
        path_ratio=np.array(
            [_path_ratio(maze, *each) for each in zip(tasks.starts, paths, strict=True)]
        ),
        decision_ms=np.array(decision_ms),
    )


def _path_ratio(maze: Maze, start: np.ndarray, path: np.ndarray) -> float:
    """The way that was walked to the shortest one; NaN where its ends touch a wall."""
    walked = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    shortest = shortest_path_length(maze, start, path[-1])
    return walked / max(shortest, 1e-9) if np.isfinite(shortest) else np.nan


def _cause(maze: Maze, success: bool, fallen: bool, path: np.ndarray, goal: np.ndarray) -> str:
    if success:
        return "reached"
    if fallen:
        return "fell"
    quarter = path[-max(len(path) // 4, 2) :]
    if np.ptp(quarter, axis=0).max() < STUCK * maze.side:
        return "stuck"
    return "late" if np.linalg.norm(path[-1] - goal) < NEAR * maze.side else "lost"


def table(summary: dict) -> str:
    """A summary as lines for a person."""
    low, high = summary["ci95"]
    failures = ", ".join(f"{count} {cause}" for cause, count in summary["failures"].items())
    lines = [
        f"{summary['preset']}, planner {summary['planner']}, seed {summary['seed']}",
        f"successes      {summary['successes']} of {summary['episodes']}",
        f"success rate   {summary['success_rate']:.3f}, 95 % interval {low:.3f} to {high:.3f}",
    ]
    if summary["successes"]:
        lines.append(f"steps to goal  {summary['mean_steps']:.0f} (mean over successes)")
    if summary["path_ratio"] is not None:
        ratio = f"{summary['path_ratio']:.2f} times the shortest"
        lines.append(f"path length    {ratio} (mean over successes)")
    lines += [
        f"decision       {summary['plan_ms_median']:.1f} ms (median, one episode's share)",
        f"failures       {failures or 'none'}",
    ]
    return "\n".join(lines)
