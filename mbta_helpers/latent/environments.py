"""Small tasks for latent world models, drawn in NumPy and registered with gymnasium.

`mbta/PointTask-v0` shows numbers, `mbta/PointPictures-v0` pictures of the same task, and
`mbta/Pendulum-v0` is gymnasium's pendulum with actions in [−1, 1], each held for two steps.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

STEPS = 50  # decisions in an episode of the point's task
DRAG, PUSH = 0.8, 0.04  # v' = DRAG v + PUSH a, p' = p + v': at most 0.2 a step
SIDE = 16  # pixels of a picture's side
BLOB = 0.9  # standard deviation of a drawn spot, in pixels
HELD = 2  # steps of the pendulum for which an action is held


class PointTask(gym.Env):
    """A point with inertia in [−1, 1]² is pushed to a goal; the reward is minus its distance.

    The observation is position, velocity in units of its bound and goal, (6,); the action a push
    in [−1, 1]². Walls stop the point. An episode is truncated after STEPS decisions.
    """

    observation_space = Box(-1.0, 1.0, (6,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-0.9, 0.9, (2, 2))
        self.velocity = np.zeros(2)
        return self.observe(), {}

    def step(self, action):
        push = np.clip(np.asarray(action, float), -1, 1)
        self.velocity = DRAG * self.velocity + PUSH * push
        wanted = self.position + self.velocity
        self.position = np.clip(wanted, -1, 1)
        self.velocity[self.position != wanted] = 0.0
        distance = float(np.linalg.norm(self.position - self.goal))
        return self.observe(), -distance, False, False, {}

    def observe(self) -> np.ndarray:
        fastest = PUSH / (1 - DRAG)
        parts = (self.position, self.velocity / fastest, self.goal)
        return np.concatenate(parts).astype(np.float32)


class PointPictures(PointTask):
    """The same task seen in a picture, (SIDE, SIDE) in [0, 1]: the goal grey, the point white.

    A single picture does not show the velocity.
    """

    observation_space = Box(0.0, 1.0, (SIDE, SIDE), np.float32)

    def observe(self) -> np.ndarray:
        return draw_spots(np.stack([self.goal, self.position]), np.array([0.5, 1.0]))


def draw_spots(places: np.ndarray, brightness: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Soft spots on black, (..., side, side); places: (..., n, 2) in [−1, 1]², x right, y up.

    brightness: (n,). Where spots overlap the brighter one is seen.
    """
    centres = (np.asarray(places) + 1) / 2 * (side - 1)  # (..., n, 2)
    pixels = np.arange(side)
    across = np.exp(-0.5 * ((pixels - centres[..., :1]) / BLOB) ** 2)  # (..., n, side)
    down = np.exp(-0.5 * ((pixels[::-1] - centres[..., 1:]) / BLOB) ** 2)
    spots = down[..., :, None] * across[..., None, :]  # (..., n, side, side)
    return (brightness[:, None, None] * spots).max(-3).astype(np.float32)


def constant_gain(observation: np.ndarray, position_gain: float, velocity_gain: float):
    """a = clip(k_p (goal − position) − k_v velocity); observation: (..., 6) of `PointTask`."""
    position, velocity, goal = np.split(np.asarray(observation), 3, -1)
    return np.clip(position_gain * (goal - position) - velocity_gain * velocity, -1, 1)


class HeldAction(gym.Wrapper):
    """Each action is held for `count` steps; the rewards are added."""

    def __init__(self, env: gym.Env, count: int):
        super().__init__(env)
        self.count = count

    def step(self, action):
        total = 0.0
        for _ in range(self.count):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


def pendulum() -> gym.Env:
    """Pendulum-v1 with actions in [−1, 1], held for HELD steps: 100 decisions an episode."""
    env = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1))
    return HeldAction(env, HELD)


gym.register("mbta/PointTask-v0", entry_point=PointTask, max_episode_steps=STEPS)
gym.register("mbta/PointPictures-v0", entry_point=PointPictures, max_episode_steps=STEPS)
gym.register("mbta/Pendulum-v0", entry_point=pendulum)
