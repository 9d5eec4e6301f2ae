"""Dreamer: a policy learnt by gradients through imagined trajectories.

Hafner et al. (2020), "Dream to Control: Learning Behaviors by Latent Imagination". A world model
explains replayed sequences; from each of its states the actor imagines H steps, and is moved along
the gradient of the λ-returns through rewards, values and dynamics; the critic fits the λ-returns.

Symbols: B sequences, T rows, N imagined trajectories, H steps of each, F features of a state, A
dimensions of an action. θ is the actor, ψ the critic, φ the world model.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from mbta_helpers.checkpoints import load_checkpoint, restore, save_checkpoint
from mbta_helpers.errors import require, unknown
from mbta_helpers.latent.acting import Driver, RandomAgent, evaluate
from mbta_helpers.latent.imagination import Trajectory, imagine, lambda_return
from mbta_helpers.latent.replay import SequenceReplay, Sequences
from mbta_helpers.latent.rssm import GaussianLatent, State, mlp
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig


@dataclass(frozen=True)
class DreamerConfig:
    """How to learn. Rates and noise of the paper are for networks ten times as wide.

    representation: what the states are learnt from, a name in `REPRESENTATIONS`. starts: N,
    filtered states from which one update imagines. horizon: H. gamma, lam: discount and λ.
    model_rate, actor_rate, critic_rate: of Adam. entropy: η, what a nat of the actor's entropy is
    worth (16.7); 0 in the paper. clip: the largest norm of a gradient. batch, length: B and T.
    noise: standard deviation added to actions while data are collected. reward_factor: multiplies
    rewards before anything is learnt from them. environments: acted in side by side. first_rows:
    rows of each with random actions. rows, updates: rows of each that a round collects, and updates
    that follow.
    """

    model: WorldModelConfig = field(
        default_factory=lambda: WorldModelConfig(
            free_nats=1.0, observation_scale=300.0, reward_scale=100.0
        )
    )
    representation: str = "reconstruction"
    starts: int = 128
    horizon: int = 12
    gamma: float = 0.97
    lam: float = 0.95
    model_rate: float = 2e-3
    actor_rate: float = 1e-3
    entropy: float = 0.003
    critic_rate: float = 1e-3
    clip: float = 100.0
    batch: int = 32
    length: int = 10
    noise: float = 0.3
    reward_factor: float = 1.0
    environments: int = 8
    first_rows: int = 50
    rows: int = 50
    updates: int = 25

    def __post_init__(self):
        if self.representation not in REPRESENTATIONS:
            raise unknown("representation", self.representation, REPRESENTATIONS)
        require(self.horizon >= 1, f"horizon must be at least 1 step, not {self.horizon}.")
        for name in ("gamma", "lam"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} lies in [0, 1], not {value}.")
        require(
            self.first_rows >= self.length,
            f"first_rows ({self.first_rows}) must hold a sequence of length {self.length}.",
        )


# -- three ways to learn a representation ---------------------------------------------------------


class ContrastiveModel(WorldModel):
    """States that tell their own observation from the others of the batch, by InfoNCE.

    The decoder learns too, from states through which no gradient passes: it shows what they hold.
    """

    def __init__(self, observation_shape, action_dim, config: WorldModelConfig, seed: int = 0):
        super().__init__(observation_shape, action_dim, config, seed)
        features = config.deterministic + config.latent.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.projection = mlp(features, config.hidden, config.embedding, config.layers)

    def observation_loss(self, features: Tensor, observation: Tensor) -> Tensor:
        states, seen = self.projection(features), self.embed(observation)
        scores = states.flatten(0, 1) @ seen.flatten(0, 1).T  # (BT, BT)
        own = contrastive_loss(scores).view(features.shape[:2])
        return own + super().observation_loss(features.detach(), observation)


class RewardModel(WorldModel):
    """States learnt from rewards alone; the decoder only shows what they hold."""

    def observation_loss(self, features: Tensor, observation: Tensor) -> Tensor:
        return super().observation_loss(features.detach(), observation)


REPRESENTATIONS = {
    "reconstruction": WorldModel,
    "contrastive": ContrastiveModel,
    "reward": RewardModel,
}
POINT = DreamerConfig(  # of mbta/PointTask-v0; sharp near the goal, where most steps are spent
    model=WorldModelConfig(
        layers=3, free_nats=1.0, observation_scale=30_000.0, reward_scale=20_000.0
    ),
    starts=64,
    horizon=8,
    gamma=0.85,
    model_rate=3e-3,
    actor_rate=3e-3,
    critic_rate=3e-3,
    entropy=0.001,
    batch=64,
    updates=40,
)
PENDULUM = DreamerConfig(  # of mbta/Pendulum-v0
    model=WorldModelConfig(free_nats=1.0, observation_scale=30.0, reward_scale=30.0),
    entropy=0.03,
    reward_factor=0.1,
    first_rows=100,
)
PICTURES = {  # of mbta/PointPictures-v0; the weight of contrast is in nats, that of pixels is 1/σ²
    name: DreamerConfig(
        model=WorldModelConfig(free_nats=0.0, observation_scale=weight, reward_scale=30.0),
        representation=name,
    )
    for name, weight in (("reconstruction", 100.0), ("contrastive", 3.0), ("reward", 1.0))
}


def contrastive_loss(scores: Tensor) -> Tensor:
    """−log softmax_j(scores_ij) at j = i, (n,); scores: (n, n) of state i with observation j.

    log n minus its mean is at most the information between states and observations (16.15).
    """
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, own, reduction="none")


# -- actor and critic -----------------------------------------------------------------------------


class Actor(nn.Module):
    """a = tanh(μ_θ(s) + σ_θ(s) ε), with a mean that is bounded by 5 before the tanh."""

    def __init__(self, features: int, action_dim: int, hidden: int, layers: int):
        super().__init__()
        self.layers = mlp(features, hidden, 2 * action_dim, layers)

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ before the tanh, (..., A) each."""
        mean, raw = self.layers(features).chunk(2, -1)
        return 5 * torch.tanh(mean / 5), F.softplus(raw) + 1e-4

    def sample(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """A drawn action with a gradient to μ and σ, (..., A)."""
        mean, std = self.moments(features)
        return torch.tanh(mean + std * torch.randn(mean.shape, generator=generator))

    def entropy(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Entropy of the action with one draw u: Σ ½ log 2πe + log σ + log(1 − tanh² u), (...)."""
        mean, std = self.moments(features)
        drawn = mean + std * torch.randn(mean.shape, generator=generator)
        slope = 2 * (math.log(2) - drawn - F.softplus(-2 * drawn))  # log(1 − tanh² u), stable
        return (0.5 * math.log(2 * math.pi * math.e) + std.log() + slope).sum(-1)

    def mode(self, features: Tensor) -> Tensor:
        """tanh(μ), the median."""
        return torch.tanh(self.moments(features)[0])


class Behaviour(NamedTuple):
    """What imagination gives: losses, and what they are made of, (N, H) each."""

    actor_loss: Tensor
    critic_loss: Tensor
    trajectory: Trajectory
    returns: Tensor
    weights: Tensor


def trajectory_weights(discount: Tensor) -> Tensor:
    """w_n = d_0 … d_{n−1}, w_0 = 1, without a gradient; discount: (..., H) (16.6)."""
    before = torch.cat([torch.ones_like(discount[..., :1]), discount[..., :-1]], -1)
    return before.cumprod(-1).detach()


def behaviour(
    model: WorldModel,
    actor: Actor,
    critic: nn.Module,
    start: State,
    config: DreamerConfig,
    generator: torch.Generator,
) -> Behaviour:
    """Imagine from the states `start`, (N, ...), and score what happens (16.7), (16.8)."""

    def policy(state: State) -> Tensor:
        return actor.sample(state.features.detach(), generator)

    trajectory = imagine(model.rssm, start, policy, config.horizon, generator)
    features = trajectory.states.features  # (N, H + 1, F)
    reward = model.predict_reward(features[:, 1:])  # (N, H), of arriving
    discount = config.gamma * model.predict_continuation(features[:, 1:])
    value = critic(features).squeeze(-1)  # (N, H + 1)
    returns = lambda_return(reward, value, discount, config.lam)
    weights = trajectory_weights(discount)
    entropy = actor.entropy(features[:, :-1].detach(), generator)
    gain = returns + config.entropy * entropy
    fitted = critic(features[:, :-1].detach()).squeeze(-1)
    error = 0.5 * (fitted - returns.detach()).square()
    return Behaviour(
        -(weights * gain).mean(), (weights * error).mean(), trajectory, returns, weights
    )


def choose(states: State, count: int, generator: torch.Generator) -> State:
    """Some of the filtered states without a gradient; (B, T, ...) to (N, ...)."""
    flat = states.detach().flatten()
    chosen = torch.randperm(len(flat.h), generator=generator)[:count]
    return State(*(part[chosen] for part in flat))


def descend(
    loss: Tensor, part: nn.Module, optimiser: torch.optim.Optimizer, largest_norm: float
) -> None:
    """Move one part along the gradient of its loss; nothing else gets a gradient."""
    optimiser.zero_grad()
    loss.backward(inputs=list(part.parameters()))
    nn.utils.clip_grad_norm_(part.parameters(), largest_norm)
    optimiser.step()


# -- the agent ------------------------------------------------------------------------------------


class Dreamer:
    """World model, actor and critic, each with an optimiser of its own."""

    def __init__(self, observation_shape: tuple, action_dim: int, config: DreamerConfig, seed: int):
        self.config = config
        kind, c = REPRESENTATIONS[config.representation], config.model
        self.model = kind(observation_shape, action_dim, c, seed)
        features = c.deterministic + c.latent.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 2)
            self.actor = Actor(features, action_dim, c.hidden, c.layers)
            self.critic = mlp(features, c.hidden, 1, c.layers)
        rates = (config.model_rate, config.actor_rate, config.critic_rate)
        parts = (self.model, self.actor, self.critic)
        self.optimisers = [
            torch.optim.Adam(part.parameters(), lr=rate, fused=True)
            for part, rate in zip(parts, rates, strict=True)
        ]
        self.generator = torch.Generator().manual_seed(seed)
        self.sizes = {"observation_shape": list(observation_shape), "action_dim": action_dim}

    def act(self, state: State, generator: torch.Generator, explore: bool) -> Tensor:
        """Actions in [−1, 1], (N, A): drawn and disturbed to explore, else the median."""
        if not explore:
            return self.actor.mode(state.features)
        action = self.actor.sample(state.features, generator)
        noise = self.config.noise * torch.randn(action.shape, generator=generator)
        return (action + noise).clamp(-1, 1)

    def anneal(self, progress: float) -> None:
        """Rates as configured for the first half of a run, then falling to a twentieth."""
        factor = min(1.0, 0.05 + 1.9 * (1 - progress))
        c = self.config
        rates = (c.model_rate, c.actor_rate, c.critic_rate)
        for optimiser, rate in zip(self.optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = factor * rate

    def update(self, batch: Sequences) -> dict[str, float]:
        """One step of each optimiser; returns the losses."""
        c = self.config
        batch = batch._replace(reward=c.reward_factor * batch.reward)
        model_step, actor_step, critic_step = self.optimisers
        states, priors = self.model.observe(batch, self.generator)
        terms = self.model.terms(batch, states, priors)
        descend(terms.loss, self.model, model_step, c.clip)
        start = choose(states, c.starts, self.generator)
        imagined = behaviour(self.model, self.actor, self.critic, start, c, self.generator)
        descend(imagined.actor_loss, self.actor, actor_step, c.clip)
        descend(imagined.critic_loss, self.critic, critic_step, c.clip)
        parts = {name: part.mean().item() for name, part in terms._asdict().items()}
        return parts | {
            "actor": imagined.actor_loss.item(),
            "critic": imagined.critic_loss.item(),
        }

    def networks(self) -> nn.ModuleDict:
        """All that is learnt."""
        return nn.ModuleDict({"model": self.model, "actor": self.actor, "critic": self.critic})


class LateActions(Dreamer):
    """A mistake kept for chapter 16: row t holds the action that is taken after o_t, not before."""

    def update(self, batch: Sequences) -> dict[str, float]:
        late = torch.cat([batch.action[:, 1:], batch.action[:, -1:]], 1)
        return super().update(batch._replace(action=late))


def save_dreamer(path: Path, agent: Dreamer, provenance: dict) -> None:
    """Write an agent with Gaussian latents to a file, in half precision, whole or not at all."""
    config = {"config": asdict(agent.config), **agent.sizes}
    tensors = {name: part.half() for name, part in agent.networks().state_dict().items()}
    save_checkpoint(path, "dreamer", tensors, config, provenance)


def load_dreamer(path: Path) -> Dreamer:
    """An agent from its file, ready to act and to go on learning with fresh optimisers."""
    checkpoint = load_checkpoint(path, "dreamer")
    stored = checkpoint.config["config"]
    model = dict(stored["model"], latent=GaussianLatent(**stored["model"]["latent"]))
    config = DreamerConfig(**dict(stored, model=WorldModelConfig(**model)))
    shape = tuple(checkpoint.config["observation_shape"])
    agent = Dreamer(shape, checkpoint.config["action_dim"], config, seed=0)
    restore(agent.networks().state_dict(), checkpoint.tensors, str(path))
    return agent


# -- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DreamerHistory:
    """What a run did and learnt.

    agent: as it is at the end. steps: decisions in the environments at each measurement, (n,).
    returns: of whole episodes without exploration then, (n, episodes). losses: (updates,) each.
    """

    agent: Dreamer
    steps: np.ndarray
    returns: np.ndarray
    losses: dict[str, np.ndarray]


def make_tasks(env_id: str, count: int) -> gym.vector.VectorEnv:
    """A task several times side by side, in this process."""
    return gym.make_vec(env_id, count, vectorization_mode="sync")


def train_dreamer(
    env_id: str,
    config: DreamerConfig,
    rounds: int,
    seed: int,
    measure_every: int = 4,
    episodes: int = 8,
    kind: type[Dreamer] = Dreamer,
) -> DreamerHistory:
    """Act, learn, act again; every `measure_every` rounds the returns of some episodes."""
    environments, measured = make_tasks(env_id, config.environments), make_tasks(env_id, episodes)
    shape = environments.single_observation_space.shape
    action_dim = environments.single_action_space.shape[0]
    agent = kind(shape, action_dim, config, seed)
    replay = SequenceReplay(
        config.first_rows + rounds * config.rows, config.environments, shape, action_dim
    )
    driver = Driver(environments, agent.model, seed)
    driver.collect(RandomAgent(agent.model), replay, config.first_rows)
    steps, returns, losses = [], [], []
    for number in tqdm(range(1, rounds + 1), desc=f"{config.representation}, seed {seed}"):
        driver.collect(agent, replay, config.rows)
        agent.anneal(number / rounds)
        for _ in range(config.updates):
            batch = replay.sample(config.batch, config.length, agent.generator)
            losses.append(agent.update(batch))
        if number % measure_every == 0 or number == rounds:
            steps.append(replay.added * config.environments)
            returns.append(evaluate(agent, measured, 10_000 + seed))
    return DreamerHistory(
        agent,
        np.array(steps),
        np.stack(returns),
        {name: np.array([each[name] for each in losses]) for name in losses[0]},
    )
