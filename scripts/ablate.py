"""What each part of the recipe is worth on PointMaze Large: book/ablations.json.

    python scripts/ablate.py

Trains without the waves of the map position (training seed 0, the data of the shipped
parameters), and changes the cost and penalties of the planner with the shipped ones. For each: how
often a straight line between two imagined states crosses a wall, over skills drawn from the prior,
and success over TASKS tasks of a seed of their own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mbta_helpers import datasets, evaluation, mazes, planning, presets, training
from mbta_helpers.checkpoints import write_text

ROOT = Path(__file__).resolve().parents[1]
PRESET, SEED, TASK_SEED, TASKS = "pointmaze-large", 0, 4052, 50


def crossings(model, maze: mazes.Maze, windows, skills: int = 8) -> float:
    """Share of imagined moves that cross a wall, over plans of skills drawn from the prior."""
    generator = torch.Generator().manual_seed(SEED)
    first = windows.sample(400, generator).first
    epsilon = torch.randn((400, 8, skills, model.config.skill_dim), generator=generator)
    with torch.no_grad():
        xy = planning.imagine(model, first, epsilon).path[..., :2].double().numpy()
    along = np.linspace(0, 1, 17)[:, None]
    line = xy[:, :, :-1, None] * (1 - along) + xy[:, :, 1:, None] * along
    return float(1 - maze.is_free(line).all(-1).mean())


def success(model, config: planning.PlannerConfig, window_length: int, maze: mazes.Maze) -> dict:
    planner = planning.Planner(model, config, window_length)
    agent = evaluation.PlanningAgent(planner, torch.Generator().manual_seed(TASK_SEED))
    tasks = mazes.sample_tasks(maze, TASKS, TASK_SEED)
    return evaluation.evaluate(agent, maze, tasks).summary()


def main() -> None:
    torch.set_num_threads(1)
    preset = presets.get_preset(PRESET)
    maze = mazes.get_maze(preset.maze)
    transitions = datasets.play(maze, 200_000, SEED)
    plain = replace(preset.training, wavelengths=())
    shipped = presets.load_shipped(PRESET).model
    rows = {
        "as shipped": (preset.training, preset.planner),
        "without the support penalty": (
            preset.training,
            replace(preset.planner, support_penalty=0.0),
        ),
        "variance penalty instead of support": (
            preset.training,
            replace(preset.planner, support_penalty=0.0, variance_penalty=30.0),
        ),
        "cost at the plan's end": (preset.training, replace(preset.planner, cost="final")),
        "without waves of the position": (plain, preset.planner),
    }
    models = {preset.training: shipped}
    results = {"date": date.today().isoformat(), "command": "python scripts/ablate.py",
               "preset": PRESET, "seed": SEED, "task_seed": TASK_SEED, "rows": {}}  # fmt: skip
    out = ROOT / "book" / "ablations.json"
    if out.exists():  # what is there already is kept
        results["rows"] = json.loads(out.read_text())["rows"]
    for name, (config, planner) in rows.items():
        if name in results["rows"]:
            continue
        trainer = training.Trainer(config, transitions, SEED)
        if config not in models:
            models[config] = trainer.run()
        outcome = success(models[config], planner, config.window_length, maze)
        crossed = round(crossings(models[config], maze, trainer.windows), 4)
        results["rows"][name] = outcome | {"wall_crossings": crossed}
        print(name, results["rows"][name], flush=True)
        write_text(out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
