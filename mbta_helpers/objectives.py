"""Objectives: the ELBO, the E-step, the M-step, and one pass whose gradients equal both steps'.

For a window τ of T actions and z ~ q_φ(z|τ) (Freed et al. 2023, section 4):

    ELBO = log π_θ(ā|s̄, z) + log p_ψ(s_T|s_0, z) − β KL(q_φ(z|τ) ‖ p_ω(z|s_0)),   β = 1.

Each function returns a loss in nats a window, the mean over the batch. The KL divergence is taken
in closed form, in all of them; `noise` is the ε of z = μ_q + σ_q ε, so that the same sample can be
used twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import softplus

from mbta_helpers.networks import SkillModel, SkillPolicy, StateSupport
from mbta_helpers.windows import WindowBatch


def gaussian_kl(q: Normal, p: Normal) -> Tensor:
    """KL(q ‖ p) of diagonal Gaussians, a dimension at a time: (..., Z) to (..., Z), in nats."""
    ratio = (q.scale / p.scale).square()
    shift = ((q.loc - p.loc) / p.scale).square()
    return 0.5 * (ratio + shift - 1.0 - ratio.log())


def action_log_likelihood(policy: SkillPolicy, batch: WindowBatch, z: Tensor) -> Tensor:
    """log π_θ(ā|s̄, z), summed over the T steps and the action's dimensions; z: (B, Z) to (B,)."""
    steps = batch.actions.shape[1]
    z_each_step = z[:, None].expand(-1, steps, -1)  # (B, T, Z)
    return policy(batch.before, z_each_step).log_prob(batch.actions).sum((1, 2))


@dataclass(frozen=True)
class Terms:
    """The terms of the ELBO, each (B,) in nats a window."""

    action: Tensor
    state: Tensor
    kl: Tensor

    def elbo(self, beta: float = 1.0) -> Tensor:
        """action + state − β KL, (B,)."""
        return self.action + self.state - beta * self.kl


def elbo_terms(model: SkillModel, batch: WindowBatch, noise: Tensor) -> Terms:
    """The terms of the ELBO for one sample of z; noise: (B, Z)."""
    q = model.posterior(batch.before, batch.actions)
    z = q.loc + q.scale * noise  # (B, Z)
    return Terms(
        action=action_log_likelihood(model.policy, batch, z),
        state=model.world_model(batch.first, z).log_prob(batch.last).sum(-1),
        kl=gaussian_kl(q, model.prior(batch.first)).sum(-1),
    )


def _detach(terms: Terms) -> Terms:
    return Terms(terms.action.detach(), terms.state.detach(), terms.kl.detach())


def e_step_loss(model: SkillModel, batch: WindowBatch, noise: Tensor, beta: float) -> Tensor:
    """−E_q[log π_θ] + β KL(q_φ ‖ p_ω): minimising it in φ is the E-step.

    The world model is not in it: given s̄ and ā, where they led says nothing more about z.
    The gradient flows through z into φ. θ and ω are held fixed by updating φ alone, not by
    cutting the graph.
    """
    q = model.posterior(batch.before, batch.actions)
    z = q.loc + q.scale * noise  # (B, Z)
    kl = gaussian_kl(q, model.prior(batch.first)).sum(-1)  # (B,)
    return (beta * kl - action_log_likelihood(model.policy, batch, z)).mean()


def m_step_loss(
    model: SkillModel, batch: WindowBatch, noise: Tensor, beta: float
) -> tuple[Tensor, Terms]:
    """−E_q[log π_θ + log p_ψ] + β KL(q ‖ p_ω), q held fixed: minimise in θ, ψ and ω.

    Returns the loss and the terms, detached.
    """
    with torch.no_grad():
        q = model.posterior(batch.before, batch.actions)
        z = q.loc + q.scale * noise  # (B, Z)
    terms = Terms(
        action=action_log_likelihood(model.policy, batch, z),
        state=model.world_model(batch.first, z).log_prob(batch.last).sum(-1),
        kl=gaussian_kl(q, model.prior(batch.first)).sum(-1),
    )
    return -terms.elbo(beta).mean(), _detach(terms)


def one_pass_loss(
    model: SkillModel, batch: WindowBatch, noise: Tensor, beta: float
) -> tuple[Tensor, Terms]:
    """Both steps in one backward pass: −(log π_θ(z) + log p_ψ(sg(z)) − β KL).

    sg stops the gradient, so φ gets the E-step's gradient and θ, ψ, ω the M-step's.
    Returns the loss and the terms, detached.
    """
    q = model.posterior(batch.before, batch.actions)
    z = q.loc + q.scale * noise  # (B, Z)
    terms = Terms(
        action=action_log_likelihood(model.policy, batch, z),
        state=model.world_model(batch.first, z.detach()).log_prob(batch.last).sum(-1),
        kl=gaussian_kl(q, model.prior(batch.first)).sum(-1),
    )
    return -terms.elbo(beta).mean(), _detach(terms)


def support_loss(support: StateSupport, state: Tensor, share: Tensor) -> Tensor:
    """Logistic loss of telling states of the data from the same states put elsewhere on the map.

    state: (B, S). share: (B, 2) uniform in [0, 1), where in the box around the data's positions.
    The minimiser is the log of the ratio of the two densities (Gutmann and Hyvärinen 2010).
    """
    low, high = support.normaliser.low[:2], support.normaliser.high[:2]
    elsewhere = torch.cat([low + (high - low) * share, state[:, 2:]], -1)  # (B, S)
    return (softplus(-support(state)) + softplus(support(elsewhere))).mean()
