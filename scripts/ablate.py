"""What each part of the recipe is worth: mbta_helpers/parameters/ablations.json.

    python scripts/ablate.py [--maze pointmaze-large] [--variants NAME ...] [--seeds 21 22 23]
                             [--tasks 40] [--share S] [--minutes M] [--out FILE] [--list]

A cell is a maze, a variant and a training seed. The data is collected with the training seed, the
tasks have a seed of their own (TASK_SEEDS + the training seed, so that all variants of a seed
meet the same tasks). Every finished cell is written at once; one that is there already is not made
again. All variants of the first seed come first, then the next seed, so that a study that was
stopped is balanced. Trained models stay in runs/ablations.

`--share` shortens both phases of training, alike for all variants: 1 is the preset's own length.
By default it is 1 in PointMaze and a quarter in AntMaze, whose training is long.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mbta_helpers import ablations, datasets, evaluation, mazes, planning, presets
from mbta_helpers.checkpoints import locked, write_text
from mbta_helpers.datasets import Transitions, versions
from mbta_helpers.errors import require
from mbta_helpers.networks import SkillModel
from mbta_helpers.training import MODEL, Trainer, TrainingConfig, load_model
from mbta_helpers.variants import AbsoluteTrainer, JointTrainer, predict_absolute

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "ablations"
MAZES = {"pointmaze-large": 1.0, "antmaze-medium": 0.25}  # with the default of --share
SEEDS = (21, 22, 23)
TASK_SEEDS = 6000
TASKS = 40
LONGEST_PLAN = 60  # skills; a decision's time grows with them


@dataclass(frozen=True)
class Variant:
    """A change of the preset.

    training, planner: fields that differ. trainer: what trains. data: share of the steps.
    window_length: T; the plan keeps its length in steps, as far as LONGEST_PLAN allows, and H is
    the preset's or T, whichever is less. plan: factor of the plan's length. price: factor of β.
    penalties: factor of what a skill pays in a plan.
    """

    training: dict = field(default_factory=dict)
    planner: dict = field(default_factory=dict)
    trainer: type[Trainer] = Trainer
    data: float = 1.0
    window_length: int | None = None
    plan: float = 1.0
    price: float = 1.0
    penalties: float = 1.0


VARIANTS = {
    ablations.BASE: Variant(),
    # Of planning, with the base's parameters.
    "final cost": Variant(planner={"cost": "final"}),
    "half the plan": Variant(plan=0.5),
    "twice the plan": Variant(plan=2.0),
    "H 5": Variant(planner={"replan_every": 5}),
    "H 10": Variant(planner={"replan_every": 10}),
    "H 15": Variant(planner={"replan_every": 15}),
    "H 30": Variant(planner={"replan_every": 30}),
    "no support penalty": Variant(planner={"support_penalty": 0.0}),
    "no epsilon penalty": Variant(planner={"epsilon_penalty": 0.0}),
    "goal's support counts": Variant(planner={"cost": "min"}),  # the base itself in PointMaze
    "no warm start": Variant(planner={"warm_start": False}),
    "variance for support": Variant(planner={"support_penalty": 0.0, "variance_penalty": 30.0}),
    # Of training.
    "joint": Variant(trainer=JointTrainer),
    "absolute": Variant(trainer=AbsoluteTrainer),
    "Z 2": Variant({"skill_dim": 2}),
    "Z 4": Variant({"skill_dim": 4}),
    "Z 8": Variant({"skill_dim": 8}),
    "Z 16": Variant({"skill_dim": 16}),
    "beta 0.03": Variant({"beta": 0.03}),
    "beta 0.1": Variant({"beta": 0.1}),
    "beta 0.3": Variant({"beta": 0.3}),
    "beta 1": Variant({"beta": 1.0}),
    "beta 3": Variant({"beta": 3.0}),
    "data 1/8": Variant(data=1 / 8),
    "data 1/4": Variant(data=1 / 4),
    "data 1/2": Variant(data=1 / 2),
    "no waves": Variant({"wavelengths": ()}),
    "T 40": Variant(window_length=40),
    "T 30": Variant(window_length=30),
    "T 20": Variant(window_length=20),
    "T 10": Variant(window_length=10),
    "T 5": Variant(window_length=5),
    "T 10, beta/3": Variant(window_length=10, price=1 / 3),  # a nat costs the same a step
    "T 10, penalties/3": Variant(window_length=10, penalties=1 / 3),  # as much a step of a plan
}


@dataclass(frozen=True)
class Settings:
    """A variant in a maze: everything that decides what a cell measures."""

    training: TrainingConfig
    planner: planning.PlannerConfig
    trainer: type[Trainer]
    steps: int


def settings(variant: Variant, maze: mazes.Maze, share: float) -> Settings:
    """The preset with the variant's changes."""
    preset = presets.get_preset(maze.name)
    base, planner = preset.training, preset.planner
    length = variant.window_length or base.window_length
    training = replace(
        base,
        window_length=length,
        beta=variant.price * base.beta,
        updates=max(1, round(share * base.updates)),
        settle_updates=max(1, round(share * base.settle_updates)),
    )
    training = replace(training, **variant.training)
    plan = variant.plan * planner.plan_length * base.window_length / length
    options = {
        "plan_length": min(round(plan), LONGEST_PLAN),
        "replan_every": min(planner.replan_every, length),
    }
    for name in ("epsilon_penalty", "support_penalty", "time_penalty"):
        options[name] = variant.penalties * getattr(planner, name)
    if planner.variance_penalty == 0 and "variance_penalty" in variant.planner:
        scaled = variant.planner["variance_penalty"] * maze.side**2  # beside squared distances
        options["variance_penalty"] = scaled
    planner = replace(planner, **(options | variant.planner | replanning(variant, length)))
    return Settings(training, planner, variant.trainer, round(variant.data * collected(maze)))


def replanning(variant: Variant, length: int) -> dict[str, int]:
    """H where the variant sets it; never more than T."""
    asked = variant.planner.get("replan_every")
    return {} if asked is None else {"replan_every": min(asked, length)}


def collected(maze: mazes.Maze) -> int:
    return datasets.STEPS[maze.body]


def wanted(maze: mazes.Maze, share: float) -> list[str]:
    """The variants of a maze, without those that are the base itself under another name."""
    base = settings(VARIANTS[ablations.BASE], maze, share)
    return [
        name
        for name, variant in VARIANTS.items()
        if name == ablations.BASE or settings(variant, maze, share) != base
    ]


# -- one cell -------------------------------------------------------------------------------------


def played(maze: mazes.Maze, seed: int) -> Transitions:
    """The data of a training seed: loaded where it is, collected where it is not yet."""
    dataset = f"mbta/{maze.name.replace('-', '/')}-seed{seed}-v0"
    if not (datasets.get_dataset_path(dataset) / "data").exists():
        datasets.collect(maze, collected(maze), seed, dataset)
    return datasets.load(dataset)


def first_steps(transitions: Transitions, steps: int) -> Transitions:
    """The first episodes, as many as `steps` have room for."""
    count = int(np.searchsorted(np.cumsum(transitions.lengths), steps, side="right"))
    require(count >= 2, f"{steps} steps are less than two episodes.")
    lengths = transitions.lengths[:count]
    return Transitions(
        transitions.states[: lengths.sum() + count],
        transitions.actions[: lengths.sum()],
        lengths,
        transitions.goals[:count],
    )


def digest(*parts: object) -> str:
    """A short hash of settings, which tells a cell of today's recipe from one of an older."""
    text = json.dumps([part if isinstance(part, (int, str)) else asdict(part) for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def recipe(chosen: Settings, tasks: int) -> str:
    """The digest of everything in a cell besides the seed."""
    return digest(
        chosen.training, chosen.planner, chosen.trainer.__name__, chosen.steps, tasks, TASK_SEEDS
    )


def run_folder(maze: mazes.Maze, chosen: Settings, seed: int) -> Path:
    """Where the model of these settings lies: the planner's variants find that of the base."""
    name = digest(chosen.training, chosen.trainer.__name__, chosen.steps)
    return RUNS / f"{maze.name}-seed{seed}-{name}"


def train(maze: mazes.Maze, chosen: Settings, seed: int) -> tuple[SkillModel, dict]:
    """The model of a cell and its provenance: loaded where it is, trained where it is not yet."""
    out = run_folder(maze, chosen, seed)
    if not (out / MODEL).exists():
        transitions = first_steps(played(maze, seed), chosen.steps)
        chosen.trainer(chosen.training, transitions, seed).run(out, command=command())
    trained = load_model(out)
    model = predict_absolute(trained.model) if chosen.trainer is AbsoluteTrainer else trained.model
    return model, trained.provenance


@torch.no_grad()
def crossings(model: SkillModel, maze: mazes.Maze, states: np.ndarray, skills: int = 8) -> float:
    """Share of imagined moves that cross a wall, over plans of skills drawn from the prior."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(states), (400,), generator=generator)
    epsilon = torch.randn((400, 8, skills, model.config.skill_dim), generator=generator)
    first = torch.from_numpy(states)[rows]
    xy = planning.imagine(model, first, epsilon).path[..., :2].double().numpy()
    along = np.linspace(0, 1, 17)[:, None]
    line = xy[:, :, :-1, None] * (1 - along) + xy[:, :, 1:, None] * along
    return float(1 - maze.is_free(line).all(-1).mean())


def measure(
    maze: mazes.Maze, name: str, seed: int, tasks: int, share: float, clock=time.perf_counter
) -> dict:
    """Train where needed, plan, and say what happened."""
    chosen = settings(VARIANTS[name], maze, share)
    model, made = train(maze, chosen, seed)
    task_seed = TASK_SEEDS + seed
    planner = planning.Planner(model, chosen.planner, chosen.training.window_length)
    agent = evaluation.PlanningAgent(planner, torch.Generator().manual_seed(task_seed))
    started = clock()
    outcome = evaluation.evaluate(
        agent, maze, mazes.sample_tasks(maze, tasks, task_seed), seed=task_seed
    )
    summary = outcome.summary()
    for key, digits in (("mean_steps", 1), ("path_ratio", 3), ("plan_ms_median", 1)):
        summary[key] = None if summary[key] is None else round(summary[key], digits)
    del summary["success_rate"]
    return {
        "maze": maze.name,
        "variant": name,
        "seed": seed,
        "task_seed": task_seed,
        "recipe": recipe(chosen, tasks),
        "share": share,
        "T": chosen.training.window_length,
        "H": chosen.planner.replan_every,
        "L": chosen.planner.plan_length,
        "steps": chosen.steps,
        **summary,
        "wall_crossings": round(crossings(model, maze, played(maze, seed).states), 4),
        "held_out": made["held_out"],
        "data": made["data"],
        "seconds": {"training": made["seconds"], "tasks": round(clock() - started, 1)},
    }


# -- the study ------------------------------------------------------------------------------------


def command() -> str:
    return shlex.join(["python", "scripts/ablate.py", *sys.argv[1:]])


def stored(path: Path) -> dict:
    """The table as it is, or an empty one."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {"runs": [], "cells": []}


def add(path: Path, cell: dict) -> None:
    """Put a finished cell into the table, the whole file anew or not at all.

    Which command, versions and day made it stands once among the runs, and the cell has its number.
    """
    table = stored(path)
    run = {
        "command": command(),
        "date": date.today().isoformat(),
        "versions": versions() | {"python": sys.version.split()[0]},
        "threads": torch.get_num_threads(),
    }
    if run not in table["runs"]:
        table["runs"].append(run)
    key = ("maze", "share", "seed", "variant")
    others = [old for old in table["cells"] if any(old[name] != cell[name] for name in key)]
    table["cells"] = others
    table["cells"].append(cell | {"run": table["runs"].index(run)})
    runs, cells = (",\n".join(json.dumps(row) for row in table[key]) for key in ("runs", "cells"))
    write_text(path, f'{{"runs": [\n{runs}\n],\n"cells": [\n{cells}\n]}}\n')


def missing(path: Path, wanted: dict[str, str], maze: str, seeds: list[int]) -> list:
    """(seed, variant) of cells that are not there: all variants of a seed, then the next seed.

    wanted: the recipe of each variant; a cell of another recipe counts as missing.
    """
    cells = ablations.read_cells(maze, path)
    done = {(cell["seed"], cell["variant"], cell["recipe"]) for cell in cells}
    return [
        (seed, name)
        for seed in seeds
        for name, digest in wanted.items()
        if (seed, name, digest) not in done
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--maze", default="pointmaze-large", choices=list(MAZES))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--share", type=float, help="of the preset's updates")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, default=ablations.TABLE)
    parser.add_argument("--list", action="store_true", help="name what is missing, and stop")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    maze = mazes.get_maze(options.maze)
    share = MAZES[options.maze] if options.share is None else options.share
    recipes = {
        name: recipe(settings(VARIANTS[name], maze, share), options.tasks)
        for name in wanted(maze, share)
        if options.variants is None or name in options.variants
    }
    todo = missing(options.out, recipes, options.maze, options.seeds)
    started = time.monotonic()
    for seed, name in todo:
        if options.list:
            print(f"seed {seed}, {name}")
            continue
        if time.monotonic() - started > 60 * options.minutes:
            print("The minutes are over.")
            break
        cell = measure(maze, name, seed, options.tasks, share)
        with locked(options.out):
            add(options.out, cell)
        print(f"seed {seed}, {name}: {cell['successes']} of {cell['episodes']}, "
              f"{cell['failures']}, {cell['seconds']}", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
