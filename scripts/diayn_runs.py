"""DIAYN over seeds, as it should be and with one mistake each: parameters/diayn/square.json.

    python scripts/diayn_runs.py [NAME ...] [--seeds 0 1 2 3 4] [--out FILE]

One core, about half a minute a run; a run that is there already is not made again. Settings were
chosen on seeds from 100 on.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mbta_helpers.hierarchical import diayn_mistakes as mistakes
from mbta_helpers.hierarchical.diayn import (
    DIAYN,
    DIAYNConfig,
    accuracy,
    coverage,
    roll_out_skills,
    told_apart,
    train_diayn,
)
from mbta_helpers.hierarchical.playgrounds import SquareWorld
from mbta_helpers.studies import add_runs, finished_runs, provenance

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "diayn" / "square.json"
CONFIG = DIAYNConfig()
KINDS = {
    "DIAYN": (DIAYN, CONFIG),
    "stale reward": (mistakes.StaleReward, CONFIG),
    "reward of s": (mistakes.EarlyReward, CONFIG),
    "no − log p(z)": (mistakes.NoPrior, CONFIG),
    "single samples": (mistakes.SingleSamples, CONFIG),
    "z as a number": (mistakes.RawNumber, CONFIG),
    "learnt p(z)": (DIAYN, replace(CONFIG, prior_rate=1.0)),
    "learnt p(z), rate 0.3": (DIAYN, replace(CONFIG, prior_rate=0.3)),
    "slowly learnt p(z)": (DIAYN, replace(CONFIG, prior_rate=0.03)),
}


def run(name: str, seed: int) -> dict:
    """Train once, and say what the skills do."""
    kind, config = KINDS[name]
    started = time.process_time()
    history = train_diayn(SquareWorld(), config, seed, measure_every=10, kind=kind)
    seconds = time.process_time() - started
    starts = SquareWorld().start(50, np.random.default_rng(1000 + seed))
    paths = roll_out_skills(history.learner, starts)
    return {
        "name": name,
        "seed": seed,
        "steps": history.steps.tolist(),
        "accuracies": history.accuracy.round(4).tolist(),
        "bounds": history.bound.round(4).tolist(),
        "effective": history.effective.round(3).tolist(),
        "accuracy": round(accuracy(history.learner, paths), 4),
        "told_apart": told_apart(paths).round(3).tolist(),
        "coverage": round(coverage(paths, -np.ones(2), np.ones(2)), 3),
        "seconds": round(seconds, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(KINDS)}; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(5)])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    done = {(row["name"], row["seed"]) for row in finished_runs(options.out)}
    for name in options.names or KINDS:
        for seed in options.seeds:
            if (name, seed) in done:
                continue
            row = run(name, seed)
            print(name, seed, row["accuracy"], row["told_apart"], row["seconds"], flush=True)
            add_runs(options.out, [row], provenance("diayn_runs", arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
