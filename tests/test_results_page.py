"""The results page: what scripts/reproduce.py writes from the stored rows, and nothing by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def reproduce():
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(reproduce):
    assert (ROOT / "book" / "results.md").read_text("utf-8") == reproduce.page()


def test_a_table_of_ablations_pools_the_seeds(reproduce):
    rows = (("base", 21, 9, 0.02), ("base", 22, 7, 0.04), ("joint", 21, 10, 0.01))
    cells = [
        {
            "variant": name,
            "seed": seed,
            "successes": won,
            "episodes": 10,
            "share": 0.5,
            "wall_crossings": walls,
        }
        for name, seed, won, walls in rows
    ]
    base, joint = reproduce.ablation_table(cells)[2:]
    assert base.startswith("| base | 0.5 | 21, 22 | 16 of 20 |") and base.endswith("| 3.0 % |")
    assert joint.startswith("| joint | 0.5 | 21 | 10 of 10 |") and joint.endswith("| 1.0 % |")
