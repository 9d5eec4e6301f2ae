"""FeUdal Networks and its ablations over seeds: mbta_helpers/parameters/feudal_networks.json.

    python scripts/feudal_networks.py [--seeds 21 22 23 24 25 26 27 28] [--updates 400] [--out FILE]

One core, about ten seconds a run, 48 runs. A run that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mbta_helpers.checkpoints import write_text
from mbta_helpers.datasets import versions
from mbta_helpers.hierarchical.fun import ROOMS, FuNConfig, train_fun, try_out

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "feudal_networks.json"
EPISODES = 400  # of the trained networks, without whims
POINTS = 40  # of a learning curve
VARIANTS = {
    "goals": {},
    "random": {"goals": "random"},
    "zeroed": {"goals": "zero"},
    "mortal worker": {"mortal_worker": True},
    # What ports do: φ has a bias and the worker is paid the environment's reward as well.
    "paid twice, goals": {"bias": True, "extrinsic": 1.0, "mortal_worker": True},
    "paid twice, zeroed": {"bias": True, "extrinsic": 1.0, "mortal_worker": True, "goals": "zero"},
}


def run(variant: str, seed: int, updates: int) -> dict:
    """Train one variant, and try it out."""
    config = FuNConfig(**VARIANTS[variant])
    networks, history = train_fun(ROOMS, config, updates, seed)
    success, _ = try_out(networks, ROOMS, config, EPISODES, seed=1000 + seed)
    parts = np.array_split(np.arange(updates), POINTS)
    return {
        "variant": variant,
        "seed": seed,
        "updates": updates,
        "steps": [int(history.steps[part[-1]]) for part in parts],
        "success": [round(float(np.nanmean(history.success[part])), 4) for part in parts],
        "intrinsic": [round(float(history.intrinsic[part].mean()), 4) for part in parts],
        "reached": int(success.sum()),
        "episodes": EPISODES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(21, 29)))
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {"runs": []}
    done = {(row["variant"], row["seed"], row["updates"]) for row in study["runs"]}
    for variant in VARIANTS:
        for seed in options.seeds:
            if (variant, seed, options.updates) in done:
                continue
            row = run(variant, seed, options.updates)
            study["runs"].append(row)
            study["runs"].sort(key=lambda row: (list(VARIANTS).index(row["variant"]), row["seed"]))
            print(variant, seed, row["success"][-1], row["reached"], flush=True)
            study["provenance"] = {
                "command": shlex.join(["python", "scripts/feudal_networks.py", *sys.argv[1:]]),
                "date": date.today().isoformat(),
                "versions": versions() | {"python": sys.version.split()[0]},
            }
            write_text(options.out, json.dumps(study, indent=1) + "\n")


if __name__ == "__main__":
    main()
