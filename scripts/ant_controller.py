"""Train the ant's walking controller with soft actor-critic; measure it.

    python scripts/ant_controller.py train [--out runs/ant-controller] [--seed 0]
    python scripts/ant_controller.py evaluate [--controller FILE]

`train` takes about an hour of one core. Ctrl-C stops it and the same command goes on; the replay
is not kept, so a resumed run first gathers new steps. At the end it writes the parameters, their
provenance and the learning curve into mbta_helpers/parameters/ant-controller. `evaluate` measures
them on tasks that training has not seen and adds the figures to the provenance.

Half of the ants walk in an open field to targets that move away when they are reached, half in
the Medium maze along shortest ways. First they learn to walk, then to walk without falling: falls
cost much, the ants are kicked, and a high or tilted torso costs a little.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mbta_helpers.ants import (
    ACTION_DIM,
    CONTROLLER,
    FEATURE_DIM,
    KIND,
    STEP_SECONDS,
    AntController,
    Ants,
    Walkers,
    beyond,
    flipped,
    load_controller,
    mirror_actions,
    mirror_features,
    standing,
    torques,
    up_vector,
    world,
)
from mbta_helpers.checkpoints import load_checkpoint, save_checkpoint, write_text
from mbta_helpers.datasets import versions
from mbta_helpers.errors import require
from mbta_helpers.evaluation import wilson_interval
from mbta_helpers.hierarchical.sac import SAC, Batch, ReplayBuffer, SACConfig
from mbta_helpers.mazes import MAZES, SUCCESS_RADIUS, sample_tasks
from mbta_helpers.training import held_interrupts

MAZE = MAZES["pointmaze-medium"]  # AntMaze's walls are the same, four times as far apart
SCALE = 4.0
ANTS = 16  # half of them in the maze
EPISODE = 400  # steps
REACHED = 0.5
DISTANCES = (1.5, 6.0)  # of a new target in the field
JITTER = 1.0  # of waypoints around a cell's centre, per axis
HOLD_SHARE, HOLD_STEPS = 0.15, 60  # targets that stay when they are reached, and for how long
MAX_STEPS = 1000  # of a task in the maze
SOON = 100  # steps in which a target should be reached
HIGH = 0.75  # the torso of an ant that stands is at 0.5 to 0.6
HEIGHTS = (0.2, 1.1)  # of a torso that has not fallen
PUSH_EVERY = 100  # steps, on average
BUFFER = 1_000_000
RANDOM_STEPS = 10_000
STEPS_PER_UPDATE = 4
RECORD_EVERY = 20_000  # steps
REWARD_SCALE = 0.2
SAC_CONFIG = SACConfig(
    hidden=128, gamma=0.98, learning_rate=5e-4, batch_size=256, target_entropy=-6.0, actor_every=2
)
STATE, LOG, SIDECAR = "training.safetensors", "log.json", "provenance.json"


@dataclass(frozen=True)
class Stage:
    """What the ants are asked for, and for how long.

    The reward of a step is min(speed towards the target, speed_cap) + 0.5 − 0.05 ‖a‖², less
    tilt (1 − up), height over HIGH, roll (ω_x² + ω_y²) and horizontal speed over the cap times
    their weights, less fall_cost where a fall ends the episode. A fall is a height outside
    HEIGHTS, or an up-vector that points up by less than `upright`. noises: of the actions, one for
    each episode. push: standard deviation of kicks to the velocity, one in a hundred steps.
    final_rate: share of the learning rate at the end.
    """

    steps: int
    learning_rate: float
    speed_cap: float
    upright: float = 0.2
    fall_cost: float = 0.0
    tilt: float = 0.0
    height: float = 0.0
    roll: float = 0.0
    overspeed: float = 0.0
    noises: tuple[float, ...] = (0.0, 0.1, 0.2)
    push: float = 0.0
    final_rate: float = 1.0


CAREFUL = Stage(
    steps=200_000,
    learning_rate=3e-4,
    speed_cap=2.0,
    upright=0.4,
    fall_cost=100.0,
    tilt=1.0,
    height=2.0,
    roll=0.02,
    noises=(0.0, 0.1, 0.2, 0.3),
    push=0.4,
)
# Most falls come from leaping past a target and turning at full speed: first slow and low, then
# faster again, at last with small steps of the optimiser. The later stages were chosen by looking
# at what fell: the run behind the shipped parameters was stopped for it and went on, at the steps
# that its provenance lists.
STEADY = replace(CAREFUL, steps=160_000, speed_cap=1.6, tilt=2.0, height=4.0, overspeed=1.0)
FASTER = replace(STEADY, steps=180_000, speed_cap=2.0, final_rate=0.77)
STAGES = (
    Stage(steps=600_000, learning_rate=5e-4, speed_cap=3.0),
    CAREFUL,
    STEADY,
    FASTER,
    replace(FASTER, steps=200_000, learning_rate=2.3e-4, final_rate=0.4),
)


# -- the world ----------------------------------------------------------------------------------


class Course:
    """Ants in one world, each on its way to a target."""

    def __init__(self, count: int, walls: bool, hold_share: float, rng: np.random.Generator):
        self.ants = Ants(world(open_field=not walls), count)
        self.walls, self.hold_share, self.rng = walls, hold_share, rng
        self.targets = np.zeros((count, 2))
        self.routes: list[deque] = [deque() for _ in range(count)]
        self.hold = np.zeros(count, int)  # steps that a target stays when it is reached
        self.waited = np.zeros(count, int)  # steps since the target was chosen
        self.reached = np.zeros(count, bool)  # whether the ant has been at its target
        self.hits, self.misses = 0, 0  # targets reached within SOON steps, or not
        for index in range(count):
            self.begin(index)

    def begin(self, index: int) -> None:
        """Put an ant at a random place of its world, with a new target."""
        xy = np.zeros(2)
        self.routes[index].clear()
        if self.walls:
            xy = self._point(MAZE.cells[self.rng.integers(len(MAZE.cells))])
        self.ants.place(index, standing(xy, self.rng))
        self.choose(index, xy)

    def choose(self, index: int, xy: np.ndarray) -> None:
        """The next target: anywhere near in the field, the next cell of the way in the maze."""
        self.hold[index] = HOLD_STEPS * (self.rng.random() < self.hold_share)
        self.waited[index], self.reached[index] = 0, False
        if not self.walls:
            angle, distance = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(*DISTANCES)
            self.targets[index] = xy + distance * np.array([np.cos(angle), np.sin(angle)])
            return
        if not self.routes[index]:
            goal = MAZE.cells[self.rng.integers(len(MAZE.cells))]
            self.routes[index].extend(route(MAZE.cell_at(xy / SCALE), goal))
        self.targets[index] = self._point(self.routes[index].popleft())

    def arrivals(self, states: np.ndarray) -> None:
        """New targets for the ants that have reached theirs and need not stay."""
        self.waited += 1
        arrived = self.distances(states) < REACHED
        self.hits += int((arrived & ~self.reached & (self.waited <= SOON)).sum())
        self.misses += int((~arrived & ~self.reached & (self.waited == SOON)).sum())
        self.reached |= arrived
        for index in np.flatnonzero(arrived):
            if self.hold[index] > 0:
                self.hold[index] -= 1
            else:
                self.choose(index, states[index, :2])

    def distances(self, states: np.ndarray) -> np.ndarray:
        """From each ant to its target, (N,)."""
        return np.hypot(*(self.targets - states[:, :2]).T)

    def _point(self, cell: tuple[int, int]) -> np.ndarray:
        return SCALE * MAZE.centre(cell) + self.rng.uniform(-JITTER, JITTER, 2)


def route(start, goal):
    """Cells after the start along a shortest way to the goal; the goal alone if it is the start."""
    steps = MAZE.distances(goal)
    cells = [start]
    while steps[cells[-1]] > 0:
        cells.append(min(MAZE.neighbours(cells[-1]), key=steps.__getitem__))
    return cells[1:] or [goal]


def fell(states: np.ndarray, upright: float) -> np.ndarray:
    """Whether training calls it a fall, (N,) bool: it is stricter than lying on the back."""
    height = states[:, 2]
    return (height < HEIGHTS[0]) | (height > HEIGHTS[1]) | (up_vector(states)[:, 2] < upright)


# -- training -----------------------------------------------------------------------------------


def reward(stage: Stage, speed, actions, states, fallen) -> np.ndarray:
    """The reward of a step, (N,): speed (N,), actions (N, 8), states after it (N, 29)."""
    up = up_vector(states)[:, 2]
    shaping = (
        stage.tilt * (1 - up)
        + stage.height * np.maximum(states[:, 2] - HIGH, 0)
        + stage.roll * np.square(states[:, 18:20]).sum(1)
        + stage.overspeed * np.maximum(np.hypot(*states[:, 15:17].T) - stage.speed_cap, 0)
    )
    effort = 0.05 * np.square(actions).sum(1)
    gained = np.minimum(speed, stage.speed_cap) + 0.5 - effort - shaping
    return REWARD_SCALE * (gained - stage.fall_cost * fallen)


class Training:
    """The agent, its ants and its replay; everything that a resumed run needs but the replay."""

    def __init__(self, seed: int, stages: tuple[Stage, ...] = STAGES):
        self.seed, self.stages = seed, stages
        self.rng = np.random.default_rng(seed)
        self.agent = SAC(FEATURE_DIM, ACTION_DIM, SAC_CONFIG, seed)
        halves = ((False, ANTS - ANTS // 2), (True, ANTS // 2))
        self.courses = [Course(count, walls, HOLD_SHARE, self.rng) for walls, count in halves]
        self.walkers = Walkers(self.agent.actor, ANTS)
        self.noise = np.zeros(ANTS)
        self.age = self.rng.integers(0, EPISODE, ANTS)  # so that episodes do not end together
        self.steps, self.seconds, self.log, self.resumed = 0, 0.0, [], []
        self.stage_index = -1
        self.learned: dict[str, float] = {}  # the last metrics of the updates
        self.seen = self.look(self.states())

    @property
    def total(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def states(self) -> np.ndarray:
        """Of all ants, (N, 29)."""
        return np.concatenate([course.ants.states for course in self.courses])

    def look(self, states: np.ndarray) -> np.ndarray:
        """What the ants see on their way to their targets, (N, 29)."""
        targets = np.concatenate([course.targets for course in self.courses])
        return self.walkers.look(states, targets)

    def enter_stage(self) -> tuple[Stage, float]:
        """The stage of this step and how far it is, in [0, 1); a new one starts a new replay."""
        begin, index = 0, 0
        while self.steps >= begin + self.stages[index].steps:
            begin += self.stages[index].steps
            index += 1
        if index != self.stage_index:  # rewards of another stage must not be learned from
            self.stage_index = index
            self.replay = ReplayBuffer(BUFFER, FEATURE_DIM, ACTION_DIM)
        return self.stages[index], (self.steps - begin) / self.stages[index].steps

    def step(self) -> dict[str, float]:
        """One step of every ant, and the updates that are due; returns sums over the ants."""
        stage, progress = self.enter_stage()
        if self.steps < RANDOM_STEPS:
            actions = self.rng.uniform(-1, 1, (ANTS, ACTION_DIM)).astype(np.float32)
        else:
            actions = self.agent.act(torch.from_numpy(self.seen)).numpy()
        # The noise belongs to the world: the policy learns to live with it.
        noise = self.noise[:, None] * self.rng.standard_normal(actions.shape)
        applied = torques((actions + noise).clip(-1, 1), self.walkers.front)
        self._push(stage)
        after, before, now = self._move(applied)
        speed = (before - now) / STEP_SECONDS
        fallen = fell(after, stage.upright)
        gained = reward(stage, speed, actions, after, fallen)
        seen = self.look(after)
        columns = (self.seen, actions, gained, seen, fallen.astype(np.float32))
        self.replay.add(Batch(*(torch.as_tensor(c, dtype=torch.float32) for c in columns)))
        self.seen = seen
        self._restart(fallen, stage)
        self.steps += ANTS
        if self.replay.added >= RANDOM_STEPS:
            rate = stage.learning_rate * (1 - progress * (1 - stage.final_rate))
            for _ in range(ANTS // STEPS_PER_UPDATE):
                self.learned |= self.learn(rate)
        return {"speed": float(speed.sum()), "falls": int(fallen.sum())}

    def learn(self, rate: float) -> dict[str, float]:
        """One update at a learning rate; half of the batch is seen in a mirror."""
        agent = self.agent
        for optimiser in (agent.actor_optimiser, agent.critic_optimiser):
            optimiser.param_groups[0]["lr"] = rate
        batch = self.replay.sample(SAC_CONFIG.batch_size, agent.generator)
        half = SAC_CONFIG.batch_size // 2
        mirrors = (mirror_features, mirror_actions, None, mirror_features, None)
        columns = [
            column if mirror is None else torch.cat([column[:half], mirror(column[half:])])
            for column, mirror in zip(batch, mirrors, strict=True)
        ]
        return agent.update(Batch(*columns))

    def _push(self, stage: Stage) -> None:
        """Kick some of the ants: velocities in units and radians a second change at once."""
        kicks = stage.push * self.rng.standard_normal((ANTS, 6))
        kicks *= self.rng.random((ANTS, 1)) < 1 / PUSH_EVERY
        first = len(self.courses[0].ants)
        for course, part in zip(self.courses, (kicks[:first], kicks[first:]), strict=True):
            course.ants.push(part)

    def _move(self, applied: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """States after a step, (N, 29), and distances to the same targets before and after."""
        parts, first = [], 0
        for course in self.courses:
            last = first + len(course.ants)
            before = course.distances(course.ants.states)
            states = course.ants.step(applied[first:last])
            parts.append((states, before, course.distances(states)))
            course.arrivals(states)
            first = last
        states, before, now = (np.concatenate(part) for part in zip(*parts, strict=True))
        return states, before, now

    def _restart(self, fallen: np.ndarray, stage: Stage) -> None:
        """Begin anew with the ants that fell or whose time is up."""
        self.age += 1
        over = np.flatnonzero(fallen | (self.age >= EPISODE))
        for index in over:
            course, place = self.courses[0], index
            if index >= len(course.ants):
                course, place = self.courses[1], index - len(course.ants)
            course.begin(place)
            self.age[index], self.noise[index] = 0, self.rng.choice(stage.noises)
        if len(over):
            self.walkers.forget(over)
            self.seen = self.look(self.states())

    def run(self, out: Path) -> None:
        """Train to the end; a record and a checkpoint every RECORD_EVERY steps.

        A KeyboardInterrupt leaves a checkpoint that `load` continues, and is raised again.
        """
        begin, sums, since = time.perf_counter() - self.seconds, Counter(), self.steps
        with held_interrupts() as interrupts:
            while self.steps < self.total and not interrupts:
                sums.update(self.step())
                self.seconds = time.perf_counter() - begin
                if self.steps // RECORD_EVERY > since // RECORD_EVERY or self.steps >= self.total:
                    self.record(sums, self.steps - since)
                    self.save(out)
                    sums, since = Counter(), self.steps
        if interrupts:
            self.save(out)
            raise KeyboardInterrupt

    def record(self, sums: Counter, steps: int) -> None:
        """Add a line to the curve: means since the last one, with the exploration."""
        hits, misses = (sum(getattr(c, name) for c in self.courses) for name in ("hits", "misses"))
        for course in self.courses:
            course.hits = course.misses = 0
        line = {
            "steps": self.steps,
            "seconds": self.seconds,
            "stage": self.stage_index + 1,
            "speed": sums["speed"] / steps,
            "soon": hits / max(hits + misses, 1),
            "falls": 1000 * sums["falls"] / steps,
            **self.learned,
        }
        self.log.append({name: round(value, 4) for name, value in line.items()})
        print(json.dumps(self.log[-1]), flush=True)

    def controller(self) -> AntController:
        """The mean of the policy alone."""
        controller = AntController(SAC_CONFIG.hidden)
        tensors = self.agent.actor.state_dict()
        for name in ("layers.4.weight", "layers.4.bias"):
            tensors[name] = tensors[name][:ACTION_DIM]
        controller.load_state_dict(tensors)
        return controller

    # -- stopping and going on ------------------------------------------------------------------

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        names = ("actor", "critic", "temperature")
        return {name: getattr(self.agent, f"{name}_optimiser") for name in names}

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {name: getattr(self.agent, name) for name in ("actor", "critics", "targets")}

    def save(self, out: Path) -> None:
        """Write what the run needs to go on."""
        tensors = {"temperature": self.agent.log_temperature}
        for name, module in self._modules().items():
            tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
        for name, optimiser in self._optimisers().items():
            for number, slots in optimiser.state_dict()["state"].items():
                tensors |= {f"{name} optimiser/{number}/{key}": v for key, v in slots.items()}
        names = ("seed", "steps", "seconds", "log", "resumed")
        provenance = {name: getattr(self, name) for name in names}
        provenance["updates"] = self.agent.updates
        save_checkpoint(out / STATE, "ant training", tensors, self.config(), provenance)

    def config(self) -> dict:
        """As JSON gives it back, so that one that was read compares equal."""
        return json.loads(
            json.dumps({"sac": asdict(SAC_CONFIG), "stages": [asdict(s) for s in self.stages]})
        )

    def load(self, out: Path) -> None:
        """Go on with the run in `out`, with new ants and an empty replay."""
        checkpoint = load_checkpoint(out / STATE, "ant training")
        tensors, provenance = checkpoint.tensors, checkpoint.provenance
        require(
            checkpoint.config == self.config() and provenance["seed"] == self.seed,
            f"{out} holds a run with another recipe or seed. Choose another --out.",
        )
        for name, module in self._modules().items():
            module.load_state_dict(_below(tensors, name))
        with torch.no_grad():
            self.agent.log_temperature.copy_(tensors["temperature"])
        for name, optimiser in self._optimisers().items():
            state: dict[int, dict] = {}
            for key, value in _below(tensors, f"{name} optimiser").items():
                number, slot = key.split("/")
                state.setdefault(int(number), {})[slot] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
        self.steps, self.seconds = provenance["steps"], provenance["seconds"]
        self.log, self.agent.updates = provenance["log"], provenance["updates"]
        self.resumed = provenance["resumed"] + [self.steps] * (self.steps < self.total)
        seed = (self.seed, self.steps)  # other draws than those of the first part
        self.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self.agent.generator.manual_seed(self.seed + self.steps)


def _below(tensors: dict, name: str) -> dict:
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


# -- measuring ----------------------------------------------------------------------------------


def count_falls(
    controller: AntController, walls: bool, noise: float, steps: int, seed: int, count: int = 50
) -> dict:
    """How `count` ants walk in `steps` steps: speed, targets reached soon, flips onto the back.

    An ant that flips starts anew, and every ant does after 1000 steps.
    """
    rng = np.random.default_rng(seed)
    course, walkers = Course(count, walls, 0.0, rng), Walkers(controller, count)
    states, gained, flips, taken = course.ants.states, 0.0, 0, 0
    while taken < steps:
        actions = walkers.act(states, course.targets)
        before = course.distances(states)
        states = course.ants.step(
            (actions + noise * rng.standard_normal(actions.shape)).clip(-1, 1)
        )
        gained += float((before - course.distances(states)).sum())
        course.arrivals(states)
        taken += count
        fallen = flipped(states)
        flips += int(fallen.sum())
        over = fallen | (taken // count % 1000 == 0)
        for index in np.flatnonzero(over):
            course.begin(index)
        walkers.forget(over)
        states = course.ants.states
    targets = course.hits + course.misses
    return {
        "noise": noise,
        "steps": taken,
        "speed": gained / taken / STEP_SECONDS,
        "targets": targets,
        "soon": course.hits / targets,
        "soon_95": wilson_interval(course.hits, targets),
        "flips": flips,
        "flips_per_1000": 1000 * flips / taken,
        "flips_per_1000_95": tuple(1000 * end for end in wilson_interval(flips, taken)),
    }


def cross_maze(
    controller: AntController, noise: float, count: int, seed: int, through: bool
) -> dict:
    """Tasks between random cells of the Medium maze along shortest ways, 1000 steps each.

    through: whether the ants are shown points beyond their waypoints.
    """
    rng = np.random.default_rng(seed)
    tasks = sample_tasks(MAZE, count, seed)
    ants, walkers = Ants(world(), count), Walkers(controller, count)
    routes = []
    for index, (start, goal) in enumerate(zip(tasks.starts, tasks.goals, strict=True)):
        ants.place(index, standing(SCALE * start, rng))
        cells = route(MAZE.cell_at(start), MAZE.cell_at(goal))
        routes.append(deque([MAZE.centre(cell) for cell in cells[:-1]] + [goal]))
    states, taken = ants.states, np.full(count, MAX_STEPS)
    for step in range(MAX_STEPS):
        targets = SCALE * np.stack([points[0] for points in routes])
        actions = walkers.act(states, beyond(states, targets) if through else targets)
        states = ants.step((actions + noise * rng.standard_normal(actions.shape)).clip(-1, 1))
        distances = np.hypot(*(targets - states[:, :2]).T)
        for index, points in enumerate(routes):
            if len(points) > 1 and distances[index] < REACHED:
                points.popleft()
            elif len(points) == 1 and distances[index] < SUCCESS_RADIUS:
                taken[index] = min(taken[index], step + 1)
        if (taken < MAX_STEPS).all():
            break
    done = taken < MAX_STEPS
    return {
        "noise": noise,
        "through": through,
        "tasks": count,
        "successes": int(done.sum()),
        "success_95": wilson_interval(int(done.sum()), count),
        "flipped": int((flipped(states) & ~done).sum()),
        "mean_steps": float(taken[done].mean()) if done.any() else None,
    }


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a controller on seeds that training did not use; add it to its provenance."""
    controller = load_controller(arguments.controller)
    begin, seed = time.perf_counter(), arguments.seed
    result = {"command": " ".join(["python", *sys.argv]), "seed": seed}
    for name, walls in (("field", False), ("maze", True)):
        steps = arguments.steps if walls else arguments.steps // 4
        result[name] = [
            count_falls(controller, walls, noise, steps, seed + index)
            for index, noise in enumerate((0.0, 0.1, 0.2))
        ]
        print(json.dumps(rounded(result[name]), indent=1), flush=True)
    result["tasks"] = [
        cross_maze(controller, noise, arguments.tasks, seed + 10, through)
        for noise in (0.0, 0.2)
        for through in (False, True)
    ]
    print(json.dumps(rounded(result["tasks"]), indent=1))
    result["seconds"] = time.perf_counter() - begin
    sidecar = arguments.controller.with_name(SIDECAR)
    provenance = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else {}
    provenance["evaluation"] = rounded(result)
    write_text(sidecar, json.dumps(provenance, indent=2) + "\n")


def rounded(value, digits: int = 4):
    """The same nest of lists and dictionaries with its numbers rounded."""
    if isinstance(value, dict):
        return {name: rounded(item, digits) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return round(value, digits) if isinstance(value, float) else value


def train(arguments: argparse.Namespace) -> None:
    """Train, or go on; at the end write the parameters with what made them."""
    out, parameters = arguments.out, arguments.parameters
    training = Training(arguments.seed)
    if (out / STATE).exists():
        training.load(out)
    try:
        training.run(out)
    except KeyboardInterrupt:
        sys.exit(f"Stopped after {training.steps} steps. The same command goes on from here.")
    provenance = {
        "command": f"python scripts/ant_controller.py train --seed {training.seed}",
        "seed": training.seed,
        "versions": versions() | {"python": sys.version.split()[0]},
        "date": date.today().isoformat(),
        "seconds": round(training.seconds, 1),
        "threads": torch.get_num_threads(),
        "steps": training.steps,
        "updates": training.agent.updates,
        "resumed": training.resumed,
        "curve": LOG,
        "final": training.log[-1],
        **training.config(),
    }
    config = {"hidden": SAC_CONFIG.hidden}
    tensors = training.controller().state_dict()
    save_checkpoint(parameters / CONTROLLER.name, KIND, tensors, config, provenance)
    write_text(parameters / SIDECAR, json.dumps(provenance, indent=2) + "\n")
    lines = ",\n ".join(map(json.dumps, training.log))
    write_text(parameters / LOG, f"[{lines}]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path, default=Path("runs/ant-controller"))
    command.add_argument("--parameters", type=Path, default=CONTROLLER.parent)
    command.set_defaults(run=train)
    command = commands.add_parser("evaluate", help="measure a controller")
    command.add_argument("--controller", type=Path, default=CONTROLLER)
    command.add_argument("--seed", type=int, default=1000)
    command.add_argument(
        "--steps",
        type=int,
        default=200_000,
        help="steps of each count of falls in the maze, four times those in the field",
    )
    command.add_argument("--tasks", type=int, default=300, help="tasks in the maze")
    command.set_defaults(run=evaluate)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # moments of dead units decay to numbers that are slow
    arguments.run(arguments)


if __name__ == "__main__":
    main()
