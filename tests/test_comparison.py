"""The shipped comparison of chapter 19: whole, of one make, and not made again."""

import json

import pytest
from samples import load_script

from mbta_helpers.presets import PARAMETERS

RUNS = json.loads((PARAMETERS / "comparison.json").read_text("utf-8"))["runs"]


def test_each_way_to_decide_has_three_seeds_on_the_same_tasks():
    seeds = {run["seed"] for run in RUNS}
    assert len(seeds) >= 3
    made = {(run["kind"], run["seed"]) for run in RUNS}
    assert made == {(k, s) for k in ("plans", "dreams", "skills") for s in seeds}
    assert len(RUNS) == len(made)
    assert len({(run["tasks"], tuple(run["lengths"])) for run in RUNS}) == 1


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['kind']}-{run['seed']}")
def test_a_row_agrees_with_itself(run):
    assert len(run["success"]) == len(run["lengths"]) == run["episodes"]
    assert sum(run["success"]) == run["successes"]
    low, high = run["ci95"]
    assert low <= run["successes"] / run["episodes"] <= high
    assert run["environment_steps"] == 200_000 and run["seconds"] >= run["model_seconds"] > 0
    assert run["made"]["command"].startswith("python scripts/comparison.py")


def test_nothing_is_made_again_that_is_there(tmp_path, capsys):
    """With all rows there, the script neither plays nor writes."""
    script = load_script("comparison")
    out = tmp_path / "comparison.json"
    out.write_text(json.dumps({"runs": RUNS}))
    before = out.read_bytes()
    assert script.main(["--seeds", "0", "1", "2", "--out", str(out)]) == 0
    assert out.read_bytes() == before and capsys.readouterr().out == ""
