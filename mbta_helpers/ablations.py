"""Ablations: what changes with each part of the recipe, read from a table that is shipped.

`scripts/ablate.py` writes the table, a cell for each maze, length of training, variant and training
seed. A pooled row counts the tasks of all seeds of a variant together.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbta_helpers.evaluation import student_interval, wilson_interval

TABLE = Path(__file__).parent / "parameters" / "ablations.json"
BASE = "base"


@dataclass(frozen=True)
class Pooled:
    """A variant over its seeds.

    rates: a success rate for each seed. low, high: a 95 % interval of their mean, see `interval`.
    """

    variant: str
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    successes: int
    episodes: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        return self.successes / self.episodes


def read_cells(maze: str, path: Path = TABLE) -> list[dict]:
    """The finished cells of a maze, in the order in which they were made; empty if none."""
    if not path.exists():
        return []
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["maze"] == maze]


def studies(cells: list[dict]) -> dict[float, list[dict]]:
    """The cells of one maze by their share of the preset's updates, the longest training first.

    Only cells of one share can be compared.
    """
    shares = sorted({cell["share"] for cell in cells}, reverse=True)
    return {share: [cell for cell in cells if cell["share"] == share] for share in shares}


def pooled_interval(successes: list[int], episodes: list[int]) -> tuple[float, float]:
    """A 95 % interval of the success rate over seeds; a list entry for each seed.

    Wilson's interval of the pooled count treats all tasks as alike, and so misses how much
    training runs differ. Student's interval of the seeds' rates misses how few tasks each has,
    and is empty where all rates are equal. The wider of the two is taken, within [0, 1].
    """
    wilson = wilson_interval(sum(successes), sum(episodes))
    if len(successes) == 1:
        return wilson
    low, high = student_interval(np.array(successes) / np.array(episodes))
    student = (max(0.0, low), min(1.0, high))
    return max(wilson, student, key=lambda bounds: bounds[1] - bounds[0])


def difference_interval(
    successes: list[int], base: list[int], episodes: list[int]
) -> tuple[float, float]:
    """A 95 % interval of a variant's success rate minus the base's, over the same seeds and tasks.

    Each list has an entry for each seed. The hull of two intervals: Newcombe's (1998, method 10)
    of the pooled counts, and Student's of the seeds' differences, which has out of it what a seed
    does to both.
    """
    won, other, count = (np.array(values) for values in (successes, base, episodes))
    rate, base_rate = won.sum() / count.sum(), other.sum() / count.sum()
    low, high = wilson_interval(int(won.sum()), int(count.sum()))
    base_low, base_high = wilson_interval(int(other.sum()), int(count.sum()))
    difference = rate - base_rate
    ends = [
        difference - math.hypot(rate - low, base_high - base_rate),
        difference + math.hypot(high - rate, base_rate - base_low),
    ]
    if len(count) > 1:
        ends += student_interval((won - other) / count)
    return max(-1.0, min(ends)), min(1.0, max(ends))


def pooled(cells: list[dict], variants: list[str] | None = None) -> dict[str, Pooled]:
    """The cells of one study by variant, over the seeds that exist.

    variants: those wanted, in that order, as far as they are there; all by default.
    """
    found: dict[str, list[dict]] = {}
    for cell in cells:
        found.setdefault(cell["variant"], []).append(cell)
    rows = {}
    for name in found if variants is None else variants:
        if name not in found:
            continue
        runs = sorted(found[name], key=lambda cell: cell["seed"])
        successes = [cell["successes"] for cell in runs]
        episodes = [cell["episodes"] for cell in runs]
        rows[name] = Pooled(
            name,
            tuple(cell["seed"] for cell in runs),
            tuple(s / n for s, n in zip(successes, episodes, strict=True)),
            sum(successes),
            sum(episodes),
            *pooled_interval(successes, episodes),
        )
    return rows
