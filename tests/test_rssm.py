"""The recurrent state-space model: distributions against torch's, filtering against itself."""

import pytest
import torch
from torch.distributions import (
    Independent,
    Normal,
    OneHotCategorical,
    kl_divergence,
)
from torch.nn.functional import softplus

from mbta_helpers.errors import UserError
from mbta_helpers.latent.rssm import RSSM, CategoricalLatent, GaussianLatent, State, stack

LATENTS = [GaussianLatent(3), CategoricalLatent(2, 4), CategoricalLatent(2, 4, uniform=0.1)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def small(latent=LATENTS[0], seed=0):
    torch.manual_seed(seed)
    return RSSM(2, 5, latent, deterministic=6, hidden=7)


def by_torch(latent, parameters):
    """The same distribution, of torch.distributions, its parts independent."""
    if isinstance(latent, GaussianLatent):
        mean, raw = parameters.chunk(2, -1)
        return Independent(Normal(mean, softplus(raw) + latent.least_std), 1)
    logits = parameters.unflatten(-1, (latent.groups, latent.classes))
    mixed = (1 - latent.uniform) * logits.softmax(-1) + latent.uniform / latent.classes
    return Independent(OneHotCategorical(probs=mixed), 1)


# -- distributions of z ---------------------------------------------------------------------------


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_divergence_and_density_are_those_of_torch(latent):
    q, p = draws(4, 5, latent.parameter_count), draws(4, 5, latent.parameter_count, seed=1)
    ours, theirs = latent.kl(q, p), kl_divergence(by_torch(latent, q), by_torch(latent, p))
    assert ours.shape == (4, 5) and torch.allclose(ours, theirs)
    assert torch.allclose(latent.kl(q, q), torch.zeros(4, 5, dtype=torch.float64), atol=1e-12)
    z = latent.sample(q, generator())
    shape = z.shape if latent.parameter_count == 6 else (4, 5, latent.groups, latent.classes)
    assert z.shape == (4, 5, latent.size)
    expected = by_torch(latent, p).log_prob(z.detach().round(decimals=6).view(shape))
    assert torch.allclose(latent.log_prob(p, z), expected, atol=1e-5)


def test_a_probability_that_rounds_to_nothing_has_a_finite_logarithm():
    latent = CategoricalLatent(1, 3)
    q, p = torch.tensor([[0.0, 0.0, 200.0]]), torch.tensor([[200.0, 0.0, 0.0]])
    assert torch.isfinite(latent.kl(q, p)).all() and latent.kl(q, p) > 100


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_samples_have_the_moments_of_their_distribution(latent):
    parameters = draws(1, latent.parameter_count).expand(20_000, -1)
    z = latent.sample(parameters, generator())
    expected = by_torch(latent, parameters[0])
    assert torch.allclose(z.mean(0), expected.mean.flatten(), atol=0.03)
    assert torch.allclose(z.var(0), expected.variance.flatten(), atol=0.05)


def test_a_gaussian_sample_has_the_gradient_of_its_reparametrisation():
    latent, parameters = GaussianLatent(3), draws(3, 6).requires_grad_()
    z = latent.sample(parameters, generator())
    mean, std = latent.moments(parameters)
    noise = ((z - mean) / std).detach()
    (gradient,) = torch.autograd.grad(z.sum(), parameters)
    slope = softplus(parameters.detach()[:, 3:] + 1e-6) - softplus(
        parameters.detach()[:, 3:] - 1e-6
    )
    assert torch.allclose(gradient[:, :3], torch.ones(3, 3, dtype=torch.float64))
    assert torch.allclose(gradient[:, 3:], noise * slope / 2e-6, atol=1e-6)


@pytest.mark.parametrize("latent", LATENTS, ids=str)
def test_the_mode_is_the_likeliest(latent):
    parameters = draws(6, latent.parameter_count)
    best = latent.log_prob(parameters, latent.mode(parameters))
    for seed in range(20):
        z = latent.sample(parameters, generator(seed))
        assert (latent.log_prob(parameters, z) <= best + 1e-6).all()


# -- the model ------------------------------------------------------------------------------------


@pytest.fixture
def sequence():
    """Embeddings (3, 8, 5), actions (3, 8, 2), and no start after the first row."""
    embedding = torch.randn(3, 8, 5, generator=generator(1))
    action = torch.rand(3, 8, 2, generator=generator(2)) * 2 - 1
    return embedding, action, torch.zeros(3, 8)


def noiseless(rssm):
    """The model with the mode in place of every draw, to compare runs of different lengths."""

    class Mode(GaussianLatent):
        def sample(self, parameters, generator):
            return self.mode(parameters)

    rssm.latent = Mode(rssm.latent.size)
    return rssm


def test_observe_is_one_step_after_the_other(sequence):
    embedding, action, is_first = sequence
    rssm = small()
    states, priors = rssm.observe(embedding, action, is_first, generator())
    draw, state = generator(), rssm.start(3)
    for t in range(8):
        first = torch.full((3,), float(t == 0))
        h = rssm.cell(
            rssm.inputs(torch.cat([state.z, action[:, t] * (1 - first[:, None])], -1)), state.h
        )
        state, prior = rssm.observe_step(state, action[:, t], first, embedding[:, t], draw)
        assert torch.equal(state.h, states.h[:, t]) and torch.equal(state.z, states.z[:, t])
        assert torch.allclose(h, state.h) and torch.allclose(prior, rssm.prior(h))
        assert torch.equal(prior, priors[:, t])
        q = rssm.posterior(torch.cat([h, embedding[:, t]], -1))
        assert torch.allclose(q, states.parameters[:, t])


def test_a_start_in_the_middle_forgets_the_past(sequence):
    """After is_first the states are those of a sequence that begins there; others go on."""
    embedding, action, is_first = sequence
    rssm = noiseless(small())
    is_first[1, 3] = 1
    states, priors = rssm.observe(embedding, action, is_first, generator())
    fresh, fresh_priors = rssm.observe(
        embedding[:, 3:], action[:, 3:], is_first[:, 3:], generator()
    )
    for ours, theirs in (*zip(states, fresh, strict=True), (priors, fresh_priors)):
        assert torch.allclose(ours[1, 3:], theirs[1], atol=1e-6)
        assert not torch.allclose(ours[0, 3:], theirs[0], atol=1e-3)


def test_the_first_row_of_a_sequence_knows_no_action(sequence):
    embedding, action, is_first = sequence
    rssm = noiseless(small())
    states, _ = rssm.observe(embedding, action, is_first, generator())
    action[:, 0] = 9.0
    other, _ = rssm.observe(embedding, action, is_first, generator())
    assert all(torch.equal(a, b) for a, b in zip(states, other, strict=True))


def test_the_past_reaches_the_present_and_the_future_does_not(sequence):
    embedding, action, is_first = sequence
    embedding.requires_grad_(), action.requires_grad_()
    states, priors = small().observe(embedding, action, is_first, generator())
    seen, done = torch.autograd.grad(states.z[:, 4].sum(), (embedding, action), retain_graph=True)
    assert (seen[:, :5].abs().sum(-1) > 0).all() and (seen[:, 5:] == 0).all()
    assert (done[:, 1:5].abs().sum(-1) > 0).all() and (done[:, 5:] == 0).all()
    (told,) = torch.autograd.grad(priors[:, 4].sum(), embedding)
    assert (told[:, 3] != 0).any() and (told[:, 4:] == 0).all()  # a prior has not seen o_t


def test_imagination_is_the_prior_step_by_step(sequence):
    _, action, _ = sequence
    rssm, draw = small(), generator()
    start = State(
        *(torch.randn(3, part.shape[-1], generator=generator(4)) for part in rssm.start(3))
    )
    states = rssm.imagine(start, action, generator())
    state = start
    for t in range(8):
        h = rssm.advance(state, action[:, t])
        z = rssm.latent.sample(rssm.prior(h), draw)
        state = State(h, z, rssm.prior(h))
        assert torch.equal(states.h[:, t], h) and torch.equal(states.z[:, t], z)


def test_states_are_stacked_flattened_and_cut():
    rows = [State(*(draws(4, n, seed=t) for n in (6, 3, 6))) for t in range(5)]
    together = stack(rows)
    assert torch.equal(together.z[:, 2], rows[2].z) and together.h.shape == (4, 5, 6)
    assert together.flatten().parameters.shape == (20, 6)
    assert together.features.shape == (4, 5, 9)
    assert torch.equal(together.features[..., :6], together.h)
    assert torch.equal(together.features[..., 6:], together.z)
    held = State(*(part.requires_grad_() for part in together)).detach()
    assert not any(part.requires_grad for part in held)


def test_sequences_that_do_not_fit_are_refused(sequence):
    embedding, action, is_first = sequence
    with pytest.raises(UserError, match="must agree"):
        small().observe(embedding, action[:, 1:], is_first, generator())
