"""Train DreamerV3 on the point's task with its rewards scaled, and write what was measured.

    python scripts/dreamer_v3_scales.py [--heads V3 V2] [--scales 0.01 1 100]
        [--seeds 21 22 23] [--out FILE]

The same hyper-parameters for all runs; the heads are those of DreamerV3 (two-hot, returns divided
by their percentiles) or of DreamerV2 (squared errors, advantages as they are). Returns are divided
by the scale before they are written. A run that is in the file already is not made again. One
core, about a minute of processor time for each run. Settings were chosen on the seed 100.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch

from mbta_helpers.latent.dreamer_v3 import DreamerV3Config, scaled_point_tasks, train_dreamer_v3
from mbta_helpers.studies import add_runs, finished_runs, provenance

UPDATES, EVALUATE_EVERY = 900, 50
ENVIRONMENTS, EPISODES = 8, 20
OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "dreamer_v3_scales.json"


def train(heads: str, scale: float, seed: int) -> dict:
    """One run, as a row of the file."""
    environments, tests = (scaled_point_tasks(count, scale) for count in (ENVIRONMENTS, EPISODES))
    started = time.process_time()
    _, history = train_dreamer_v3(
        environments, tests, DreamerV3Config(heads=heads), UPDATES, seed, EVALUATE_EVERY
    )
    return {
        "heads": heads,
        "scale": scale,
        "seed": seed,
        "seconds": round(time.process_time() - started),
        "updates": history.updates.tolist(),
        "steps": history.steps.tolist(),
        "returns": [[round(value / scale, 2) for value in row] for row in history.returns.tolist()],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--heads", nargs="+", default=["V3", "V2"], choices=["V3", "V2"])
    parser.add_argument("--scales", type=float, nargs="+", default=[0.01, 1.0, 100.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    origin = provenance(
        "dreamer_v3_scales",
        arguments,
        environment="mbta/PointTask-v0, a step paid its closeness times the scale",
        config=asdict(DreamerV3Config()),
    )
    for seed, heads, scale in product(options.seeds, options.heads, options.scales):
        done = {(run["heads"], run["scale"], run["seed"]) for run in finished_runs(options.out)}
        if (heads, scale, seed) in done:
            continue
        run = train(heads, scale, seed)
        print(json.dumps(run), flush=True)
        add_runs(options.out, [run], origin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
