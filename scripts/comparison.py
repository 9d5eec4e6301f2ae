"""One world model of the maze's pictures, three ways to decide: parameters/comparison.json.

    python scripts/comparison.py [--seeds 0 1 2] [--tasks 3001] [--out FILE]

For each seed: 200,000 steps of play in PointMaze Medium, an RSSM of its pictures, and with that
RSSM skills of Part I on its states, plans of actions (PlaNet's way) and an actor that learns in
imagination (Dreamer's); each on the first 50 of the 100 tasks of scripts/reproduce.py and
scripts/part_two_table.py. Settings were chosen on play and training seed 100 and tasks of seed 77.
The first seed's world model and skills are kept in a folder beside the file. A row that is in the
file already is not made again. One core, about four minutes of processor time a seed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mbta_helpers.checkpoints import save_checkpoint, write_text
from mbta_helpers.datasets import STEPS, Transitions, play, versions
from mbta_helpers.evaluation import evaluate
from mbta_helpers.latent import macro, maze_agents
from mbta_helpers.latent.macro import MacroConfig, MacroModel
from mbta_helpers.latent.maze_pictures import coarsen, shown
from mbta_helpers.latent.rssm import State
from mbta_helpers.mazes import Tasks, get_maze, sample_tasks, shortest_path_length
from mbta_helpers.training import Trainer

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "comparison.json"
MAZE, TASKS = "pointmaze-medium", 50  # the first so many of the book's hundred
KINDS = ("skills", "plans", "dreams")


def probe(model: MacroModel, states: State, rows: Transitions) -> dict[str, float]:
    """How well the filtered states tell the place, and by a linear readout the velocity."""
    with torch.no_grad():
        error = (model.place(states.features) - torch.from_numpy(rows.states[:, :2])).norm(dim=1)
    inputs = np.c_[states.features.numpy(), np.ones(len(rows.states))]
    velocity = rows.states[:, 2:]
    fit = np.linalg.lstsq(inputs[::2], velocity[::2], rcond=None)[0]
    missed = velocity[1::2] - inputs[1::2] @ fit
    spread = velocity[1::2] - velocity[1::2].mean(0)
    return {
        "place_error_median": round(error.median().item(), 4),
        "place_error_99": round(error.quantile(0.99).item(), 4),
        "velocity_r2": round(1 - float((missed**2).sum() / (spread**2).sum()), 4),
    }


class Run:
    """What one seed's rows share: the play, the world model, and its states of the play."""

    def __init__(self, seed: int):
        self.seed, self.maze = seed, get_maze(MAZE)
        self.rows = coarsen(play(self.maze, STEPS["point"], seed))
        self.model = MacroModel(self.maze, MacroConfig(), seed)
        started = time.process_time()
        macro.train_model(self.model, shown(self.rows), seed)
        self.states = macro.filter_play(self.model, shown(self.rows))
        self.seconds = time.process_time() - started
        self.facts = probe(self.model, self.states, self.rows)
        self.generator = torch.Generator().manual_seed(seed)

    def plans(self) -> maze_agents.Watcher:
        return maze_agents.Plans(self.model, self.generator)

    def dreams(self) -> maze_agents.Watcher:
        learnt = maze_agents.GoalActorCritic(self.model, maze_agents.DREAMS, self.seed)
        learnt.learn(self.states)
        return maze_agents.Dreams(self.model, learnt)

    def skills(self) -> maze_agents.Watcher:
        rows = maze_agents.latent_play(self.model, self.rows, self.states)
        trainer = Trainer(maze_agents.TRAINING, rows, self.seed)
        self.skill_model = trainer.run()
        self.held_out = trainer.test()
        return maze_agents.Skills(self.model, self.skill_model, self.generator)


def judged(agent: maze_agents.Watcher, tasks_seed: int) -> dict:
    """Success on the tasks, of each, and how long each one's shortest way is."""
    maze = get_maze(MAZE)
    hundred = sample_tasks(maze, 100, tasks_seed)
    tasks = Tasks(hundred.starts[:TASKS], hundred.goals[:TASKS])
    ends = zip(tasks.starts, tasks.goals, strict=True)
    result = evaluate(agent, maze, tasks)
    return result.summary() | {
        "lengths": [round(shortest_path_length(maze, *each), 2) for each in ends],
        "success": result.success.astype(int).tolist(),
    }


def keep(run: Run, folder: Path, provenance: dict) -> None:
    """The world model and the skills of a run, at half precision."""
    for name, kind, network, config in (
        ("world-model", "macro model", run.model, asdict(run.model.config)),
        ("skills", "latent skills", run.skill_model, asdict(maze_agents.TRAINING)),
    ):
        tensors = getattr(network, "stored_tensors", network.state_dict)()
        tensors = {label: part.half() for label, part in tensors.items()}
        save_checkpoint(folder / f"{name}.safetensors", kind, tensors, config, provenance)


def described(arguments: list[str]) -> dict:
    return {
        "command": shlex.join(["python", "scripts/comparison.py", *arguments]),
        "date": date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "versions": versions() | {"python": sys.version.split()[0]},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, default=3001, help="seed of the tasks")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    made = described(arguments)
    runs = json.loads(options.out.read_text("utf-8"))["runs"] if options.out.exists() else []
    for seed in options.seeds:
        missing = [k for k in KINDS if not any((r["kind"], r["seed"]) == (k, seed) for r in runs)]
        if not missing:
            continue
        run = Run(seed)
        for kind in missing:
            started = time.process_time()
            agent = getattr(run, kind)()
            seconds = run.seconds + time.process_time() - started
            row = {"kind": kind, "seed": seed, "tasks": options.tasks,
                   "environment_steps": STEPS["point"], "seconds": round(seconds, 1),
                   "model_seconds": round(run.seconds, 1)}  # fmt: skip
            runs.append(row | judged(agent, options.tasks) | run.facts | {"made": made})
            text = ",\n".join(json.dumps(each) for each in runs)
            write_text(options.out, f'{{"runs": [\n{text}\n]}}\n')
            print(kind, seed, runs[-1]["successes"], runs[-1]["seconds"], flush=True)
            if kind == "skills" and seed == options.seeds[0]:
                keep(run, options.out.with_suffix(""), made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
