"""Models with one path only, and the sequences that tell them apart."""

import pytest
import torch

from mbta_helpers.errors import UserError
from mbta_helpers.latent import paths
from mbta_helpers.latent.rssm import State
from mbta_helpers.latent.world_model import WorldModelConfig


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_forks_by_hand():
    batch, cue, side = paths.forks(300, generator())
    seen = batch.observation
    assert seen.shape == (300, 14, 11) and set(cue.tolist()) == set(side.tolist()) == {-1, 1}
    assert torch.equal(seen[..., :9].sum(-1), torch.ones(300, 14))
    assert (seen[:, :4, 4] == 1).all()  # nothing before the fork tells the side
    place = seen[..., :9].argmax(-1)
    assert torch.equal(place[:, 4:8], 4 + side[:, None] * torch.arange(1, 5))
    assert torch.equal(place[:, 7:], (4 + 4 * side)[:, None].expand(-1, 7))
    for t in range(14):
        shown = cue if t == 0 or t >= 12 else torch.zeros_like(cue)
        assert torch.equal(seen[:, t, 9], shown.float())
        assert (seen[:, t, 10] == float(t >= 12)).all()
    assert abs((side * cue).float().mean()) < 0.2
    assert batch.is_first.sum() == 300 and (batch.is_first[:, 0] == 1).all()


def test_a_sure_latent_has_no_noise_and_pays_for_the_distance_of_means():
    latent = paths.SureLatent(3)
    q, p = torch.randn(5, 6, generator=generator()), torch.randn(5, 6, generator=generator(1))
    assert torch.equal(latent.sample(q, generator()), q[:, :3])
    assert torch.allclose(latent.kl(q, p), 0.5 * (q - p)[:, :3].square().sum(-1))


def test_without_the_deterministic_path_h_is_a_function_of_z_and_action():
    config = WorldModelConfig(paths.GaussianLatent(4), 6, 7, 5, 1)
    rssm = paths.RandomPathModel((11,), 1, config).rssm
    z, action = torch.randn(2, 4, generator=generator()), torch.zeros(2, 1)
    one, other = (State(torch.full((2, 6), value), z, z) for value in (0.0, 0.9))
    assert torch.equal(rssm.advance(one, action), rssm.advance(other, action))
    moved = one._replace(z=z + 1)
    assert not torch.allclose(rssm.advance(one, action), rssm.advance(moved, action))


class Oracle:
    """Stands for a model: each imagined sequence is what a function makes of it."""

    def __init__(self, change):
        self.change = change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda seen: seen, {"decided": 1, "kept": 1, "recalled": 1}),
        (lambda seen: (seen + seen[..., [8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 10]]) / 2, {"decided": 0}),
        (lambda seen: seen * torch.tensor([1.0] * 9 + [-1, 1]), {"recalled": 0, "kept": 1}),
        (
            lambda seen: torch.cat([seen[:, :9], seen[:, 9:].roll(4, -1)], 1),
            {"decided": 1, "kept": 0},
        ),
    ],
)
def test_measures_of_known_futures(monkeypatch, change, expected):
    def known(model, batch, seen, generator):
        return model.change(batch.observation), None

    monkeypatch.setattr(paths, "open_loop", known)
    measured = paths.judge_futures(Oracle(change), 0)
    assert {name: measured[name] for name in expected} == expected
    if expected.get("decided") == 1:
        assert 0.4 < measured["right"] < 0.6


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="kind of state"):
        paths.train_on_forks("random", 1, 0)


@pytest.mark.parametrize("kind", list(paths.KINDS))
def test_training_on_forks_is_repeatable(kind):
    one, two = (paths.train_on_forks(kind, 2, seed=3) for _ in range(2))
    assert torch.equal(one.decoder[0].weight, two.decoder[0].weight)
