"""DreamerV2: classes as latents, a balanced divergence, and an actor with a mixed gradient.

Hafner, Lillicrap, Norouzi and Ba (2021), "Mastering Atari with Discrete World Models". The classes
and their straight-through gradient are `rssm.CategoricalLatent`; all else is here.

Symbols: B sequences, T steps, H steps of imagination, A actions, F numbers in a state's features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from mbta_helpers.errors import require
from mbta_helpers.latent.acting import Driver
from mbta_helpers.latent.imagination import Trajectory, imagine, lambda_return
from mbta_helpers.latent.replay import SequenceReplay, Sequences
from mbta_helpers.latent.rssm import CategoricalLatent, GaussianLatent, Latent, State, mlp
from mbta_helpers.latent.world_model import Terms, WorldModel, WorldModelConfig

# -- the world model ------------------------------------------------------------------------------

HELD_KL = 0.1  # what the divergence counts while codes are held
CODE_RATE = 0.1  # the rate of codes afterwards, as a share of the others'


def balanced_kl(latent: Latent, posterior: Tensor, prior: Tensor, balance: float) -> Tensor:
    """α D_KL(sg(q) ‖ p) + (1 − α) D_KL(q ‖ sg(p)), (...): the KL with its gradients weighted.

    balance: α, the prior's share. posterior, prior: parameters of q and p, (..., P).
    """
    towards_posterior = latent.kl(posterior.detach(), prior)  # moves the prior
    towards_prior = latent.kl(posterior, prior.detach())  # moves the posterior
    return balance * towards_posterior + (1 - balance) * towards_prior


@dataclass(frozen=True)
class DreamerV2ModelConfig(WorldModelConfig):
    """A world model's sizes and weights.

    balance: α of `balanced_kl`; 0.5 is half the plain KL. kl_scale: β, the weight of the balanced
    KL in the loss. free_nats are counted before it. spread: what the posterior's last weights are
    multiplied by at the start; with 10, most pictures have a class of their own early.
    """

    latent: GaussianLatent | CategoricalLatent = field(
        default_factory=lambda: CategoricalLatent(8, 8)
    )
    free_nats: float = 0.0
    kl_scale: float = 1.0
    balance: float = 0.8
    spread: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.balance <= 1, f"balance lies in [0, 1], not {self.balance}.")
        require(self.kl_scale > 0, "kl_scale must be positive.")
        require(self.spread > 0, "spread must be positive.")


class DreamerV2Model(WorldModel):
    """A world model with balanced divergence, for pictures whose pixels are 0 or 1.

    rare: share of pixels that are 1. The encoder sees pixels in units of their deviation, and the
    decoder starts at their mean: without that, hundreds of updates go by before z carries anything.
    """

    def __init__(self, observation_shape, action_dim, config, seed=0, rare: float = 1 / 64):
        super().__init__(observation_shape, action_dim, config, seed)
        self.rare, self.held = rare, False
        nn.init.constant_(self.decoder[-1].bias, math.log(rare / (1 - rare)))
        self.rssm.posterior[-1].weight.data.mul_(config.spread)

    def embed(self, observation: Tensor) -> Tensor:
        """Standardised pixels, (..., *O) to (..., E)."""
        return super().embed((observation - self.rare) / math.sqrt(self.rare * (1 - self.rare)))

    @torch.no_grad()
    def start_at(self, pictures: Tensor) -> None:
        """Let the decoder start at the mean of pictures, (..., *O).

        From elsewhere all pictures first pull z the same way: some then share a class for good.
        """
        mean = pictures.flatten(0, -1 - len(self.observation_shape)).mean(0)
        self.decoder[-1].bias.copy_(mean.clamp(1e-3, 1 - 1e-3).logit().flatten())

    def divergence(self, posterior: Tensor, prior: Tensor) -> Tensor:
        kl = balanced_kl(self.latent, posterior, prior, self.config.balance)
        scale = self.config.kl_scale * (HELD_KL if self.held else 1.0)
        return scale * kl.clamp_min(self.config.free_nats)

    def predict_observation(self, features: Tensor) -> Tensor:
        """The probability that a pixel is 1, (..., *O)."""
        return super().predict_observation(features).sigmoid()

    def observation_loss(self, features: Tensor, observation: Tensor) -> Tensor:
        """−log p(o|s), exactly: pixels are independent given s; (...)."""
        logits, target = self.decoder(features), observation.flatten(-len(self.observation_shape))
        return F.binary_cross_entropy_with_logits(
            logits, target.expand_as(logits), reduction="none"
        ).sum(-1)


# -- policies -------------------------------------------------------------------------------------


class Policy(Protocol):
    """A distribution over actions (..., A) from numbers (..., P) that a network gives."""

    parameter_count: int

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """A draw with a gradient to the parameters, (..., A)."""

    def mode(self, parameters: Tensor) -> Tensor:
        """The likeliest action, (..., A)."""

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """log π(a), (...)."""

    def entropy(self, parameters: Tensor) -> Tensor:
        """In nats, (...)."""


class Choice(CategoricalLatent):
    """One of A actions, one-hot, with the straight-through gradient: a latent of one group."""

    def __init__(self, actions: int):
        super().__init__(groups=1, classes=actions)

    def entropy(self, parameters: Tensor) -> Tensor:
        logs = self.log_probabilities(parameters)
        return -(logs.exp() * logs).sum((-2, -1))


@dataclass(frozen=True)
class Push:
    """A Gaussian cut off at ±1 in each of A dimensions; the network gives μ and a number for σ.

    μ is kept in [−1, 1] by tanh, σ is softplus + least_std.
    """

    size: int
    least_std: float = 0.1

    @property
    def parameter_count(self) -> int:
        return 2 * self.size

    def cut(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """μ, σ, and the standardised ends (−1 − μ)/σ and (1 − μ)/σ; (..., A) each."""
        raw_mean, raw_std = parameters.chunk(2, -1)
        mean, std = raw_mean.tanh(), F.softplus(raw_std) + self.least_std
        return mean, std, (-1 - mean) / std, (1 - mean) / std

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """By the inverse of the distribution function, so the draw has a gradient to μ and σ."""
        mean, std, low, high = self.cut(parameters)
        below, above = torch.special.ndtr(low), torch.special.ndtr(high)
        u = torch.rand(mean.shape, generator=generator)
        inner = (below + u * (above - below)).clamp(1e-6, 1 - 1e-6)
        return (mean + std * torch.special.ndtri(inner)).clamp(-1, 1)

    def mode(self, parameters: Tensor) -> Tensor:
        return self.cut(parameters)[0]

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        mean, std, low, high = self.cut(parameters)
        mass = torch.special.ndtr(high) - torch.special.ndtr(low)
        normal = torch.distributions.Normal(mean, std).log_prob(action)
        return (normal - mass.log()).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """log(√(2πe) σ Z) + (α φ(α) − β φ(β)) / (2 Z), with the ends α, β and the mass Z."""
        _, std, low, high = self.cut(parameters)
        mass = torch.special.ndtr(high) - torch.special.ndtr(low)
        unit = torch.distributions.Normal(0.0, 1.0)
        ends = low * unit.log_prob(low).exp() - high * unit.log_prob(high).exp()
        return (unit.entropy() + (std * mass).log() + ends / (2 * mass)).sum(-1)


# -- behaviour ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BehaviourConfig:
    """How actor and critic learn in imagination.

    mix: ρ, the share of REINFORCE in the actor's gradient; the rest comes through the dynamics.
    entropy: η. slow_every: updates after which the slow critic becomes a copy of the critic.
    """

    hidden: int = 64
    horizon: int = 10
    gamma: float = 0.95
    lam: float = 0.95
    mix: float = 1.0
    entropy: float = 3e-3
    slow_every: int = 100
    actor_rate: float = 1e-3
    critic_rate: float = 1e-3

    def __post_init__(self):
        require(0 <= self.mix <= 1, f"mix lies in [0, 1], not {self.mix}.")
        require(0 <= self.gamma < 1, f"gamma lies in [0, 1), not {self.gamma}.")
        require(0 <= self.lam <= 1, f"lam lies in [0, 1], not {self.lam}.")
        for name in ("hidden", "horizon", "slow_every"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")


def step_weights(discount: Tensor, alive: Tensor) -> Tensor:
    """w_n = alive · Π_{m<n} d_m, (B, H): what happens after an end does not count.

    discount: (B, H), d_n. alive: (B,), 0 where the start already ended its episode.
    """
    first = torch.cat([alive[:, None], discount[:, :-1]], 1)
    return first.cumprod(1).detach()


def actor_loss(
    log_prob: Tensor,
    entropy: Tensor,
    returns: Tensor,
    value: Tensor,
    weight: Tensor,
    config: BehaviourConfig,
) -> Tensor:
    """−Σ_n w_n [ρ log π(a_n|s_n) sg(G_n − v_n) + (1 − ρ) G_n + η H(π(·|s_n))], mean over steps.

    All parts (B, H), entry n of the state s_n *in which* a_n was taken. Hafner et al. 2021, eq. 6.
    """
    advantage = (returns - value).detach()
    gain = config.mix * log_prob * advantage + (1 - config.mix) * returns
    return -(weight * (gain + config.entropy * entropy)).mean()


def critic_loss(value: Tensor, returns: Tensor, weight: Tensor) -> Tensor:
    """½ w_n (v_n − sg(G_n))², mean over steps; all (B, H)."""
    return (0.5 * weight * (value - returns.detach()).square()).mean()


class DreamerV2(nn.Module):
    """Actor, critic and slow critic over the states of a world model."""

    def __init__(self, model: WorldModel, policy: Policy, config: BehaviourConfig, seed: int = 0):
        super().__init__()
        self.model, self.policy, self.config, self.updates = model, policy, config, 0
        features = model.config.deterministic + model.latent.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = mlp(features, config.hidden, policy.parameter_count, layers=2)
            self.critic = mlp(features, config.hidden, 1, layers=2)
        self.slow_critic = deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), config.actor_rate)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), config.critic_rate)

    def act(self, state: State, generator: torch.Generator, explore: bool) -> Tensor:
        """Actions (N, A): drawn from the policy; without exploring its likeliest."""
        parameters = self.actor(state.features)
        policy = self.policy
        return policy.sample(parameters, generator) if explore else policy.mode(parameters)

    def imagine(self, start: State, generator: torch.Generator) -> Trajectory:
        """H steps of the policy from start, (B, ...); a graph only where the gradient needs it."""
        with torch.set_grad_enabled(self.config.mix < 1):
            return imagine(
                self.model.rssm,
                start.detach(),
                lambda state: self.act(state.detach(), generator, explore=True),
                self.config.horizon,
                generator,
            )

    def returns(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """λ-returns (B, H), slow values (B, H + 1), discounts (B, H) of features (B, H + 1, F)."""
        value = self.slow_critic(features).squeeze(-1)
        reward = self.model.predict_reward(features[:, 1:])
        discount = self.config.gamma * self.model.predict_continuation(features[:, 1:])
        return lambda_return(reward, value, discount, self.config.lam), value, discount

    def losses(self, trajectory: Trajectory, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Actor's and critic's loss on imagined steps."""
        features = trajectory.states.features
        with torch.set_grad_enabled(self.config.mix < 1):
            returns, value, discount = self.returns(features)
        weight = step_weights(discount, alive)
        seen = features[:, :-1].detach()
        parameters = self.actor(seen)  # of π(·|s_n), n = 0 … H − 1
        log_prob = self.policy.log_prob(parameters, trajectory.actions.detach())
        parts = (log_prob, self.policy.entropy(parameters), returns, value[:, :-1], weight)
        actor = actor_loss(*parts, self.config)
        return actor, critic_loss(self.critic(seen).squeeze(-1), returns, weight)

    def improve(self, start: State, alive: Tensor, generator: torch.Generator) -> None:
        """One update of actor and critic from states (B, ...); alive: (B,)."""
        if self.updates % self.config.slow_every == 0:
            self.slow_critic.load_state_dict(self.critic.state_dict())
        self.updates += 1
        losses = self.losses(self.imagine(start, generator), alive)
        parts = (self.actor, self.actor_optimizer), (self.critic, self.critic_optimizer)
        for loss, (network, optimizer) in zip(losses, parts, strict=True):
            optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=list(network.parameters()))
            nn.utils.clip_grad_norm_(network.parameters(), 100.0)
            optimizer.step()


# -- learning -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingConfig:
    """How to learn from replay.

    batch, length: B and T of an update. rate: of the world model's Adam. prefill: rows of each
    environment, of random play, before the first update. capacity: rows kept of each.
    codes, hold: of `fit`, see `spread_codes` and `hold_codes`; 0 for neither.
    """

    batch: int = 32
    length: int = 10
    rate: float = 2e-3
    prefill: int = 100
    capacity: int = 5000
    codes: float = 0.0
    hold: int = 0

    def __post_init__(self):
        for name in ("batch", "length", "prefill"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        require(self.rate > 0, "rate must be positive.")


class ModelLearner:
    """A world model with its optimiser."""

    def __init__(self, model: WorldModel, config: TrainingConfig):
        self.model, self.config = model, config
        self.optimizer = torch.optim.Adam(model.parameters(), config.rate)

    def update(
        self, replay: SequenceReplay, generator: torch.Generator
    ) -> tuple[Sequences, State, Terms]:
        """One step of descent: the batch, its filtered states and the parts of its loss."""
        batch = replay.sample(self.config.batch, self.config.length, generator)
        states, priors = self.model.observe(batch, generator)
        terms = self.model.terms(batch, states, priors)
        self.optimizer.zero_grad(set_to_none=True)
        terms.loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 100.0)
        self.optimizer.step()
        return batch, states.detach(), Terms(*(part.detach() for part in terms))


class RandomChoices:
    """One-hot actions, all alike: the play from which a model is learnt first."""

    def __init__(self, model: WorldModel):
        self.model, self.policy = model, Choice(model.action_dim)

    def act(self, state: State, generator: torch.Generator, explore: bool) -> Tensor:
        logits = torch.zeros(len(state.h), self.model.action_dim)
        return self.policy.sample(logits, generator)


def random_play(environments: VectorEnv, model: WorldModel, rows: int, seed: int) -> SequenceReplay:
    """That many rows of random play in each environment; the model gives the sizes."""
    replay = SequenceReplay(rows, environments.num_envs, model.observation_shape, model.action_dim)
    Driver(environments, model, seed).collect(RandomChoices(model), replay, rows)
    return replay


def code_parameters(model: DreamerV2Model) -> list[nn.Parameter]:
    """Of encoder and posterior: what gives a picture its code."""
    return [*model.encoder.parameters(), *model.rssm.posterior.parameters()]


@torch.no_grad()
def spread_codes(model: DreamerV2Model, pictures: Tensor, deviation: float) -> None:
    """Centre the logits over pictures, each seen as if it began an episode, and scale them.

    With 512 classes and a deviation of 15, most cells then have a class of their own.
    pictures: (N, *O).
    """
    rssm, start = model.rssm, model.rssm.start(len(pictures))
    h = rssm.advance(start, torch.zeros(len(pictures), model.action_dim))
    hidden = rssm.posterior[:-1](torch.cat([h, model.embed(pictures)], -1))
    last = rssm.posterior[-1]
    last.weight.mul_(deviation / ((hidden - hidden.mean(0)) @ last.weight.T).std())
    last.bias.copy_(-last.weight @ hidden.mean(0))


def hold_codes(model: DreamerV2Model, held: bool) -> None:
    """Keep encoder and posterior as they are, or let them learn on.

    While they are held the divergence counts a tenth: they also see h, and through it a strong
    pull towards the prior would bring the codes together all the same.
    """
    model.held = held
    for parameter in code_parameters(model):
        parameter.requires_grad_(not held)


def slow_codes(model: DreamerV2Model, rate: float) -> torch.optim.Adam:
    """Adam with a tenth of the rate for encoder and posterior."""
    codes = code_parameters(model)
    known = {id(parameter) for parameter in codes}
    others = [each for each in model.parameters() if id(each) not in known]
    groups = [{"params": others}, {"params": codes, "lr": CODE_RATE * rate}]
    return torch.optim.Adam(groups, lr=rate)


def fit(
    model: DreamerV2Model, replay: SequenceReplay, config: TrainingConfig, updates: int, seed: int
) -> np.ndarray:
    """Learn a model from what is there, the rate falling to a fiftieth; the terms, (updates, 5)."""
    pictures = replay.columns.observation[: len(replay)]
    model.start_at(pictures)
    if config.codes:
        spread_codes(model, pictures.flatten(0, 1), config.codes)
    learner, generator = ModelLearner(model, config), torch.Generator().manual_seed(seed)
    if config.hold:
        learner.optimizer = slow_codes(model, config.rate)
    schedule = torch.optim.lr_scheduler.LinearLR(learner.optimizer, 1.0, 0.02, updates)
    history = np.zeros((updates, len(Terms._fields)))
    for update in range(updates):
        hold_codes(model, update < config.hold)
        _, _, terms = learner.update(replay, generator)
        history[update] = [part.mean().item() for part in terms]
        schedule.step()
    return history


def train(
    environments: VectorEnv,
    agent: DreamerV2,
    config: TrainingConfig,
    updates: int,
    seed: int,
    each: Callable[[int], None] = lambda update: None,
) -> None:
    """Between updates of model and behaviour, one step in each environment.

    each: called with the number of updates that are done.
    """
    generator = torch.Generator().manual_seed(seed)
    model, learner = agent.model, ModelLearner(agent.model, config)
    replay = SequenceReplay(
        config.capacity, environments.num_envs, model.observation_shape, model.action_dim
    )
    driver = Driver(environments, model, seed)
    driver.collect(RandomChoices(model), replay, config.prefill)
    for update in range(updates):
        batch, states, _ = learner.update(replay, generator)
        agent.improve(states.flatten(), 1 - batch.is_terminal.flatten(), generator)
        driver.collect(agent, replay, 1)
        each(update + 1)


def discounted_returns(agent, environments: VectorEnv, seed: int, gamma: float) -> np.ndarray:
    """Σ_t γ^t r_{t+1} of one whole episode in each environment, without exploration; (N,)."""
    driver = Driver(environments, agent.model, seed)
    total, weight = torch.zeros(environments.num_envs), torch.ones(environments.num_envs)
    while weight.any():
        driver.step(agent, explore=False)
        total += weight * driver.row.reward
        weight = gamma * weight * (1 - driver.over)
    return total.numpy()
