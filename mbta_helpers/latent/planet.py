"""PlaNet: a recurrent state-space model, and actions planned in it by the cross-entropy method.

Hafner et al. (2019), "Learning Latent Dynamics for Planning from Pixels". Chapter 15 derives the
equations. There is no policy and no value: each action is the first of a plan.

Symbols: B sequences, T steps, N environments or P problems, K candidates, H steps of a plan, A
numbers in an action, D distance of overshooting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from mbta_helpers.errors import require
from mbta_helpers.latent.acting import Agent, Driver, RandomAgent
from mbta_helpers.latent.replay import SequenceReplay, Sequences
from mbta_helpers.latent.rssm import State
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig
from mbta_helpers.planning import CEMConfig, SearchState, cem

SEARCH = CEMConfig(candidates=100, iterations=4, elites=10, momentum=0.0, min_std=0.0)


@dataclass(frozen=True)
class PlanetConfig:
    """How to learn and how to plan.

    cem, horizon: the search, and H. noise: standard deviation of what exploration adds to an
    action. batch, length: B and T of an update. random: episodes of random actions in each
    environment before the first update. updates: between two rounds of episodes.
    overshooting, distance: weight β of latent overshooting, and D. capacity: rows of the replay.
    """

    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    cem: CEMConfig = SEARCH
    horizon: int = 15
    noise: float = 0.3
    batch: int = 16
    length: int = 20
    learning_rate: float = 2e-3
    gradient_norm: float = 100.0
    random: int = 2
    updates: int = 100
    overshooting: float = 0.0
    distance: int = 5
    capacity: int = 10_000

    def __post_init__(self):
        for name in ("horizon", "batch", "random", "updates", "capacity"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        require(self.length >= 2, f"length must be at least 2 steps, not {self.length}.")
        for name in ("learning_rate", "gradient_norm"):
            require(getattr(self, name) > 0, f"{name} must be positive.")
        for name in ("noise", "overshooting"):
            require(getattr(self, name) >= 0, f"{name} must not be negative.")
        require(
            self.overshooting == 0 or 2 <= self.distance < self.length,
            f"distance lies between 2 and {self.length - 1}, the steps that follow a sequence's "
            f"first, not {self.distance}.",
        )


# What chapter 15 uses: Pendulum's observations and the pictures are told in finer units than σ = 1.
PENDULUM = PlanetConfig(WorldModelConfig(free_nats=1.0, observation_scale=10.0))
PICTURES = PlanetConfig(
    WorldModelConfig(hidden=80, embedding=80, free_nats=1.0, observation_scale=50.0),
    batch=24,
    length=15,
)


# -- planning -------------------------------------------------------------------------------------


def imagined_return(
    model: WorldModel, state: State, actions: Tensor, generator: torch.Generator
) -> Tensor:
    """Σ of the rewards that the model expects on the way, for each candidate, (P, K) (15.11).

    state: (P, ...). actions: (P, K, H, A), cut off at −1 and 1. Each candidate follows one draw
    from the priors.
    """
    candidates = actions.shape[1]
    start = State(*(part.repeat_interleave(candidates, 0) for part in state))
    states = model.rssm.imagine(start, actions.flatten(0, 1).clamp(-1, 1), generator)
    return model.predict_reward(states.features).sum(-1).view(-1, candidates)


class Planet:
    """Acts by the first action of a plan, made anew at every step."""

    def __init__(self, model: WorldModel, config: PlanetConfig):
        self.model, self.config = model, config

    @torch.no_grad()
    def plan(self, state: State, generator: torch.Generator) -> SearchState:
        """Search from N(0, 1) in every step and problem; plans are (P, H, A), actions unbounded."""
        shape = (len(state.h), self.config.horizon, self.model.action_dim)

        def cost(actions: Tensor) -> Tensor:
            return -imagined_return(self.model, state, actions, generator)

        return cem(
            cost, state.h.new_zeros(shape), state.h.new_ones(shape), self.config.cem, generator
        )

    @torch.no_grad()
    def act(self, state: State, generator: torch.Generator, explore: bool) -> Tensor:
        """The first action of the search's mean, not of its best candidate; (N, A)."""
        action = self.plan(state, generator).mean[:, 0].clamp(-1, 1)
        if explore:
            action = action + self.config.noise * torch.randn(action.shape, generator=generator)
        return action.clamp(-1, 1)


class Wanderer(RandomAgent):
    """Random actions, each held for `hold` steps, so that pushes add up; for data of a task."""

    def __init__(self, model: WorldModel, hold: int = 6):
        super().__init__(model)
        self.hold, self.count = hold, 0

    def act(self, state: State, generator: torch.Generator, explore: bool) -> Tensor:
        if self.count % self.hold == 0:
            self.held = super().act(state, generator, explore)
        self.count += 1
        return self.held


# -- learning -------------------------------------------------------------------------------------


def latent_overshooting(
    model: WorldModel,
    states: State,
    batch: Sequences,
    distance: int,
    generator: torch.Generator,
) -> Tensor:
    """1/D Σ_{d=2}^{D} D_KL(sg q(z_t) ‖ p(z_t | s_{t−d}, a)), the mean over t, (15.10).

    states: (B, T, ...), filtered from the batch. The model starts in s_{t−d} and goes d steps by
    itself, with the actions that were taken. Steps that cross a start of an episode do not count.
    """
    sequences, length = batch.is_first.shape
    now, total = states, states.h.new_zeros(())
    within = torch.ones_like(batch.is_first)
    for d in range(1, distance + 1):
        count = length - d  # starts that have a step d later
        now = State(*(part[:, :count].flatten(0, 1) for part in now))
        now = model.rssm.imagine_step(now, batch.action[:, d:].flatten(0, 1), generator)
        now = State(*(part.unflatten(0, (sequences, count)) for part in now))
        within = within[:, :count] * (1 - batch.is_first[:, d:])
        if d > 1:
            target = states.parameters[:, d:].detach()
            divergence = model.divergence(target, now.parameters)  # (B, T − d)
            total = total + (within * divergence).sum() / within.sum().clamp_min(1)
    return total / distance


class Learner:
    """Descends the model's loss on sequences from a replay."""

    def __init__(self, model: WorldModel, config: PlanetConfig):
        self.model, self.config = model, config
        self.optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)

    def update(self, batch: Sequences, generator: torch.Generator) -> dict[str, float]:
        """One step; returns the parts of the loss in nats a step."""
        states, priors = self.model.observe(batch, generator)
        terms = self.model.terms(batch, states, priors)
        loss = terms.loss
        if self.config.overshooting:
            loss = loss + self.config.overshooting * latent_overshooting(
                self.model, states, batch, self.config.distance, generator
            )
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm)
        self.optimiser.step()
        return {name: part.mean().item() for name, part in terms._asdict().items()}

    def learn(
        self, replay: SequenceReplay, updates: int, generator: torch.Generator
    ) -> list[dict[str, float]]:
        """Updates on sequences drawn from the replay."""
        size = self.config.batch, self.config.length
        return [self.update(replay.sample(*size, generator), generator) for _ in range(updates)]


def collect_episodes(driver: Driver, agent: Agent, replay: SequenceReplay) -> np.ndarray:
    """One episode of each environment, with exploration, into the replay; returns (N,).

    All episodes must have the same length, as those of a task with nothing but a time limit.
    """
    total = torch.zeros(len(driver.over))
    fresh = True
    while fresh or not driver.row.is_first.all():
        row = driver.step(agent, explore=True)
        replay.add(row)
        total, fresh = total + row.reward, False
    return total.numpy()


class History(NamedTuple):
    """returns: of the episodes that were collected, (N,) each, random ones first.

    terms: of each update, parts of the loss in nats a step.
    """

    returns: list[np.ndarray]
    terms: list[dict[str, float]]


def train(
    environments: VectorEnv,
    model: WorldModel,
    config: PlanetConfig,
    rounds: int,
    seed: int,
    watch: Callable[[int, Planet, History], None] | None = None,
) -> tuple[Planet, History]:
    """Alternate `rounds` times: updates, then an episode of each environment.

    watch: called after each round with its number, the agent and what there is so far.
    """
    generator = torch.Generator().manual_seed(seed)
    agent, learner = Planet(model, config), Learner(model, config)
    driver = Driver(environments, model, 1000 * seed)
    shape, count = model.observation_shape, environments.num_envs
    replay = SequenceReplay(config.capacity, count, shape, model.action_dim)
    chance = RandomAgent(model)
    history = History([collect_episodes(driver, chance, replay) for _ in range(config.random)], [])
    for number in range(rounds):
        history.terms.extend(learner.learn(replay, config.updates, generator))
        history.returns.append(collect_episodes(driver, agent, replay))
        if watch is not None:
            watch(number, agent, history)
    return agent, history


# -- looking ahead --------------------------------------------------------------------------------


@torch.no_grad()
def open_loop(
    model: WorldModel, batch: Sequences, seen: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Observations and rewards that the model expects, (B, T, *O) and (B, T).

    It filters the first `seen` rows and imagines the rest with the actions that were taken: what it
    shows of the first rows are reconstructions, what follows are predictions from one draw.
    """
    require(
        1 <= seen < batch.reward.shape[1],
        f"Of {batch.reward.shape[1]} rows between 1 and all but one are seen, not {seen}.",
    )
    states, _ = model.observe(Sequences(*(part[:, :seen] for part in batch)), generator)
    last = State(*(part[:, -1] for part in states))
    ahead = model.rssm.imagine(last, batch.action[:, seen:], generator)
    features = torch.cat([states.features, ahead.features], 1)
    return model.predict_observation(features), model.predict_reward(features)
