"""DIAYN: skills that a discriminator can tell apart by the states that they reach, without reward.

Eysenbach, Gupta, Ibarz and Levine (2019), "Diversity Is All You Need". A skill z is one of n, drawn
uniformly at the start of an episode and kept to its end; the policy sees it one-hot and is trained
by SAC on the reward log q(z|s') − log p(z), in which q is the discriminator as it is *now*.

Symbols: n skills, N bodies side by side, B batch, S state, A action, T steps of an episode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from mbta_helpers.errors import require
from mbta_helpers.hierarchical.playgrounds import SHOWN, World
from mbta_helpers.hierarchical.sac import SAC, Batch, ReplayBuffer, SACConfig, descend


@dataclass(frozen=True)
class DIAYNConfig:
    """How to learn.

    episodes: batches of N episodes of T steps; one update after each step of all N bodies.
    warm_up: batches of episodes before the first update. replay: transitions that are kept.
    prior_rate: of the logits of a learnt p(z), a mistake kept for chapter 13; 0 is uniform.
    sac: α is `temperature`.
    """

    skills: int = 8
    bodies: int = 16
    episode: int = 30
    episodes: int = 80
    warm_up: int = 5
    replay: int = 100_000
    hidden: int = 64
    learning_rate: float = 1e-3
    prior_rate: float = 0.0
    sac: SACConfig = field(
        default_factory=lambda: SACConfig(
            hidden=64, batch_size=256, temperature=0.1, learning_rate=1e-3
        )
    )

    def __post_init__(self):
        require(self.skills >= 1, f"There must be at least 1 skill, not {self.skills}.")
        for name in ("bodies", "episode", "episodes", "warm_up", "hidden"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        require(self.replay >= self.bodies, "replay must hold a step of all bodies.")
        require(self.learning_rate > 0, "learning_rate must be positive.")
        require(self.prior_rate >= 0, f"prior_rate is not negative, but {self.prior_rate}.")


class Discriminator(nn.Module):
    """q(z|s): which skill has led here, from the shown part of what is seen of a state."""

    def __init__(self, skills: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(SHOWN, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, skills),
        )

    def forward(self, view: Tensor) -> Tensor:
        """log q(·|s), (..., n); view: (..., V)."""
        return self.layers(view[..., :SHOWN]).log_softmax(-1)


class DIAYN:
    """The policy with its critics, the discriminator, p(z), and what was lived through."""

    def __init__(self, world: World, config: DIAYNConfig, seed: int = 0):
        self.world, self.config = world, config
        self.generator = torch.Generator().manual_seed(seed)
        width = world.view_dim + config.skills
        self.sac = SAC(width, world.action_dim, config.sac, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = Discriminator(config.skills, config.hidden)
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), config.learning_rate, fused=True
        )
        self.replay = ReplayBuffer(config.replay, width, world.action_dim)
        self.prior_logits = torch.zeros(config.skills)

    # -- acting

    def draw_skills(self, count: int) -> Tensor:
        """z ~ p(z), one-hot, (N, n)."""
        index = torch.multinomial(
            self.prior_logits.softmax(0), count, replacement=True, generator=self.generator
        )
        return F.one_hot(index, self.config.skills).float()

    def view(self, state: np.ndarray) -> Tensor:
        """What networks see of states, (..., S) to (..., V)."""
        return self.world.view(torch.as_tensor(state, dtype=torch.float32))

    def observation(self, state: np.ndarray, z: Tensor) -> Tensor:
        """What the policy sees: the view of the state, and the skill, (..., V + n)."""
        return torch.cat([self.view(state), z], -1)

    def act(self, state: np.ndarray, z: Tensor, greedy: bool = False) -> np.ndarray:
        """Actions of skills, (N, A); state: (N, S), z: (N, n)."""
        return self.sac.act(self.observation(state, z), greedy).numpy()

    def remember(self, state: np.ndarray, z: Tensor, action: np.ndarray, after: np.ndarray) -> None:
        """Store a step of all bodies; the reward is left open until the step is learnt from."""
        before, following = self.observation(state, z), self.observation(after, z)
        zeros = torch.zeros(len(z))
        self.replay.add(Batch(before, torch.as_tensor(action), zeros, following, zeros))

    # -- learning

    @torch.no_grad()
    def reward(self, after: Tensor, z: Tensor) -> Tensor:
        """log q(z|s') − log p(z) (13.5), (B,); after: (B, V), z: (B, n) one-hot."""
        log_prior = self.prior_logits.log_softmax(0)
        return ((self.discriminator(after) - log_prior) * z).sum(-1)

    def discriminator_loss(self, after: Tensor, z: Tensor) -> Tensor:
        """−E log q(z|s') (13.4), over a batch of all skills from many episodes."""
        return -(self.discriminator(after) * z).sum(-1).mean()

    def fit(self, after: Tensor, z: Tensor) -> None:
        """One step of the discriminator."""
        descend(self.optimiser, self.discriminator_loss(after, z))

    def split(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """The view and the skill of observations, (B, V) and (B, n)."""
        return observation.split([self.world.view_dim, self.config.skills], -1)

    def update(self, batch: Batch) -> None:
        """One step of the discriminator, and one of SAC on the reward as it is *now*."""
        after, z = self.split(batch.next_observation)
        self.fit(after, z)
        self.sac.update(batch._replace(reward=self.reward(after, z)))


@torch.no_grad()
def update_prior(learner: DIAYN, path: np.ndarray, z: Tensor) -> None:
    """Climb E_{z~p}[Σ_t log q(z|s_t) − log p(z)] in the logits of p(z), by REINFORCE (13.8).

    path: (T, N, S), the states after each step. z: (N, n).
    """
    returns = learner.reward(learner.view(path), z).sum(0)  # (N,)
    advantage = (returns - returns.mean())[:, None]
    score = z - learner.prior_logits.softmax(0)  # ∇ log p(z), (N, n)
    learner.prior_logits += learner.config.prior_rate * (advantage * score).mean(0)


# -- what skills do -------------------------------------------------------------------------------


@torch.no_grad()
def roll_out_skills(
    learner: DIAYN, starts: np.ndarray, greedy: bool = False, steps: int | None = None
) -> np.ndarray:
    """Every skill from each of M starts, (M, S); returns states, (n, M, T + 1, S)."""
    skills, count = learner.config.skills, len(starts)
    z = torch.eye(skills).repeat_interleave(count, 0)  # (n M, n)
    path = [np.tile(starts, (skills, 1))]
    for _ in range(steps or learner.config.episode):
        path.append(learner.world.step(path[-1], learner.act(path[-1], z, greedy)))
    return np.stack(path, 1).reshape(skills, count, len(path), -1)


@torch.no_grad()
def accuracy(learner: DIAYN, paths: np.ndarray) -> float:
    """Share of the states after the first whose skill q names; paths: (n, M, T + 1, S)."""
    named = learner.discriminator(learner.view(paths[:, :, 1:])).argmax(-1)  # (n, M, T)
    return (named == torch.arange(len(paths))[:, None, None]).float().mean().item()


def told_apart(paths: np.ndarray) -> np.ndarray:
    """For each skill, the share of its end points that lie nearest to its own mean end; (n,).

    No discriminator is asked: the skills are judged by where they go. paths: (n, M, T + 1, S).
    """
    ends = paths[:, :, -1, :SHOWN]  # (n, M, 2)
    distance = np.linalg.norm(ends[:, :, None] - ends.mean(1), axis=-1)  # (n, M, n)
    return (distance.argmin(-1) == np.arange(len(paths))[:, None]).mean(1)


def coverage(paths: np.ndarray, low: np.ndarray, high: np.ndarray, cells: int = 10) -> float:
    """Share of the cells × cells fields between two corners that some path enters."""
    place = (paths[..., :SHOWN].reshape(-1, SHOWN) - low) / (high - low)
    field_of = np.clip((place * cells).astype(int), 0, cells - 1)
    return len(np.unique(field_of, axis=0)) / cells**2


# -- learning from beginning to end ---------------------------------------------------------------


@dataclass(frozen=True)
class DIAYNHistory:
    """A training run.

    steps: (n,) of the simulator, when the following was measured. accuracy: (n,) of q on fresh
    roll-outs. bound: (n,) E[log q(z|s) − log p(z)] on them, in nats (13.3). effective: (n,) skills
    that p(z) still uses, e^H.
    """

    learner: DIAYN
    steps: np.ndarray
    accuracy: np.ndarray
    bound: np.ndarray
    effective: np.ndarray


def train_diayn(
    world: World,
    config: DIAYNConfig,
    seed: int,
    measure_every: int = 20,
    kind: type[DIAYN] = DIAYN,
    progress: bool = False,
) -> DIAYNHistory:
    """Learn skills in a world; kind: the learner, which chapter 13 breaks in several ways."""
    learner, rng = kind(world, config, seed), np.random.default_rng(seed)
    rows = []
    for episode in tqdm(range(config.episodes), desc="DIAYN", disable=not progress):
        z = learner.draw_skills(config.bodies)
        path = [world.start(config.bodies, rng)]
        for _ in range(config.episode):
            action = learner.act(path[-1], z)
            path.append(world.step(path[-1], action))
            learner.remember(path[-2], z, action, path[-1])
            if episode >= config.warm_up:
                batch = learner.replay.sample(config.sac.batch_size, learner.generator)
                learner.update(batch)
        if config.prior_rate > 0 and episode >= config.warm_up:
            update_prior(learner, np.stack(path[1:]), z)
        if (episode + 1) % measure_every == 0:
            steps = (episode + 1) * config.episode * config.bodies * world.steps_each
            rows.append((steps, *measure_skills(learner, world.start(16, rng))))
    return DIAYNHistory(learner, *map(np.array, zip(*rows, strict=True)))


@torch.no_grad()
def measure_skills(learner: DIAYN, starts: np.ndarray) -> tuple[float, float, float]:
    """Accuracy of q, the bound, and the effective number of skills, on fresh roll-outs."""
    paths = roll_out_skills(learner, starts)
    log_prior = learner.prior_logits.log_softmax(0)
    z = torch.eye(len(paths))[:, None, None]
    gain = learner.reward(learner.view(paths[:, :, 1:]), z).mean((1, 2))  # (n,)
    entropy = -(log_prior.exp() * log_prior).sum()
    return accuracy(learner, paths), (log_prior.exp() * gain).sum().item(), math.exp(entropy)
