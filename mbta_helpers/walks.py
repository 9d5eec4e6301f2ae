"""Walks: how ants play. Many at once walk from goal to goal; what they did is kept, falls are not.

Each ant follows cells of a shortest way (with detours) through the maze, shown a point beyond the
next one so that it walks through it. After the goal it takes a new one, or it stays.

Symbols: N ants, E episodes of T steps in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from mbta_helpers.ants import (
    ACTION_DIM,
    STATE_DIM,
    Ants,
    Walkers,
    beyond,
    flipped,
    load_controller,
    standing,
    up_vector,
    world,
)
from mbta_helpers.errors import require
from mbta_helpers.mazes import (
    POSITION_NOISE,
    SUCCESS_RADIUS,
    Cell,
    Maze,
    choose_route,
    random_position,
)

AFTER_GOAL = ("resample", "hold")


@dataclass(frozen=True)
class WalkConfig:
    """How ants play.

    after_goal: "resample" takes a new goal on arrival, "hold" stays until the episode's end.
    ants: as many walk at once. episode: steps at most. noises: of the actions, standard deviations
    of which each episode draws one. reached: a waypoint is passed within this, in map units.
    patience: steps to a waypoint after which a new goal is taken. upright: the least vertical
    part of the up-vector with which an episode may end. dropped: steps left out before a fall.
    """

    after_goal: str = "resample"
    ants: int = 32
    episode: int = 1000
    noises: tuple[float, ...] = (0.0, 0.1, 0.2)
    reached: float = 0.5
    patience: int = 200
    upright: float = 0.5
    dropped: int = 25

    def __post_init__(self):
        require(
            self.after_goal in AFTER_GOAL,
            f"After the goal an ant can {' or '.join(AFTER_GOAL)}, not '{self.after_goal}'.",
        )


@dataclass(frozen=True)
class Walks:
    """E episodes of T steps in all.

    states: (T + E, 29), each episode's last state included. actions: (T, 8) float32.
    lengths: (E,). goals: (T + E, 2) where the ant was heading at each state. noises: (E,) of the
    actions. falls: episodes that were cut for one. dropped: steps that this left out.
    """

    states: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray
    goals: np.ndarray
    noises: np.ndarray
    falls: int
    dropped: int


def walk(
    maze: Maze,
    steps: int,
    seed: int,
    config: WalkConfig | None = None,
    progress: bool = False,
) -> Walks:
    """Let ants play in a maze for at least that many steps, the dropped ones not counted."""
    crowd = _Crowd(maze, steps, config or WalkConfig(), np.random.default_rng(seed))
    bar = tqdm(total=steps, desc=f"playing in {maze.name}", disable=not progress, unit="step")
    while crowd.taken < steps:
        crowd.step()
        bar.update(crowd.taken - bar.n)
        if crowd.taken >= steps:
            crowd.end(np.ones(len(crowd.ants), bool))
    bar.close()
    return crowd.walks()


class _Crowd:
    """N ants on their ways, and the episodes that they have finished."""

    def __init__(self, maze: Maze, steps: int, config: WalkConfig, rng: np.random.Generator):
        self.maze, self.config, self.rng = maze, config, rng
        count = min(config.ants, -(-steps // config.episode))
        self.ants = Ants(world(maze.env_id), count)
        self.walkers = Walkers(load_controller(), count)
        self.reach = max(max(maze.distances(cell).values()) for cell in maze.cells) // 2
        self.routes: list[list[Cell]] = [[] for _ in range(count)]  # cells after the next one
        self.targets, self.goals = np.zeros((2, count, 2))
        self.noises = np.zeros(count)
        self.waited = np.zeros(count, int)  # steps since the target was chosen
        self.arrived = np.zeros(count, bool)
        self.age = np.zeros(count, int)
        self.path = np.zeros((count, config.episode + 1, STATE_DIM))
        self.moves = np.zeros((count, config.episode, ACTION_DIM), np.float32)
        self.wanted = np.zeros((count, config.episode + 1, 2))
        self.episodes: list[tuple[np.ndarray, ...]] = []
        self.kept, self.falls, self.dropped = 0, 0, 0
        for index in range(count):
            self.begin(index)

    @property
    def taken(self) -> int:
        """Steps so far, those that a fall took back left out."""
        return self.kept + int(self.age.sum())

    def begin(self, index: int) -> None:
        """A new episode: the ant is put somewhere else."""
        xy = random_position(self.maze, self.rng)
        self.ants.place(index, standing(xy, self.rng))
        self.walkers.forget(index)
        self.noises[index] = self.rng.choice(self.config.noises)
        self.age[index] = 0
        self.choose(index, xy)
        self.path[index, 0] = self.ants.state(index)
        self.wanted[index, 0] = self.goals[index]

    def choose(self, index: int, xy: np.ndarray) -> None:
        """A new goal, and the way to it from a point, (2,)."""
        route = choose_route(self.maze, self.maze.cell_at(xy), self.reach, self.rng)
        self.goals[index] = self.around(route[-1])
        self.routes[index] = route[1:]
        self.arrived[index] = False
        self.proceed(index)

    def proceed(self, index: int) -> None:
        """The next waypoint is the goal, or near the centre of the next cell of the way."""
        cell = self.routes[index].pop(0)
        self.targets[index] = self.around(cell) if self.routes[index] else self.goals[index]
        self.waited[index] = 0

    def around(self, cell: Cell) -> np.ndarray:
        """A random point near a cell's centre, (2,)."""
        noise = self.rng.uniform(-POSITION_NOISE, POSITION_NOISE, 2)
        return self.maze.centre(cell) + self.maze.side * noise

    def step(self) -> None:
        """One step of all ants."""
        rows = np.arange(len(self.ants))
        states = self.path[rows, self.age]
        shown = np.where(self.arrived[:, None], self.targets, beyond(states, self.targets))
        actions = self.walkers.act(states, shown)
        actions += self.noises[:, None] * self.rng.standard_normal(actions.shape)
        actions = actions.clip(-1, 1).astype(np.float32)
        self.moves[rows, self.age] = actions
        self.age += 1
        states = self.path[rows, self.age] = self.ants.step(actions)
        self.wanted[rows, self.age] = self.goals
        self.look(states[:, :2])
        self.end(flipped(states) | (self.age == self.config.episode))

    def look(self, positions: np.ndarray) -> None:
        """Go on to the next waypoint or goal where one is reached; positions: (N, 2)."""
        self.waited += 1
        last = np.array([not route for route in self.routes])
        near = np.where(last, SUCCESS_RADIUS, self.config.reached)
        there = np.linalg.norm(self.targets - positions, axis=1) <= near
        late = (self.waited > self.config.patience) & ~self.arrived
        self.arrived |= there & last
        for index in np.flatnonzero(there & ~last):
            self.proceed(index)
        resample = self.arrived & (self.config.after_goal == "resample")
        for index in np.flatnonzero(resample | (late & ~there)):
            self.choose(index, positions[index])

    def end(self, over: np.ndarray) -> None:
        """Keep the episodes that are over, (N,) bool, and begin new ones."""
        for index in np.flatnonzero(over):
            self.keep(index)
            self.begin(index)

    def keep(self, index: int) -> None:
        """Put an ant's episode aside, without its end where that is a fall."""
        age = length = int(self.age[index])
        upright = up_vector(self.path[index, : length + 1])[:, 2] >= self.config.upright
        if not upright[-1]:
            self.falls += 1
            length = max(0, int(np.flatnonzero(upright)[-1]) - self.config.dropped)
            self.dropped += age - length
        if length > 0:
            parts = (self.path[index, : length + 1], self.moves[index, :length])
            goals = self.wanted[index, : length + 1]
            noise = self.noises[index]
            self.episodes.append(tuple(part.copy() for part in (*parts, goals, noise)))
            self.kept += length
        self.age[index] = 0

    def walks(self) -> Walks:
        """All episodes that were kept."""
        states, actions, goals, noises = zip(*self.episodes, strict=True)
        return Walks(
            states=np.concatenate(states),
            actions=np.concatenate(actions),
            lengths=np.array([len(part) for part in actions]),
            goals=np.concatenate(goals),
            noises=np.array(noises),
            falls=self.falls,
            dropped=self.dropped,
        )
