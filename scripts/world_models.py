"""Train world models of the falling stones, evolve rules in their dreams and in reality, and write
how long both survive.

    python scripts/world_models.py [--seeds 11 12 13 14 15] [--out FILE]

For each seed: eye and memory from random play; a rule from the dream at each temperature; three
rules from reality, which see the code alone, the code and the trained memory, the code and an
untrained memory. Each is then judged in fresh dreams and fresh games, EPISODES of them. A seed that
is in the file already is not run again. One core, about a minute and a half of processor time for a
seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mbta_helpers.latent.controller import EvolutionConfig, evolve, play_in_dream, play_in_reality
from mbta_helpers.latent.stones import MAX_STEPS, Stones
from mbta_helpers.latent.vision_memory import (
    VisionAndMemory,
    VisionAndMemoryConfig,
    random_moves,
    train_world_model,
    with_untrained_memory,
)
from mbta_helpers.studies import add_runs, finished_runs, provenance

TEMPERATURES = (0.1, 0.5, 1.0, 1.5, 2.0, 3.0)
EPISODES = 300
CONFIG, SEARCH = VisionAndMemoryConfig(), EvolutionConfig()
OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "world_models.json"


def play_at_random(rng: np.random.Generator) -> float:
    """Mean steps survived by the play of the recordings."""
    games, alive = Stones(EPISODES, rng), np.ones(EPISODES, bool)
    action, steps = rng.integers(0, 3, EPISODES), 0
    for _ in range(MAX_STEPS):
        action = random_moves(action, rng)
        steps += alive.sum()
        alive &= ~games.step(action)
    return steps / EPISODES


def in_reality(model: VisionAndMemory, rule: Tensor, seed: int) -> float:
    """Mean steps survived in fresh games, the same starts for every rule of a seed."""
    return play_in_reality(model, rule, EPISODES, np.random.default_rng([seed, 1])).mean()


def dreamt(model: VisionAndMemory, temperature: float, seed: int) -> dict:
    """A rule from the dream: what it survives there and in reality."""
    generator = torch.Generator().manual_seed(seed)

    def play(rules: Tensor, episodes: int) -> np.ndarray:
        return play_in_dream(model, rules, episodes, temperature, generator)

    rule, returns = evolve(play, model.rule_size, SEARCH, seed)
    return {
        "temperature": temperature,
        "dream": round(play(rule, EPISODES).mean(), 2),
        "reality": round(in_reality(model, rule, seed), 2),
        "staying": round(play(torch.zeros_like(rule), EPISODES).mean(), 2),
        "returns": returns.round(1).tolist(),
    }


def lived(model: VisionAndMemory, seed: int, blind: bool = False) -> float:
    """What a rule from reality survives; a blind one does not see the memory."""
    rng, unseen = np.random.default_rng([seed, 0]), model.memory.config.hidden if blind else 0

    def whole(rules: Tensor) -> Tensor:
        """Rules with zeros for what they do not see, before the constant."""
        return torch.cat([F.pad(rules[:, :-1], (0, unseen)), rules[:, -1:]], 1)

    def play(rules: Tensor, episodes: int) -> np.ndarray:
        return play_in_reality(model, whole(rules), episodes, rng)

    rule, _ = evolve(play, model.rule_size - unseen, SEARCH, seed)
    return round(in_reality(model, whole(rule), seed), 2)


def run(seed: int) -> dict:
    """All that is measured with a seed, as a row of the file."""
    started = time.process_time()
    model, _ = train_world_model(CONFIG, seed)
    untrained = with_untrained_memory(model, seed)
    row = {
        "seed": seed,
        "random": round(play_at_random(np.random.default_rng([seed, 2])), 2),
        "staying": round(in_reality(model, torch.zeros(1, model.rule_size), seed), 2),
        "dreams": [dreamt(model, temperature, seed) for temperature in TEMPERATURES],
        "reality": {
            "no memory": lived(model, seed, blind=True),
            "trained memory": lived(model, seed),
            "untrained memory": lived(untrained, seed),
        },
    }
    return row | {"seconds": round(time.process_time() - started)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    origin = provenance(
        "world_models",
        arguments,
        **{"world model": asdict(CONFIG), "search": asdict(SEARCH), "episodes": EPISODES},
    )
    origin["versions"] |= {"cma": version("cma")}
    done = {each["seed"] for each in finished_runs(options.out)}
    for seed in options.seeds:
        if seed in done:
            continue
        row = run(seed)
        print(json.dumps(row), flush=True)
        add_runs(options.out, [row], origin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
