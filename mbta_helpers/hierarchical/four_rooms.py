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
        return [
            (i, j) for i, row in enumerate(self.walls) for j, wall in enumerate(row) if not wall
        ]

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


def slips(draw: np.ndarray, slip: float, actions: int) -> np.ndarray:
    """How far the number of the action carried out is from that of the action chosen, modulo A.

    0 with probability 1 − slip, and 1 … A − 1 with equal shares of the rest. draw: (...), uniform
    on [0, 1).
    """
    ends = slip * np.arange(1, actions) / (actions - 1)  # slip, cut into A − 1 equal parts
    return (draw[..., None] < ends).sum(-1)


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
        self, state: np.ndarray, action: np.ndarray, slip: np.ndarray, goal: np.ndarray | int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Next states, and whether they are the goal: reward 1, and the end; (N,) each.

        state, action: (N,) int. slip: (N,), from `slips`. goal: a state, or one for each run.
        """
        carried_out = (action + slip) % self.actions  # the slip comes before the move
        after = self.next_state[state, carried_out]
        return after, after == goal

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
            draw = self.np_random.random(1)
            self.state = int(start_states(draw, self.world.goal, self.world.states)[0])
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        require(self.action_space.contains(action), f"{action} is no action of 0 to 3.")
        slip = slips(self.np_random.random(1), self.world.slip, self.world.actions)
        after, terminated = self.world.step(
            np.array([self.state]), np.array([action]), slip, self.world.goal
        )
        self.state = int(after[0])
        return self.state, float(terminated[0]), bool(terminated[0]), False, {}

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


def start_states(draw: np.ndarray, goal: np.ndarray | int, states: int) -> np.ndarray:
    """States drawn uniformly from all but the goal; draw: (N,) uniform. Returns (N,) int."""
    state = (draw * (states - 1)).astype(int)
    return state + (state >= goal)


def choose(probability: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """One of K outcomes for each run; probability: (N, K), draw: (N,) uniform. Returns (N,)."""
    # The last sum may round below 1, so it is not asked.
    return (probability.cumsum(-1)[:, :-1] <= draw[:, None]).sum(-1)


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds, and a 95 % interval of it; values: (N, ...).

    By the normal approximation, which wants some 30 seeds; `student_interval` is for fewer.
    """
    mean = values.mean(0)
    half = 1.96 * values.std(0, ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


class Runs:
    """N runs of a world side by side, each with its own seed, goals and number of the episode.

    A run that has had all its episodes leaves, so `row` says which runs are still there. A run
    depends on its own seed alone, whatever stands beside it.
    goals: (N, episodes), the goal of each episode. draws: uniform numbers that the agent needs in a
    step; it finds them in `uniform`, (draws, N). steps: (N, episodes), the lengths of episodes.
    """

    BLOCK = 512  # steps for which numbers are drawn at once

    def __init__(
        self, world: World, seeds: Sequence[int], goals: np.ndarray, max_steps: int, draws: int
    ):
        require(len(seeds) >= 1, "Give at least one seed.")
        require(goals.ndim == 2 and len(goals) == len(seeds), "Give a row of goals for each seed.")
        require(goals.shape[1] >= 1 and max_steps >= 1, "An episode and a step are the least.")
        self.world, self.goals, self.max_steps, self.draws = world, goals, max_steps, draws
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.row = np.arange(len(seeds))
        self.episode = np.zeros(len(seeds), int)
        self.time = np.zeros(len(seeds), int)
        self.steps = np.zeros(goals.shape, int)
        self.goal = goals[:, 0].copy()
        self._draw_block()
        self.state = start_states(self._start[0], self.goal, world.states)

    def _draw_block(self) -> None:
        shape = (self.BLOCK, self.draws + 2)
        numbers = np.stack([self.generators[row].random(shape) for row in self.row], -1)
        self._agent, self._start = numbers[:, :-2], numbers[:, -2]
        self._slip = slips(numbers[:, -1], self.world.slip, self.world.actions)
        self._place = 0

    @property
    def uniform(self) -> np.ndarray:
        """The agent's uniform numbers of this step, (draws, N)."""
        return self._agent[self._place]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next states, terminated (at the goal, reward 1), truncated (out of steps), (N,) each."""
        after, terminated = self.world.step(self.state, action, self._slip[self._place], self.goal)
        self.time += 1
        return after, terminated, ~terminated & (self.time == self.max_steps)

    def go_on(self, after: np.ndarray, over: np.ndarray) -> np.ndarray | None:
        """Take the next states; where the episode is over, begin another.

        Returns None while all stay, and (N,) bool where some have had their last episode; an agent
        that keeps something for each run picks it out with that.
        """
        self.state, stays = after, None
        if over.any():
            ended = np.flatnonzero(over)
            self.steps[self.row[ended], self.episode[ended]] = self.time[ended]
            self.episode[ended] += 1
            self.time[ended] = 0
            if (self.episode[ended] == self.goals.shape[1]).any():
                stays = self.episode < self.goals.shape[1]
                kept = (self.row, self.state, self.episode, self.time, self.goal, over)
                self.row, self.state, self.episode, self.time, self.goal, over = (
                    each[stays] for each in kept
                )
                blocks = (self._agent, self._start, self._slip)
                self._agent, self._start, self._slip = (each[..., stays] for each in blocks)
                ended = np.flatnonzero(over)
            self.goal[ended] = self.goals[self.row[ended], self.episode[ended]]
            draw = self._start[self._place, ended]
            self.state[ended] = start_states(draw, self.goal[ended], self.world.states)
        self._place += 1
        if self._place == self.BLOCK and self.row.size:
            self._draw_block()
        return stays
