"""What states know: the script on few tasks, and its measures on known numbers."""

import json

import pytest
import torch
from samples import load_script

from mbta_helpers.latent.rssm import State


@pytest.fixture
def script(monkeypatch):
    module = load_script("dreamer_probes")
    monkeypatch.setattr(module, "TRAINING", 6)
    monkeypatch.setattr(module, "OTHER", 3)
    return module


def test_explained_is_one_for_the_truth_and_zero_for_its_mean(script):
    wanted = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    assert script.explained(wanted, wanted) == 1
    assert script.explained(wanted.mean(0).expand(50, 2), wanted) == 0
    assert script.explained(-wanted, wanted) < -2


def test_recorded_facts_are_those_of_the_pictures(script):
    """The goal stays for an episode; the velocity is 0 where one starts."""
    rows, facts = script.record(seed=1)
    assert rows.observation.shape == (102, 9, 16, 16) and facts.shape == (102, 9, 6)
    starts = rows.is_first.bool()
    assert (facts[starts][:, 2:4] == 0).all()
    held = ~starts[1:]
    assert (facts[1:, :, 4:][held] == facts[:-1, :, 4:][held]).all()
    distance = (facts[..., :2] - facts[..., 4:]).norm(dim=-1)
    assert torch.allclose(rows.reward[~starts], -distance[~starts], atol=1e-5)


def test_what_is_in_the_states_is_read_from_them(script, monkeypatch):
    """States that hold the facts explain all of them; those of a constant explain nothing."""
    rows, facts = script.record(seed=1)
    model = script.WorldModel((16, 16), 2, script.PICTURES["reward"].model, 0)
    held = facts.transpose(0, 1)  # (N, ROWS, 6)
    for known, alike in ((held, True), (torch.zeros_like(held), False)):
        filler = torch.zeros(*known.shape[:2], model.rssm.deterministic)
        z = torch.zeros(*known.shape[:2], model.latent.size)
        state = State(torch.cat([known, filler[..., 6:]], -1), z, z)
        monkeypatch.setattr(model, "observe", lambda *_, state=state: (state, None))
        scores = script.measure(model, rows, facts, seed=1)
        found = [scores[name] for name in script.QUANTITIES]
        assert (min(found) > 0.8) == alike, found


def test_the_script_measures_each_representation_and_an_untrained_network(script, tmp_path):
    assert script.main(["--seeds", "5", "--updates", "1", "--out", str(tmp_path)]) == 0
    study = json.loads((tmp_path / "probes.json").read_text("utf-8"))
    names = [run["name"] for run in study["runs"]]
    assert names == ["reconstruction", "contrastive", "reward", "untrained"]
    assert study["updates"] == 1 and study["provenance"]["command"].endswith(str(tmp_path))
    assert all({"position", "velocity", "goal", "reward"} <= run.keys() for run in study["runs"])
