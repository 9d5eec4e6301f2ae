"""Run chapters with other training seeds and write how much their numbers vary.

    python scripts/spreads.py [01 03 …] [--seeds 41 42 43] [--out book/spreads.json]

A chapter has one line `seed = N`, which all its trainings use, and a dictionary `measured` of the
numbers for which it asserts intervals. This script executes the chapter once for each seed, from
the top, and stores min, median and max of every number over the seeds. An assertion that fails is
reported and does not stop the run, so that the spread is known where an interval is too narrow. A
seed that is done is not run again unless the chapter's code or the data have changed. Other seeds
than a chapter's own and those of its shipped runs are the ones that tell. One core, about one to
three minutes a seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import sys
from datetime import date
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from tqdm import tqdm

from mbta_helpers.checkpoints import locked, write_text
from mbta_helpers.datasets import load_or_collect, versions
from mbta_helpers.errors import require

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "book" / "spreads.json"
CHAPTERS = ("01", "03", "04", "08", "13", "14", "15", "16", "18")
PLAY = dict.fromkeys(("01", "03", "04"), "pointmaze-medium")  # what a chapter learns from
SEED = re.compile(r"^seed = \d+", re.MULTILINE)
PRINT = "import json; print(json.dumps(measured, default=lambda x: np.asarray(x).tolist()))"


def chapter_path(number: str) -> Path:
    """The notebook of a chapter, from its number."""
    found = sorted((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    require(len(found) == 1, f"There is no chapter {number}: one of {', '.join(CHAPTERS)}.")
    return found[0]


def with_seed(notebook, seed: int):
    """Replace the chapter's seed, in place, and let a last cell print what was measured."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lines = [cell for cell in cells if SEED.search(cell.source)]
    count = sum(len(SEED.findall(cell.source)) for cell in lines)
    require(count == 1, f"A chapter needs one line 'seed = N', and this one has {count}.")
    lines[0].source = SEED.sub(f"seed = {seed}", lines[0].source)
    notebook.cells.append(nbformat.v4.new_code_cell(PRINT))
    return notebook


def run(path: Path, seed: int) -> tuple[dict, list[str]]:
    """The numbers measured with a seed, and the assertions that failed; other errors are raised."""
    notebook = with_seed(nbformat.read(path, as_version=4), seed)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        allow_errors=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    failed = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type != "error":
                continue
            trace = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(output.traceback))
            where = re.search(r"^-+>\s*\d+\s+(.*)$", trace, re.MULTILINE)
            line = where.group(1).strip() if where else cell.source[:60]
            require(output.ename == "AssertionError", f"{path.name}: {output.ename} in: {line}")
            failed.append(line)
    text = "".join(out.text for out in notebook.cells[-1].outputs if out.output_type == "stream")
    return json.loads(text), failed


def spread(runs: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Min, median and max of each number over all seeds; a number may be a list of numbers."""
    found = [one["measured"] for one in runs.values()]
    rows = {}
    for name in dict.fromkeys(name for one in found for name in one):
        values = np.concatenate([np.ravel(one[name]) for one in found if name in one])
        low, middle, high = (float(f"{f(values):.4g}") for f in (np.min, np.median, np.max))
        rows[name] = {"min": low, "median": middle, "max": high}
    return rows


def code_digest(path: Path) -> str:
    """A hash of the chapter's code cells."""
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def stored(path: Path) -> dict[str, dict]:
    """What the file has of each chapter."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("chapters", nargs="*", help=f"numbers, by default {' '.join(CHAPTERS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[41, 42, 43])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "scripts/spreads.py", *arguments])
    for number in options.chapters or CHAPTERS:
        path = chapter_path(number)
        made_from = {"code": code_digest(path)}
        if number in PLAY:
            made_from["data"] = load_or_collect(PLAY[number]).digest()
        old = stored(options.out).get(path.stem, {})
        runs = old["runs"] if all(old.get(key) == made_from[key] for key in made_from) else {}
        for seed in tqdm(options.seeds, desc=path.stem):
            if str(seed) in runs:
                continue
            numbers, failed = run(path, seed)
            runs[str(seed)] = {"measured": numbers, "failed": failed}
            for line in failed:
                tqdm.write(f"{path.stem}, seed {seed}: fails: {line}")
            row = {
                "command": command,
                "date": date.today().isoformat(),
                **made_from,
                "versions": versions(),
                "seeds": sorted(map(int, runs)),
                "spread": spread(runs),
                "runs": runs,
            }
            with locked(options.out):
                found = stored(options.out) | {path.stem: row}
                write_text(options.out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        for name, row in spread(runs).items():
            print(f"{path.stem}  {name}: {row['min']} to {row['max']}, median {row['median']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
