"""Studies: a file of runs grows by whole runs, and says what made them."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from mbta_helpers import studies
from mbta_helpers.studies import add_runs, finished_runs, provenance


def test_runs_are_added_after_those_that_are_there(tmp_path):
    path = tmp_path / "study.json"
    assert finished_runs(path) == []
    add_runs(path, [{"seed": 1, "name": "λ"}], {"command": "first"})
    add_runs(path, [{"seed": 2}, {"seed": 3}], {"command": "second"})
    assert [run["seed"] for run in finished_runs(path)] == [1, 2, 3]
    stored = json.loads(path.read_text("utf-8"))
    assert stored["provenance"] == {"command": "second"}
    assert finished_runs(path)[0]["name"] == "λ"
    assert len(path.read_text("utf-8").splitlines()) == 6, "a run in each line"


def test_a_file_stays_as_it_was_where_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "study.json"
    add_runs(path, [{"seed": 1}], {})
    before = path.read_text("utf-8")
    with pytest.raises(TypeError):
        add_runs(path, [{"seed": object()}], {})
    assert path.read_text("utf-8") == before and list(tmp_path.iterdir()) == [path]


def test_runs_that_end_together_are_all_kept(tmp_path):
    path = tmp_path / "study.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: add_runs(path, [{"seed": seed}], {}), range(80)))
    assert sorted(run["seed"] for run in finished_runs(path)) == list(range(80))
    assert list(tmp_path.iterdir()) == [path]


def test_provenance_names_the_command_and_what_else_is_told():
    found = provenance("lake", ["--seeds", "1"], episodes=3)
    assert found["command"] == "python scripts/lake.py --seeds 1" and found["episodes"] == 3
    assert found["threads"] == studies.torch.get_num_threads()
    assert {"torch", "python", "mbta_helpers"} <= found["versions"].keys()
