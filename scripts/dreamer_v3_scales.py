"""Train DreamerV3 on the point's task with its rewards scaled, and write what was measured.

    python scripts/dreamer_v3_scales.py [--heads V3 V2] [--scales 0.01 1 100] [--seeds 1 2 3]
        [--out FILE]

The same hyper-parameters for all runs; the heads are those of DreamerV3 (two-hot, returns divided
by their percentiles, symlog) or of DreamerV2 (squared errors, none of these). Returns are divided
by the scale before they are written. A run that is in the file already is not made again. One
core, about a minute of processor time for each run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch

from mbta_helpers.checkpoints import write_text
from mbta_helpers.datasets import versions
from mbta_helpers.latent.dreamer_v3 import DreamerV3Config, scaled_point_tasks, train_dreamer_v3

UPDATES, EVALUATE_EVERY = 800, 50
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = json.loads(options.out.read_text("utf-8"))["runs"] if options.out.exists() else []
    done = {(run["heads"], run["scale"], run["seed"]) for run in runs}
    wanted = [
        (heads, scale, seed)
        for seed in options.seeds
        for heads in options.heads
        for scale in options.scales
    ]
    for heads, scale, seed in wanted:
        if (heads, scale, seed) in done:
            continue
        runs.append(train(heads, scale, seed))
        print(json.dumps(runs[-1]), flush=True)
        provenance = {
            "command": "python scripts/dreamer_v3_scales.py",
            "environment": "mbta/PointTask-v0, rewards times the scale",
            "config": asdict(DreamerV3Config()),
            "threads": 1,
            "date": date.today().isoformat(),
            "versions": versions() | {"python": sys.version.split()[0]},
        }
        lines = ",\n".join(json.dumps(run) for run in runs)
        text = f'{{"provenance": {json.dumps(provenance)},\n"runs": [\n{lines}\n]}}\n'
        write_text(options.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
