"""A grid with teleports: a move with several far outcomes, drawn in NumPy.

`mbta/TeleportGrid-v0` takes a number as action, `mbta/TeleportChoices-v0` a one-hot vector, as the
agents of Part III give it. What happens is known exactly: `transition_table`, and from it the best
possible prediction (`outcome_entropy`) and the best possible play (`optimal_values`).
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import SyncVectorEnv

from mbta_helpers.latent.replay import SequenceReplay, Sequences

# Wall #, pad o, exit x, goal G. The goal's chamber has no door: one exit lies inside.
LAYOUT = (
    "x......x",
    ".o.oo.o.",
    "........",
    ".o..o.o.",
    "....####",
    ".o.o#x..",
    "....#...",
    "x.o.#..G",
)
MAP = np.array([list(row) for row in LAYOUT])
SIDE = len(LAYOUT)
CELLS = SIDE * SIDE
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])  # up, down, left, right: (row, column)
EXITS = np.flatnonzero(MAP == "x")
GOAL = int(np.flatnonzero(MAP == "G")[0])
STARTS = np.flatnonzero((MAP == ".") & ((np.arange(SIDE) < 5) | (np.arange(SIDE)[:, None] < 5)))
PIXELS = 2  # of a cell's side in a picture
STEPS = 50  # actions in an episode


def transition_table() -> np.ndarray:
    """p(s'|s, a), (CELLS, 4, CELLS): walls and edges stop, a pad leads to each exit alike."""
    table = np.zeros((CELLS, len(MOVES), CELLS))
    for cell in range(CELLS):
        for action, move in enumerate(MOVES):
            row, column = place = np.array(divmod(cell, SIDE)) + move
            blocked = (place < 0).any() or (place >= SIDE).any() or MAP[row, column] == "#"
            target = cell if blocked else row * SIDE + column
            on_pad = MAP.flat[target] == "o"
            table[cell, action, EXITS if on_pad else target] = 1 / len(EXITS) if on_pad else 1.0
    return table


def outcome_entropy(table: np.ndarray) -> np.ndarray:
    """Entropy of p(s'|s, a) in nats, (CELLS, 4): no prediction scores more than minus it."""
    logs = np.log(np.where(table > 0, table, 1.0))
    return -(table * logs).sum(-1)


def optimal_values(table: np.ndarray, discount: float, sweeps: int = 1000) -> np.ndarray:
    """V*(s), (CELLS,), by value iteration: 1 for arriving at the goal, where the episode ends."""
    arrived = np.arange(CELLS) == GOAL
    value = np.zeros(CELLS)
    for _ in range(sweeps):
        value = (table @ (arrived + discount * ~arrived * value)).max(-1)
    return value


def draw_agent(cell: np.ndarray) -> np.ndarray:
    """Pictures that are 1 in the agent's cell and 0 elsewhere; (...) to (..., 16, 16)."""
    cells = np.eye(CELLS, dtype=np.float32)[cell].reshape(*np.shape(cell), SIDE, SIDE)
    return cells.repeat(PIXELS, -2).repeat(PIXELS, -1)


class TeleportGrid(gym.Env):
    """Walk to the goal; who steps on a pad comes out at one of the exits, drawn at random.

    The observation is a picture of the agent alone, (16, 16): the rest never changes. Reward 1
    for arriving at the goal, which ends the episode; truncated after STEPS actions.
    """

    observation_space = Box(0.0, 1.0, (SIDE * PIXELS,) * 2, np.float32)
    action_space = Discrete(len(MOVES))
    table = transition_table()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = int(self.np_random.choice(STARTS))
        return draw_agent(self.cell), {}

    def step(self, action):
        self.cell = int(self.np_random.choice(CELLS, p=self.table[self.cell, int(action)]))
        arrived = self.cell == GOAL
        return draw_agent(self.cell), float(arrived), arrived, False, {}


class OneHotActions(gym.ActionWrapper):
    """Actions as one-hot vectors, (A,), instead of numbers."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.action_space = Box(0.0, 1.0, (int(env.action_space.n),), np.float32)

    def action(self, action):
        return int(np.argmax(action))


gym.register("mbta/TeleportGrid-v0", entry_point=TeleportGrid, max_episode_steps=STEPS)
gym.register(
    "mbta/TeleportChoices-v0",
    entry_point=lambda: OneHotActions(TeleportGrid()),
    max_episode_steps=STEPS,
)


def environments(count: int) -> SyncVectorEnv:
    """Grids side by side, for agents whose actions are one-hot."""
    return SyncVectorEnv([lambda: gym.make("mbta/TeleportChoices-v0")] * count)


def arrivals(cells: np.ndarray) -> SequenceReplay:
    """A single row: agents that have just come out in given cells, (N,), as starts of episodes."""
    count = len(cells)
    zeros, ones = torch.zeros(count), torch.ones(count)
    replay = SequenceReplay(2, count, (SIDE * PIXELS,) * 2, len(MOVES))
    pictures = torch.from_numpy(draw_agent(cells))
    replay.add(Sequences(pictures, torch.zeros(count, len(MOVES)), zeros, ones, zeros))
    return replay


def entropies(batch: Sequences) -> torch.Tensor:
    """Entropy of what followed each row but the last, (B, T − 1); NaN where an episode starts."""
    cells = batch.observation[..., ::PIXELS, ::PIXELS].flatten(-2).argmax(-1)  # (B, T)
    entropy = torch.from_numpy(outcome_entropy(transition_table()))
    known = entropy[cells[:, :-1], batch.action[:, 1:].argmax(-1)]
    return known.masked_fill(batch.is_first[:, 1:] > 0, torch.nan)


def shows_one_of(pictures: torch.Tensor, cells: np.ndarray, tolerance: float = 0.1) -> float:
    """Share of pictures (n, 16, 16) that show the agent in one of the cells, and nothing else."""
    distance = (pictures[:, None] - torch.from_numpy(draw_agent(cells))).abs()
    return (distance.amax((-2, -1)) < tolerance).any(1).float().mean().item()
