"""Two-hot regression: encodings by brute force, exact means, and heads that start at 0."""

import math

import pytest
import torch

from mbta_helpers.errors import UserError
from mbta_helpers.latent.rssm import mlp
from mbta_helpers.latent.twohot import (
    GaussianHead,
    TwoHotHead,
    symexp,
    symexp_bins,
    symlog,
    symmetric_mean,
    twohot,
    twohot_loss,
)


def numbers(count=200, seed=0):
    """Numbers of all sizes and both signs, 0 and one among them."""
    generator = torch.Generator().manual_seed(seed)
    spread = 18 * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)
    return torch.cat([symexp(spread), torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)])


# -- symlog -----------------------------------------------------------------------------------


def test_symexp_undoes_symlog():
    x = numbers()
    assert torch.allclose(symexp(symlog(x)), x, rtol=1e-10)
    assert torch.allclose(symlog(-x), -symlog(x))
    assert math.isclose(float(symlog(torch.tensor(math.e - 1))), 1.0, rel_tol=1e-6)


def test_derivative_of_symlog():
    x = torch.tensor([-300.0, -2.0, -0.1, 0.3, 5.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(symlog(x).sum(), x)
    assert torch.allclose(slope, 1 / (1 + x.detach().abs()))
    difference = (symlog(x + 1e-6) - symlog(x - 1e-6)) / 2e-6
    assert torch.allclose(slope, difference, rtol=1e-6)


# -- bins and encodings -----------------------------------------------------------------------


def test_bins_are_symexp_of_even_steps_and_mirror_each_other():
    bins = symexp_bins()
    assert bins.shape == (255,) and bins[127] == 0 and (bins == -bins.flip(0)).all()
    assert (bins.diff() > 0).all()
    assert torch.allclose(symlog(bins), torch.linspace(-20, 20, 255), atol=1e-5)
    with pytest.raises(UserError, match="odd"):
        symexp_bins(254)


def brute_twohot(x, bins):
    """One number at a time: look for the pair of bins around it."""
    code = [0.0] * len(bins)
    if x <= bins[0]:
        code[0] = 1.0
    elif x >= bins[-1]:
        code[-1] = 1.0
    else:
        k = next(k for k in range(len(bins) - 1) if bins[k] <= x < bins[k + 1])
        code[k + 1] = (x - bins[k]) / (bins[k + 1] - bins[k])
        code[k] = 1 - code[k + 1]
    return code


BINS = torch.tensor([-6.0, -2.0, -0.5, 0.0, 0.5, 2.0, 6.0], dtype=torch.float64)
VALUES = [-9.0, -6.0, -5.0, -2.0, -1.0, -0.5, -0.1, 0.0, 0.2, 0.5, 1.9, 2.0, 5.9, 6.0, 60.0]


def test_encoding_is_that_of_brute_force():
    x = torch.tensor(VALUES, dtype=torch.float64)
    wanted = torch.tensor([brute_twohot(value, BINS.tolist()) for value in VALUES]).double()
    assert torch.allclose(twohot(x, BINS), wanted)
    assert torch.allclose(twohot(x.view(3, 5), BINS), wanted.view(3, 5, -1))


def test_the_mean_of_an_encoding_is_the_number():
    bins, x = symexp_bins().double(), numbers()
    code = twohot(x, bins)
    assert torch.allclose(code.sum(-1), torch.ones(len(x), dtype=torch.float64))
    assert ((code > 0).sum(-1) <= 2).all()
    assert torch.allclose(code @ bins, x, rtol=1e-5)
    assert (twohot(bins, bins) == torch.eye(255)).all()


def test_encoding_is_that_of_torchrl():
    losses = pytest.importorskip("torchrl.objectives")
    module = getattr(losses, "dreamer_v3", None) or pytest.skip("no DreamerV3 in this torchrl")
    encode = getattr(module, "two_hot_encode", None) or pytest.skip("no two-hot in this torchrl")
    x, bins = torch.tensor(VALUES), BINS.float()
    assert torch.allclose(encode(x, bins), twohot(x, bins), atol=1e-6)


def test_loss_is_cross_entropy_with_the_encoding():
    generator = torch.Generator().manual_seed(1)
    x = torch.tensor(VALUES, dtype=torch.float64)
    logits = torch.randn(len(x), len(BINS), generator=generator, dtype=torch.float64)
    wanted = -(twohot(x, BINS) * logits.log_softmax(-1)).sum(-1)
    assert torch.allclose(twohot_loss(logits, x, BINS), wanted)


def test_the_gradient_of_the_loss_does_not_grow_with_the_number():
    bins = symexp_bins()
    for x in (0.01, 1.0, 1e6):
        logits = torch.zeros(255, requires_grad=True)
        twohot_loss(logits, torch.tensor(x), bins).backward()
        assert torch.allclose(logits.grad, 1 / 255 - twohot(torch.tensor(x), bins), atol=1e-6)
        assert logits.grad.abs().sum() <= 2


# -- means ------------------------------------------------------------------------------------


def test_the_mean_is_the_sum_over_bins():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(4, 3, 255, generator=generator, dtype=torch.float64)
    bins = symexp_bins().double()
    assert torch.allclose(symmetric_mean(logits, bins), logits.softmax(-1) @ bins)


def test_the_mean_is_exactly_zero_where_mirrored_bins_weigh_the_same():
    bins = symexp_bins()
    assert symmetric_mean(torch.zeros(255), bins) == 0
    generator = torch.Generator().manual_seed(3)
    half = torch.randn(128, generator=generator)
    logits = torch.cat([half[1:].flip(0), half])
    assert symmetric_mean(logits, bins) == 0
    assert (logits.softmax(-1) * bins).sum() != 0, "a plain sum rounds, and this tells them apart"


# -- heads ------------------------------------------------------------------------------------


def test_a_two_hot_head_starts_at_zero_and_learns_a_mean():
    """Targets 0 and 1000 with equal chances: the head tells their mean, not symexp's of a mean."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = TwoHotHead(mlp, 3, 16, layers=1)
    features = torch.ones(64, 3)
    assert (head.mean(head(features)) == 0).all()
    target = torch.tensor([0.0, 1000.0]).repeat(32)
    optimizer = torch.optim.Adam(head.parameters(), 3e-2)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(head(features), target).mean().backward()
        optimizer.step()
    assert abs(head.mean(head(features))[0].item() - 500) < 25
    assert "bins" in head.state_dict()


def test_the_heads_of_the_second_version_are_gaussian():
    head, features = GaussianHead(mlp, 3, 16, layers=1), torch.randn(5, 3)
    target = torch.arange(5.0)
    output = head(features)
    density = torch.distributions.Normal(head.mean(output), 1.0).log_prob(target)
    wanted = -density - math.log(2 * math.pi) / 2
    assert torch.allclose(head.loss(output, target), wanted, atol=1e-5)
