"""Falling stones: a player at the foot of a small picture, at whom stones are thrown. Stay alive.

The game of chapter 14, with the rules that Ha and Schmidhuber (2018) took from Doom: each step pays
1, and a hit is the end. Many games run side by side. A stone flies straight to where the player
stood when it was thrown, so one picture does not tell where it will land, and two do.

Symbols: N games side by side.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from mbta_helpers.errors import require

ENV_ID = "mbta/Stones-v0"
SIDE = 16  # of a picture, in pixels
MAX_STEPS = 100
MOVES = np.array([-1, 0, 1])  # of the actions: left, stay, right
HANDS = np.array([2.0, 7.5, 13.0])  # columns from which stones are thrown, one at a time
THROW = 0.3  # the chance of a throw at each step with no stone in the air
FALL = 1.5  # pixels a step
REACH = 2.0  # a stone that comes nearer than this to the player's middle is a hit
FOOT = SIDE - 2  # the player's row
BLUR = 1.0  # of a stone, in pixels


class Stones:
    """N games side by side; after a hit a game goes on, and whoever plays it looks away.

    player: (N,), columns. place: (N, 2), rows and columns of stones. drift: (N,), columns a step.
    falling: (N,), whether there is a stone in the air.
    """

    def __init__(self, count: int, rng: np.random.Generator):
        require(count >= 1, f"At least one game is played, not {count}.")
        self.rng = rng
        self.player = rng.integers(1, SIDE - 1, count)
        self.place = np.zeros((count, 2))
        self.drift = np.zeros(count)
        self.falling = np.zeros(count, bool)

    def step(self, action: np.ndarray) -> np.ndarray:
        """Move players and stones, then throw; action: (N,). Returns who was hit, (N,)."""
        self.player = np.clip(self.player + MOVES[action], 1, SIDE - 2)
        self.place += np.stack([np.full(len(self.drift), FALL), self.drift], 1)
        low = self.falling & (self.place[:, 0] >= FOOT - 1)
        hit = low & (np.abs(self.place[:, 1] - self.player) < REACH)
        self.falling &= self.place[:, 0] < SIDE - 1
        self._throw()
        return hit

    def _throw(self) -> None:
        """New stones from the top, aimed at where the players are now."""
        count = len(self.player)
        thrown = ~self.falling & (self.rng.random(count) < THROW)
        column = self.rng.choice(HANDS, count)
        aim = self.player + self.rng.uniform(-1, 1, count)
        self.place[thrown] = np.stack([np.zeros(count), column], 1)[thrown]
        self.drift[thrown] = ((aim - column) * FALL / FOOT)[thrown]
        self.falling |= thrown

    def pictures(self) -> np.ndarray:
        """What is seen, (N, SIDE, SIDE) from 0 to 1: a round stone, and a player, who is wider."""
        stone = bump(self.place[:, 0], BLUR)[:, :, None] * bump(self.place[:, 1], BLUR)[:, None]
        foot = bump(np.full(len(self.player), FOOT), BLUR)
        player = foot[:, :, None] * bump(self.player, 1.5 * BLUR)[:, None]
        seen = player + stone * self.falling[:, None, None]
        return seen.clip(max=1).astype(np.float32)


def bump(centre: np.ndarray, width: float) -> np.ndarray:
    """A row of pixels, brightest at each centre; (N,) to (N, SIDE)."""
    return np.exp(-0.5 * ((np.arange(SIDE) - centre[:, None]) / width) ** 2)


# -- one game at a time, for gymnasium ------------------------------------------------------------


class StonesEnv(gym.Env):
    """The game for one player; the time limit is that of the registration."""

    metadata = {"render_modes": []}  # noqa: RUF012 gymnasium's way

    def __init__(self):
        self.observation_space = gym.spaces.Box(0.0, 1.0, (SIDE, SIDE), np.float32)
        self.action_space = gym.spaces.Discrete(len(MOVES))

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.games = Stones(1, self.np_random)
        return self.games.pictures()[0], {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        hit = bool(self.games.step(np.array([action]))[0])
        return self.games.pictures()[0], 1.0, hit, False, {}


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point=StonesEnv, max_episode_steps=MAX_STEPS)
