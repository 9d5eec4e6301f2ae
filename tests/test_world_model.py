"""The world model's loss: sums where sums belong, against torch.distributions."""

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from mbta_helpers.errors import UserError
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import CategoricalLatent, GaussianLatent, State
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig, gaussian_error

SIZES = {"deterministic": 6, "hidden": 7, "embedding": 5, "layers": 1}


def model_of(shape=(4, 3), **values):
    return WorldModel(shape, 2, WorldModelConfig(**(SIZES | values)))


def batch_of(shape=(4, 3), sequences=3, steps=6):
    draw = torch.Generator().manual_seed(0)
    is_terminal = torch.zeros(sequences, steps)
    is_terminal[1, 2] = 1
    is_first = torch.zeros(sequences, steps)
    is_first[1, 3] = 1
    return Sequences(
        torch.randn(sequences, steps, *shape, generator=draw),
        torch.randn(sequences, steps, 2, generator=draw),
        torch.randn(sequences, steps, generator=draw),
        is_first,
        is_terminal,
    )


def terms_of(model, batch):
    states, priors = model.observe(batch, torch.Generator().manual_seed(1))
    return model.terms(batch, states, priors), states, priors


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_the_observations_term_is_a_sum_over_all_its_numbers(shape):
    """−log of a Gaussian with σ = 1 but for its constant; not a mean over pixels."""
    model, batch = model_of(shape), batch_of(shape)
    terms, states, _ = terms_of(model, batch)
    mean = model.predict_observation(states.features)
    assert mean.shape == batch.observation.shape
    density = Normal(mean, 1.0).log_prob(batch.observation) - Normal(0.0, 1.0).log_prob(
        torch.tensor(0.0)
    )
    assert torch.allclose(terms.observation, -density.flatten(2).sum(-1), atol=1e-5)


def test_reward_and_continuation_are_likelihoods():
    model, batch = model_of(), batch_of()
    terms, states, _ = terms_of(model, batch)
    error = model.predict_reward(states.features) - batch.reward
    assert torch.allclose(terms.reward, 0.5 * error**2 * (1 - batch.is_first))
    probability = model.predict_continuation(states.features)
    expected = -Bernoulli(probability).log_prob(1 - batch.is_terminal)
    assert torch.allclose(terms.continuation, expected, atol=1e-6)


def test_no_reward_is_learnt_where_an_episode_starts():
    """The loss ignores the reward that stands in a first row, and no other."""
    model, batch = model_of(), batch_of()
    is_first = torch.zeros(3, 6)
    is_first[:, 2] = 1
    losses = []
    for t in (None, 2, 3):
        reward = batch.reward.clone()
        if t is not None:
            reward[:, t] += 1
        terms = terms_of(model, batch._replace(reward=reward, is_first=is_first))[0]
        losses.append(terms.loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_weights_scale_their_terms_alone():
    plain, batch = terms_of(model_of(), batch_of())[0], batch_of()
    weighted = terms_of(model_of(observation_scale=3.0, reward_scale=5.0), batch)[0]
    assert torch.allclose(weighted.observation, 3 * plain.observation)
    assert torch.allclose(weighted.reward, 5 * plain.reward)
    assert torch.allclose(weighted.divergence, plain.divergence)
    assert torch.allclose(weighted.continuation, plain.continuation)


def test_the_loss_is_the_mean_of_what_is_descended():
    terms = terms_of(model_of(), batch_of())[0]
    assert all(part.shape == (3, 6) for part in terms)
    parts = (terms.observation, terms.reward, terms.continuation, terms.divergence)
    assert torch.allclose(terms.loss, sum(part.mean() for part in parts))


@pytest.mark.parametrize("latent", [GaussianLatent(4), CategoricalLatent(3, 4)], ids=str)
def test_free_nats_are_those_of_a_step_after_the_sum_over_latents(latent):
    """One of the parts of z has 2 nats and the others none: with 1 free nat the 2 count whole."""
    model = model_of(latent=latent, free_nats=1.0)
    zeros = torch.zeros(1, 1, latent.parameter_count)
    if isinstance(latent, GaussianLatent):
        sharp = zeros.clone()
        sharp[..., 0] = 2 * latent.moments(zeros)[1][0, 0, 0]  # 2 σ away: 2 nats
        expected = 2.0
    else:
        sharp = zeros.clone()
        sharp[..., 0] = 30.0
        expected = torch.tensor(4.0).log().item()  # one of four classes is certain
    assert torch.allclose(model.divergence(sharp, zeros), torch.tensor([[expected]]), atol=1e-5)
    assert model.divergence(zeros, zeros).item() == 1.0  # all of it free


def test_free_nats_are_taken_step_by_step_and_not_from_the_mean():
    model = model_of(latent=GaussianLatent(1), free_nats=1.0)
    prior = torch.zeros(1, 2, 2)
    posterior = prior.clone()
    posterior[0, 0, 0] = 2 * model.latent.moments(prior)[1][0, 0, 0]
    posterior.requires_grad_()
    divergence = model.divergence(posterior, prior)
    assert torch.allclose(divergence, torch.tensor([[2.0, 1.0]]), atol=1e-5)
    divergence.sum().backward()
    assert posterior.grad[0, 0].abs().sum() > 0 and posterior.grad[0, 1].abs().sum() == 0


def test_the_divergence_is_of_the_posterior_from_the_prior():
    model, batch = model_of(free_nats=0.0), batch_of()
    terms, states, priors = terms_of(model, batch)
    kl = model.latent.kl(states.parameters, priors)
    assert torch.allclose(terms.divergence, kl) and torch.allclose(terms.kl, kl)
    assert not torch.allclose(kl, model.latent.kl(priors, states.parameters), atol=1e-3)
    assert not terms.kl.requires_grad and terms.divergence.requires_grad


def test_every_parameter_is_trained():
    model = model_of(free_nats=0.0)
    terms_of(model, batch_of())[0].loss.backward()
    untouched = [name for name, part in model.named_parameters() if not part.grad.abs().sum() > 0]
    assert untouched == []


def test_the_seed_makes_the_model_and_leaves_the_world_alone():
    before = torch.get_rng_state()
    one, same, other = (WorldModel((3,), 1, WorldModelConfig(**SIZES), s) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    weights = [model.rssm.prior[0].weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_state_without_leading_axes_of_time_has_predictions():
    model = model_of()
    state = State(*(torch.zeros(9, n) for n in (6, 12, 24)))
    assert model.predict_observation(state.features).shape == (9, 4, 3)
    assert model.predict_reward(state.features).shape == (9,)
    assert gaussian_error(torch.ones(2, 3), torch.zeros(2, 3), 1).tolist() == [1.5, 1.5]


@pytest.mark.parametrize(
    "values",
    [
        {"deterministic": 0},
        {"hidden": 0},
        {"embedding": 0},
        {"layers": 0},
        {"free_nats": -1},
        {"observation_scale": -1},
        {"reward_scale": -0.1},
    ],
)
def test_a_wrong_configuration_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        WorldModelConfig(**values)
