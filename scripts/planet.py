"""Train PlaNet and its variants, several seeds each, and write what was measured for chapter 15.

    python scripts/planet.py [--only pendulum forks overshooting] [--seeds 0 1 2] [--out FILE]

pendulum: the recipe of the chapter on mbta/Pendulum-v0, evaluated every five rounds in eight
episodes of starts of their own. forks: three kinds of state on sequences with a coin toss and a
cue; the parameters of the first seed are written beside the file. overshooting: pictures of the
point with and without latent overshooting, open-loop errors on episodes that were not trained on. A
run that is in the file already is not made again. One core: two to three minutes of processor time
for a seed of the pendulum, half a minute for the others.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import gymnasium as gym
import torch

from mbta_helpers.checkpoints import write_text
from mbta_helpers.datasets import versions
from mbta_helpers.latent import environments, paths, planet  # noqa: F401
from mbta_helpers.latent.acting import Driver, RandomAgent, evaluate
from mbta_helpers.latent.replay import SequenceReplay
from mbta_helpers.latent.world_model import WorldModel

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "planet.json"
ROUNDS, EVALUATE_EVERY, TESTS = 15, 5, 5000  # TESTS: first seed of the evaluations' starts
PARTS = ("pendulum", "forks", "overshooting")


def pendulum(seed: int) -> Iterator[dict]:
    """Returns of the collected episodes, and of evaluations without noise."""
    training, tests = (
        gym.make_vec("mbta/Pendulum-v0", num_envs=count, vectorization_mode="sync")
        for count in (2, 8)
    )
    config, evaluations, seconds = planet.PENDULUM, {}, []
    model = WorldModel((3,), 1, config.model, seed)
    started = time.process_time()

    def watch(number: int, agent: planet.Planet, history: planet.History) -> None:
        seconds.append(round(time.process_time() - started, 1))
        if (number + 1) % EVALUATE_EVERY == 0:
            returns = evaluate(agent, tests, TESTS + 100 * seed)
            evaluations[number + 1] = [round(float(value), 1) for value in returns]
            print(seed, number + 1, seconds[-1], returns.mean().round(), flush=True)

    _, history = planet.train(training, model, config, ROUNDS, seed, watch)
    yield {
        "updates": config.updates,
        "seconds": seconds,
        "returns": [[round(float(value), 1) for value in row] for row in history.returns],
        "evaluations": evaluations,
    }


def forks(seed: int) -> Iterator[dict]:
    for kind in paths.KINDS:
        started = time.process_time()
        model = paths.train_on_forks(kind, paths.UPDATES, seed)
        yield (
            {"kind": kind}
            | paths.measure(model, seed)
            | {"seconds": round(time.process_time() - started, 1)}
        )


def overshooting(seed: int) -> Iterator[dict]:
    replays = []
    for number in range(2):
        env = gym.make_vec("mbta/PointPictures-v0", num_envs=8, vectorization_mode="sync")
        model = WorldModel((16, 16), 2, planet.PICTURES.model, seed)
        driver = Driver(env, model, TESTS * (number + 1) + 100 * seed)
        replays.append(SequenceReplay(1000, 8, (16, 16), 2))
        for _ in range(8):
            planet.collect_episodes(driver, RandomAgent(model), replays[-1])
    for weight in (0.0, 1.0):
        config = replace(planet.PICTURES, overshooting=weight)
        model, draw = WorldModel((16, 16), 2, config.model, seed), torch.Generator()
        draw.manual_seed(seed)
        started = time.process_time()
        terms = planet.Learner(model, config).learn(replays[0], 600, draw)
        batch = replays[1].sample(200, 25, torch.Generator().manual_seed(0))
        batch = batch._replace(action=batch.action * (1 - batch.is_first[..., None]))
        seen = planet.open_loop(model, batch, 5, draw)[0]
        errors = (seen - batch.observation).square().sum((-2, -1))  # (B, T)
        inside = batch.is_first[:, 1:].sum(1) == 0
        yield {
            "weight": weight,
            "seconds": round(time.process_time() - started, 1),
            "errors": [round(value, 4) for value in errors[inside].mean(0).tolist()],
            "kl": round(sum(each["kl"] for each in terms[-50:]) / 50, 3),
        }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)
    runs = json.loads(options.out.read_text("utf-8"))["runs"] if options.out.exists() else []
    for part in options.only:
        for seed in options.seeds:
            if any((run["part"], run["seed"]) == (part, seed) for run in runs):
                continue
            runs += [{"part": part, "seed": seed} | run for run in globals()[part](seed)]
            provenance = {
                "command": "python scripts/planet.py",
                "configs": {
                    "pendulum": asdict(planet.PENDULUM),
                    "pictures": asdict(planet.PICTURES),
                },
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
