"""Choose the settings of chapter 12's maze on seeds that the chapter does not show.

    python scripts/feudal_maze_grid.py [--seeds 10] [--out book/feudal_maze_grid.jsonl]

Each setting has the chapter's experiment: 30,000 steps to a goal in the U, then 30,000 to a goal in
the corner. A line of JSON for each, with the times that the seeds reached each goal. One core,
about three minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mbta_helpers.checkpoints import write_text
from mbta_helpers.hierarchical.feudal_maze import FeudalConfig, train_feudal, u_maze

OUT = Path(__file__).parents[1] / "book" / "feudal_maze_grid.jsonl"
LIFE, SEED = 30_000, 1012


def settings() -> list[FeudalConfig]:
    """Flat Q-learning: discount, first values and temperature. Feudal: discount, temperature."""
    flat = [
        *itertools.product((0.9, 0.97), (0.1, 0.3, 1.0), (0.002, 0.01, 0.05)),
        *((0.9, 0.3, 0.0005), (0.8, 0.3, 0.0005), (0.8, 1.0, 0.0005)),  # beyond the best of these
    ]
    found = [
        FeudalConfig((5,), gamma=gamma, initial=initial, temperature=heat, all_commands=False)
        for gamma, initial, heat in flat
    ]
    for gamma, heat in itertools.product((0.7, 0.85, 0.95), (0.005, 0.02)):
        found.append(FeudalConfig(gamma=gamma, temperature=heat))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)
    maze, lines = u_maze(32), []
    goals = (maze.number(16, 16), maze.number(1, 30))
    for config in settings():
        history = train_feudal(maze, goals, LIFE, config, chosen.seeds, SEED)[1]
        line = {"agent": "feudal" if config.levels is None else "flat"} | asdict(config)
        for phase, name in enumerate(("first", "moved")):
            inside = (history.step > phase * LIFE) & (history.step <= (phase + 1) * LIFE)
            counts = np.bincount(history.seed[inside], minlength=chosen.seeds)
            line[name] = {"mean": round(counts.mean(), 1), "seeds": sorted(counts.tolist())}
        lines.append(json.dumps(line))
        print(lines[-1], flush=True)
        write_text(chosen.out, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
