"""Run the baselines and the variants of the planner for chapter 6, and write book/baselines.json.

    python scripts/baseline_results.py baselines [--episodes 100]  # no skills, on the three mazes
    python scripts/baseline_results.py variants [--episodes 40]    # of the planner, on Medium

The baselines learn from the dataset of the preset's maze and get the tasks of scripts/reproduce.py.
The variants use the shipped parameters and get other tasks. What is in the file already is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from mbta_helpers import baselines, presets
from mbta_helpers.checkpoints import locked, write_text
from mbta_helpers.datasets import Transitions, load_or_collect, versions
from mbta_helpers.evaluation import Agent, PlanningAgent, evaluate
from mbta_helpers.mazes import get_maze, sample_tasks
from mbta_helpers.planning import CEMConfig, Planner, PlannerConfig

OUT = Path(__file__).resolve().parents[1] / "book" / "baselines.json"
MAZES = ("pointmaze-umaze", "pointmaze-medium", "pointmaze-large")
TEST_SEED, VARIANT_SEED = 3001, 3002
HORIZON, REPLAN = 60, 20  # steps that the one-step model looks ahead, and between its plans


def equal_budget(planner: PlannerConfig) -> baselines.PrimitivePlannerConfig:
    """Primitive actions with as many model evaluations a decision as planning with skills."""
    evaluations = planner.cem.candidates * planner.cem.iterations * planner.plan_length
    candidates = evaluations // (planner.cem.iterations * HORIZON)
    search = CEMConfig(
        candidates=candidates,
        iterations=planner.cem.iterations,
        elites=max(2, candidates * planner.cem.elites // planner.cem.candidates),
    )
    return baselines.PrimitivePlannerConfig(horizon=HORIZON, replan_every=REPLAN, cem=search)


def baseline_agents(
    transitions: Transitions, preset: presets.Preset, seed: int
) -> Iterator[tuple[str, int, Agent]]:
    """Each baseline, trained: its name, its model evaluations a decision, and the agent.

    Their networks see the same waves of the map position as the skills' networks.
    """
    training = baselines.BaselineConfig(wavelengths=preset.training.wavelengths)
    policy = baselines.train_goal_policy(transitions, seed, training)
    yield "cloning", 0, baselines.GoalPolicyAgent(policy)
    model = baselines.train_one_step_model(transitions, seed, training)
    generator = torch.Generator().manual_seed(seed)
    config = equal_budget(preset.planner)
    evaluations = config.cem.candidates * config.cem.iterations * config.horizon
    agent = baselines.PrimitivePlanningAgent(model, config, generator)
    yield "primitive", evaluations, agent


def variants(planner: PlannerConfig) -> dict[str, PlannerConfig]:
    """Planners that differ from the preset's in one thing."""
    none = {"epsilon_penalty": 0.0, "variance_penalty": 0.0, "support_penalty": 0.0}
    changes = {
        "as shipped": {},
        "cost at the last state": {"cost": "final"},
        "replan every 10": {"replan_every": 10},
        "replan every 30": {"replan_every": 30},
        "no warm start": {"warm_start": False},
        "no penalty but time": none,
        "support and time penalty alone": {"epsilon_penalty": 0.0, "variance_penalty": 0.0},
    }
    return {name: replace(planner, **change) for name, change in changes.items()}


def run(agent: Agent, maze_name: str, episodes: int, seed: int, **what: object) -> dict:
    """Evaluate and describe."""
    maze = get_maze(maze_name)
    outcome = evaluate(agent, maze, sample_tasks(maze, episodes, seed)).summary()
    print(maze_name, what, f"{outcome['successes']} of {outcome['episodes']}", flush=True)
    return {
        **what,
        **outcome,
        "maze": maze_name,
        "seed": seed,
        "command": "python scripts/baseline_results.py " + " ".join(sys.argv[1:]),
        "versions": versions(),
        "machine": f"{platform.machine()}, one thread",
        "date": date.today().isoformat(),
    }


def store(key: str, row: dict) -> None:
    """Put one row into the file."""
    with locked(OUT):
        results = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
        write_text(OUT, json.dumps(results | {key: row}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("step", choices=("baselines", "variants"))
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--presets", nargs="+", default=list(MAZES), choices=MAZES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.step == "baselines":
        for name in arguments.presets:
            agents = baseline_agents(load_or_collect(name), presets.get_preset(name), seed=0)
            for baseline, evaluations, agent in agents:
                what = {"kind": "baseline", "name": baseline, "evaluations": evaluations}
                row = run(agent, name, arguments.episodes, TEST_SEED, **what)
                store(f"{name}, {baseline}", row)
        return
    name = "pointmaze-medium"
    trained = presets.load_shipped(name)
    for variant, config in variants(presets.get_preset(name).planner).items():
        planner = Planner(trained.model, config, trained.config.window_length)
        agent = PlanningAgent(planner, torch.Generator().manual_seed(0))
        what = {"kind": "variant", "name": variant}
        row = run(agent, name, arguments.episodes, VARIANT_SEED, **what)
        store(f"{name}, {variant}", row)


if __name__ == "__main__":
    main()
