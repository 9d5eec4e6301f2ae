"""DreamerV3: one set of hyper-parameters for rewards of any scale.

Hafner et al. (2025), "Mastering Diverse Control Tasks through World Models", Nature 640; with the
heads of DreamerV2 (Hafner et al. 2021) for comparison. Against the paper's agent this one is small,
has RMSNorm and SiLU as the paper's, and Adam, with β₂ = 0.99 since its runs are short.

Symbols: B sequences of T rows, N = B T starts, H imagined steps, F features of a state, A actions,
D numbers in h.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TransformReward
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.optim.lr_scheduler import LinearLR

import mbta_helpers.latent.environments  # noqa: F401, registers the tasks
from mbta_helpers.errors import require
from mbta_helpers.latent.acting import Driver, RandomAgent, evaluate
from mbta_helpers.latent.imagination import Trajectory, imagine, lambda_return
from mbta_helpers.latent.replay import SequenceReplay, Sequences
from mbta_helpers.latent.rssm import RSSM, CategoricalLatent, State
from mbta_helpers.latent.twohot import GaussianHead, TwoHotHead, symexp, symlog
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig, gaussian_error

NEAR, MARGIN = 0.1, 1.0  # distances of `closeness`


@dataclass(frozen=True)
class DreamerV3Config(WorldModelConfig):
    """The paper's, but for sizes, gamma, horizon, extent, learning rates and observation_scale.

    observation_scale: weight of the observation's term, 1/σ² of its Gaussian.
    heads: "V3", or "V2" for squared errors of rewards and returns, and advantages as they are.
    extent: symlog of the last bin. blocks: G, of the GRU. dynamics, representation: weights of the
    two halves of the divergence. gamma, lam: discount and λ. horizon: H. entropy: η, the worth of
    a nat. slow_rate: share of the critic that its slow copy takes over. replay_value: weight of
    the critic's loss on replayed states. last_rate: share of the learning rate that is left when a
    training ends; it falls in a straight line. batch, length: B and T of an update. collect: steps
    of each environment between updates. first: steps of each environment with random actions.
    warm_up: updates of the world model alone, before actor and critic begin.
    """

    latent: CategoricalLatent = field(default_factory=lambda: CategoricalLatent(16, 16, 0.01))
    free_nats: float = 1.0
    observation_scale: float = 300.0
    heads: str = "V3"
    extent: float = 10.0
    blocks: int = 8
    dynamics: float = 1.0
    representation: float = 0.1
    gamma: float = 0.95
    lam: float = 0.95
    horizon: int = 10
    entropy: float = 3e-4
    slow_rate: float = 0.02
    replay_value: float = 0.3
    learning_rate: float = 5e-3
    last_rate: float = 0.05
    batch: int = 16
    length: int = 10
    collect: int = 2
    first: int = 100
    warm_up: int = 150

    def __post_init__(self):
        super().__post_init__()
        require(self.heads in ("V3", "V2"), f"heads: V3 or V2, not {self.heads}.")
        require(
            self.blocks >= 1 and self.deterministic % self.blocks == 0,
            f"{self.deterministic} numbers in h cannot be cut into {self.blocks} equal blocks.",
        )
        require(0 <= self.gamma < 1, f"gamma lies in [0, 1), not {self.gamma}.")
        require(0 <= self.lam <= 1, f"lam lies in [0, 1], not {self.lam}.")
        require(0 < self.slow_rate <= 1, f"slow_rate lies in (0, 1], not {self.slow_rate}.")
        weights = ("observation_scale", "dynamics", "representation", "entropy", "replay_value")
        for name in (*weights, "warm_up"):
            require(getattr(self, name) >= 0, f"{name} must not be negative.")
        require(self.extent > 0, f"extent must be positive, not {self.extent}.")
        require(self.learning_rate > 0, "learning_rate must be positive.")
        require(0 < self.last_rate <= 1, f"last_rate lies in (0, 1], not {self.last_rate}.")
        for name in ("horizon", "batch", "collect"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        require(self.length >= 2, f"length must be at least 2 rows, not {self.length}.")
        require(self.first >= self.length, f"first must be at least the length, {self.length}.")


# -- the world model ------------------------------------------------------------------------------


def normed_mlp(inputs: int, hidden: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """A network with `layers` hidden layers of one width, each RMSNorm and SiLU after a line."""
    sizes = [inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), nn.RMSNorm(after), nn.SiLU()]
    return nn.Sequential(*parts, nn.Linear(sizes[-1], outputs))


class BlockGRU(nn.Module):
    """A GRU whose recurrent weights are G square blocks on the diagonal; inputs reach every block.

    The update gate has −1 added: at first h changes slowly.
    """

    def __init__(self, inputs: int, size: int, blocks: int):
        super().__init__()
        width = size // blocks
        self.blocks = blocks
        self.inputs = nn.Linear(inputs, 3 * size)
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(blocks, width, 3 * width).uniform_(-bound, bound))

    def forward(self, inputs: Tensor, h: Tensor) -> Tensor:
        """inputs: (B, I), h: (B, D); the next h."""
        parts = h.unflatten(-1, (self.blocks, -1))  # (B, G, D / G)
        from_h = torch.bmm(parts.transpose(0, 1), self.weight).transpose(0, 1)  # (B, G, 3 D / G)
        gates = self.inputs(inputs).unflatten(-1, (self.blocks, -1)) + from_h
        reset, candidate, update = gates.chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        return (update * candidate + (1 - update) * parts).flatten(-2)


class BlockRSSM(RSSM):
    """The RSSM with a block GRU. The GRU's input sees h too, and so mixes the blocks.

    The model is told the action that counts, cut off at ±1.
    """

    def __init__(self, blocks: int, *arguments, **sizes):
        self.blocks = blocks
        super().__init__(*arguments, **sizes)
        first = self.inputs[0]
        wider = nn.Linear(first.in_features + self.deterministic, first.out_features)
        self.inputs = nn.Sequential(wider, nn.RMSNorm(first.out_features), nn.SiLU())

    make_mlp = staticmethod(normed_mlp)

    def make_cell(self, inputs: int, size: int) -> BlockGRU:
        return BlockGRU(inputs, size, self.blocks)

    def advance(self, state: State, action: Tensor) -> Tensor:
        known = torch.cat([state.z, action.clamp(-1, 1), state.h], -1)
        return self.cell(self.inputs(known), state.h)


class WorldModelV3(WorldModel):
    """Symlog observations, a two-hot reward and a divergence in two halves."""

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        action_dim: int,
        config: DreamerV3Config,
        seed: int = 0,
    ):
        super().__init__(observation_shape, action_dim, config, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reward = make_head(config)

    make_mlp = staticmethod(normed_mlp)

    def make_rssm(self) -> RSSM:
        c = self.config
        sizes = {"deterministic": c.deterministic, "hidden": c.hidden}
        return BlockRSSM(c.blocks, self.action_dim, c.embedding, c.latent, **sizes)

    def squash(self, observation: Tensor) -> Tensor:
        """What the networks see of an observation."""
        return symlog(observation)

    def embed(self, observation: Tensor) -> Tensor:
        return super().embed(self.squash(observation))

    def predict_observation(self, features: Tensor) -> Tensor:
        return symexp(super().predict_observation(features))

    def observation_loss(self, features: Tensor, observation: Tensor) -> Tensor:
        squashed = super().predict_observation(features)
        axes = len(self.observation_shape)
        return gaussian_error(squashed, self.squash(observation), axes)

    def predict_reward(self, features: Tensor) -> Tensor:
        return self.reward.mean(self.reward(features))

    def reward_loss(self, features: Tensor, reward: Tensor) -> Tensor:
        return self.reward.loss(self.reward(features), reward)

    def divergence(self, posterior: Tensor, prior: Tensor) -> Tensor:
        """β_dyn max(1, KL(sg q ‖ p)) + β_rep max(1, KL(q ‖ sg p)), 1 nat free in each half."""
        c = self.config
        dynamics = self.latent.kl(posterior.detach(), prior).clamp_min(c.free_nats)
        representation = self.latent.kl(posterior, prior.detach()).clamp_min(c.free_nats)
        return c.dynamics * dynamics + c.representation * representation


def make_head(config: DreamerV3Config) -> TwoHotHead | GaussianHead:
    """A head that predicts a number from features of a state."""
    sizes = (config.deterministic + config.latent.size, config.hidden)
    if config.heads == "V3":
        return TwoHotHead(normed_mlp, *sizes, layers=config.layers, extent=config.extent)
    return GaussianHead(normed_mlp, *sizes, layers=config.layers)


# -- behaviour ------------------------------------------------------------------------------------


class Actor(nn.Module):
    """Gaussian actions: the mean is a tanh, the standard deviation lies between 0.1 and 1."""

    def __init__(self, features: int, hidden: int, layers: int, action_dim: int):
        super().__init__()
        self.network = normed_mlp(features, hidden, 2 * action_dim, layers)
        with torch.no_grad():
            self.network[-1].weight.mul_(0.01)

    def forward(self, features: Tensor) -> Independent:
        """features: (..., F); a distribution over actions, (..., A)."""
        mean, raw = self.network(features).chunk(2, -1)
        std = 0.1 + 0.9 * torch.sigmoid(raw + 2)
        return Independent(Normal(mean.tanh(), std, validate_args=False), 1, validate_args=False)


class ReturnScale:
    """S = max(1, mean of P95 − P5 of the returns), an exponential mean over updates.

    The mean forgets at `rate` and is divided by the weight of what it has seen.
    """

    def __init__(self, rate: float = 0.01):
        self.rate, self.spread, self.seen = rate, 0.0, 0.0

    def update(self, returns: Tensor) -> None:
        low, high = torch.quantile(returns.flatten(), torch.tensor([0.05, 0.95])).tolist()
        self.spread += self.rate * (high - low - self.spread)
        self.seen += self.rate * (1 - self.seen)

    @property
    def value(self) -> float:
        return max(1.0, self.spread / self.seen) if self.seen else 1.0


def actor_loss(
    policy: Independent,
    action: Tensor,
    advantage: Tensor,
    weight: Tensor,
    entropy: float,
) -> Tensor:
    """REINFORCE: −Σ w_n (sg(A_n) log π(a_n|s_n) + η H[π(·|s_n)]), the mean over (N, H).

    action: (N, H, A), a_n drawn in s_n. advantage, weight: (N, H).
    """
    gain = advantage.detach() * policy.log_prob(action) + entropy * policy.entropy()
    return -(weight * gain).mean()


def replay_returns(batch: Sequences, bootstrap: Tensor, gamma: float, lam: float) -> Tensor:
    """λ-returns of the first T − 1 replayed rows, (B, T − 1), with r_{t+1} and V(s_{t+1}).

    bootstrap: (B, T), estimates of the value. Where an episode is cut off after row t + 1, nothing
    after it is seen: the return goes on with that row's estimate alone.
    """
    discount = gamma * (1 - batch.is_terminal)
    last = torch.cat([batch.is_first[:, 1:], torch.ones_like(bootstrap[:, :1])], 1)
    share = lam * (1 - last)
    returns, following = [], bootstrap[:, -1]
    for t in reversed(range(1, bootstrap.shape[1])):
        future = (1 - share[:, t]) * bootstrap[:, t] + share[:, t] * following
        following = batch.reward[:, t] + discount[:, t] * future
        returns.append(following)
    return torch.stack(returns[::-1], 1)


class Imagined(NamedTuple):
    """Imagination without gradients; returns and weight: (N, H), value: (N, H + 1)."""

    trajectory: Trajectory
    value: Tensor
    returns: Tensor
    weight: Tensor


class DreamerV3:
    """World model, actor and critic with its slow copy, trained together."""

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        action_dim: int,
        config: DreamerV3Config,
        seed: int = 0,
    ):
        self.config = config
        self.model = WorldModelV3(observation_shape, action_dim, config, seed)
        features = config.deterministic + config.latent.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.actor = Actor(features, config.hidden, config.layers, action_dim)
            self.critic = make_head(config)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.scale = ReturnScale()
        parts = (self.model, self.actor, self.critic)
        parameters = [parameter for part in parts for parameter in part.parameters()]
        self.optimizer = torch.optim.Adam(
            parameters, config.learning_rate, betas=(0.9, 0.99), fused=True
        )

    def act(self, state: State, generator: torch.Generator, explore: bool) -> Tensor:
        policy = self.actor(state.features)
        action = self.draw(policy, generator) if explore else policy.mean
        return action.clamp(-1, 1)

    def draw(self, policy: Independent, generator: torch.Generator) -> Tensor:
        """Actions before they are cut off at ±1: REINFORCE needs those that were drawn."""
        noise = torch.randn(policy.mean.shape, generator=generator)
        return policy.mean + policy.stddev * noise

    @torch.no_grad()
    def dream(self, start: State, alive: Tensor, generator: torch.Generator) -> Imagined:
        """Follow the actor from states (N, ...); alive: (N,), 0 where the episode has ended."""
        c = self.config

        def policy(state: State) -> Tensor:
            return self.draw(self.actor(state.features), generator)

        trajectory = imagine(self.model.rssm, start, policy, c.horizon, generator)
        features = trajectory.states.features
        reward = self.model.predict_reward(features[:, 1:])
        discount = c.gamma * self.model.predict_continuation(features[:, 1:])
        value = self.critic.mean(self.critic(features))
        returns = lambda_return(reward, value, discount, c.lam)
        weight = torch.cat([alive[:, None], discount[:, :-1]], 1).cumprod(1)
        return Imagined(trajectory, value, returns, weight)

    def critic_loss(self, features: Tensor, returns: Tensor) -> Tensor:
        """Towards the returns, and not far from the slow copy; (...)."""
        slow, output = self.slow.mean(self.slow(features)), self.critic(features)
        return self.critic.loss(output, returns) + self.critic.loss(output, slow)

    def behaviour_losses(
        self, batch: Sequences, states: State, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Losses of the actor and of the critic from filtered states, (B, T, ...)."""
        c = self.config
        states = states.detach()
        alive = 1 - batch.is_terminal.flatten()
        dream = self.dream(states.flatten(), alive, generator)
        features = dream.trajectory.states.features[:, :-1]
        self.scale.update(dream.returns)
        scale = self.scale.value if c.heads == "V3" else 1.0
        advantage = (dream.returns - dream.value[:, :-1]) / scale
        policy, action = self.actor(features), dream.trajectory.actions
        actor = actor_loss(policy, action, advantage, dream.weight, c.entropy)
        critic = (dream.weight * self.critic_loss(features, dream.returns)).mean()

        bootstrap = dream.returns[:, 0].view_as(batch.reward)
        replayed = replay_returns(batch, bootstrap, c.gamma, c.lam)
        follows = 1 - batch.is_first[:, 1:]  # row t + 1 belongs to the episode of row t
        loss = follows * self.critic_loss(states.features[:, :-1], replayed)
        return actor, critic + c.replay_value * loss.mean()

    def update(
        self, batch: Sequences, generator: torch.Generator, behave: bool = True
    ) -> dict[str, float]:
        """One step of the optimiser on everything, or where not `behave` on the world model alone.

        Returns what was measured, by name.
        """
        states, priors = self.model.observe(batch, generator)
        terms = self.model.terms(batch, states, priors)
        losses = {"model": terms.loss}
        if behave:
            parts = self.behaviour_losses(batch, states, generator)
            losses |= zip(("actor", "critic"), parts, strict=True)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()
        with torch.no_grad():
            for slow, new in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(new, self.config.slow_rate)
        losses |= {name: part.mean() for name, part in terms._asdict().items()}
        return {name: float(part.detach()) for name, part in losses.items()}


# -- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """Evaluations of a run. updates, steps: (n,); returns: (n, episodes)."""

    updates: np.ndarray
    steps: np.ndarray
    returns: np.ndarray


def closeness(distance: float) -> float:
    """1 within NEAR of the goal, then a Gaussian that has fallen to 0.1 after MARGIN more.

    So the tasks of DeepMind Control make a reward in [0, 1] (Tassa et al. 2018).
    """
    beyond = max(0.0, distance - NEAR) / MARGIN
    return 0.1 ** (beyond**2)


def scaled_point_tasks(count: int, scale: float) -> VectorEnv:
    """Copies of the point's task side by side; a step is paid its closeness, times a scale."""
    return gym.make_vec(
        "mbta/PointTask-v0",
        num_envs=count,
        vectorization_mode="sync",
        wrappers=[lambda env: TransformReward(env, lambda reward: scale * closeness(-reward))],
    )


def train_dreamer_v3(
    environments: VectorEnv,
    tests: VectorEnv,
    config: DreamerV3Config,
    updates: int,
    seed: int,
    evaluate_every: int,
) -> tuple[DreamerV3, History]:
    """Act and learn in turns; the tests, one episode each, use seeds far from the training's."""
    space, count = environments.single_observation_space, environments.num_envs
    action_dim = environments.single_action_space.shape[0]
    agent = DreamerV3(space.shape, action_dim, config, seed)
    rows = config.first + updates * config.collect
    replay = SequenceReplay(rows, count, space.shape, action_dim)
    driver = Driver(environments, agent.model, seed)
    driver.collect(RandomAgent(agent.model), replay, config.first)
    generator = torch.Generator().manual_seed(seed)
    rate = LinearLR(agent.optimizer, 1.0, config.last_rate, updates)
    history = []
    for update in range(1, updates + 1):
        driver.collect(agent, replay, config.collect)
        batch = replay.sample(config.batch, config.length, generator)
        agent.update(batch, generator, update > config.warm_up)
        rate.step()
        if update % evaluate_every == 0:
            returns = evaluate(agent, tests, 10_000 + seed)
            history.append((update, replay.added * count, returns))
    return agent, History(*(np.array(part) for part in zip(*history, strict=True)))
