"""Make the shipped parameters and the results page again, from collecting to the table.

    python scripts/reproduce.py train      # collect and train: every preset, its seeds
    python scripts/reproduce.py ship       # seed 0 becomes the package's parameters
    python scripts/reproduce.py evaluate   # 100 tasks each: planners, seeds
    python scripts/reproduce.py page       # book/results.md from book/results.json

Tasks come from TEST_SEED, seeds on which nothing was developed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

from minari.storage import get_dataset_path

from mbta_helpers import ablations
from mbta_helpers.checkpoints import load_checkpoint, locked, save_checkpoint, write_text
from mbta_helpers.presets import PARAMETERS, get_preset, shipped
from mbta_helpers.training import MODEL

KIND = "skill model"
ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs"
RESULTS = ROOT / "book" / "results.json"
BASELINES = ROOT / "book" / "baselines.json"  # written by scripts/baseline_results.py
PAGE = ROOT / "book" / "results.md"
MAZES = ("pointmaze-umaze", "pointmaze-medium", "pointmaze-large")
ANTS = ("antmaze-umaze", "antmaze-medium", "antmaze-large")
SEEDS = dict.fromkeys(MAZES, (0, 11, 12, 13)) | {
    "antmaze-umaze": (0,),
    "antmaze-medium": (0, 11, 12),
    "antmaze-large": (0,),
}
PLAIN = ("random cells", [])
CORNER = ("corner to corner", ["--tasks", "corner"])
DISTURBED = (
    ("random cells, pushed", ["--push", "1.5"]),
    ("random cells, weaker motors", ["--motors", "0.8"]),
)
TEST_SEED = dict.fromkeys(MAZES, 3001) | dict.fromkeys(ANTS, 3101)
EPISODES = 100


def mbta(*arguments: str) -> str:
    """Run a command of the package; returns what it prints."""
    print("mbta", shlex.join(arguments), flush=True)
    command = [sys.executable, "-m", "mbta_helpers", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def dataset(maze: str, seed: int) -> str:
    return f"mbta/{maze.replace('-', '/')}-seed{seed}-v0"


def train(presets: list[str]) -> None:
    """Collect and train anew for each seed; what is there already is kept."""
    for preset in presets:
        for seed in SEEDS[preset]:
            out = RUNS / f"{preset}-seed{seed}"
            if (out / MODEL).exists():
                continue
            data = dataset(preset, seed)
            if not (get_dataset_path(data) / "data").exists():
                mbta("collect", preset, "--seed", str(seed), "--out", data)
            mbta("train", "--preset", preset, "--dataset", data, "--seed", str(seed),
                 "--out", str(out.relative_to(ROOT)))  # fmt: skip


def ship(presets: list[str]) -> None:
    """Put seed 0's parameters into the package, with a sidecar that a person can read.

    An ant's networks are large: their weights are stored in float16, the normaliser's statistics
    as they are.
    """
    for preset in presets:
        source, target = RUNS / f"{preset}-seed0" / MODEL, PARAMETERS / preset
        target.mkdir(parents=True, exist_ok=True)
        header = load_checkpoint(source, KIND)
        if preset.startswith("antmaze"):
            tensors = {
                name: tensor if name.startswith("normaliser.") else tensor.half()
                for name, tensor in header.tensors.items()
            }
            save_checkpoint(target / MODEL, KIND, tensors, header.config, header.provenance)
        else:
            shutil.copy(source, target / MODEL)
        sidecar = {
            "collect": f"mbta collect {preset} --seed 0 --out {dataset(preset, 0)}",
            **header.provenance,
            "config": header.config,
        }
        write_text(target / "provenance.json", json.dumps(sidecar, indent=2) + "\n")


def rows_of(preset: str) -> list[tuple[str, str, str, list[str]]]:
    """What is evaluated: parameters, planner, kind of tasks, and options of the command."""
    others = [
        (f"seed {seed}", ["--checkpoint", f"runs/{preset}-seed{seed}"])
        for seed in SEEDS[preset][1:]
    ]
    if preset in MAZES:
        rows = [("shipped", planner, "", []) for planner in ("cem", "prior", "random")]
        return rows + [(name, "cem", "", options) for name, options in others]
    disturbed = DISTURBED if preset == "antmaze-medium" else ()
    rows = [("shipped", "cem", *kind) for kind in (PLAIN, CORNER, *disturbed)]
    rows += [("shipped", "prior", *PLAIN)]
    return rows + [
        (name, "cem", tasks, options + more)
        for name, options in others
        for tasks, more in (PLAIN, CORNER)
    ]


def stored_results() -> dict[str, dict]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def evaluate(presets: list[str]) -> None:
    """Evaluate the shipped parameters in every way, and each seed with CEM.

    What is there already for the same parameters and the same settings of the planner is kept. The
    table is read anew for each row, so that presets can be evaluated side by side.
    """
    for preset in presets:
        for name, planner, tasks, options in rows_of(preset):
            key = ", ".join(part for part in (preset, name, planner, tasks) if part)
            folder = PARAMETERS / preset if name == "shipped" else ROOT / options[1]
            model = digest((folder / MODEL).read_bytes())
            settings = digest(json.dumps(asdict(get_preset(preset).planner)).encode())
            made = stored_results().get(key, {})
            if (made.get("model"), made.get("settings")) == (model, settings):
                continue
            arguments = ["evaluate", "--preset", preset, *options, "--episodes", str(EPISODES),
                         "--seed", str(TEST_SEED[preset]), "--planner", planner]  # fmt: skip
            outcome = json.loads(mbta(*arguments, "--json"))
            row = outcome | {
                "parameters": name,
                "protocol": tasks,
                "model": model,
                "settings": settings,
                "command": "mbta " + shlex.join(arguments),
                "date": date.today().isoformat(),
                "machine": f"{platform.machine()}, one thread",
            }
            with locked(RESULTS):
                write_text(RESULTS, json.dumps(stored_results() | {key: row}, indent=1) + "\n")


HEAD = """# Results

`scripts/reproduce.py` wrote this page: rows of skills from `mbta evaluate`, the others
from `scripts/baseline_results.py` and `scripts/ablate.py`. {episodes} tasks a row, start and goal
in random cells. The tasks' seed is {point_seed} for the point and {ant_seed} for the ant; nothing
was developed on them. The recipe was developed
with training seeds 0 and 1 on Large and 0 to 2 on Medium: seeds 11 to 13, fresh runs of `collect`
and `train` with data and training of that seed, are the rows that tell about a new training run.

An episode may take 600 steps on the point's UMaze and Medium, 800 on its Large, and 1000 with the
ant. Success is the simulator's `info["success"]`: within 0.45 map units of the goal. The interval
is Wilson's, 95 %. *Steps* and *path* are means over the successes; *path* is the walked length
over that of the shortest way. Training times were taken while other programs ran.

*shipped* are the parameters in the package (training seed 0). Failures: *fell* lay on its back at
the end, *stuck* moved less than half a cell in its last quarter, *late* ended within one and a
half cells of the goal, *lost* farther. *Corner to corner* are tasks from cell (1, 1) to the far
corner; *pushed* is a kick of 1.5 map units a second into a random direction every 100 steps; of
*weaker motors* 80 % of each action arrive. The ant's recipe was developed on Medium with training
seed 0, whose rows are marked *shipped*; its other rows on Medium are of fresh runs of `collect` and
`train`. Seed 11 was used, with other tasks, to choose the planner's `cost`, since many of the tasks
of this page had ended *late* (the rows before that are in commit 3c63f90). UMaze and Large have one
training run each, which does not tell how much runs differ. The
baselines *cloning* and *primitive* see the same sines of the position as the skills' networks, and
were trained once each, on the data of the shipped parameters.

"""


def page() -> str:
    """The results page, in Markdown."""
    results = list(stored_results().values())
    baselines = [
        {"parameters": "trained anew", "planner": row["name"], "preset": row["maze"]} | row
        for row in json.loads(BASELINES.read_text()).values()
        if row["kind"] == "baseline"
    ]
    seeds = {"point_seed": TEST_SEED[MAZES[0]], "ant_seed": TEST_SEED[ANTS[0]]}
    lines = [HEAD.format(episodes=EPISODES, **seeds)]
    for preset in filter(set(shipped()).__contains__, (*MAZES, *ANTS)):
        rows = [row for row in results + baselines if row["preset"] == preset]
        if not rows:
            continue
        commands = sorted({row["command"] for row in rows})
        lines += [f"## {preset}", "", TABLE_HEAD, *map(table_row, rows), ""]
        lines += ["Commands:", "", "```bash", *commands, "```", "", sidecar(preset), ""]
    return "\n".join(lines + variant_lines() + ablation_lines())


def variant_lines() -> list[str]:
    """Changes of the planner on Medium, on tasks of another seed, as lines of Markdown."""
    rows = [row for row in json.loads(BASELINES.read_text()).values() if row["kind"] == "variant"]
    rows = [row | {"parameters": "shipped", "planner": row["name"]} for row in rows]
    seeds = ", ".join(sorted({str(row["seed"]) for row in rows}))
    return [
        "## Variants of the planner on Medium",
        "",
        f"The shipped parameters on tasks of seed {seeds}. The first row and the first row of the "
        "table above are the same planner on other tasks.",
        "",
        TABLE_HEAD,
        *map(table_row, rows),
        "",
    ]


def ablation_lines() -> list[str]:
    """What each part of the recipe is worth, as lines of Markdown."""
    lines = ["## What each part is worth", "", ABLATION_NOTE, ""]
    for maze in (*MAZES, *ANTS):
        cells = ablations.read_cells(maze)
        if cells:
            lines += [f"### {maze}", "", *ablation_table(cells), ""]
    return lines


ABLATION_NOTE = (
    "Changes of one thing, on tasks of their own; `share` is the part of the preset's updates. The "
    "seeds of data and training are of their own too, but for the ant's rows with a share of 1, "
    "whose models are those of the rows above: there the planner alone varies. The interval is the "
    "wider of Wilson's over all tasks and Student's over the seeds. Imagined moves are those of "
    "eight skills drawn from the prior, one after the other, from states of the data; the world "
    "model has no map, so a move through a wall is one that it believes in. "
    "[Chapter 8](../notebooks/08_what_makes_it_work.ipynb) reads the table, which "
    "`scripts/ablate.py` made."
)


def ablation_table(cells: list[dict]) -> list[str]:
    """The cells of one maze, pooled over their seeds."""
    lines = [
        "| variant | share | seeds | successes | 95 % interval | through walls |",
        "|---|---|---|---|---|---|",
    ]
    for share, study in ablations.studies(cells).items():
        for name, row in ablations.pooled(study).items():
            walls = [cell["wall_crossings"] for cell in study if cell["variant"] == name]
            lines.append(
                f"| {name} | {share:g} | {', '.join(map(str, row.seeds))} | {row.successes} of "
                f"{row.episodes} | {row.low:.2f} to {row.high:.2f} "
                f"| {100 * sum(walls) / len(walls):.1f} % |"
            )
    return lines


COLUMNS = (
    "parameters", "planner", "successes", "rate", "95 % interval", "steps", "path", "failures",
    "date",
)  # fmt: skip
TABLE_HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def table_row(row: dict) -> str:
    low, high = row["ci95"]
    steps = "–" if row["mean_steps"] is None else f"{row['mean_steps']:.0f}"
    path = "–" if row["path_ratio"] is None else f"{row['path_ratio']:.2f}"
    failures = ", ".join(f"{count} {cause}" for cause, count in row["failures"].items()) or "none"
    kind = filter(None, (row["planner"], row.get("protocol")))
    return (
        f"| {row['parameters']} | {', '.join(kind)} | {row['successes']} of {row['episodes']} "
        f"| {row['success_rate']:.2f} | {low:.2f} to {high:.2f} | {steps} | {path} "
        f"| {failures} | {row['date']} |"
    )


def sidecar(preset: str) -> str:
    """Where the shipped parameters of a preset come from, in words."""
    made = json.loads((PARAMETERS / preset / "provenance.json").read_text())
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return (
        f"The shipped parameters were made by `{made['collect']}` and `{made['command']}` "
        f"(data digest {made['data']}) in {made['seconds']:.0f} s of training on "
        f"{made['threads']} thread, with {versions}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("step", choices=("train", "ship", "evaluate", "page"))
    parser.add_argument("--presets", nargs="+", default=[*MAZES, *ANTS], choices=[*MAZES, *ANTS])
    arguments = parser.parse_args()
    if arguments.step == "page":
        write_text(PAGE, page())
    else:
        {"train": train, "ship": ship, "evaluate": evaluate}[arguments.step](arguments.presets)


if __name__ == "__main__":
    main()
