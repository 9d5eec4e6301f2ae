"""Three ways to decide with one world model of the maze's pictures.

`Plans` searches over actions, as PlaNet does. `Dreams` asks an actor that learnt in imagination, as
Dreamer's does. `Skills` searches over skills of Part I whose states are those of the world model.
All see a picture every HELD steps of the simulator, and the goal as a place on the map.

Symbols: P episodes, K candidates, H decisions of a plan, C numbers of a decision, F features (h, z)
of a state, A = 2 numbers in an action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mbta_helpers.datasets import Transitions
from mbta_helpers.evaluation import PlanningAgent
from mbta_helpers.latent.dreamer import Actor, DreamerConfig, behaviour, choose, descend
from mbta_helpers.latent.macro import ACTION_DIM, MacroModel
from mbta_helpers.latent.maze_pictures import HELD, draw_pair
from mbta_helpers.latent.rssm import State, mlp
from mbta_helpers.networks import SkillModel
from mbta_helpers.planning import CEMConfig, Planner, PlannerConfig, cem
from mbta_helpers.presets import POINTMAZE, get_preset

WAVELENGTHS = (1.0, 2.0, 4.0)  # of the waves of a place that networks see, as in Part I


class Watcher:
    """Keeps the world model's state of every episode; a decision lasts `every` held actions.

    Of the simulator's state only the place goes further, into pictures.
    """

    def __init__(self, model: MacroModel, every: int):
        self.model, self.every, self.replan_every = model, every, every * HELD
        self.latent: State | None = None

    def watch(self, state: Tensor, rows: Tensor) -> State:
        """See pictures of those episodes, (P,), and move their states on."""
        before = State(*(part[rows] for part in self.latent))
        places = torch.cat([state[:, :2], self.place[rows]], 1)
        self.place[rows] = state[:, :2]
        pairs = torch.from_numpy(draw_pair(self.model.maze, places.numpy()))
        now = self.model.follow(before, self.action[rows], pairs)
        for everywhere, part in zip(self.latent, now, strict=True):
            everywhere[rows] = part
        return now

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        """The episodes' numbers beside what is decided for them, (P, 1 + C)."""
        rows = torch.from_numpy(running)
        if self.latent is None:
            self.latent = self.model.rssm.start(len(rows))
            self.action = torch.zeros(len(rows), ACTION_DIM)
            self.place = state[:, :2].clone()  # nobody has moved yet
        now = self.watch(state, rows)
        return torch.cat([rows[:, None].float(), self.choose(now, goal, running)], 1)

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        rows = decision[:, 0].long()
        if step % HELD == 0:
            now = self.watch(state, rows) if step else State(*(part[rows] for part in self.latent))
            self.action[rows] = self.control(now, decision[:, 1:], step // HELD)
        return self.action[rows]

    def choose(self, now: State, goal: Tensor, running: np.ndarray) -> Tensor:
        """What the next `every` actions carry out, (P, C)."""
        raise NotImplementedError

    def control(self, now: State, decision: Tensor, number: int) -> Tensor:
        """The action of that number since the decision, (P, A) in [−1, 1]."""
        raise NotImplementedError


# -- PlaNet: a search over actions ----------------------------------------------------------------

SEARCH = CEMConfig(candidates=100, iterations=4, elites=10, momentum=0.0, min_std=0.0)


class Plans(Watcher):
    """Carries out the first actions of the plan with the least distance to the goal, summed."""

    def __init__(
        self,
        model: MacroModel,
        generator: torch.Generator,
        every: int = 3,
        horizon: int = 20,
        search: CEMConfig = SEARCH,
    ):
        super().__init__(model, every)
        self.generator, self.horizon, self.search = generator, horizon, search

    def cost(self, now: State, goal: Tensor, actions: Tensor) -> Tensor:
        """Σ of distances to the goal on the way; actions: (P, K, H, A). Returns (P, K)."""
        count = actions.shape[1]
        start = State(*(part.repeat_interleave(count, 0) for part in now))
        ahead = self.model.rssm.imagine(start, actions.flatten(0, 1).clamp(-1, 1), self.generator)
        places = self.model.place(ahead.features).unflatten(0, (len(goal), count))
        return (places - goal[:, None, None]).norm(dim=-1).sum(-1)

    def choose(self, now: State, goal: Tensor, running: np.ndarray) -> Tensor:
        mean = now.h.new_zeros(len(goal), self.horizon, ACTION_DIM)
        found = cem(
            lambda actions: self.cost(now, goal, actions),
            mean,
            torch.ones_like(mean),
            self.search,
            self.generator,
        )
        return found.mean[:, : self.every].clamp(-1, 1).flatten(1)

    def control(self, now: State, decision: Tensor, number: int) -> Tensor:
        return decision.unflatten(1, (self.every, ACTION_DIM))[:, number]


# -- Dreamer: an actor that knows its goal --------------------------------------------------------

DREAMS = DreamerConfig(starts=64, horizon=15, gamma=0.97, lam=0.95, entropy=0.003)
DREAM_UPDATES = 1500


def waves(place: Tensor) -> Tensor:
    """Sines and cosines of a place, (..., 2) to (..., 12)."""
    phases = [2 * math.pi / length * place for length in WAVELENGTHS]
    return torch.cat([wave for phase in phases for wave in (phase.sin(), phase.cos())], -1)


class GoalDream:
    """The world model with a goal in its state, which never changes: h becomes (h, goal).

    So the actor and the critic of chapter 16 see the goal, and their code stays as it is.
    """

    def __init__(self, model: MacroModel):
        self.model, self.rssm = model, self

    def with_goal(self, state: State, goal: Tensor) -> State:
        return state._replace(h=torch.cat([state.h, goal], -1))

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(h, goal, z) to (h, z) and the goal."""
        size = self.model.config.deterministic
        h, goal, z = features.split([size, 2, features.shape[-1] - size - 2], -1)
        return torch.cat([h, z], -1), goal

    def imagine_step(self, state: State, action: Tensor, generator: torch.Generator) -> State:
        h, goal = state.h[..., :-2], state.h[..., -2:]
        return self.with_goal(
            self.model.rssm.imagine_step(state._replace(h=h), action, generator), goal
        )

    def predict_reward(self, features: Tensor) -> Tensor:
        """e^(−distance to the goal), (...)."""
        own, goal = self.split(features)
        return torch.exp(-(self.model.place(own) - goal).norm(dim=-1))

    def predict_continuation(self, features: Tensor) -> Tensor:
        """Nothing ends an episode: ones, (...)."""
        return torch.ones_like(features[..., 0])

    def view(self, features: Tensor) -> Tensor:
        """What actor and critic see: the state, the goal, the way, and waves of both places."""
        own, goal = self.split(features)
        place = self.model.place(own)
        return torch.cat([own, goal, goal - place, waves(place), waves(goal)], -1)


class Viewed(nn.Module):
    """A network behind a view of its inputs."""

    def __init__(self, view: Callable[[Tensor], Tensor], network: nn.Module):
        super().__init__()
        self.view, self.network = view, network

    def forward(self, features: Tensor) -> Tensor:
        return self.network(self.view(features))


class GoalActorCritic:
    """Dreamer's behaviour learnt from the states of the play, with goals that the play visited."""

    def __init__(self, model: MacroModel, config: DreamerConfig, seed: int):
        self.dream, self.config = GoalDream(model), config
        features = model.config.deterministic + model.config.latent.size
        width, hidden = features + 4 + 8 * len(WAVELENGTHS), model.config.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(features, ACTION_DIM, hidden, 2)
            self.actor.layers = Viewed(self.dream.view, mlp(width, hidden, 2 * ACTION_DIM, 2))
            self.critic = Viewed(self.dream.view, mlp(width, hidden, 1, 2))
        self.parts = (self.actor, self.critic)
        self.optimisers = [
            torch.optim.Adam(part.parameters(), lr=rate, fused=True)
            for part, rate in zip(self.parts, (config.actor_rate, config.critic_rate), strict=True)
        ]
        self.generator = torch.Generator().manual_seed(seed)

    def update(self, states: State, places: Tensor) -> dict[str, float]:
        """One step of actor and critic; states: of the play, (M, ...), places: (M, 2)."""
        c = self.config
        start = choose(State(*(part[None] for part in states)), c.starts, self.generator)
        goals = places[torch.randint(len(places), (c.starts,), generator=self.generator)]
        start = self.dream.with_goal(start, goals)
        imagined = behaviour(self.dream, self.actor, self.critic, start, c, self.generator)
        losses = imagined.actor_loss, imagined.critic_loss
        for loss, part, optimiser in zip(losses, self.parts, self.optimisers, strict=True):
            descend(loss, part, optimiser, c.clip)
        return {"actor": losses[0].item(), "critic": losses[1].item(),
                "return": imagined.returns[:, 0].mean().item()}  # fmt: skip

    def learn(
        self, states: State, updates: int = DREAM_UPDATES, progress: bool = False
    ) -> list[dict[str, float]]:
        """Updates from the states of the play, (M, ...); returns the losses of each."""
        with torch.no_grad():
            places = self.dream.model.place(states.features)
        bar = tqdm(range(updates), desc="actor", disable=not progress)
        return [self.update(states, places) for _ in bar]


class Dreams(Watcher):
    """Acts by the actor's median."""

    def __init__(self, model: MacroModel, learnt: GoalActorCritic):
        super().__init__(model, 1)
        self.learnt = learnt

    def choose(self, now: State, goal: Tensor, running: np.ndarray) -> Tensor:
        return self.learnt.actor.mode(self.learnt.dream.with_goal(now, goal).features)

    def control(self, now: State, decision: Tensor, number: int) -> Tensor:
        return decision


# -- skills in the latent space -------------------------------------------------------------------

# Part I's recipe in decisions of HELD steps: a skill lasts 30 steps of the simulator, as there.
# Its windows hold a fifth as many numbers, so the divergence costs less, too.
TRAINING = replace(
    POINTMAZE, window_length=POINTMAZE.window_length // HELD, beta=0.1, updates=1500,
    settle_updates=1500,
)  # fmt: skip
PLANNER = replace(
    get_preset("pointmaze-medium").planner, replan_every=3, plan_length=12,
    cem=CEMConfig(candidates=128, iterations=4, elites=16),
)  # fmt: skip


def latent_rows(model: MacroModel, states: State) -> Tensor:
    """What skills see of the world model's states: what it sees there, h and z; (..., 4 + F)."""
    features = states.features
    with torch.no_grad():
        return torch.cat([model.sight(features), features], -1)


def latent_play(model: MacroModel, play: Transitions, states: State) -> Transitions:
    """The coarse play with the world model's states in place of the simulator's."""
    return replace(play, states=latent_rows(model, states).numpy())


class Skills(Watcher):
    """Plans skills from the world model's state, and lets the skill's policy act on it."""

    def __init__(
        self,
        model: MacroModel,
        skills: SkillModel,
        generator: torch.Generator,
        config: PlannerConfig = PLANNER,
    ):
        super().__init__(model, config.replan_every)
        planner = Planner(skills, config, TRAINING.window_length)
        self.skills, self.planning = skills, PlanningAgent(planner, generator)

    def choose(self, now: State, goal: Tensor, running: np.ndarray) -> Tensor:
        return self.planning.decide(latent_rows(self.model, now), goal, running)

    def control(self, now: State, decision: Tensor, number: int) -> Tensor:
        return self.skills.policy.act(latent_rows(self.model, now), decision)
