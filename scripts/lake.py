"""EM against the joint ELBO on the lake, over seeds: mbta_helpers/parameters/lake.json.

    python scripts/lake.py [--seeds 31 … 35 41 … 45] [--tasks 60] [--out FILE]

One core, about a minute a seed. A run that is there already is not made again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mbta_helpers import lake
from mbta_helpers.studies import add_runs, finished_runs, provenance
from mbta_helpers.training import Trainer
from mbta_helpers.variants import JointTrainer

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "lake.json"
METHODS = {"EM": Trainer, "joint": JointTrainer}
PENALTIES = {"cautious": lake.PLANNER.variance_penalty, "mean": 0.0}  # of p_ψ's variance


def run(method: str, seed: int, tasks: int) -> dict:
    """Train one model, and say what it believes and what happened."""
    data, fresh = lake.wander(4000, 8, seed), lake.wander(4000, lake.WINDOW, 1000 + seed)
    trainer = METHODS[method](lake.TRAINING, data.transitions, seed)
    model = trainer.run()
    seen = lake.skills_afloat(model, fresh)
    asked = lake.along_the_shore(tasks, 2000 + seed)
    row = {
        "method": method,
        "seed": seed,
        "tasks": tasks,
        "wind_in_skill": round(lake.wind_in_skill(seen), 4),
        "doubt": round(lake.doubt(model, seen), 4),
        "held_out": {name: round(value, 4) for name, value in trainer.test().items()},
    }
    for name, penalty in PENALTIES.items():
        planner = replace(lake.PLANNER, variance_penalty=penalty)
        found = lake.hold_to_account(model, planner, asked, seed)
        went = found.attempt
        tail = went.winds * np.sign(asked.goals[:, 0]) > 0
        row[name] = {
            "promised": int(found.promised.sum()),
            "successes": int(went.success.sum()),
            "tail_winds": int(tail.sum()),
            "successes_with_tail_wind": int((went.success & tail).sum()),
            "went_afloat": int((went.wet > 0).sum()),
            "wet": round(float(went.wet.mean()), 4),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(31, 36), *range(41, 46)])
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["method"], row["seed"]) for row in finished_runs(options.out)}
    for seed in options.seeds:
        for method in METHODS:
            if (method, seed) in done:
                continue
            row = run(method, seed, options.tasks)
            print(row, flush=True)
            add_runs(options.out, [row], provenance("lake", sys.argv[1:]))


if __name__ == "__main__":
    main()
