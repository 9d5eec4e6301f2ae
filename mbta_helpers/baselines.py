"""Baselines without skills: a one-step model with planning over primitive actions, and cloning.

Both learn from the same transitions as the skills. The one-step model predicts s_{t+1} from s_t
and a_t and is rolled out step by step; the goal-conditioned policy imitates the data's actions on
the way to positions that the same episode reached later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mbta_helpers.datasets import Transitions
from mbta_helpers.errors import require
from mbta_helpers.networks import Normaliser, Trunk
from mbta_helpers.planning import CEMConfig, SearchState, cem
from mbta_helpers.training import one_cycle
from mbta_helpers.windows import Windows


@dataclass(frozen=True)
class BaselineConfig:
    """How to train a baseline.

    wavelengths: of the sines of the map position that the networks see besides the state.
    """

    hidden: int = 128
    wavelengths: tuple[float, ...] = ()
    updates: int = 4000
    batch_size: int = 256
    learning_rate: float = 2e-3

    def __post_init__(self):
        for name in ("hidden", "updates", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        require(self.learning_rate > 0, "learning_rate must be positive.")


# -- a one-step model ---------------------------------------------------------------------------


class OneStepModel(nn.Module):
    """s_{t+1} from s_t and a_t: predicts the change in units of its spread in the data."""

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden: int = 128,
        wavelengths: tuple[float, ...] = (),
    ):
        super().__init__()
        self.normaliser = Normaliser(state_dim, wavelengths)
        self.trunk = Trunk(self.normaliser.width + action_dim, hidden)
        self.head = nn.Linear(hidden, state_dim)

    def change(self, state: Tensor, action: Tensor) -> Tensor:
        """s_{t+1} − s_t in normalised units; state: (..., S), action: (..., A)."""
        return self.head(self.trunk(torch.cat([self.normaliser(state), action], -1)))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """The next state, (..., S)."""
        return state + self.normaliser.delta_std * self.change(state, action)

    def roll_out(self, state: Tensor, actions: Tensor) -> Tensor:
        """States along actions; state: (..., S), actions: (..., n, A). Returns (..., n + 1, S)."""
        path = [state]
        for action in actions.unbind(-2):
            path.append(self(path[-1], action))
        return torch.stack(path, -2)


def train_one_step_model(
    transitions: Transitions,
    seed: int,
    config: BaselineConfig | None = None,
    episodes: np.ndarray | None = None,
    progress: bool = False,
) -> OneStepModel:
    """Fit a one-step model by the squared error of the normalised change.

    episodes: indices of the episodes of the training split, all by default.
    """
    config = config or BaselineConfig()
    steps = Windows(transitions, 1, episodes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OneStepModel(
            transitions.states.shape[1],
            transitions.actions.shape[1],
            config.hidden,
            config.wavelengths,
        )
    model.normaliser.fit(steps)

    def loss(generator: torch.Generator) -> Tensor:
        batch = steps.sample(config.batch_size, generator)
        target = (batch.last - batch.first) / model.normaliser.delta_std
        return (model.change(batch.first, batch.actions[:, 0]) - target).square().mean()

    _train(model, loss, seed, config, "one-step model", progress)
    return model


@dataclass(frozen=True)
class PrimitivePlannerConfig:
    """How to plan over primitive actions.

    horizon: steps of a plan. action_repeat: steps that share one action of the plan.
    replan_every: steps that are carried out before the next plan.
    """

    horizon: int = 60
    action_repeat: int = 5
    replan_every: int = 10
    cem: CEMConfig = field(default_factory=lambda: CEMConfig(candidates=256, elites=25))

    def __post_init__(self):
        require(self.action_repeat >= 1, "action_repeat must be at least 1 step.")
        require(
            1 <= self.replan_every <= self.horizon,
            f"replan_every must lie between 1 and the horizon, not {self.replan_every}.",
        )
        require(
            self.horizon % self.action_repeat == 0,
            f"The horizon of {self.horizon} steps is no multiple of action_repeat, "
            f"{self.action_repeat}.",
        )
        require(
            self.replan_every % self.action_repeat == 0,
            f"A plan is taken up where the last one was left, so replan_every must be a multiple "
            f"of action_repeat, {self.action_repeat}; it is {self.replan_every}.",
        )

    @property
    def knots(self) -> int:
        """Actions that a plan has to choose."""
        return self.horizon // self.action_repeat


class PrimitivePlanningAgent:
    """Plans actions with a one-step model by CEM, and carries out the first of them.

    The cost is the smallest squared distance of the predicted positions to the goal, as in
    planning with skills. A plan begins where the last one left off.
    """

    def __init__(
        self, model: OneStepModel, config: PrimitivePlannerConfig, generator: torch.Generator
    ):
        self.model = model
        self.config = config
        self.replan_every = config.replan_every
        self.generator = generator
        self.search: SearchState | None = None
        self._running = np.zeros(0, int)

    def actions(self, knots: Tensor) -> Tensor:
        """The actions of plans, inside the box; (..., knots, A) to (..., horizon, A)."""
        return knots.clamp(-1.0, 1.0).repeat_interleave(self.config.action_repeat, -2)

    def imagine(self, state: Tensor, knots: Tensor) -> Tensor:
        """Predicted states; state: (P, S), knots: (P, K, knots, A) to (P, K, horizon + 1, S)."""
        first = state[:, None].expand(-1, knots.shape[1], -1)
        return self.model.roll_out(first, self.actions(knots))

    @torch.no_grad()
    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        """The next actions, (P, replan_every, A)."""

        def cost(knots: Tensor) -> Tensor:
            path = self.imagine(state, knots)[:, :, 1:, :2]  # (P, K, horizon, 2)
            return (path - goal[:, None, None]).square().sum(-1).amin(-1)

        action_dim = self.model.trunk.fc1.in_features - self.model.normaliser.width
        mean = state.new_zeros(len(state), self.config.knots, action_dim)
        if self.search is not None:
            kept = self.search.select(torch.from_numpy(np.isin(self._running, running))).best
            done = self.replan_every // self.config.action_repeat
            mean[:, : self.config.knots - done] = kept[:, done:]
        self.search = cem(cost, mean, torch.ones_like(mean), self.config.cem, self.generator)
        self._running = running
        return self.actions(self.search.best)[:, : self.replan_every]

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        return decision[:, step]


# -- behaviour cloning with goals ---------------------------------------------------------------


class GoalPolicy(nn.Module):
    """π(a|s, g): the mean action on the way to a goal position."""

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden: int = 128,
        wavelengths: tuple[float, ...] = (),
    ):
        super().__init__()
        self.normaliser = Normaliser(state_dim, wavelengths)
        self.trunk = Trunk(2 * self.normaliser.width, hidden)
        self.head = nn.Linear(hidden, action_dim)

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """state: (..., S), goal: (..., 2). Returns the action's mean, (..., A).

        The goal goes in as the state of resting there, so that it gets the state's features.
        """
        resting = torch.cat([goal, torch.zeros_like(state[..., 2:])], -1)  # (..., S)
        features = [self.normaliser(state), self.normaliser(resting)]
        return self.head(self.trunk(torch.cat(features, -1)))


def hindsight_goals(
    transitions: Transitions, state_index: Tensor, generator: torch.Generator
) -> Tensor:
    """Positions that the same episode reaches later, uniformly over its later states.

    state_index: (B,) indices into transitions.states, none the last of its episode. Returns (B, 2).
    """
    last = torch.from_numpy(transitions.state_starts + transitions.lengths)  # (E,)
    end = last[torch.searchsorted(last, state_index, right=True)]  # (B,)
    share = torch.rand(len(state_index), generator=generator, dtype=torch.float64)
    later = state_index + 1 + (share * (end - state_index)).long()
    return torch.from_numpy(transitions.states)[later, :2]


def train_goal_policy(
    transitions: Transitions,
    seed: int,
    config: BaselineConfig | None = None,
    episodes: np.ndarray | None = None,
    progress: bool = False,
) -> GoalPolicy:
    """Clone the data's actions, with later positions of the same episode as goals."""
    config = config or BaselineConfig()
    steps = Windows(transitions, 1, episodes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = GoalPolicy(
            transitions.states.shape[1],
            transitions.actions.shape[1],
            config.hidden,
            config.wavelengths,
        )
    policy.normaliser.fit(steps)

    def loss(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(steps), (config.batch_size,), generator=generator)
        batch = steps.gather(index)
        goal = hindsight_goals(transitions, steps.state_index[index], generator)
        return (policy(batch.first, goal) - batch.actions[:, 0]).square().mean()

    _train(policy, loss, seed, config, "goal policy", progress)
    return policy


class GoalPolicyAgent:
    """Acts by a goal-conditioned policy; there is nothing to decide."""

    replan_every = 1

    def __init__(self, policy: GoalPolicy):
        self.policy = policy

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        return goal

    @torch.no_grad()
    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        return self.policy(state, goal).clamp(-1.0, 1.0)


def _train(model, loss, seed: int, config: BaselineConfig, name: str, progress: bool) -> None:
    """Minimise loss(generator) over the model's parameters with Adam and a one-cycle rate."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for update in tqdm(range(config.updates), desc=name, disable=not progress, unit="update"):
        optimiser.param_groups[0]["lr"] = config.learning_rate * one_cycle(update / config.updates)
        value = loss(generator)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
