"""The closing table of Part II on PointMaze Medium: parameters/diayn/part_two.json.

    python scripts/part_two_table.py [--kinds place displacement dense sparse options] [--seeds 0]

place, displacement: DIAYN's skills, told apart by where they are or by how far they have come,
with chapter 6's planner over them, and drawn at random. dense, sparse: SAC with the goal in its
observation, for as many steps of the simulator, untuned; options: Soft Option-Critic in SAC's
place, with the dense reward, untuned too. The tasks are those of
scripts/reproduce.py. Part I's rows are read from book/results.json. Settings were chosen on
training seed 100 and tasks of seed 77, but for one: that every other round of practice begins
anywhere was chosen on the outcome error of training seed 0, after a first evaluation. One core,
some minutes a row; a row that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mbta_helpers import presets
from mbta_helpers.checkpoints import locked, write_text
from mbta_helpers.datasets import STEPS as PLAY_STEPS
from mbta_helpers.datasets import versions
from mbta_helpers.evaluation import Agent, evaluate
from mbta_helpers.hierarchical import discovered
from mbta_helpers.hierarchical.diayn import accuracy, coverage, roll_out_skills, train_diayn
from mbta_helpers.hierarchical.playgrounds import PointWorld
from mbta_helpers.hierarchical.sac import SAC, Batch, ReplayBuffer, SACConfig
from mbta_helpers.hierarchical.soft_option_critic import SoftOptionCritic, SoftOptionCriticConfig
from mbta_helpers.mazes import SUCCESS_RADIUS, get_maze, sample_tasks
from mbta_helpers.planning import Planner

ROOT = Path(__file__).resolve().parents[1]
FOLDER = presets.PARAMETERS / "diayn"
OUT = FOLDER / "part_two.json"
MAZE, TEST_SEED = "pointmaze-medium", 3001
PRACTICE = {"bodies": 32, "rounds": 100}  # skills carried out for the model of their outcomes


def budget() -> int:
    """Steps of the simulator for DIAYN's training and practice, and so for SAC's."""
    config = discovered.MAZE_CONFIG
    training = config.episodes * config.episode * config.bodies * discovered.HELD
    return training + PRACTICE["bodies"] * PRACTICE["rounds"] * discovered.STEPS


# -- DIAYN's skills -------------------------------------------------------------------------------


class RandomSkills(discovered.DiscoveredAgent):
    """Carries out skills drawn at random: what the skills are worth without a plan."""

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        shape = (len(state), self.learner.config.skills)
        skill = torch.randn(shape, generator=self.generator).argmax(-1)
        return torch.cat([torch.eye(shape[1])[skill], state], -1)


def discover(
    showing: str, seed: int
) -> tuple[discovered.DIAYN, discovered.Outcomes, dict[str, object]]:
    """Skills, the model of their outcomes, and what both cost and are like."""
    started = time.process_time()
    world, fine = discovered.maze_world(MAZE, showing), PointWorld(get_maze(MAZE), 1)
    history = train_diayn(world, discovered.MAZE_CONFIG, seed, measure_every=50)
    learner, steps = history.learner, discovered.STEPS
    practice = discovered.practise(learner, fine, steps, **PRACTICE, seed=seed)
    held_out = len(practice.skill) // 10
    outcomes = discovered.train_outcomes(
        practice.part(slice(held_out, None)), fine, learner.config.skills, seed
    )
    seconds = time.process_time() - started
    fresh = practice.part(slice(held_out))
    z = torch.nn.functional.one_hot(fresh.skill, learner.config.skills).float()
    with torch.no_grad():
        missed = outcomes.mean(fresh.first, z) - fresh.last
    paths = roll_out_skills(learner, world.start(50, np.random.default_rng(1000 + seed)))
    left, right, low, high = get_maze(MAZE).extent
    ends = paths[:, :, -1:, -4:-2]  # of the body, whatever comes before it in the state
    return learner, outcomes, {
        "environment_steps": budget(),
        "seconds": round(seconds, 1),
        "accuracies": history.accuracy.round(4).tolist(),
        "steps": history.steps.tolist(),
        "accuracy": round(accuracy(learner, paths), 4),
        "coverage_of_ends": round(
            coverage(ends, np.array([left, low]), np.array([right, high]), 8)
            * 64 / len(get_maze(MAZE).cells), 4
        ),
        "outcome_error": round(missed[:, :2].norm(dim=1).mean().item(), 4),
    }  # fmt: skip


def skill_rows(showing: str, seed: int, tasks_seed: int) -> dict[str, dict]:
    """One training run, its planner's row and that of its skills at random."""
    learner, outcomes, facts = discover(showing, seed)
    path = FOLDER / f"{showing}-seed{seed}.safetensors"
    provenance = {"command": f"python scripts/part_two_table.py --kinds {showing} --seeds {seed}"}
    discovered.save_skills(path, learner, outcomes, MAZE, showing, provenance | described())
    skills = discovered.DiscoveredSkills(outcomes)
    planner = Planner(skills, discovered.PLANNER, discovered.STEPS)
    rows = {}
    for name, kind in (("planned", discovered.DiscoveredAgent), ("random", RandomSkills)):
        agent = kind(learner, planner, torch.Generator().manual_seed(seed))
        rows[f"{KINDS[showing]}, {name}"] = facts | judged(agent, tasks_seed)
    return rows


# -- learners with the goal in their observation --------------------------------------------------

GOAL_STEPS = 60  # decisions of an episode; an action is held as in DIAYN's training
GOAL_SAC = SACConfig(hidden=64, batch_size=256, learning_rate=1e-3, gamma=0.98)
GOAL_OPTIONS = SoftOptionCriticConfig(  # chapter 11's; η stands to α_Ω log Ω as there
    batch_size=256, learning_rate=1e-3, gamma=0.98, tau=0.005, layer_norm=True,
    option_temperature=0.1, deliberation_cost=0.13, diversity=0.03,
)  # fmt: skip
REWARDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "dense": lambda distance: np.exp(-distance),  # as in gymnasium-robotics
    "sparse": lambda distance: (distance <= SUCCESS_RADIUS).astype(float),
}


class GoalSAC:
    """Acts by a policy that sees the goal; there is nothing to decide."""

    replan_every = 1

    def __init__(self, seed: int):
        self.world = PointWorld(get_maze(MAZE), discovered.HELD)
        self.width = 2 * self.world.view_dim + 2
        self.learner = self.learner_of(seed)

    def learner_of(self, seed: int) -> SAC:
        return SAC(self.width, self.world.action_dim, GOAL_SAC, seed)

    def observation(self, state: np.ndarray, goal: np.ndarray) -> Tensor:
        """The state's view, the goal's, and the way between them, (N, V + V + 2)."""
        state, goal = (torch.as_tensor(x, dtype=torch.float32) for x in (state, goal))
        resting = torch.cat([goal, torch.zeros_like(goal)], -1)
        way = goal - state[:, :2]
        return torch.cat([self.world.view(state), self.world.view(resting), way], -1)

    def explore(self, observation: Tensor, first: bool) -> Tensor:
        """Actions in training, (N, A); first: whether the episodes begin here."""
        return self.learner.act(observation)

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        return goal

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        return self.learner.act(self.observation(state, goal), greedy=True)


class GoalOptions(GoalSAC):
    """Soft Option-Critic that sees the goal: an option goes on until it ends."""

    learner: SoftOptionCritic

    def __init__(self, seed: int):
        super().__init__(seed)
        self.replan_every = self.world.steps_each
        self.option, self.running = torch.zeros(0, dtype=torch.long), np.zeros(0, int)

    def learner_of(self, seed: int) -> SAC:
        return SoftOptionCritic(self.width, self.world.action_dim, GOAL_OPTIONS, seed)

    def in_force(self, observation: Tensor, before: Tensor | None, greedy: bool) -> Tensor:
        """The options now, (N,): those before, and new ones where they have ended."""
        chosen = self.learner.choose(observation, greedy)
        if before is None:
            return chosen
        return torch.where(self.learner.ends(observation, before), chosen, before)

    def explore(self, observation: Tensor, first: bool) -> Tensor:
        self.option = self.in_force(observation, None if first else self.option, False)
        return self.learner.act_with(observation, self.option)

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        before = self.option[np.isin(self.running, running)] if len(self.running) else None
        self.option = self.in_force(self.observation(state, goal), before, True)
        self.running = running
        return self.option

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        return self.learner.act_with(self.observation(state, goal), decision, greedy=True)


def train_with_goals(agent: GoalSAC, reward: str, seed: int, steps: int, bodies: int = 32) -> None:
    """Train between random places; the reward is paid at each step, and reaching ends nothing."""
    world, rng = agent.world, np.random.default_rng(seed)
    replay = ReplayBuffer(200_000, agent.width, world.action_dim)
    generator = torch.Generator().manual_seed(seed)
    for episode in range(steps // (GOAL_STEPS * bodies * world.steps_each)):
        tasks = sample_tasks(world.maze, bodies, int(rng.integers(2**31)))
        state, goal = world.start(bodies, rng), tasks.goals
        for step in range(GOAL_STEPS):
            before = agent.observation(state, goal)
            action = agent.explore(before, step == 0)
            state = world.step(state, action.numpy())
            paid = REWARDS[reward](np.linalg.norm(state[:, :2] - goal, axis=1))
            after, never = agent.observation(state, goal), torch.zeros(bodies)
            replay.add(Batch(before, action, torch.from_numpy(paid), after, never))
            if episode >= 2:
                agent.learner.update(replay.sample(agent.learner.config.batch_size, generator))


def goal_rows(kind: str, seed: int, tasks_seed: int) -> dict[str, dict]:
    """One run with as many steps of the simulator as DIAYN's skills and their practice."""
    started = time.process_time()
    agent = GoalOptions(seed) if kind == "options" else GoalSAC(seed)
    train_with_goals(agent, "sparse" if kind == "sparse" else "dense", seed, budget())
    facts = {"environment_steps": budget(), "seconds": round(time.process_time() - started, 1)}
    return {KINDS[kind]: facts | judged(agent, tasks_seed)}


# -- rows -----------------------------------------------------------------------------------------


def judged(agent: Agent, tasks_seed: int, episodes: int = 100) -> dict:
    """Success on the tasks, with its interval."""
    maze = get_maze(MAZE)
    return {"tasks": tasks_seed} | evaluate(
        agent, maze, sample_tasks(maze, episodes, tasks_seed)
    ).summary()


def described() -> dict:
    return {"date": date.today().isoformat(), "versions": versions()}


def part_one() -> dict[str, dict]:
    """The rows of Part I, as they stand on the results page."""
    results = json.loads((ROOT / "book" / "results.json").read_text(encoding="utf-8"))
    shipped = json.loads((presets.PARAMETERS / MAZE / "provenance.json").read_text("utf-8"))
    rows = {}
    for row in results.values():
        if row["preset"] == MAZE and row["seed"] == TEST_SEED:
            name = {"cem": "planned", "prior": "from the prior", "random": "random"}[row["planner"]]
            cost = {"environment_steps": PLAY_STEPS["point"]}
            if row["parameters"] == "shipped":
                cost["seconds"] = shipped["seconds"]
            rows[f"Part I, {name}; {row['parameters']}"] = row | cost
    return rows


KINDS = {kind: f"DIAYN, {kind}" for kind in discovered.SHOWING} | {
    "dense": "SAC, dense reward",
    "sparse": "SAC, sparse reward",
    "options": "Soft Option-Critic, dense reward",
}


def rows_in(path: Path) -> dict[str, dict]:
    """The table as far as it is there."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def store(path: Path, rows: dict[str, dict]) -> None:
    """Put rows into the file, besides what another process may have put there."""
    with locked(path):
        write_text(path, json.dumps(rows_in(path) | rows, indent=1, ensure_ascii=False) + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", type=int, default=TEST_SEED, help="seed of the tasks")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store(options.out, part_one())
    for seed in options.seeds:
        for kind in options.kinds:
            there = [name for name in rows_in(options.out) if name.startswith(KINDS[kind])]
            if any(name.endswith(f"; seed {seed}") for name in there):
                continue
            make = skill_rows if kind in discovered.SHOWING else goal_rows
            made = described() | {
                "command": f"python scripts/part_two_table.py {' '.join(arguments)}"
            }
            rows = make(kind, seed, options.tasks)
            store(options.out, {f"{name}; seed {seed}": row | made for name, row in rows.items()})
            for name, row in rows.items():
                print(f"{name}; seed {seed}: {row['successes']} of {row['episodes']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
