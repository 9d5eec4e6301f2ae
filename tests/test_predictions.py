"""Predictive likelihoods against closed forms: enumeration for classes, else a Gaussian."""

import itertools

import pytest
import torch
from torch import nn

from mbta_helpers.errors import UserError
from mbta_helpers.latent.dreamer_v2 import DreamerV2Model, DreamerV2ModelConfig
from mbta_helpers.latent.predictions import imagined_next, one_step, open_loop
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import CategoricalLatent, GaussianLatent, State
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig

SMALL = {"deterministic": 6, "hidden": 8, "embedding": 5}


def sequences(seed: int, pixels=True) -> Sequences:
    g = torch.Generator().manual_seed(seed)
    observation = torch.rand(3, 4, 2, generator=g)
    action = torch.randn(3, 4, 2, generator=g)
    zeros = torch.zeros(3, 4)
    return Sequences(observation.round() if pixels else observation, action, zeros, zeros, zeros)


def generator():
    return torch.Generator().manual_seed(0)


def categories() -> DreamerV2Model:
    config = DreamerV2ModelConfig(latent=CategoricalLatent(2, 2), **SMALL)
    model = DreamerV2Model((2,), 2, config, seed=1, rare=0.5)
    for parameter in model.parameters():
        parameter.data *= 2  # so that draws differ
    return model


def test_one_step_is_the_enumerated_mixture():
    model, batch = categories(), sequences(0)
    with torch.no_grad():
        states, priors = model.observe(batch, generator())
        parts = []
        for each in itertools.product(torch.eye(2), repeat=2):
            z = torch.cat(each).expand(3, 4, 4)
            likelihood = -model.observation_loss(torch.cat([states.h, z], -1), batch.observation)
            parts.append(likelihood + model.latent.log_prob(priors, z))
        exact = torch.stack(parts).logsumexp(0)
    estimate = one_step(model, batch, 20_000, generator())
    assert torch.allclose(estimate, exact, atol=0.03)


def test_one_step_is_the_closed_form_of_gaussians():
    """A linear decoder: o ~ N(W_h h + W_z μ + b, I + W_z Σ W_zᵀ)."""
    config = WorldModelConfig(latent=GaussianLatent(3), **SMALL)
    model, batch = WorldModel((2,), 2, config, seed=1), sequences(0, pixels=False)
    model.decoder = nn.Linear(9, 2)
    nn.init.normal_(model.decoder.weight, generator=generator())
    with torch.no_grad():
        states, priors = model.observe(batch, generator())
        mean, std = model.latent.moments(priors)
        weight = model.decoder.weight[:, 6:]
        centre = model.decoder(torch.cat([states.h, mean], -1))
        covariance = torch.eye(2) + (weight * std[..., None, :].square()) @ weight.T
        exact = torch.distributions.MultivariateNormal(centre, covariance).log_prob(
            batch.observation
        )
    constant = torch.log(torch.tensor(2 * torch.pi))  # of two unit Gaussians, which the model omits
    estimate = one_step(model, batch, 20_000, generator()) - constant
    assert torch.allclose(estimate, exact, atol=0.05)


def test_the_first_step_of_an_open_loop_is_one_step():
    """From the same filtered state the two estimate the same number."""
    model, batch = categories(), sequences(2)
    two = Sequences(*(part[:, :2] for part in batch))
    torch.manual_seed(0)
    one = one_step(model, two, 20_000, generator())[:, 1]
    loop = open_loop(model, two, 1, 20_000, generator())[:, 0]
    assert torch.allclose(one, loop, atol=0.03)


def test_an_open_loop_is_the_enumerated_mixture_two_steps_ahead():
    model, batch = categories(), sequences(1)
    outcomes = [torch.cat(each).expand(3, 4) for each in itertools.product(torch.eye(2), repeat=2)]
    with torch.no_grad():
        seen = Sequences(*(part[:, :2] for part in batch))
        last = State(*(part[:, -1] for part in model.observe(seen, generator())[0]))
        parts = []
        for first, second in itertools.product(outcomes, repeat=2):
            h, log_p, z = last.h, 0.0, last.z
            for outcome, action in ((first, batch.action[:, 2]), (second, batch.action[:, 3])):
                h = model.rssm.advance(State(h, z, z), action)
                log_p, z = log_p + model.latent.log_prob(model.rssm.prior(h), outcome), outcome
            picture = -model.observation_loss(torch.cat([h, z], -1), batch.observation[:, 3])
            parts.append(picture + log_p)
        exact = torch.stack(parts).logsumexp(0)
    estimate = open_loop(model, batch, 2, 20_000, generator())
    assert estimate.shape == (3, 2)
    assert torch.allclose(estimate[:, 1], exact, atol=0.03)


def test_imagined_pictures_are_probabilities_drawn_from_the_prior():
    model, batch = categories(), sequences(0)
    pictures = imagined_next(model, batch, 500, generator())
    assert pictures.shape == (500, 3, 4, 2)
    assert pictures.min() > 0 and pictures.max() < 1
    likelihood = torch.where(batch.observation > 0.5, pictures, 1 - pictures).prod(-1).mean(0).log()
    assert torch.allclose(likelihood, one_step(model, batch, 5000, generator()), atol=0.15)


@pytest.mark.parametrize("context", [0, 4])
def test_a_context_that_leaves_nothing_is_refused(context):
    with pytest.raises(UserError, match="context"):
        open_loop(categories(), sequences(0), context, 8, generator())
