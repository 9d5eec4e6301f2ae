"""M, the memory of a world model: a recurrent network with a mixture density at its end.

Ha and Schmidhuber (2018), "World Models"; mixture densities are from Bishop (1994). Chapter 14
derives what is here.

Symbols: N rows side by side, T steps, Z numbers of a code, K parts of a mixture, A actions, H
numbers of memory. h_t has seen z_0 … z_{t−1} and a_0 … a_{t−1}; z_t comes to it one step later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from mbta_helpers.errors import require
from mbta_helpers.latent.vae import initialise

Memory = tuple[Tensor, Tensor]  # h and the cell, (N, H) each


@dataclass(frozen=True)
class MDNConfig:
    """How to learn what comes next.

    components: K. groups: G, of dimensions that choose their part of the mixture together; it
    divides the number of latents.
    """

    latents: int = 8
    actions: int = 3
    hidden: int = 48
    components: int = 5
    groups: int = 1
    updates: int = 1600
    batch_size: int = 32
    learning_rate: float = 4e-3

    def __post_init__(self):
        require(self.components >= 1, f"A mixture has at least 1 part, not {self.components}.")
        require(
            self.groups >= 1 and self.latents % self.groups == 0,
            f"groups must divide the {self.latents} latents, and {self.groups} does not.",
        )


class Mixture(NamedTuple):
    """Mixtures of Gaussians for the next code: one for each of G groups of its dimensions.

    logits: (..., G, K). mean, log_std: (..., Z, K). With G = Z each dimension chooses its part of
    the mixture for itself, with G = 1 all choose together.
    """

    logits: Tensor
    mean: Tensor
    log_std: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        """Σ_g log Σ_k π_gk Π_{i in g} N(z_i; μ_ik, σ_ik²) (14.8); (..., Z) to (...)."""
        scaled = (z[..., None] - self.mean) * (-self.log_std).exp()
        parts = -0.5 * scaled.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        groups = parts.unflatten(-2, (self.logits.shape[-2], -1)).sum(-2)  # (..., G, K)
        return (self.logits.log_softmax(-1) + groups).logsumexp(-1).sum(-1)

    def sample(self, temperature: float, generator: torch.Generator) -> Tensor:
        """A code at a temperature τ, (..., Z): logits divided by τ, noise times √τ (14.11)."""
        uniform = torch.rand(self.logits.shape, generator=generator).clamp(1e-10, 1 - 1e-7)
        part = (self.logits / temperature - (-uniform.log()).log()).argmax(-1, keepdim=True)
        part = part.repeat_interleave(self.mean.shape[-2] // part.shape[-2], -2)  # (..., Z, 1)
        mean, log_std = self.mean.gather(-1, part)[..., 0], self.log_std.gather(-1, part)[..., 0]
        noise = torch.randn(mean.shape, generator=generator)
        return mean + math.sqrt(temperature) * log_std.exp() * noise


class Episodes(NamedTuple):
    """Recorded episodes as codes: for each, T steps.

    mean, std: q_φ(z|o) of T + 1 pictures, (T + 1, Z). action: one-hot, (T, A). hit: (T,), 1 where
    a step ended the episode.
    """

    mean: Sequence[Tensor]
    std: Sequence[Tensor]
    action: Sequence[Tensor]
    hit: Sequence[Tensor]

    def batch(
        self, chosen: Sequence[int], generator: torch.Generator
    ) -> tuple[PackedSequence, PackedSequence, PackedSequence]:
        """Inputs (z_t, a_t), targets z_{t+1} and ends; codes are drawn anew each time."""
        inputs, targets, ends = [], [], []
        for i in chosen:
            noise = torch.randn(self.mean[i].shape, generator=generator)
            z = self.mean[i] + self.std[i] * noise  # (T + 1, Z)
            inputs.append(torch.cat([z[:-1], self.action[i]], -1))
            targets.append(z[1:])
            ends.append(self.hit[i])
        inputs, targets, ends = (
            pack_sequence(each, enforce_sorted=False) for each in (inputs, targets, ends)
        )
        return inputs, targets, ends


class MDNRNN(nn.Module):
    """h_{t+1} = f(h_t, z_t, a_t), and from it a mixture for z_{t+1} and the chance of an end."""

    def __init__(self, config: MDNConfig):
        super().__init__()
        self.config = config
        self.lstm = nn.LSTM(config.latents + config.actions, config.hidden)
        rows = 2 * config.latents + config.groups
        self.head = nn.Linear(config.hidden, rows * config.components)
        self.end = nn.Sequential(
            nn.Linear(config.hidden + config.latents, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 1),
        )

    def begin(self, count: int) -> Memory:
        """The memory at the start of an episode: nothing."""
        return torch.zeros(count, self.config.hidden), torch.zeros(count, self.config.hidden)

    def remember(self, memory: Memory, z: Tensor, action: Tensor) -> Memory:
        """The memory after z_t and a_t; z: (N, Z), action: (N,) numbers."""
        inputs = torch.cat([z, F.one_hot(action, self.config.actions)], -1)[None]
        _, (h, cell) = self.lstm(inputs, (memory[0][None], memory[1][None]))
        return h[0], cell[0]

    def predict(self, h: Tensor) -> Mixture:
        """p(z_{t+1} | h_{t+1}); h: (..., H)."""
        rows = self.head(h).unflatten(-1, (-1, self.config.components))  # (..., 2 Z + G, K)
        sizes = (self.config.latents, self.config.latents, self.config.groups)
        mean, log_std, logits = rows.split(sizes, -2)
        return Mixture(logits, mean, log_std.clamp(-5, 3))

    def end_logit(self, h: Tensor, z: Tensor) -> Tensor:
        """Of the chance that the step to z_{t+1} was the last, (...); h: h_{t+1}, z: z_{t+1}."""
        return self.end(torch.cat([h, z], -1))[..., 0]

    def loss(self, inputs: PackedSequence, z: PackedSequence, ends: PackedSequence) -> Tensor:
        """−log p(z_{t+1}, e_{t+1} | past) (14.9), mean over steps; each row begins empty."""
        h = self.lstm(inputs)[0].data  # steps of all rows in one line, (n, H)
        end = F.binary_cross_entropy_with_logits(self.end_logit(h, z.data), ends.data)
        return end - self.predict(h).log_prob(z.data).mean()


def train_mdn_rnn(episodes: Episodes, config: MDNConfig, generator: torch.Generator) -> MDNRNN:
    """M from recorded episodes."""
    model = MDNRNN(config)
    initialise(model, generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, config.updates)
    for _ in range(config.updates):
        chosen = torch.randint(len(episodes.action), (config.batch_size,), generator=generator)
        optimiser.zero_grad()
        model.loss(*episodes.batch(chosen.tolist(), generator)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model
