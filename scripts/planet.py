"""Train PlaNet and its variants, several seeds each, and write what was measured for chapter 15.

    python scripts/planet.py [--only PART ...] [--seeds 0 1 2 3 4] [--out FILE]

pendulum: the recipe of the chapter on mbta/Pendulum-v0, evaluated every five rounds in eight
episodes of starts of their own. forks: three kinds of state on sequences with a coin toss and a
cue. overshooting: open-loop errors on episodes of random actions, with and without it. pictures: a
model of the point's pictures. Parameters that the chapter shows, of seed 0, are written to a folder
beside the file. A run that is in the file already is not made again. One core: two to three minutes
of processor time for a seed of the pendulum, a minute or less for each of the others. Shipped are
seeds 0 to 4.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import gymnasium as gym
import torch
from torch import Tensor

from mbta_helpers.checkpoints import save_checkpoint
from mbta_helpers.latent import environments, paths, planet  # noqa: F401
from mbta_helpers.latent.acting import Driver, RandomAgent, evaluate
from mbta_helpers.latent.replay import SequenceReplay, Sequences
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig
from mbta_helpers.studies import add_runs, finished_runs, provenance

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "planet.json"
ROUNDS, EVALUATE_EVERY, TESTS = 15, 5, 5000  # TESTS: first seed of the evaluations' starts
SEEN, PICTURE_UPDATES = 5, 1500
PARTS = ("pendulum", "forks", "overshooting", "pictures")


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


def forks(seed: int, folder: Path) -> Iterator[dict]:
    """Three kinds of state; the parameters of seed 0 are kept."""
    for kind in paths.KINDS:
        started = time.process_time()
        model = paths.train_on_forks(kind, paths.UPDATES, seed)
        yield {
            "kind": kind,
            "seconds": round(time.process_time() - started, 1),
        } | paths.judge_futures(model, seed)
        if seed == 0:
            keep(model, folder / f"{kind.replace(' ', '-')}.safetensors")


def random_episodes(
    task: str, count: int, rounds: int, seed: int, agent: type = RandomAgent
) -> SequenceReplay:
    """`rounds` episodes of random actions in each of `count` environments."""
    env = gym.make_vec(task, num_envs=count, vectorization_mode="sync")
    shape, actions = env.single_observation_space.shape, env.single_action_space.shape[0]
    model = WorldModel(shape, actions, WorldModelConfig())
    driver, replay = Driver(env, model, seed), SequenceReplay(101 * rounds, count, shape, actions)
    for _ in range(rounds):
        planet.collect_episodes(driver, agent(model), replay)
    return replay


def look_ahead(model: WorldModel, replay: SequenceReplay, length: int) -> tuple[Tensor, Tensor]:
    """Observations of windows within an episode, and open-loop predictions after SEEN rows."""
    draw = torch.Generator().manual_seed(0)
    batch = replay.sample(500, length, draw)
    whole = batch.is_first[:, 1:].sum(1) == 0
    batch = Sequences(*(part[whole] for part in batch))
    return batch.observation, planet.open_loop(model, batch, SEEN, draw)[0]


def rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def spot(pictures: Tensor) -> Tensor:
    """Row and column of the brightest pixel, (..., 2)."""
    best = pictures.flatten(-2).argmax(-1)
    return torch.stack([best // pictures.shape[-1], best % pictures.shape[-1]], -1).float()


def overshooting(seed: int) -> Iterator[dict]:
    """Pendulum's observations, from random actions, with and without latent overshooting."""
    replays = [random_episodes("mbta/Pendulum-v0", 8, 3, start + seed) for start in (1000, 2000)]
    for weight in (0.0, 1.0):
        config, draw = replace(planet.PENDULUM, overshooting=weight), torch.Generator()
        model = WorldModel((3,), 1, config.model, seed)
        draw.manual_seed(seed)
        started = time.process_time()
        terms = planet.Learner(model, config).learn(replays[0], 400, draw)
        true, expected = look_ahead(model, replays[1], 20)
        yield {
            "weight": weight,
            "seconds": round(time.process_time() - started, 1),
            "errors": rounded((true - expected).square().sum(-1).mean(0)),
            "kl": round(sum(each["kl"] for each in terms[-50:]) / 50, 3),
        }


def pictures(seed: int, folder: Path) -> Iterator[dict]:
    """A model of the point's pictures; the parameters of seed 0 are kept, at half precision."""
    replays = [
        random_episodes("mbta/PointPictures-v0", 64, rounds, start + 1000 * seed, planet.Wanderer)
        for rounds, start in ((10, 10_000), (1, 10_900))
    ]
    config, draw = planet.PICTURES, torch.Generator().manual_seed(seed)
    model = WorldModel((16, 16), 2, config.model, seed)
    learner = planet.Learner(model, config)
    started = time.process_time()
    terms = learner.learn(replays[0], PICTURE_UPDATES, draw)
    true, expected = look_ahead(model, replays[1], 25)
    place, guess = spot(true), spot(expected)
    yield {
        "updates": PICTURE_UPDATES,
        "seconds": round(time.process_time() - started, 1),
        "errors": rounded((true - expected).square().sum((-2, -1)).mean(0)),
        "distances": rounded((place - guess).norm(dim=-1).mean(0)),
        "stays": rounded((place - place[:, SEEN - 1 : SEEN]).norm(dim=-1).mean(0)),
        "kl": round(sum(each["kl"] for each in terms[-50:]) / 50, 3),
    }
    if seed == 0:
        keep(model, folder / "pictures.safetensors")


def keep(model: WorldModel, path: Path) -> None:
    """Parameters at half precision, with what made them."""
    tensors = {name: part.half() for name, part in model.state_dict().items()}
    save_checkpoint(path, "planet", tensors, asdict(model.config), origin())


def origin() -> dict:
    """What made a run, with the configurations of the chapter's two tasks."""
    configs = {"pendulum": asdict(planet.PENDULUM), "pictures": asdict(planet.PICTURES)}
    return provenance("planet", [], configs=configs)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(5)])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)
    folder = options.out.parent / options.out.stem
    make = {
        "pendulum": pendulum,
        "forks": partial(forks, folder=folder),
        "overshooting": overshooting,
        "pictures": partial(pictures, folder=folder),
    }
    for part in options.only:
        for seed in options.seeds:
            done = finished_runs(options.out)
            if any((run["part"], run["seed"]) == (part, seed) for run in done):
                continue
            runs = [{"part": part, "seed": seed} | run for run in make[part](seed)]
            add_runs(options.out, runs, origin())
    return 0


if __name__ == "__main__":
    sys.exit(main())
