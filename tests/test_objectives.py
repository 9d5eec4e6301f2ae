"""Objectives: closed forms, torch.distributions, quadrature, finite differences."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import SKILL, random_batch, random_noise, small_model
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from mbta_helpers.objectives import (
    Terms,
    action_log_likelihood,
    e_step_loss,
    elbo_terms,
    gaussian_kl,
    m_step_loss,
    one_pass_loss,
    support_loss,
)
from mbta_helpers.windows import WindowBatch

NETWORKS = ("posterior", "policy", "world_model", "prior")

numbers = st.floats(-5, 5)
spreads = st.floats(0.05, 4)
gaussians = st.tuples(numbers, spreads, numbers, spreads)


# -- the divergence and the likelihoods -------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(gaussians, min_size=1, max_size=4))
def test_kl_equals_torch(rows):
    q_loc, q_scale, p_loc, p_scale = torch.tensor(rows, dtype=torch.float64).T
    q, p = Normal(q_loc, q_scale), Normal(p_loc, p_scale)
    own = gaussian_kl(q, p)
    assert own.shape == q_loc.shape
    assert torch.allclose(own, kl_divergence(q, p), rtol=1e-9, atol=1e-12)
    assert (own >= -1e-12).all()


def test_kl_is_not_symmetric_and_vanishes_only_at_equality():
    narrow, wide = (
        Normal(torch.zeros(2), 0.5 * torch.ones(2)),
        Normal(torch.zeros(2), torch.ones(2)),
    )
    there = math.log(2) + 0.5 * (0.25 - 1)  # by hand: log σ_p/σ_q + (σ_q² − σ_p²) / 2 σ_p²
    back = -math.log(2) + 0.5 * (4 - 1)
    assert torch.allclose(gaussian_kl(narrow, wide), torch.full((2,), there))
    assert torch.allclose(gaussian_kl(wide, narrow), torch.full((2,), back))
    assert torch.equal(gaussian_kl(wide, wide), torch.zeros(2))


def test_action_likelihood_sums_over_steps_and_dimensions():
    model, batch = small_model(), random_batch(4, 5)
    z = random_noise(4)
    own = action_log_likelihood(model.policy, batch, z)
    for row in range(4):
        total = 0.0
        for t in range(5):
            policy = model.policy(batch.states[row, t], z[row])
            density = MultivariateNormal(policy.loc, torch.diag(policy.scale**2))
            total += density.log_prob(batch.actions[row, t]).item()
        assert own[row].item() == pytest.approx(total, rel=1e-10)


def test_terms_equal_torch_distributions():
    model, batch, noise = small_model(), random_batch(), random_noise()
    terms = elbo_terms(model, batch, noise)
    q = model.posterior(batch.states[:, :-1], batch.actions)
    z = q.loc + q.scale * noise
    outcome = Independent(model.world_model(batch.states[:, 0], z), 1)
    prior = Independent(model.prior(batch.states[:, 0]), 1)
    assert torch.allclose(terms.state, outcome.log_prob(batch.states[:, -1]))
    assert torch.allclose(terms.kl, kl_divergence(Independent(q, 1), prior))
    assert torch.allclose(terms.action, action_log_likelihood(model.policy, batch, z))


def test_elbo_is_action_plus_state_minus_beta_kl():
    terms = Terms(torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0]), torch.tensor([11.0, 13.0]))
    assert torch.equal(terms.elbo(), torch.tensor([2 + 5 - 11.0, 3 + 7 - 13.0]))
    assert torch.equal(terms.elbo(0.5), torch.tensor([2 + 5 - 5.5, 3 + 7 - 6.5]))


def test_only_the_state_term_sees_s_T():
    model, batch, noise = small_model(), random_batch(), random_noise()
    states = batch.states.clone()
    states[:, -1] += 1.0
    moved = WindowBatch(states, batch.actions)
    here, there = elbo_terms(model, batch, noise), elbo_terms(model, moved, noise)
    assert torch.equal(here.action, there.action) and torch.equal(here.kl, there.kl)
    assert not torch.isclose(here.state, there.state).any()
    loss = e_step_loss(model, batch, noise, 1.0)
    assert torch.equal(loss, e_step_loss(model, moved, noise, 1.0))


# -- a model in which everything is known in closed form --------------------------------------


class LinearGaussian:
    """z ~ N(m, diag), a_t = W_t z + noise, s_T = s_0 + C z + noise; q is any diagonal Gaussian.

    The evidence of (ā, s_T) is one multivariate Gaussian, and so is the true posterior of z.
    """

    def __init__(self, steps: int = 3, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.actions_from_z = torch.from_numpy(rng.standard_normal((2, SKILL)))
        self.delta_from_z = torch.from_numpy(rng.standard_normal((4, SKILL)))
        self.prior_loc = torch.from_numpy(rng.standard_normal(SKILL))
        self.prior_scale = torch.from_numpy(rng.uniform(0.5, 1.5, SKILL))
        self.action_scale, self.state_scale, self.steps = 0.7, 0.4, steps
        self.q_loc = torch.from_numpy(rng.standard_normal(SKILL))
        self.q_scale = torch.from_numpy(rng.uniform(0.2, 1.0, SKILL))

    def model(self) -> SimpleNamespace:
        """The four distributions with the interface of SkillModel."""

        def policy(state, z):
            mean = z @ self.actions_from_z.T
            return Normal(mean, torch.full_like(mean, self.action_scale))

        def world_model(state, z):
            mean = state + z @ self.delta_from_z.T
            return Normal(mean, torch.full_like(mean, self.state_scale))

        def expanded(rows, loc, scale):
            return Normal(loc.expand(rows, -1), scale.expand(rows, -1))

        return SimpleNamespace(
            policy=policy,
            world_model=world_model,
            prior=lambda state: expanded(len(state), self.prior_loc, self.prior_scale),
            posterior=lambda states, actions: expanded(len(states), self.q_loc, self.q_scale),
        )

    def joint(self, batch: WindowBatch, with_state: bool):
        """Data as one vector y, the matrix and offset of y given z, and the noise's variances."""
        rows = [self.actions_from_z] * self.steps
        y = batch.actions[0].flatten()
        variance = [self.action_scale**2] * (2 * self.steps)
        if with_state:
            rows.append(self.delta_from_z)
            y = torch.cat([y, batch.last[0] - batch.first[0]])
            variance += [self.state_scale**2] * 4
        return y, torch.cat(rows), torch.diag(torch.tensor(variance, dtype=torch.float64))

    def evidence(self, batch, with_state=True):
        y, matrix, noise = self.joint(batch, with_state)
        covariance = matrix @ torch.diag(self.prior_scale**2) @ matrix.T + noise
        return MultivariateNormal(matrix @ self.prior_loc, covariance).log_prob(y).item()

    def true_posterior(self, batch, with_state=True) -> MultivariateNormal:
        y, matrix, noise = self.joint(batch, with_state)
        precision = torch.diag(self.prior_scale**-2) + matrix.T @ noise.inverse() @ matrix
        weighted = matrix.T @ noise.inverse() @ y + self.prior_loc / self.prior_scale**2
        covariance = precision.inverse()
        return MultivariateNormal(covariance @ weighted, (covariance + covariance.T) / 2)

    def q(self) -> MultivariateNormal:
        return MultivariateNormal(self.q_loc, torch.diag(self.q_scale**2))


def gauss_hermite(points: int = 4):
    """Nodes, (n, Z), and weights of the exact expectation of a polynomial under N(0, I)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = weights / weights.sum()
    grid = torch.tensor(list(itertools.product(nodes, repeat=SKILL)), dtype=torch.float64)
    products = [math.prod(each) for each in itertools.product(weights, repeat=SKILL)]
    return grid, torch.tensor(products, dtype=torch.float64)


def repeated(batch: WindowBatch, times: int) -> WindowBatch:
    return WindowBatch(batch.states.expand(times, -1, -1), batch.actions.expand(times, -1, -1))


@pytest.mark.parametrize("seed", range(4))
def test_linear_gaussian_elbo_is_evidence_minus_divergence(seed):
    """log p(ā, s_T) − ELBO = KL(q ‖ p(z|ā, s_T)), the expectation by exact quadrature."""
    system, batch = LinearGaussian(seed=seed), random_batch(1, 3, seed=seed)
    noise, weights = gauss_hermite()
    terms = elbo_terms(system.model(), repeated(batch, len(noise)), noise)
    elbo = (weights * terms.elbo()).sum().item()
    gap = kl_divergence(system.q(), system.true_posterior(batch)).item()
    assert elbo == pytest.approx(system.evidence(batch) - gap, rel=1e-10)
    for loss in (m_step_loss, one_pass_loss):
        weighted = loss(system.model(), repeated(batch, len(noise)), noise, 1.0)[1]
        assert (weights * weighted.elbo()).sum().item() == pytest.approx(elbo, rel=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_linear_gaussian_e_step_aims_at_the_posterior_without_the_world_model(seed):
    """E-step loss + log p(ā) = KL(q ‖ p(z|ā)): the outcome s_T has no part in it."""
    system, batch = LinearGaussian(seed=seed), random_batch(1, 3, seed=seed)
    noise, weights = gauss_hermite()
    each = [
        e_step_loss(system.model(), batch, noise[row : row + 1], 1.0) for row in range(len(noise))
    ]
    loss = (weights * torch.stack(each)).sum().item()
    gap = kl_divergence(system.q(), system.true_posterior(batch, with_state=False)).item()
    assert loss == pytest.approx(gap - system.evidence(batch, with_state=False), rel=1e-10)


def test_linear_gaussian_elbo_touches_the_evidence_at_the_true_posterior():
    system, batch = LinearGaussian(), random_batch(1, 3)
    # With orthogonal columns the true posterior is diagonal, so that q can be it.
    system.actions_from_z = torch.zeros((2, SKILL), dtype=torch.float64)
    system.delta_from_z = torch.eye(4, dtype=torch.float64)[:, :SKILL]
    exact = system.true_posterior(batch)
    system.q_loc, system.q_scale = exact.mean, exact.variance.sqrt()
    noise, weights = gauss_hermite()
    elbo = elbo_terms(system.model(), repeated(batch, len(noise)), noise).elbo()
    assert (weights * elbo).sum().item() == pytest.approx(system.evidence(batch), rel=1e-10)


# -- gradients --------------------------------------------------------------------------------


def gradients(model, loss) -> dict[str, torch.Tensor]:
    """The gradient in each network's parameters, zeros where none arrives."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name: torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                for p in getattr(model, name).parameters()
            ]
        )
        for name in NETWORKS
    }


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    beta=st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    size=st.integers(1, 6),
    steps=st.integers(1, 7),
    layers=st.integers(1, 2),
)
def test_one_pass_has_the_gradients_of_both_steps(seed, beta, size, steps, layers):
    """q gets the E-step's gradient, the other three the M-step's: same z, same parameters."""
    model = small_model(seed, gru_layers=layers)
    hold_against_both_steps(model, random_batch(size, steps, seed), random_noise(size, seed), beta)


def test_one_pass_gradients_at_one_point():
    hold_against_both_steps(small_model(), random_batch(), random_noise(), 0.7)


def hold_against_both_steps(model, batch, noise, beta):
    one = gradients(model, one_pass_loss(model, batch, noise, beta)[0])
    expectation = gradients(model, e_step_loss(model, batch, noise, beta))
    maximisation = gradients(model, m_step_loss(model, batch, noise, beta)[0])
    for name in NETWORKS:
        two = expectation[name] if name == "posterior" else maximisation[name]
        assert (one[name] - two).abs().max() <= 1e-6 * max(1.0, two.abs().max().item()), name
        assert (name == "prior" and beta == 0) or two.abs().max() > 0, name


def directional(model, names, function, seed=0, step=1e-5):
    """The derivative of a function along a random direction of parameters, by differences."""
    parameters = [p for name in names for p in getattr(model, name).parameters()]
    generator = torch.Generator().manual_seed(seed)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for parameter, along in zip(parameters, direction, strict=True):
                parameter += sign * step * along
            if sign != 1 or not values:
                values.append(function())
    flat = torch.cat([each.flatten() for each in direction])
    return (values[0] - values[1]) / (2 * step), flat


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_e_step_gradient_is_the_derivative_through_z(beta):
    """Finite differences move φ, so z moves too: a graph that is cut shows at once."""
    model, batch, noise = small_model(), random_batch(), random_noise()
    gradient = gradients(model, e_step_loss(model, batch, noise, beta))["posterior"]

    def value():
        return e_step_loss(model, batch, noise, beta).item()

    slope, direction = directional(model, ["posterior"], value)
    assert (gradient @ direction).item() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("name", ["policy", "world_model", "prior"])
@pytest.mark.parametrize("loss", [m_step_loss, one_pass_loss])
def test_m_step_gradient_is_the_derivative(loss, name):
    model, batch, noise = small_model(), random_batch(), random_noise()
    gradient = gradients(model, loss(model, batch, noise, 0.7)[0])[name]

    def value():
        return loss(model, batch, noise, 0.7)[0].item()

    slope, direction = directional(model, [name], value)
    assert (gradient @ direction).item() == pytest.approx(slope, rel=1e-5)


def test_e_step_gradient_is_more_than_that_of_the_divergence():
    """With β = 0 all of it comes through z, and the graph that is cut would leave nothing."""
    model, batch, noise = small_model(), random_batch(), random_noise()
    gradient = gradients(model, e_step_loss(model, batch, noise, 0.0))["posterior"]
    assert gradient.norm() > 1e-3


def test_e_step_does_not_know_the_world_model():
    model, batch, noise = small_model(), random_batch(), random_noise()
    loss = e_step_loss(model, batch, noise, 1.0)
    both = gradients(model, loss)
    assert both["world_model"].abs().max() == 0
    one = gradients(model, one_pass_loss(model, batch, noise, 1.0)[0])["posterior"]
    with torch.no_grad():
        for parameter in model.world_model.parameters():
            parameter.mul_(3).add_(0.1)
    assert torch.equal(e_step_loss(model, batch, noise, 1.0), loss)
    again = gradients(model, one_pass_loss(model, batch, noise, 1.0)[0])["posterior"]
    assert torch.equal(one, again)


def test_m_step_holds_the_posterior_fixed():
    model, batch, noise = small_model(), random_batch(), random_noise()
    assert gradients(model, m_step_loss(model, batch, noise, 1.0)[0])["posterior"].abs().max() == 0


def test_policy_gradient_flows_for_the_same_z_in_one_pass_and_m_step():
    """Only p_ψ gets sg(z): the state term is the same function of ψ in both."""
    model, batch, noise = small_model(), random_batch(), random_noise()
    one = one_pass_loss(model, batch, noise, 0.3)
    two = m_step_loss(model, batch, noise, 0.3)
    assert torch.equal(one[0], two[0])
    for name in ("action", "state", "kl"):
        values = getattr(one[1], name), getattr(two[1], name)
        assert torch.equal(*values)
        assert not values[0].requires_grad and not values[1].requires_grad


@pytest.mark.parametrize("loss", ["e_step", "m_step", "one_pass"])
def test_beta_weighs_the_divergence_and_nothing_else(loss):
    model, batch, noise = small_model(), random_batch(), random_noise()

    def value(beta):
        if loss == "e_step":
            return e_step_loss(model, batch, noise, beta).item()
        return {"m_step": m_step_loss, "one_pass": one_pass_loss}[loss](model, batch, noise, beta)[
            0
        ].item()

    kl = elbo_terms(model, batch, noise).kl.mean().item()
    assert kl > 0
    for beta in (0.3, 1.0, 2.0):
        assert value(beta) - value(0.0) == pytest.approx(beta * kl, rel=1e-9)


def test_losses_are_means_over_the_batch():
    model, batch, noise = small_model(), random_batch(), random_noise()
    for loss in (
        e_step_loss,
        lambda *given: m_step_loss(*given)[0],
        lambda *given: one_pass_loss(*given)[0],
    ):
        whole = loss(model, batch, noise, 0.5)
        parts = [
            loss(
                model,
                WindowBatch(batch.states[row : row + 1], batch.actions[row : row + 1]),
                noise[row : row + 1],
                0.5,
            )
            for row in range(5)
        ]
        assert torch.allclose(whole, torch.stack(parts).mean())


def test_a_window_does_not_depend_on_its_neighbours_in_the_batch():
    model, batch, noise = small_model(), random_batch(), random_noise()
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = WindowBatch(batch.states[order], batch.actions[order])
    here, there = elbo_terms(model, batch, noise), elbo_terms(model, shuffled, noise[order])
    for name in ("action", "state", "kl"):
        assert torch.allclose(getattr(here, name)[order], getattr(there, name))


# -- the state support ------------------------------------------------------------------------


def test_support_loss_is_the_cross_entropy_of_a_classifier():
    """States of the data have label 1; the same states, put elsewhere in the box, label 0."""
    model, state = small_model(), random_batch().first
    with torch.no_grad():
        model.normaliser.low.copy_(torch.tensor([-3.0, -1, 0, 2]))
        model.normaliser.high.copy_(torch.tensor([-1.0, 3, 4, 5]))
    share = torch.rand((5, 2), generator=torch.Generator().manual_seed(3), dtype=state.dtype)
    elsewhere = state.clone()
    elsewhere[:, 0] = -3 + 2 * share[:, 0]
    elsewhere[:, 1] = -1 + 4 * share[:, 1]
    odds = torch.cat([model.support(state), model.support(elsewhere)])
    label = torch.cat([torch.ones(5), torch.zeros(5)]).double()
    by_torch = 2 * nn.functional.binary_cross_entropy_with_logits(odds, label)
    assert torch.allclose(support_loss(model.support, state, share), by_torch)
