"""Variants: what the method could have been, to be measured beside what it is.

Two of them. The joint ELBO leaves the world model in the E-step, as an ordinary variational
autoencoder would. The absolute world model predicts s_T itself, not s_T − s_0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal

from mbta_helpers.errors import require
from mbta_helpers.networks import SkillModel, TemporallyAbstractWorldModel
from mbta_helpers.objectives import Terms, elbo_terms
from mbta_helpers.training import Trainer
from mbta_helpers.windows import WindowBatch


def joint_loss(
    model: SkillModel, batch: WindowBatch, noise: Tensor, beta: float
) -> tuple[Tensor, Terms]:
    """−(log π_θ(z) + log p_ψ(z) − β KL), nothing detached: φ is moved by log p_ψ too.

    Its value is that of `one_pass_loss`. In φ its gradient differs from that of EM by the
    gradient of −log p_ψ(s_T|s_0, z_φ), and by nothing else; in θ, ψ and ω the two are equal.
    """
    terms = elbo_terms(model, batch, noise)
    kept = Terms(terms.action.detach(), terms.state.detach(), terms.kl.detach())
    return -terms.elbo(beta).mean(), kept


class JointTrainer(Trainer):
    """A Trainer that ascends the joint ELBO in one pass; the settling phase is the same."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        require(
            self.config.method == "one-pass",
            f"The joint ELBO has no E-step apart: method is one-pass, not '{self.config.method}'.",
        )

    def _one_pass(self, batch: WindowBatch) -> Terms:
        with self._autocast():
            loss, terms = joint_loss(self.model, batch, self._noise(batch), self.beta())
        self._descend(self.optimisers[0], loss)
        return terms


class AbsoluteWorldModel(TemporallyAbstractWorldModel):
    """p_ψ(s_T|s_0, z) that predicts s_T in units of the states' spread, not s_T − s_0."""

    def mean(self, state: Tensor, z: Tensor) -> Tensor:
        normaliser = self.normaliser
        return normaliser.mean + normaliser.std * self.heads.mean(self.features(state, z))

    def forward(self, state: Tensor, z: Tensor) -> Normal:
        """state: (..., S); z: (..., Z). Returns p over s_T, (..., S), in map units."""
        features, normaliser = self.features(state, z), self.normaliser
        return Normal(
            normaliser.mean + normaliser.std * self.heads.mean(features),
            normaliser.std * self.heads.std(features),
            validate_args=False,
        )


def predict_absolute(model: SkillModel) -> SkillModel:
    """Let the model's own world model predict absolute states, in place; returns the model.

    The layers stay the same objects, so optimisers that hold them, and parameters that were
    trained this way and loaded since, go on.
    """
    before = model.world_model
    with torch.random.fork_rng(devices=[]):
        world_model = AbsoluteWorldModel(model.config, model.normaliser)
    world_model.trunk, world_model.heads = before.trunk, before.heads
    model.world_model = world_model.train(before.training)
    return model


class AbsoluteTrainer(Trainer):
    """A Trainer whose world model predicts absolute states."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        predict_absolute(self.model)
