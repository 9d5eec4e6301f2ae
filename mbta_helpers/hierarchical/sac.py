"""Soft actor-critic: the squashed Gaussian, twin critics, a learnt temperature, replay.

Haarnoja et al. (2018a), "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning
with a Stochastic Actor", and (2018b), "Soft Actor-Critic Algorithms and Applications", from which
the temperature α is learnt. Actions lie in [−1, 1].

Symbols: B batch, N environments, S observation, A action, H width of a hidden layer, K critics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbta_helpers.errors import require

CRITICS = 2  # the smaller of two estimates: Fujimoto et al. (2018)
LOG_STD = (-5.0, 2.0)  # bounds of the actor's log σ


@dataclass(frozen=True)
class SACConfig:
    """How to learn.

    hidden: width of the two hidden layers of actor and critics.
    tau: share by which the target critics move to the critics in each update.
    target_entropy: nats that the policy is held to; None is −A.
    temperature: a fixed α; None learns it.
    actor_every: critic updates to one update of the actor and of the temperature.
    layer_norm: normalise the critics' hidden layers, which keeps their values from diverging.
    """

    hidden: int = 128
    gamma: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    batch_size: int = 256
    target_entropy: float | None = None
    temperature: float | None = None
    actor_every: int = 1
    layer_norm: bool = True

    def __post_init__(self):
        for name in ("hidden", "batch_size", "actor_every"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        require(0 <= self.gamma < 1, f"gamma lies in [0, 1), not {self.gamma}.")
        require(0 < self.tau <= 1, f"tau lies in (0, 1], not {self.tau}.")
        require(self.learning_rate > 0, "learning_rate must be positive.")
        require(self.temperature is None or self.temperature >= 0, "temperature is not negative.")


# -- the policy ---------------------------------------------------------------------------------


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(u) with u = μ + σ ε, and its exact log-density.

    log π(a) = log N(u; μ, σ) − Σ log(1 − tanh² u), and log(1 − tanh² u) is written as
    2 (log 2 − u − softplus(−2u)), which stays finite where tanh u rounds to ±1.

    mean, log_std, noise: (..., A). Returns (..., A) and (...).
    """
    u = torch.addcmul(mean, log_std.exp(), noise)  # (..., A)
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    correction = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return u.tanh(), (gaussian - correction).sum(-1)


class Actor(nn.Module):
    """π(a|s): a Gaussian, squashed into [−1, 1] by tanh."""

    def __init__(self, observation_dim: int, action_dim: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(observation_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * action_dim),
        )

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ before squashing, (..., A) each."""
        mean, log_std = self.layers(observation).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD)

    def sample(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions, (..., A), and their log-densities, (...); noise: standard normal, (..., A)."""
        return squash(*self(observation), noise)


# -- the critics --------------------------------------------------------------------------------


class Critics(nn.Module):
    """Q_1 and Q_2, two networks as one: each weight has the critics as its first axis.

    One batched product of matrices (K, B, in) × (K, in, out) serves both.
    """

    def __init__(self, observation_dim: int, action_dim: int, hidden: int, layer_norm: bool = True):
        super().__init__()
        self.layer_norm = layer_norm
        sizes = (observation_dim + action_dim, hidden, hidden, 1)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = inputs**-0.5  # as nn.Linear starts
            self.weights.append(torch.empty(CRITICS, inputs, outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(CRITICS, 1, outputs).uniform_(-bound, bound))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values of a batch of pairs, (B, S) and (B, A), by each critic: (K, B)."""
        x = torch.cat([observation, action], -1).expand(CRITICS, -1, -1)  # (K, B, S + A)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = torch.baddbmm(bias, x, weight)  # (K, B, H)
            x = F.relu(F.layer_norm(x, x.shape[-1:]) if self.layer_norm else x)
        # One output: a product of matrices would be the slower way.
        return (x * self.weights[-1].mT).sum(-1) + self.biases[-1].squeeze(-1)


# -- what was lived through ---------------------------------------------------------------------


class Batch(NamedTuple):
    """Transitions. Cut off by a time limit is not terminated: the future still has a value.

    observation, next_observation: (B, S). action: (B, A). reward, terminated: (B,).
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    terminated: Tensor


class ReplayBuffer:
    """The last transitions, each one row of one array, so that a batch is one gather."""

    def __init__(self, capacity: int, observation_dim: int, action_dim: int):
        require(capacity >= 1, f"The capacity must be at least 1, not {capacity}.")
        self.widths = (observation_dim, action_dim, 1, observation_dim, 1)
        self.rows = torch.empty(capacity, sum(self.widths))
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, len(self.rows))

    def add(self, batch: Batch) -> None:
        """Store the transitions of N environments; the oldest make room."""
        columns = [value.reshape(len(batch.reward), -1).float() for value in batch]
        widths = tuple(column.shape[1] for column in columns)
        require(widths == self.widths, f"Transitions have widths {widths}, not {self.widths}.")
        rows = torch.cat(columns, 1)  # (N, 2S + A + 2)
        require(len(rows) <= len(self.rows), "More transitions at once than the buffer holds.")
        place = (self.added + torch.arange(len(rows))) % len(self.rows)
        self.rows[place] = rows
        self.added += len(rows)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Transitions drawn uniformly, with replacement."""
        require(self.added > 0, "The replay buffer is empty: act before you learn.")
        index = torch.randint(len(self), (batch_size,), generator=generator)
        observation, action, reward, after, terminated = self.rows[index].split(self.widths, 1)
        return Batch(observation, action, reward.squeeze(1), after, terminated.squeeze(1))


# -- the agent ----------------------------------------------------------------------------------


class SAC:
    """Actor, critics, their targets and the temperature, with the three updates."""

    def __init__(self, observation_dim: int, action_dim: int, config: SACConfig, seed: int = 0):
        self.config = config
        self.action_dim = action_dim
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(observation_dim, action_dim, config.hidden)
            critics = (observation_dim, action_dim, config.hidden, config.layer_norm)
            self.critics, self.targets = Critics(*critics), Critics(*critics)
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(False)
        self.target_entropy = (
            -float(action_dim) if config.target_entropy is None else config.target_entropy
        )
        fixed = config.temperature
        self.log_temperature = torch.tensor(0.0 if fixed is None else math.log(max(fixed, 1e-12)))
        self.log_temperature.requires_grad_(fixed is None)
        options = {"lr": config.learning_rate, "fused": True}
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), **options)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), **options)
        self.temperature_optimiser = torch.optim.Adam([self.log_temperature], **options)
        self.updates = 0

    @property
    def temperature(self) -> Tensor:
        """α, a scalar without gradient."""
        return self.log_temperature.detach().exp()

    @torch.no_grad()
    def act(self, observation: Tensor, greedy: bool = False) -> Tensor:
        """Actions for (..., S): sampled, or tanh(μ) where greedy."""
        if greedy:
            return self.actor(observation)[0].tanh()
        return self.actor.sample(observation, self._noise(observation))[0]

    def update(self, batch: Batch) -> dict[str, float]:
        """One update of the critics and their targets, and of the actor when it is its turn."""
        metrics = self._update_critics(batch)
        if self.updates % self.config.actor_every == 0:
            metrics |= self._update_actor(batch.observation)
        move_towards(self.targets, self.critics, self.config.tau)
        self.updates += 1
        return metrics

    @torch.no_grad()
    def critic_target(self, batch: Batch) -> Tensor:
        """y = r + γ (1 − terminated) (min_k Q̄_k(s', a') − α log π(a'|s')), (B,)."""
        noise = self._noise(batch.next_observation)
        action, log_density = self.actor.sample(batch.next_observation, noise)
        value = self.targets(batch.next_observation, action).amin(0)  # (B,)
        value = value - self.temperature * log_density
        return batch.reward + self.config.gamma * (1 - batch.terminated) * value

    def critic_loss(self, batch: Batch, target: Tensor) -> Tensor:
        """½ Σ_k E (Q_k(s, a) − y)²."""
        errors = self.critics(batch.observation, batch.action) - target  # (K, B)
        return 0.5 * errors.square().mean(1).sum()

    def actor_loss(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """E[α log π(a|s) − min_k Q_k(s, a)], and log π, (B,)."""
        action, log_density = self.actor.sample(observation, noise)
        value = self.critics(observation, action).amin(0)  # (B,)
        return (self.temperature * log_density - value).mean(), log_density

    def temperature_loss(self, log_density: Tensor) -> Tensor:
        """−log α E[log π + H̄]: α grows while the entropy is below its target H̄."""
        return -self.log_temperature * (log_density.detach().mean() + self.target_entropy)

    def _update_critics(self, batch: Batch) -> dict[str, float]:
        loss = self.critic_loss(batch, self.critic_target(batch))
        descend(self.critic_optimiser, loss)
        return {"critic_loss": loss.item()}

    def _update_actor(self, observation: Tensor) -> dict[str, float]:
        self.critics.requires_grad_(False)  # the gradient goes through them, not to them
        loss, log_density = self.actor_loss(observation, self._noise(observation))
        descend(self.actor_optimiser, loss)
        self.critics.requires_grad_(True)
        if self.config.temperature is None:
            descend(self.temperature_optimiser, self.temperature_loss(log_density))
        return {
            "actor_loss": loss.item(),
            "entropy": -log_density.mean().item(),
            "temperature": self.temperature.item(),
        }

    def _noise(self, observation: Tensor) -> Tensor:
        shape = (*observation.shape[:-1], self.action_dim)
        return torch.randn(shape, generator=self.generator)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of an optimiser down a loss."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


@torch.no_grad()
def move_towards(target: nn.Module, source: nn.Module, share: float) -> None:
    """Polyak averaging: θ̄ ← (1 − τ) θ̄ + τ θ."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), share)
