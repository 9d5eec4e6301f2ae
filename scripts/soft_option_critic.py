"""Train Soft Option-Critic on Pendulum, several seeds of each variant, and write what was measured.

    python scripts/soft_option_critic.py [--only main collapsed ...] [--seeds 0 1 2 3 4]
        [--steps 5000] [--out FILE]

Variants: the recipe of chapter 11 ("main"); without deliberation cost ("collapsed"); without cost,
terminations compared with the hard V_Ω ("hard"); with nothing that asks options to differ
("alike"); with a cost below α_Ω log Ω = 0.55 ("cost 0.3", "cost 0.45"). Each is evaluated every 500
steps in ten episodes of its own starts. A run that is in the file already is not made again. One
core, about half a minute of processor time for each run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import gymnasium as gym
import torch

from mbta_helpers.hierarchical.soft_option_critic import (
    SoftOptionCriticConfig,
    train_soft_option_critic,
)
from mbta_helpers.studies import add_runs, finished_runs, provenance

EVALUATE_EVERY = 500  # steps
OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "soft_option_critic.json"
VARIANTS = {
    "main": {},
    "collapsed": {"deliberation_cost": 0.0},
    "hard": {"deliberation_cost": 0.0, "baseline": "hard"},
    "alike": {"diversity": 0.0},
    "cost 0.3": {"deliberation_cost": 0.3},
    "cost 0.45": {"deliberation_cost": 0.45},
}


def train(variant: str, seed: int, steps: int) -> dict:
    """One run, as a row of the file."""
    environments, tests = (
        gym.make_vec("Pendulum-v1", num_envs=count, vectorization_mode="sync") for count in (4, 10)
    )
    config = SoftOptionCriticConfig(**VARIANTS[variant])
    started = time.process_time()
    _, history = train_soft_option_critic(
        environments, tests, config, steps, seed, evaluate_every=EVALUATE_EVERY
    )
    return {
        "variant": variant,
        "seed": seed,
        "seconds": round(time.process_time() - started),
        "steps": history.steps.tolist(),
        "returns": [[round(value, 1) for value in row] for row in history.returns.tolist()],
        "durations": [round(value, 3) for value in history.durations.tolist()],
        "told": [round(value, 4) for value in history.told.tolist()],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    done = {(run["variant"], run["seed"]) for run in finished_runs(options.out)}
    config = asdict(SoftOptionCriticConfig())
    origin = provenance(
        "soft_option_critic", arguments, environment="Pendulum-v1", config=config, variants=VARIANTS
    )
    for variant in options.only:
        for seed in options.seeds:
            if (variant, seed) in done:
                continue
            run = train(variant, seed, options.steps)
            print(json.dumps(run), flush=True)
            add_runs(options.out, [run], origin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
