"""Four Rooms: the gridworld of Sutton, Precup and Singh (1999), for one agent or many at once.

An action moves one cell north, south, west or east. With probability `slip` another of the four
is carried out in its place, and only then is the move made; into a wall, the agent stays. Reaching
the goal gives reward 1 and ends the episode; all else gives 0.

Symbols: S states, A actions, N runs side by side, one for each seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import gymnasium as gym
import numpy as np

from mbta_helpers.errors import UserError, require

Cell = tuple[int, int]

LAYOUT = """
#############
#     #     #
#     #     #
#           #
#     #     #
#     #     #
## ####     #
#     ### ###
#     #     #
#     #     #
#           #
#     #     #
#############
"""
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # north, south, west, east: (row, column)
HALLWAYS = {"north": (3, 6), "west": (6, 2), "east": (7, 9), "south": (10, 6)}
SLIP = 1 / 3
MAX_STEPS = 1000
ENV_ID = "mbta/FourRooms-v0"


# -- the map --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """Walls of a gridworld; its free cells, row by row, are the states 0 … S − 1."""

    walls: tuple[tuple[bool, ...], ...]

    @cached_property
    def cells(self) -> list[Cell]:
        """The cell (row, column) of each state."""
        return [(i, j) for i, row in enumerate(self.walls) for j, wall in enumerate(row) if not wall]

    @cached_property
    def _states(self) -> dict[Cell, int]:
        return {cell: state for state, cell in enumerate(self.cells)}

    def state_of(self, cell: Cell) -> int:
        """The state of a cell; a UserError if it is a wall or lies outside."""
        cell = tuple(cell)
        if cell not in self._states:
            raise UserError(f"{cell} is no free cell: free are {self.cells[:3]} and so on.")
        return self._states[cell]

    @cached_property
    def next_state(self) -> np.ndarray:
        """Where each move leads when it is carried out, (S, A) int; into a wall is nowhere."""
        states = self._states
        return np.array(
            [
                [states.get((i + di, j + dj), states[i, j]) for di, dj in MOVES]
                for i, j in self.cells
            ]
        )

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Values of the states, (S,), as a map, (rows, columns); NaN where there are walls."""
        image = np.full((len(self.walls), len(self.walls[0])), np.nan)
        image[tuple(np.array(self.cells).T)] = values
        return image


def parse(layout: str) -> Grid:
    """A grid from text, a line for each row, # for a wall."""
    lines = layout.strip("\n").split("\n")
    require(len({len(line) for line in lines}) == 1, "The rows of a layout must be equally long.")
    return Grid(tuple(tuple(mark == "#" for mark in line) for line in lines))


FOUR_ROOMS = parse(LAYOUT)


def rooms(grid: Grid = FOUR_ROOMS) -> list[list[int]]:
    """The states of each room, hallways left out: what is connected once the hallways are shut."""
    shut = {grid.state_of(cell) for cell in HALLWAYS.values()}
    found, left = [], set(range(len(grid.cells))) - shut
    while left:
        room, frontier = set(), {min(left)}
        while frontier:
            room |= frontier
            frontier = (set(grid.next_state[sorted(frontier)].ravel().tolist()) & left) - room
        found.append(sorted(room))
        left -= room
    return found


# -- the dynamics ---------------------------------------------------------------------------------


def slipped(action: np.ndarray, draw: np.ndarray, slip: float, actions: int) -> np.ndarray:
    """The action that is carried out: another one, each equally likely, with probability slip.

    action: (N,) int. draw: (N,), uniform on [0, 1).
    """
    # slip is cut into A − 1 equal parts; how many of their upper ends exceed the draw is the shift.
    ends = slip * np.arange(1, actions) / (actions - 1)
    return (action + (draw[:, None] < ends).sum(-1)) % actions


@dataclass(frozen=True)
class World:
    """What moves do, and where the reward is. next_state: (S, A) int. goal: a state."""

    next_state: np.ndarray
    slip: float
    goal: int

    def __post_init__(self):
        require(0 <= self.slip <= 1, f"slip is a probability, not {self.slip}.")
        require(0 <= self.goal < self.states, f"The goal is a state below {self.states}.")

    @property
    def states(self) -> int:
        return self.next_state.shape[0]

    @property
    def actions(self) -> int:
        return self.next_state.shape[1]

    def with_goal(self, goal: int) -> World:
        """The same world with the reward elsewhere."""
        return replace(self, goal=goal)

    def step(
        self, state: np.ndarray, action: np.ndarray, draw: np.ndarray, goal: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next states, rewards, and whether the goal ended the episode, (N,) each.

        state, action: (N,) int. draw: (N,) uniform. goal: a state, or (N,), one for each run.
        """
        carried_out = slipped(action, draw, self.slip, self.actions)  # before the move, not after
        after = self.next_state[state, carried_out]
        terminated = after == goal
        return after, terminated.astype(float), terminated

    @cached_property
    def transitions(self) -> np.ndarray:
        """p(s'|s, a), (S, A, S)."""
        moves = np.eye(self.states)[self.next_state]  # (S, A, S), each move as carried out
        others = (moves.sum(1, keepdims=True) - moves) / (self.actions - 1)
        return (1 - self.slip) * moves + self.slip * others

    @cached_property
    def rewards(self) -> np.ndarray:
        """E[r|s, a], (S, A): the chance to arrive at the goal. Nothing is left to get from it."""
        expected = self.transitions[:, :, self.goal].copy()
        expected[self.goal] = 0.0
        return expected


def world_of(env: gym.Env) -> World:
    """The world behind an environment; a UserError says what it lacks."""
    require(
        isinstance(env.action_space, gym.spaces.Discrete)
        and isinstance(env.observation_space, gym.spaces.Discrete),
        "Tabular agents need Discrete states and actions, but the spaces are "
        f"{env.observation_space} and {env.action_space}. Take {ENV_ID}.",
    )
    world = getattr(env.unwrapped, "world", None)
    require(
        isinstance(world, World),
        f"{type(env.unwrapped).__name__} has no attribute `world` of type World, which the agents "
        f"step for many seeds at once. Give it one, or take {ENV_ID}.",
    )
    shape = (env.observation_space.n, env.action_space.n)
    require(
        shape == world.next_state.shape,
        f"The spaces have {shape[0]} states and {shape[1]} actions, the world "
        f"{world.states} and {world.actions}.",
    )
    return world


class FourRooms(gym.Env):
    """Four Rooms for one agent: Discrete(104) states, Discrete(4) actions."""

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 gymnasium's way

    def __init__(
        self, goal: Cell = HALLWAYS["east"], slip: float = SLIP, render_mode: str | None = None
    ):
        self.grid = FOUR_ROOMS
        self.world = World(self.grid.next_state, slip, self.grid.state_of(goal))
        self.observation_space = gym.spaces.Discrete(self.world.states)
        self.action_space = gym.spaces.Discrete(self.world.actions)
        self.render_mode = render_mode
        self.state = 0

    def move_goal(self, cell: Cell) -> None:
        """Put the reward elsewhere; the episode goes on."""
        self.world = self.world.with_goal(self.grid.state_of(cell))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        """Begin at options["start"], a cell, or anywhere but at the goal."""
        super().reset(seed=seed)
        if options and "start" in options:
            self.state = self.grid.state_of(options["start"])
        else:
            self.state = int(start_states(self.np_random.random(1), self.world)[0])
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        require(self.action_space.contains(action), f"{action} is no action of 0 to 3.")
        draw, goal = self.np_random.random(1), np.array([self.world.goal])
        state, act = np.array([self.state]), np.array([int(action)])
        after, reward, terminated = self.world.step(state, act, draw, goal)
        self.state = int(after[0])
        return self.state, float(reward[0]), bool(terminated[0]), False, {}

    def render(self) -> str | None:
        """The map as text, with o for the agent and G for the goal."""
        if self.render_mode != "ansi":
            return None
        marks = [["#" if wall else " " for wall in row] for row in self.grid.walls]
        for mark, state in (("G", self.world.goal), ("o", self.state)):
            i, j = self.grid.cells[state]
            marks[i][j] = mark
        return "\n".join(map("".join, marks))


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point=FourRooms, max_episode_steps=MAX_STEPS)


# -- many runs side by side -----------------------------------------------------------------------


def start_states(
    draw: np.ndarray, world: World, goal: np.ndarray | int | None = None
) -> np.ndarray:
    """States drawn uniformly from all but the goal; draw: (N,) uniform. Returns (N,) int."""
    goal = world.goal if goal is None else goal
    state = (draw * (world.states - 1)).astype(int)
    return state + (state >= goal)


def choose(probability: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """One of K outcomes for each run; probability: (N, K), draw: (N,) uniform. Returns (N,)."""
    # The last sum may round below 1, so it is not asked.
    return (probability.cumsum(-1)[:, :-1] <= draw[:, None]).sum(-1)


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over seeds, and a 95 % interval of it by the normal approximation; values: (N,)."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


class Runs:
    """N runs of a world side by side, each with its own seed, goals and number of the episode.

    A run that has had all its episodes leaves, so `row` says which runs are still there. A run
    depends on its own seed alone, whatever stands beside it.
    goals: (N, episodes), the goal of each episode. draws: uniform numbers that the agent needs in a
    step. steps: (N, episodes), the length of each episode so far.
    """

    BLOCK = 256  # steps for which numbers are drawn at once

    def __init__(self, world: World, seeds: Sequence[int], goals: np.ndarray, max_steps: int, draws: int):
        require(len(seeds) >= 1, "Give at least one seed.")
        require(goals.ndim == 2 and len(goals) == len(seeds), "Give a row of goals for each seed.")
        require(goals.shape[1] >= 1 and max_steps >= 1, "An episode and a step are the least.")
        self.world, self.goals, self.max_steps = world, goals, max_steps
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.draws, self.place = draws, self.BLOCK
        self.row = np.arange(len(seeds))
        self.episode = np.zeros(len(seeds), int)
        self.time = np.zeros(len(seeds), int)
        self.steps = np.zeros(goals.shape, int)
        self.goal = goals[:, 0]
        self.state = start_states(self.draw()[-1], world, self.goal)

    def draw(self) -> np.ndarray:
        """Uniform numbers of this step, (draws + 2, N): the agent's, the slip's and the start's."""
        if self.place == self.BLOCK:
            shape = (self.BLOCK, self.draws + 2)
            self.numbers = np.stack([rng.random(shape) for rng in self.generators], -1)
            self.place = 0
        self.uniform = self.numbers[self.place][:, self.row]
        self.place += 1
        return self.uniform

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """Next states, rewards, terminated (at the goal), truncated (out of steps), (N,) each."""
        after, reward, terminated = self.world.step(
            self.state, action, self.uniform[-2], self.goal
        )
        self.time += 1
        return after, reward, terminated, ~terminated & (self.time == self.max_steps)

    def go_on(self, after: np.ndarray, over: np.ndarray) -> np.ndarray:
        """Take the next states; where the episode is over, begin another. Returns who stays, (N,).

        An agent that keeps something for each run picks it out with what is returned.
        """
        self.state = after
        stays = np.ones(len(over), bool)
        if over.any():
            self.steps[self.row[over], self.episode[over]] = self.time[over]
            self.episode = self.episode + over
            self.time = np.where(over, 0, self.time)
            stays = self.episode < self.goals.shape[1]
            kept = (self.row, self.state, self.episode, self.time)
            self.row, self.state, self.episode, self.time = (each[stays] for each in kept)
            self.goal = self.goals[self.row, self.episode]
            fresh = start_states(self.uniform[-1][stays], self.world, self.goal)
            self.state = np.where(over[stays], fresh, self.state)
        return stays
