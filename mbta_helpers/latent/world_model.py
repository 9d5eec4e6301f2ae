"""A world model: encoder, RSSM, and heads that explain picture, reward and the episode's going on.

The loss of a step is that of a sequential variational autoencoder,

    −log p(o_t|s_t) − log p(r_t|s_t) − log p(c_t|s_t) + max(free_nats, D_KL(q(z_t) ‖ p(z_t|h_t))),

with log p(o_t|s_t) summed over all numbers of the observation (Hafner et al. 2019, equation 3, and
2020, equation 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbta_helpers.errors import require
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import RSSM, CategoricalLatent, GaussianLatent, Latent, State, mlp


@dataclass(frozen=True)
class WorldModelConfig:
    """Sizes and weights.

    latent: how z is distributed. deterministic, hidden, embedding: numbers in h, in hidden layers
    and in an embedding. layers: hidden layers of encoder, decoder and heads.
    free_nats: divergence that costs nothing, in each step. observation_scale, reward_scale: weights
    of these terms, 1/σ² of a Gaussian with the standard deviation σ.
    """

    latent: GaussianLatent | CategoricalLatent = field(default_factory=lambda: GaussianLatent(12))
    deterministic: int = 64
    hidden: int = 64
    embedding: int = 64
    layers: int = 2
    free_nats: float = 3.0
    observation_scale: float = 1.0
    reward_scale: float = 1.0

    def __post_init__(self):
        for name in ("deterministic", "hidden", "embedding", "layers"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        for name in ("free_nats", "observation_scale", "reward_scale"):
            require(getattr(self, name) >= 0, f"{name} must not be negative.")


class Terms(NamedTuple):
    """Parts of the loss, in nats a step, (B, T) each; kl before free nats are taken off."""

    observation: Tensor
    reward: Tensor
    continuation: Tensor
    kl: Tensor
    divergence: Tensor

    @property
    def loss(self) -> Tensor:
        """The mean over steps of what is descended; `kl` is for the reader only."""
        return (self.observation + self.reward + self.continuation + self.divergence).mean()


def gaussian_error(prediction: Tensor, target: Tensor, axes: int) -> Tensor:
    """−log N(target; prediction, 1) without its constant, summed over the last `axes` axes."""
    error = 0.5 * (prediction - target).square()
    return error.flatten(-axes).sum(-1) if axes else error


class WorldModel(nn.Module):
    """Encoder, RSSM and heads; heads see s_t = (h_t, z_t)."""

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        action_dim: int,
        config: WorldModelConfig,
        seed: int = 0,
    ):
        super().__init__()
        self.config, self.observation_shape = config, observation_shape
        self.action_dim = action_dim
        count, width = math.prod(observation_shape), config.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = self.make_mlp(count, width, config.embedding, config.layers)
            self.rssm = self.make_rssm()
            features = config.deterministic + config.latent.size
            self.decoder = self.make_mlp(features, width, count, config.layers)
            self.reward = self.make_mlp(features, width, 1, config.layers)
            self.continuation = self.make_mlp(features, width, 1, config.layers)

    make_mlp = staticmethod(mlp)  # what makes encoder, decoder and heads

    def make_rssm(self) -> RSSM:
        c = self.config
        return RSSM(self.action_dim, c.embedding, c.latent, c.deterministic, c.hidden)

    @property
    def latent(self) -> Latent:
        return self.config.latent

    def embed(self, observation: Tensor) -> Tensor:
        """(..., *O) to (..., E)."""
        return self.encoder(observation.flatten(-len(self.observation_shape)))

    def observe(self, batch: Sequences, generator: torch.Generator) -> tuple[State, Tensor]:
        """Posterior states and parameters of the priors, (B, T, ...)."""
        embedding = self.embed(batch.observation)
        return self.rssm.observe(embedding, batch.action, batch.is_first, generator)

    def predict_observation(self, features: Tensor) -> Tensor:
        """The mean of p(o|s), (..., *O)."""
        return self.decoder(features).unflatten(-1, self.observation_shape)

    def predict_reward(self, features: Tensor) -> Tensor:
        """The mean of p(r|s), (...)."""
        return self.reward(features).squeeze(-1)

    def predict_continuation(self, features: Tensor) -> Tensor:
        """The probability that the episode goes on after s, (...)."""
        return self.continuation(features).squeeze(-1).sigmoid()

    def divergence(self, posterior: Tensor, prior: Tensor) -> Tensor:
        """What the loss takes of D_KL(posterior ‖ prior): free nats cost nothing; (B, T)."""
        return self.latent.kl(posterior, prior).clamp_min(self.config.free_nats)

    def observation_loss(self, features: Tensor, observation: Tensor) -> Tensor:
        """−log p(o|s) up to a constant: a sum over all numbers of the observation; (B, T)."""
        axes = len(self.observation_shape)
        return gaussian_error(self.predict_observation(features), observation, axes)

    def reward_loss(self, features: Tensor, reward: Tensor) -> Tensor:
        """−log p(r|s) up to a constant, (B, T)."""
        return gaussian_error(self.predict_reward(features), reward, 0)

    def continuation_loss(self, features: Tensor, is_terminal: Tensor) -> Tensor:
        """−log p(c|s), c = 1 − is_terminal; (B, T)."""
        logits = self.continuation(features).squeeze(-1)
        return F.binary_cross_entropy_with_logits(logits, 1 - is_terminal, reduction="none")

    def terms(self, batch: Sequences, states: State, priors: Tensor) -> Terms:
        """The parts of the loss for states that were filtered from the batch.

        No reward comes with the first observation of an episode: the 0 that stands there is no
        datum.
        """
        features = states.features
        paid = 1 - batch.is_first
        return Terms(
            self.config.observation_scale * self.observation_loss(features, batch.observation),
            self.config.reward_scale * paid * self.reward_loss(features, batch.reward),
            self.continuation_loss(features, batch.is_terminal),
            self.latent.kl(states.parameters, priors).detach(),
            self.divergence(states.parameters, priors),
        )
