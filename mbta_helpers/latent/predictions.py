"""How well a world model predicts: log-likelihoods of what was not seen, by many draws.

The score of a model is log p(o_{t+1} | s_t, a_t), with s_t filtered from o_1 … o_t: the mixture
over draws of z_{t+1} from the prior,

    log 1/N Σ_n p(o_{t+1} | h_{t+1}, z^n),   z^n ~ p(z_{t+1} | h_{t+1}).

A mixture is a distribution over observations, so no model gains by scoring itself well: on average
the truth scores highest, with minus its entropy. The estimate is too low by about the variance of
the ratio p/mean over 2N.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mbta_helpers.errors import require
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import State
from mbta_helpers.latent.world_model import WorldModel

CHUNK = 32  # draws at once


def mixture(log_likelihoods: list[Tensor]) -> Tensor:
    """log of the mean over draws, (...); a list of chunks (n, ...)."""
    stacked = torch.cat(log_likelihoods)
    return stacked.logsumexp(0) - math.log(len(stacked))


@torch.no_grad()
def one_step(
    model: WorldModel, batch: Sequences, samples: int, generator: torch.Generator
) -> Tensor:
    """log p(o_t | s_{t−1}, a_{t−1}) for each row, (B, T); the first row's is that of a start."""
    states, priors = model.observe(batch, generator)
    chunks = []
    for done in range(0, samples, CHUNK):
        shape = (min(CHUNK, samples - done), *priors.shape)
        z = model.latent.sample(priors.expand(shape), generator)
        features = torch.cat([states.h.expand(*shape[:-1], -1), z], -1)
        chunks.append(-model.observation_loss(features, batch.observation))
    return mixture(chunks)


@torch.no_grad()
def open_loop(
    model: WorldModel, batch: Sequences, context: int, samples: int, generator: torch.Generator
) -> Tensor:
    """log p(o_{t+k} | s_t, a_t, …, a_{t+k−1}) for k = 1, …, T − context; (B, T − context).

    s_t is that of the last of `context` rows; each draw is a whole imagined future.
    """
    require(
        0 < context < batch.reward.shape[1],
        f"The context has 1 to {batch.reward.shape[1] - 1} rows, not {context}.",
    )
    seen = Sequences(*(part[:, :context] for part in batch))
    states, _ = model.observe(seen, generator)
    last, chunks = State(*(part[:, -1] for part in states)), []
    actions, future = batch.action[:, context:], batch.observation[:, context:]
    for done in range(0, samples, CHUNK):
        count = min(CHUNK, samples - done)
        start = State(*(part.repeat(count, 1) for part in last))
        features = model.rssm.imagine(start, actions.repeat(count, 1, 1), generator).features
        features = features.unflatten(0, (count, -1))
        chunks.append(-model.observation_loss(features, future))
    return mixture(chunks)


@torch.no_grad()
def imagined_next(
    model: WorldModel, batch: Sequences, samples: int, generator: torch.Generator
) -> Tensor:
    """Pictures of what may come at each row, before it is seen; (samples, B, T, *O)."""
    states, priors = model.observe(batch, generator)
    shape = (samples, *priors.shape)
    z = model.latent.sample(priors.expand(shape), generator)
    return model.predict_observation(torch.cat([states.h.expand(*shape[:-1], -1), z], -1))
