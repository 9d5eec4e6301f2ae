"""Planning over discovered skills: a model of where each of n skills leads, under chapter 6's CEM.

The planner of chapter 6 searches over vectors ε. Here a vector of n numbers stands for the skill
with the largest of them, so a prior N(0, I) makes all skills equally likely, and nothing in the
planner changes. What is learnt is the mean of s_T given s_0 and the skill.

Symbols: n skills, M pieces of practice, S state, P problems, K candidates, L skills in a plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from mbta_helpers.checkpoints import load_checkpoint, restore, save_checkpoint
from mbta_helpers.errors import require
from mbta_helpers.evaluation import PlanningAgent
from mbta_helpers.hierarchical.diayn import DIAYN, DIAYNConfig
from mbta_helpers.hierarchical.playgrounds import Displaced, PointWorld, World, displaced
from mbta_helpers.hierarchical.sac import SACConfig, descend
from mbta_helpers.mazes import get_maze
from mbta_helpers.planning import CEMConfig, Planner, PlannerConfig
from mbta_helpers.training import one_cycle

SHOWING = ("place", "displacement")  # what a skill is told by in a maze
HELD = 5  # time steps for which an action is held in training
STEPS = 150  # time steps of a skill, T
MAZE_CONFIG = DIAYNConfig(
    episode=STEPS // HELD, bodies=16, episodes=270,
    sac=SACConfig(hidden=64, batch_size=256, temperature=0.1, learning_rate=1e-3, gamma=0.97),
)  # fmt: skip
PLANNER = PlannerConfig(
    plan_length=10, replan_every=50, time_penalty=0.05,
    cem=CEMConfig(candidates=128, iterations=4, elites=16),
)  # fmt: skip


def maze_world(maze_name: str, showing: str) -> World:
    """The point of a maze, whose skills are told apart by their place or by how far they came."""
    require(showing in SHOWING, f"Skills show their {' or '.join(SHOWING)}, not '{showing}'.")
    world = PointWorld(get_maze(maze_name), HELD)
    return world if showing == "place" else Displaced(world)


@dataclass(frozen=True)
class Practice:
    """What skills did: first and last states, (M, S), and the skill between them, (M,) int."""

    first: Tensor
    skill: Tensor
    last: Tensor

    def part(self, rows: slice) -> Practice:
        """Some of the pieces."""
        return Practice(self.first[rows], self.skill[rows], self.last[rows])


@torch.no_grad()
def practise(
    learner: DIAYN, world: World, steps: int, bodies: int, rounds: int, seed: int
) -> Practice:
    """Frozen skills, drawn uniformly, carried out one after the other for `steps` steps each.

    Every other round begins anywhere, at rest, as tasks do; the rounds between begin where the last
    ones ended, as the skills of a plan do. world: that of the execution, one action a time step.
    """
    rng = np.random.default_rng(seed)
    pieces = []
    for index in range(rounds):
        if index % 2 == 0:
            state = world.start(bodies, rng)
        skill = torch.from_numpy(rng.integers(learner.config.skills, size=bodies))
        first, z = state, F.one_hot(skill, learner.config.skills).float()
        for _ in range(steps):
            state = world.step(state, act(learner, state, first, z))
        pieces.append((torch.from_numpy(first).float(), skill, torch.from_numpy(state).float()))
    return Practice(*map(torch.cat, zip(*pieces, strict=True)))


def act(learner: DIAYN, state: np.ndarray, first: np.ndarray, z: Tensor) -> np.ndarray:
    """The skills' mean actions, (N, A); state, first: (N, S) now and where the skill began."""
    if isinstance(learner.world, Displaced):
        state = displaced(state, first)
    return learner.act(state, z, greedy=True)


class Outcomes(nn.Module):
    """The mean of s_T for a skill begun in s_0, in the place of chapter 3's world model."""

    def __init__(self, world: World, skills: int, state_dim: int, hidden: int = 128):
        super().__init__()
        self.world, self.skills = world, skills
        self.layers = nn.Sequential(
            nn.Linear(world.view_dim + skills, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, state_dim),
        )

    def mean(self, state: Tensor, z: Tensor) -> Tensor:
        """E[s_T|s_0, skill], (..., S); the skill is the largest of z, (..., n)."""
        skill = F.one_hot(z.argmax(-1), self.skills).to(state)
        return state + self.layers(torch.cat([self.world.view(state), skill], -1))


def train_outcomes(
    practice: Practice, world: World, skills: int, seed: int, updates: int = 4000, batch: int = 512
) -> Outcomes:
    """Fit the outcomes by squared error, Adam and a one-cycle rate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Outcomes(world, skills, practice.first.shape[1])
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    z = F.one_hot(practice.skill, skills).float()
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = 2e-3 * one_cycle(update / updates)
        rows = torch.randint(len(z), (batch,), generator=generator)
        error = model.mean(practice.first[rows], z[rows]) - practice.last[rows]
        descend(optimiser, error.square().mean())
    return model


class DiscoveredSkills:
    """What chapter 6's planner asks of a model: a prior, where a skill leads, and the size of z."""

    def __init__(self, outcomes: Outcomes):
        self.world_model = outcomes
        self.config = SimpleNamespace(skill_dim=outcomes.skills)

    def prior(self, state: Tensor) -> Normal:
        """N(0, I), (..., n): the largest component is any of the n, equally likely."""
        zeros = state.new_zeros((*state.shape[:-1], self.config.skill_dim))
        return Normal(zeros, torch.ones_like(zeros))


class DiscoveredAgent(PlanningAgent):
    """Carries out the first skill of each plan with DIAYN's policy."""

    def __init__(self, learner: DIAYN, planner: Planner, generator: torch.Generator):
        super().__init__(planner, generator)
        self.learner = learner

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        """The skill, one-hot, and the state in which it begins, (P, n + S)."""
        skill = super().decide(state, goal, running).argmax(-1)
        return torch.cat([F.one_hot(skill, self.learner.config.skills).float(), state], -1)

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        z, first = decision.split([self.learner.config.skills, state.shape[1]], -1)
        return torch.from_numpy(act(self.learner, state.numpy(), first.numpy(), z))


# -- files ----------------------------------------------------------------------------------------


def tensors_of(learner: DIAYN, outcomes: Outcomes) -> dict[str, Tensor]:
    """All that acting and planning need, by name."""
    parts = {"actor": learner.sac.actor, "q": learner.discriminator, "outcomes": outcomes}
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def save_skills(
    path: Path, learner: DIAYN, outcomes: Outcomes, maze: str, showing: str, provenance: dict
) -> None:
    """Write skills and their outcomes, whole or not at all."""
    config = {"maze": maze, "showing": showing}
    save_checkpoint(path, "discovered skills", tensors_of(learner, outcomes), config, provenance)


def load_skills(path: Path, config: DIAYNConfig = MAZE_CONFIG) -> tuple[DIAYN, Outcomes]:
    """Read what `save_skills` wrote."""
    stored = load_checkpoint(path, "discovered skills")
    learner = DIAYN(maze_world(stored.config["maze"], stored.config["showing"]), config)
    outcomes = Outcomes(PointWorld(get_maze(stored.config["maze"]), 1), config.skills, 4)
    restore(tensors_of(learner, outcomes), stored.tensors, str(path))
    return learner, outcomes
