"""Studies: a script's finished runs in one json file, with what made them.

The file is {"provenance": {...}, "runs": [...]}, a run in each line. It is written anew with every
run that ends, whole or not at all: a study that is stopped goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from mbta_helpers.checkpoints import locked, write_text
from mbta_helpers.datasets import versions


def finished_runs(path: Path) -> list[dict]:
    """The runs that the file holds; none where there is no file."""
    return json.loads(path.read_text("utf-8"))["runs"] if path.exists() else []


def provenance(script: str, arguments: Sequence[str], **more) -> dict:
    """The command, the day, threads and versions, and what else is to be known of a study."""
    return {
        "command": shlex.join(["python", f"scripts/{script}.py", *arguments]),
        "date": date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "versions": versions() | {"python": sys.version.split()[0]},
    } | more


def add_runs(path: Path, runs: list[dict], origin: dict) -> None:
    """Put finished runs after those that the file holds, with the provenance of the last."""
    head = json.dumps(origin, ensure_ascii=False)
    with locked(path):  # others may add theirs
        every = [*finished_runs(path), *runs]
        lines = ",\n".join(json.dumps(run, ensure_ascii=False) for run in every)
        write_text(path, f'{{"provenance": {head},\n"runs": [\n{lines}\n]}}\n')
