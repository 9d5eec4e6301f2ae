"""What states learnt from pictures know: parameters/dreamer/probes.json.

    python scripts/dreamer_probes.py [--seeds 11 12 13] [--updates 400] [--out FOLDER]

For each seed, random play of the point's pictures is recorded. On it world models are trained with
each representation of chapter 16, without an actor; one is left untrained. Then position, velocity
and goal are read from the states of other episodes by linear regression. One core, about half a
minute a seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from tqdm.auto import tqdm

import mbta_helpers.latent.environments  # noqa: F401  (registers the tasks)
from mbta_helpers.checkpoints import write_text
from mbta_helpers.latent.acting import Driver, RandomAgent
from mbta_helpers.latent.dreamer import (
    PICTURES,
    REPRESENTATIONS,
    DreamerConfig,
    descend,
    make_tasks,
)
from mbta_helpers.latent.environments import SIDE
from mbta_helpers.latent.replay import SequenceReplay, Sequences
from mbta_helpers.latent.world_model import WorldModel
from mbta_helpers.studies import provenance

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "dreamer"
TASK = "mbta/PointPictures-v0"
TRAINING, OTHER = 200, 56  # environments, those of the held-out episodes last
ROWS = 102  # two whole episodes of each
QUANTITIES = {"position": slice(0, 2), "velocity": slice(2, 4), "goal": slice(4, 6)}
RIDGE = 1e-3  # of the regression, in units of a row's squared feature


def truth(tasks: VectorEnv) -> torch.Tensor:
    """Position, velocity and goal of each task now, (N, 6)."""
    points = [task.unwrapped for task in tasks.envs]
    rows = [np.concatenate([each.position, each.velocity, each.goal]) for each in points]
    return torch.tensor(np.array(rows), dtype=torch.float32)


def record(seed: int) -> tuple[Sequences, torch.Tensor]:
    """Random play: rows, (ROWS, N, ...), and what was true at each, (ROWS, N, 6)."""
    model = WorldModel((SIDE, SIDE), 2, PICTURES["reward"].model, seed)  # what it holds is not used
    tasks = make_tasks(TASK, TRAINING + OTHER)
    driver, agent = Driver(tasks, model, seed), RandomAgent(model)
    rows, facts = [], []
    for _ in range(ROWS):
        facts.append(truth(tasks))
        rows.append(driver.step(agent, explore=True))
    return Sequences(*(torch.stack(parts) for parts in zip(*rows, strict=True))), torch.stack(facts)


def train(config: DreamerConfig, rows: Sequences, updates: int, seed: int) -> WorldModel:
    """A world model after so many updates on the rows, (T, N, ...)."""
    model = REPRESENTATIONS[config.representation]((SIDE, SIDE), 2, config.model, seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.model_rate, fused=True)
    replay = SequenceReplay(ROWS, rows.reward.shape[1], (SIDE, SIDE), 2)
    for t in range(ROWS):
        replay.add(Sequences(*(part[t] for part in rows)))
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(updates), desc=f"{config.representation}, seed {seed}"):
        batch = replay.sample(config.batch, config.length, generator)
        loss = model.terms(batch, *model.observe(batch, generator)).loss
        descend(loss, model, optimiser, config.clip)
    return model


def explained(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """R²: 1 less the squared error over the variance, of all columns together; (n, k) each."""
    error = (found - wanted).square().sum()
    return round(1 - (error / (wanted - wanted.mean(0)).square().sum()).item(), 3)


@torch.no_grad()
def measure(model: WorldModel, rows: Sequences, facts: torch.Tensor, seed: int) -> dict[str, float]:
    """R² on the held-out episodes: of what is read linearly from states, and of the reward."""
    by_task = Sequences(*(part.transpose(0, 1) for part in rows))
    states, _ = model.observe(by_task, torch.Generator().manual_seed(seed))
    features = torch.cat([states.features, torch.ones_like(states.features[..., :1])], -1)
    known, other = features[:TRAINING].flatten(0, 1), features[TRAINING:].flatten(0, 1)
    targets = facts.transpose(0, 1)
    square = known.T @ known + RIDGE * len(known) * torch.eye(known.shape[1])
    weights = torch.linalg.solve(square, known.T @ targets[:TRAINING].flatten(0, 1))
    found, wanted = other @ weights, targets[TRAINING:].flatten(0, 1)
    scores = {name: explained(found[:, k], wanted[:, k]) for name, k in QUANTITIES.items()}
    held = Sequences(*(part[TRAINING:] for part in by_task))
    counts = held.is_first == 0  # no reward comes with a first observation
    guessed = model.predict_reward(states.features[TRAINING:])[counts]
    return scores | {"reward": explained(guessed[:, None], held.reward[counts][:, None])}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    origin = provenance("dreamer_probes", arguments)
    study = {"provenance": origin, "updates": options.updates, "runs": []}
    for seed in options.seeds:
        rows, facts = record(seed)
        practice = Sequences(*(part[:, :TRAINING] for part in rows))
        for name, config in PICTURES.items():
            started = time.process_time()
            model = train(config, practice, options.updates, seed)
            row = {"name": name, "seed": seed} | measure(model, rows, facts, seed)
            study["runs"].append(row | {"seconds": round(time.process_time() - started, 1)})
            print(study["runs"][-1], flush=True)
        untrained = WorldModel((SIDE, SIDE), 2, PICTURES["reward"].model, seed)
        row = {"name": "untrained", "seed": seed} | measure(untrained, rows, facts, seed)
        study["runs"].append(row)
        print(row, flush=True)
        write_text(options.out / "probes.json", json.dumps(study, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
