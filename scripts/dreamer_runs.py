"""Dreamer over seeds: parameters/dreamer/runs.json, and the pendulum's agent of one seed.

    python scripts/dreamer_runs.py [pendulum] [point] [--seeds SEED ...] [--out FOLDER]

One core, one to two minutes a run; a run that is there already is not made again, and each row says
what made it. Settings were chosen on other seeds: 0, 1, from 100 on, and for the point 10 and 20.
The point's seeds 21 to 23 were those of earlier settings.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

import mbta_helpers.latent.environments  # noqa: F401  (registers the tasks)
from mbta_helpers.latent import dreamer
from mbta_helpers.latent.acting import RandomAgent, evaluate
from mbta_helpers.latent.dreamer import train_dreamer
from mbta_helpers.studies import add_runs, finished_runs, provenance

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "dreamer"
PENDULUM = "mbta/Pendulum-v0"
SHIPPED = 10  # the seed whose agent is kept
KINDS = {  # the task, the settings, rounds and seeds
    "pendulum": (PENDULUM, dreamer.PENDULUM, 48, (10, 11, 12)),
    "point": ("mbta/PointTask-v0", dreamer.POINT, 40, (31, 32, 33)),
}


def run(name: str, seed: int, out: Path, origin: dict) -> dict:
    """Train once; the returns on the way, of fresh episodes at the end, and of random actions."""
    env_id, config, rounds, _ = KINDS[name]
    started = time.process_time()
    history = train_dreamer(env_id, config, rounds, seed)
    seconds = time.process_time() - started
    if name == "pendulum" and seed == SHIPPED:
        dreamer.save_dreamer(out / "pendulum.safetensors", history.agent, origin)
    fresh = dreamer.make_tasks(env_id, 40)
    noise = RandomAgent(history.agent.model)
    return {
        "name": name,
        "seed": seed,
        "updates": rounds * config.updates,
        "steps": history.steps.tolist(),
        "returns": history.returns.round(2).tolist(),
        "final": evaluate(history.agent, fresh, 20_000 + 100 * seed).round(2).tolist(),
        "random": round(float(evaluate(noise, fresh, 20_000 + 100 * seed).mean()), 1),
        "losses": {
            part: history.losses[part].reshape(rounds, -1).mean(1).round(4).tolist()
            for part in ("observation", "reward", "kl", "critic")
        },
        "seconds": round(seconds, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(KINDS)}; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of each kind")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = options.out / "runs.json"
    done = {(row["name"], row["seed"]) for row in finished_runs(path)}
    origin = provenance("dreamer_runs", arguments)
    for name in options.names or KINDS:
        for seed in options.seeds or KINDS[name][-1]:
            if (name, seed) in done:
                continue
            row = run(name, seed, options.out, origin) | {"provenance": origin}
            print(name, seed, sum(row["final"]) / len(row["final"]), row["seconds"], flush=True)
            add_runs(path, [row], origin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
