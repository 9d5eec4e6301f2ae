"""Soft Option-Critic: options learnt by soft actor-critic on pairs of a state and an option.

Chapter 11 derives the equations. They are of the family of Li et al. (2020), "SOAC: The Soft Option
Actor-Critic Architecture"; terminations follow Bacon, Harb and Precup (2017), the deliberation cost
Harb et al. (2018). With one option and no cost it is soft actor-critic.

Symbols: B batch, N environments, E evaluations, S observation, A action, Ω options. ω is an
option. A pair (s, ω), as actor and critics see it, is s beside a one-hot ω; rows of pairs are
ordered (B, Ω).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn

from mbta_helpers.errors import require
from mbta_helpers.hierarchical.sac import (
    SAC,
    Batch,
    ReplayBuffer,
    SACConfig,
    descend,
    move_towards,
    squash,
)


@dataclass(frozen=True)
class SoftOptionCriticConfig(SACConfig):
    """How to learn; what is not described here is soft actor-critic's.

    options: Ω. option_temperature: α_Ω, the worth of a nat of π_Ω's entropy. deliberation_cost: η,
    paid whenever an option ends. diversity: λ, the worth of a nat that an action tells about its
    option. baseline: what terminations compare with, the soft V_Ω or its "hard" part, E_ω[Q_Ω].
    """

    hidden: int = 64
    gamma: float = 0.97
    tau: float = 0.01
    learning_rate: float = 2e-3
    batch_size: int = 64
    actor_every: int = 2
    layer_norm: bool = False
    options: int = 3
    option_temperature: float = 0.5
    deliberation_cost: float = 0.65
    diversity: float = 0.3
    baseline: str = "soft"

    def __post_init__(self):
        super().__post_init__()
        require(self.options >= 1, f"options must be at least 1, not {self.options}.")
        require(self.option_temperature > 0, "option_temperature must be positive.")
        for name in ("deliberation_cost", "diversity"):
            require(getattr(self, name) >= 0, f"{name} must not be negative.")
        require(self.baseline in ("soft", "hard"), f"baseline: soft or hard, not {self.baseline}.")


# -- the equations, one function each -------------------------------------------------------------


def option_policy(q: Tensor, temperature: float) -> Tensor:
    """π_Ω(ω|s) ∝ exp(Q_Ω(s, ω) / α_Ω), exactly (11.6); q: (..., Ω)."""
    return (q / temperature).softmax(-1)


def soft_value(q: Tensor, temperature: float) -> Tensor:
    """V_Ω(s) = E_ω[Q_Ω − α_Ω log π_Ω] = α_Ω log Σ_ω exp(Q_Ω / α_Ω) (11.7); (..., Ω) to (..., 1)."""
    return temperature * (q / temperature).logsumexp(-1, keepdim=True)


def hard_value(q: Tensor, temperature: float) -> Tensor:
    """E_ω[Q_Ω]: V_Ω without its entropy; (..., Ω) to (..., 1)."""
    return (option_policy(q, temperature) * q).sum(-1, keepdim=True)


def arrival_value(q: Tensor, v: Tensor, beta: Tensor, cost: float) -> Tensor:
    """U(ω, s') = (1 − β) Q_Ω(s', ω) + β (V_Ω(s') − η) (11.3); q, beta: (B, Ω), v: (B, 1)."""
    return (1 - beta) * q + beta * (v - cost)


def information(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """log π_ω(a|s) − log (1/Ω) Σ_ω' π_ω'(a|s) for an action of each option, (B, Ω) (11.15).

    tanh stretches all densities alike, so it cancels. mean, log_std, noise: (B, Ω, A).
    """
    u = mean + log_std.exp() * noise
    z = (u[:, :, None] - mean[:, None]) * (-log_std[:, None]).exp()  # (B, Ω, Ω', A)
    density = (-0.5 * z.square() - log_std[:, None]).sum(-1)  # log-densities, (B, Ω, Ω')
    own = density.diagonal(dim1=1, dim2=2)
    return own - density.logsumexp(-1) + math.log(mean.shape[1])


# -- the agent ------------------------------------------------------------------------------------


def two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A network with two hidden layers."""
    sizes = ((inputs, hidden), (hidden, hidden), (hidden, outputs))
    first, second, last = (nn.Linear(*size) for size in sizes)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


class OptionPolicies(SAC):
    """What acts: a policy in each option, and π_Ω and β from networks of the state."""

    def __init__(
        self, observation_dim: int, action_dim: int, config: SoftOptionCriticConfig, seed: int = 0
    ):
        super().__init__(observation_dim + config.options, action_dim, config, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)  # not the first numbers of the actor again
            sizes = (observation_dim, config.hidden, config.options)
            self.option_values, self.termination = two_layers(*sizes), two_layers(*sizes)
        parameters = [*self.option_values.parameters(), *self.termination.parameters()]
        self.option_optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)

    def pairs(self, observation: Tensor) -> Tensor:
        """Each state beside each option, (B, S) to (B Ω, S + Ω)."""
        options = torch.eye(self.config.options).repeat(len(observation), 1)
        return torch.cat([observation.repeat_interleave(self.config.options, 0), options], 1)

    def sample(self, pairs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An action of each pair, (B Ω, A), its log-density and its price, (B Ω,) each.

        The price α log π_ω(a|s) − λ i_ω(s, a) is what Q_Ω loses on the way from Q_U (11.16).
        """
        mean, log_std = self.actor(pairs)
        action, log_density = squash(mean, log_std, noise)
        shape = (-1, self.config.options, self.action_dim)
        told = information(mean.view(shape), log_std.view(shape), noise.view(shape)).flatten()
        return action, log_density, self.temperature * log_density - self.config.diversity * told

    def act_with(self, observation: Tensor, option: Tensor, greedy: bool = False) -> Tensor:
        """Actions of the options in force, (N, A); observation: (N, S), option: (N,)."""
        pairs = torch.cat([observation, F.one_hot(option, self.config.options)], 1)
        return self.act(pairs, greedy)

    @torch.no_grad()
    def ends(self, observation: Tensor, option: Tensor) -> Tensor:
        """Whether each option ends on arrival, (N,) bool, drawn from β_ω(s')."""
        beta = self.termination(observation).sigmoid().gather(1, option[:, None])[:, 0]
        return torch.rand(beta.shape, generator=self.generator) < beta

    @torch.no_grad()
    def choose(self, observation: Tensor, greedy: bool = False) -> Tensor:
        """Options, (N,): drawn from π_Ω, or the best where greedy."""
        q = self.option_values(observation)
        if greedy:
            return q.argmax(-1)
        policy = option_policy(q, self.config.option_temperature)
        return torch.multinomial(policy, 1, generator=self.generator)[:, 0]

    @torch.no_grad()
    def told(self, observation: Tensor) -> float:
        """I(ω; a | s) in nats, mean over states (B, S), each option once; at most log Ω (11.15)."""
        mean, log_std = self.actor(self.pairs(observation))
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
        shape = (-1, self.config.options, self.action_dim)
        return information(*(x.view(shape) for x in (mean, log_std, noise))).mean().item()


class SoftOptionCritic(OptionPolicies):
    """How it learns: soft actor-critic on pairs (s, ω), with option values and terminations."""

    def update(self, batch: Batch) -> dict[str, float]:
        """One update of the critics, and of the rest when it is its turn: (11.11) to (11.14)."""
        pairs = self.pairs(batch.observation)
        q = self.option_values(batch.next_observation).detach()  # (B, Ω)
        target = self.critic_target(batch, q).flatten()
        action = batch.action.repeat_interleave(self.config.options, 0)
        every = batch._replace(observation=pairs, action=action)
        descend(self.critic_optimiser, self.critic_loss(every, target))
        metrics = {}
        if self.updates % self.config.actor_every == 0:
            loss = self.termination_loss(batch, q)
            loss = loss + self.option_value_loss(batch.observation, pairs)
            descend(self.option_optimiser, loss)
            metrics = self._update_actor(pairs)
        move_towards(self.targets, self.critics, self.config.tau)
        self.updates += 1
        return metrics

    @torch.no_grad()
    def critic_target(self, batch: Batch, q: Tensor) -> Tensor:
        """y = r + γ (1 − terminated) U(ω, s') for every ω (11.11); q and y: (B, Ω), q at s'."""
        v = soft_value(q, self.config.option_temperature)
        beta = self.termination(batch.next_observation).sigmoid()
        u = arrival_value(q, v, beta, self.config.deliberation_cost)
        return batch.reward[:, None] + self.config.gamma * (1 - batch.terminated[:, None]) * u

    def actor_loss(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """E[α log π_ω − λ i_ω − min_k Q_k] over pairs (11.12), and log π_ω, (B Ω,)."""
        action, log_density, price = self.sample(observation, noise)
        value = self.critics(observation, action).amin(0)  # (B Ω,)
        return (price - value).mean(), log_density

    def option_value_loss(self, observation: Tensor, pairs: Tensor) -> Tensor:
        """½ E (Q_Ω(s, ω) − min_k Q̄_k(s, ω, a) + price)², least at the mean over a (11.13)."""
        with torch.no_grad():
            action, _, price = self.sample(pairs, self._noise(pairs))
            target = self.targets(pairs, action).amin(0) - price  # (B Ω,)
        error = self.option_values(observation) - target.view(-1, self.config.options)
        return 0.5 * error.square().mean()

    def termination_loss(self, batch: Batch, q: Tensor) -> Tensor:
        """E[β_ω(s') (Q_Ω(s', ω) − V_Ω(s') + η)] with the bracket held fixed (11.14)."""
        value = soft_value if self.config.baseline == "soft" else hard_value
        v = value(q, self.config.option_temperature)
        bracket = (1 - batch.terminated[:, None]) * (q - v + self.config.deliberation_cost)
        return (self.termination(batch.next_observation).sigmoid() * bracket).mean()


# -- the environment ------------------------------------------------------------------------------


def spaces_of(environments: VectorEnv) -> tuple[int, Tensor, Tensor]:
    """S, and the lowest and highest actions, (A,); a UserError for spaces that do not fit."""
    seen, acts = environments.single_observation_space, environments.single_action_space
    require(isinstance(seen, Box) and len(seen.shape) == 1, f"Observations: a vector, not {seen}.")
    require(
        isinstance(acts, Box) and len(acts.shape) == 1 and acts.is_bounded(),
        f"Soft Option-Critic needs actions in a bounded Box of one axis, not {acts}.",
    )
    mode = environments.metadata.get("autoreset_mode")
    require(mode == AutoresetMode.NEXT_STEP, f"Environments reset at the next step, not {mode}.")
    return seen.shape[0], torch.tensor(acts.low), torch.tensor(acts.high)


def step(environments: VectorEnv, action: Tensor, low: Tensor, high: Tensor) -> list[Tensor]:
    """Observation, reward, terminated, and whether the episode is over; actions in [−1, 1]."""
    stretched = low + (action + 1) / 2 * (high - low)
    seen, reward, terminated, truncated, _ = environments.step(stretched.numpy())
    answers = [torch.as_tensor(x, dtype=torch.float32) for x in (seen, reward, terminated)]
    return [*answers, torch.as_tensor(terminated | truncated)]


class Episodes(NamedTuple):
    """One greedy episode of each of N environments, T steps long; shorter ones are masked.

    returns: (N,). observation: (T, N, S). action: (T, N, A). option: (T, N). begun, alive: (T, N)
    bool, whether an option was chosen at that step, and whether the episode still ran.
    """

    returns: np.ndarray
    observation: np.ndarray
    action: np.ndarray
    option: np.ndarray
    begun: np.ndarray
    alive: np.ndarray

    @property
    def duration(self) -> float:
        """Steps for each option that was begun; the same option chosen again counts anew."""
        return float(self.alive.sum() / self.begun.sum())

    @property
    def visited(self) -> Tensor:
        """All states in which an action was taken, (B, S)."""
        return torch.from_numpy(self.observation[self.alive])


def evaluate_options(agent: SoftOptionCritic, environments: VectorEnv, seed: int) -> Episodes:
    """Best options, mean actions, terminations drawn as learnt."""
    _, low, high = spaces_of(environments)
    observation = torch.as_tensor(environments.reset(seed=seed)[0], dtype=torch.float32)
    alive = torch.ones(environments.num_envs, dtype=torch.bool)
    begin, option = alive, torch.zeros(environments.num_envs, dtype=torch.long)
    returns, rows = torch.zeros(environments.num_envs), []
    while alive.any():
        option = torch.where(begin, agent.choose(observation, greedy=True), option)
        action = agent.act_with(observation, option, greedy=True)
        rows.append((observation, action, option, begin & alive, alive))
        observation, reward, _, over = step(environments, action, low, high)
        returns += alive * reward
        alive, begin = alive & ~over, agent.ends(observation, option)
    return Episodes(
        returns.numpy(), *(torch.stack(part).numpy() for part in zip(*rows, strict=True))
    )


# -- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SoftOptionCriticHistory:
    """What was measured on the way, in E evaluations of N episodes each.

    steps: (E,), of the environment before each. returns: (E, N). durations: (E,), steps of an
    option. told: (E,), nats that an action tells about its option at the visited states.
    """

    steps: np.ndarray
    returns: np.ndarray
    durations: np.ndarray
    told: np.ndarray


def train_soft_option_critic(
    environments: VectorEnv,
    tests: VectorEnv,
    config: SoftOptionCriticConfig,
    steps: int,
    seed: int,
    warm_up: int = 500,
    evaluate_every: int = 1000,
) -> tuple[SoftOptionCritic, SoftOptionCriticHistory]:
    """Train with an update for each step after the first `warm_up`; evaluate on `tests`.

    Environments take the seeds after the one that they are given: no two runs share a start.
    """
    size, low, high = spaces_of(environments)
    require(0 < evaluate_every <= steps, f"evaluate_every is at most the {steps} steps.")
    agent = SoftOptionCritic(size, len(low), config, seed)
    replay, count = ReplayBuffer(steps, size, len(low)), environments.num_envs
    observation = torch.as_tensor(environments.reset(seed=1000 * seed)[0], dtype=torch.float32)
    option, over = agent.choose(observation), torch.zeros(count, dtype=torch.bool)
    rows = []
    for taken in range(count, steps + 1, count):
        action = agent.act_with(observation, option)
        after, reward, terminated, ended = step(environments, action, low, high)
        live = ~over  # after the end of an episode a step only resets: nothing to learn from
        if live.any():
            seen = Batch(observation, action, reward, after, terminated)
            replay.add(Batch(*(column[live] for column in seen)))
        begin = over | agent.ends(after, option)
        option = torch.where(begin, agent.choose(after), option)
        observation, over = after, ended
        if taken > warm_up:
            for _ in range(count):
                agent.update(replay.sample(config.batch_size, agent.generator))
        if taken % evaluate_every < count:
            test = evaluate_options(agent, tests, 10**6 * (seed + 1) + 100 * taken)
            rows.append((taken, test.returns, test.duration, agent.told(test.visited)))
    return agent, SoftOptionCriticHistory(*map(np.array, zip(*rows, strict=True)))
