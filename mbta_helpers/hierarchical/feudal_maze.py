"""Feudal Q-learning: a maze cut into quarters of quarters, and a manager for each of them.

Dayan and Hinton (1993), "Feudal Reinforcement Learning". Level 0 is the whole maze; an area of
level ℓ has four areas of level ℓ + 1; the areas of the last level M are the cells. At each level
the agent carries out a command: go north, south, west or east into the next area, or * (search
for the goal inside the area). All seeds learn side by side, each in its own row.

Symbols: S seeds, N cells, A areas of a level, C = 5 commands.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mbta_helpers.errors import require

NORTH, SOUTH, WEST, EAST, SEARCH = range(5)
COMMANDS = 5
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])  # rows and columns, of NORTH … EAST


@dataclass(frozen=True)
class GridMaze:
    """Cells of a square, some blocked; a cell is its number, row · side + column.

    free: (side, side) bool.
    """

    free: np.ndarray

    def __post_init__(self):
        side = len(self.free)
        require(
            self.free.shape == (side, side) and side >= 2 and side & (side - 1) == 0,
            f"A maze of quarters is a square with side 2, 4, 8, …, not {self.free.shape}.",
        )
        require(self.free.sum() >= 2, "A maze has at least two free cells.")

    @property
    def side(self) -> int:
        """Cells along one side."""
        return len(self.free)

    @property
    def depth(self) -> int:
        """M, the level whose areas are the cells."""
        return self.side.bit_length() - 1

    @property
    def cells(self) -> np.ndarray:
        """The numbers of the free cells."""
        return np.flatnonzero(self.free)

    def number(self, row: int, column: int) -> int:
        """The number of a free cell."""
        inside = 0 <= row < self.side and 0 <= column < self.side
        require(inside and self.free[row, column], f"({row}, {column}) is no free cell.")
        return row * self.side + column

    def areas(self, level: int) -> np.ndarray:
        """The area of a level in which each cell lies, (N,)."""
        row, column = np.divmod(np.arange(self.side**2), self.side)
        shift = self.depth - level
        return (row >> shift << level) + (column >> shift)

    def steps(self) -> np.ndarray:
        """Where each move leads from each cell, (N, 4); into or out of a wall it leads nowhere."""
        row, column = np.divmod(np.arange(self.side**2), self.side)
        after = np.stack([row, column], 1)[:, None] + MOVES  # (N, 4, 2)
        inside = ((after >= 0) & (after < self.side)).all(-1)
        number = np.where(inside, after[..., 0] * self.side + after[..., 1], 0)
        free = self.free.ravel()
        stays = ~inside | ~free[number] | ~free[:, None]
        return np.where(stays, np.arange(self.side**2)[:, None], number)

    def distances(self, goal: int) -> np.ndarray:
        """Moves from each cell to the goal on a shortest path, (N,); −1 where there is none."""
        require(
            goal in self.cells,
            f"Cell {goal} is no free cell. A goal is one of maze.cells: maze.number(row, column).",
        )
        steps, found, queue = self.steps(), np.full(self.side**2, -1), deque([goal])
        found[goal] = 0
        while queue:
            cell = queue.popleft()
            for before in np.flatnonzero((steps == cell).any(1) & (found < 0)):
                found[before] = found[cell] + 1
                queue.append(before)
        return found


def u_maze(side: int = 16) -> GridMaze:
    """A U-shaped barrier in an open square, as in the paper's figure 1."""
    require(side >= 8, f"The barrier needs a side of at least 8, not {side}.")
    free = np.ones((side, side), bool)
    low, high = side // 4, side - side // 4 - 1
    free[low : high + 1, [low, high]] = False
    free[high, low : high + 1] = False
    return GridMaze(free)


@dataclass(frozen=True)
class FeudalConfig:
    """How to learn.

    levels: the levels that choose, below level 0, which always says *. None is all of 1 … M;
    (M,) is flat Q-learning.
    rate: α. gamma: γ, for each decision of a level. temperature: of the softmax over Q.
    initial: of all values Q; above what is earned, it makes every command worth a try.
    patience: decisions of the next finer level after which a command is given up.
    all_commands: learn from a decision what it is worth under each command from above, and not
    only under the one that was given. The paper learns about the one.
    hide_rewards: pay a level for carrying out its command, and not for the goal.
    """

    levels: tuple[int, ...] | None = None
    rate: float = 1.0
    gamma: float = 0.85
    temperature: float = 0.005
    initial: float = 0.1
    patience: int = 3
    all_commands: bool = True
    hide_rewards: bool = True

    def __post_init__(self):
        require(0 < self.rate <= 1, f"rate lies in (0, 1], not {self.rate}.")
        require(0 < self.gamma < 1, f"gamma lies in (0, 1), not {self.gamma}.")
        require(self.temperature > 0, f"temperature must be positive, not {self.temperature}.")
        require(self.patience >= 2, f"patience is at least 2 decisions, not {self.patience}.")


class Step(NamedTuple):
    """One move of every seed.

    cell, after: (S,), before and after it. move: (S,). hit: (S,), whether it found the goal.
    crossed: (levels, S), whether it left the area of each level.
    """

    cell: np.ndarray
    after: np.ndarray
    move: np.ndarray
    hit: np.ndarray
    crossed: np.ndarray


def carried_out(command: np.ndarray, crossed: np.ndarray, step: Step) -> np.ndarray:
    """Whether a command is carried out by a step: left as told, or found the goal in a search."""
    return np.where(crossed, command == step.move, step.hit & (command == SEARCH))


def learn_level(
    q: np.ndarray, areas: np.ndarray, command: np.ndarray, choice: np.ndarray,
    crossed: np.ndarray, step: Step, learns: np.ndarray, config: FeudalConfig,
) -> None:  # fmt: skip
    """One step of Q-learning at one level, in the rows that learn.

    Q(area, command, choice) moves towards 1 if the step carries out the command, 0 if the command
    fails, and γ max Q(next area, command, ·) while it holds. q: (S, A, C, choices). areas: (N,) of
    this level. command: (S,), from above. choice: (S,), of this level. crossed: (S,), whether the
    step left the commanded area. learns: (S,).
    """
    rows = np.arange(len(q))[:, None]
    command = np.arange(COMMANDS)[None] if config.all_commands else command[:, None]  # (1 or S, ·)
    step = Step(*(each[..., None] for each in step))
    over = crossed[:, None] | step.hit
    reward = carried_out(command, crossed[:, None], step) if config.hide_rewards else step.hit
    future = q[rows, areas[step.after], command].max(-1)
    target = np.where(over, reward, config.gamma * future)  # (S, 1 or C)
    place = (rows, areas[step.cell], command, choice[:, None])
    q[place] += np.where(learns[:, None], config.rate * (target - q[place]), 0.0)


class FeudalAgents:
    """Managers of all levels, for S seeds side by side."""

    def __init__(self, maze: GridMaze, config: FeudalConfig, seeds: int, rng: np.random.Generator):
        require(seeds >= 1, f"There is at least 1 seed, not {seeds}.")
        levels = tuple(range(1, maze.depth + 1)) if config.levels is None else config.levels
        rising = bool(levels) and levels == tuple(sorted(set(levels))) and levels[0] >= 1
        require(
            rising and levels[-1] == maze.depth,
            f"levels rise from at least 1 to {maze.depth}, the level of the cells, not {levels}.",
        )
        self.config, self.rng = config, rng
        self.rows = np.arange(seeds)
        self.steps = maze.steps()
        self.areas = np.stack([maze.areas(level) for level in (0, *levels)])  # (levels, N)
        self.commands = np.full((len(self.areas), seeds), SEARCH)
        self.decisions = np.zeros((len(self.areas), seeds), int)  # since each command was given
        # A cell cannot be searched: the last level has the four moves only.
        choices = [COMMANDS] * (len(levels) - 1) + [len(MOVES)]
        self.q = [
            np.full((seeds, areas.max() + 1, COMMANDS, count), config.initial)
            for areas, count in zip(self.areas[1:], choices, strict=True)
        ]

    def choose(self, cell: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Commands from the top down where the last has ended; the moves at the bottom, (S,).

        cell: (S,). fresh: (levels, S). Softmax over Q: the largest of Q / temperature plus Gumbel
        noise.
        """
        for level, q in enumerate(self.q, 1):
            area = self.areas[level, cell]
            values = q[self.rows, area, self.commands[level - 1]]  # (S, choices)
            noise = self.rng.gumbel(size=values.shape)
            chosen = (values / self.config.temperature + noise).argmax(1)
            self.commands[level] = np.where(fresh[level], chosen, self.commands[level])
        return self.commands[-1]

    def learn(self, cell: np.ndarray, after: np.ndarray, hit: np.ndarray) -> np.ndarray:
        """Q-learning at each level whose command has ended; which have, (levels, S).

        A level learns only where its choice and all that followed from it have been carried out,
        or where its choice is given up.

        cell, after: (S,), before and after the move. hit: (S,), whether that was the goal.
        """
        crossed = self.areas[:, cell] != self.areas[:, after]  # (levels, S)
        step = Step(cell, after, self.commands[-1].copy(), hit, crossed)
        done = carried_out(self.commands, crossed, step)
        over = crossed | hit  # (levels, S): left its area, or found the goal
        over[-1], done[-1] = True, True  # a move is over at once, against a wall too
        given_up = np.zeros_like(over)
        honest = np.ones(len(cell), bool)
        for level in range(len(self.areas) - 1, 0, -1):
            honest &= done[level]
            learns = honest & over[level] | given_up[level]
            above, choice = self.commands[level - 1], self.commands[level]
            learn_level(
                self.q[level - 1], self.areas[level], above, choice,
                crossed[level - 1], step, learns, self.config,
            )  # fmt: skip
            if level > 1:
                self.decisions[level - 1] += over[level] | given_up[level]
                tired = self.decisions[level - 1] >= self.config.patience
                given_up[level - 1] = tired & ~over[level - 1]
        ended = over | given_up  # with a command ends all that followed from it
        self.decisions[ended] = 0
        return ended


class MazeHistory(NamedTuple):
    """Each episode that reached a goal, in order of time; columns of E numbers.

    step: of the agent's life, at the end. seed: whose. length: its steps. shortest: the fewest.
    """

    step: np.ndarray
    seed: np.ndarray
    length: np.ndarray
    shortest: np.ndarray


def live(
    agents: FeudalAgents, maze: GridMaze, goal: int, steps: int, lived: int = 0
) -> MazeHistory:
    """Let S agents live for some steps with one goal; lived: the steps before, in the history.

    An episode starts at a random cell from which there is a way, and ends at the goal. Nobody tells
    the agents where the goal is, nor that it has moved.
    """
    require(steps >= 1, f"There is at least 1 step, not {steps}.")
    far, seeds = maze.distances(goal), len(agents.rows)
    starts = np.flatnonzero(far > 0)
    require(len(starts) >= 1, f"No way leads to cell {goal}: free a cell beside it.")
    cell, born = agents.rng.choice(starts, seeds), np.full(seeds, lived)
    first, fresh = far[cell], np.ones((len(agents.areas), seeds), bool)
    history = [(np.zeros(0, int),) * 4]
    for now in range(lived + 1, lived + steps + 1):
        after = agents.steps[cell, agents.choose(cell, fresh)]
        hit = after == goal
        fresh = agents.learn(cell, after, hit)
        who = np.flatnonzero(hit)
        if len(who):
            history.append((np.full(len(who), now), who, now - born[who], first[who]))
            after[who], born[who] = agents.rng.choice(starts, len(who)), now
            first[who] = far[after[who]]
        cell = after
    return MazeHistory(*map(np.concatenate, zip(*history, strict=True)))


def train_feudal(
    maze: GridMaze, goals: tuple[int, ...], steps: int, config: FeudalConfig, seeds: int, seed: int
) -> tuple[FeudalAgents, MazeHistory]:
    """New agents, S of them, that live for some steps with each goal in turn."""
    require(len(goals) >= 1, "There is at least one goal.")
    agents = FeudalAgents(maze, config, seeds, np.random.default_rng(seed))
    lives = [live(agents, maze, goal, steps, n * steps) for n, goal in enumerate(goals)]
    return agents, MazeHistory(*map(np.concatenate, zip(*lives, strict=True)))
