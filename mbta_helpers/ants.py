"""The ant: its geometry and symmetry, batches of them in MuJoCo, and a trained controller.

The body is that of AntMaze_*-v4: four legs of hip and ankle around a torso. Its state of 29 numbers
is MuJoCo's qpos and qvel: x, y, then the 27 of the environment's `observation`.

    0:2 x, y   2 height   3:7 quaternion (w, x, y, z)   7:15 joints   15:18 velocity (world)
    18:21 angular velocity (body)   21:29 joints' velocities

Turned by a quarter, the ant is the same ant with its legs renamed. So the controller only ever
walks forward: the leg pair nearest the target is called the front (the quadrant), and features and
torques are those of the ant with its legs renamed from there. Legs are counted counter-clockwise
from front left, and an ankle's angle is counted positive as it bends down: MuJoCo's model
has it so for legs 0 and 3 only.

Symbols: N ants.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mujoco
import numpy as np
import torch
from torch import Tensor, nn

from mbta_helpers.checkpoints import load_checkpoint
from mbta_helpers.errors import UserError, require
from mbta_helpers.mazes import gym

STATE_DIM = 29
ACTION_DIM = 8
FEATURE_DIM = 29
OWN_FRAME = 7  # numbers of `own_frame`
FRAME_SKIP = 5  # steps of 0.01 s of the simulator to one of the environment
STEP_SECONDS = 0.05
START_HEIGHT = 0.75
KEEP_QUADRANT = np.deg2rad(60.0)  # the front stays while the target lies within this of it
FAR = 4.0  # a target further away than this looks as far as this
NEAR = 0.5  # inside this the direction shrinks, so that it does not jump at the target
CONTROLLER = Path(__file__).parent / "parameters" / "ant-controller" / "model.safetensors"
KIND = "ant controller"

_DOWN = np.array([1.0, -1.0, -1.0, 1.0])  # sign of each ankle that bends it down
_LEGS = np.arange(4)
# Mirrored at the plane of x and z, left legs become right ones and hips turn the other way.
_MIRRORED_LEGS = np.array([6, 7, 4, 5, 2, 3, 0, 1])
_MIRRORED_SIGNS = np.tile([-1.0, 1.0], 4)
_FEATURE_ORDER = np.r_[np.arange(10), 10 + _MIRRORED_LEGS, 18 + _MIRRORED_LEGS, 26:29]
_FEATURE_SIGNS = np.r_[
    1, 1, -1, 1, 1, -1, 1, -1, 1, -1, _MIRRORED_SIGNS, _MIRRORED_SIGNS, 1, -1, 1
].astype(float)
# What brings velocities to the order of one.
_VELOCITY, _ANGULAR, _JOINT_VELOCITY = 0.5, 0.2, 0.1


# -- geometry -----------------------------------------------------------------------------------


def check_states(states: np.ndarray) -> np.ndarray:
    """States of N ants as float64, (N, 29); UserError where they are something else."""
    states = np.asarray(states, dtype=float)
    require(
        states.ndim == 2 and states.shape[1] == STATE_DIM,
        f"States of ants have the shape (N, {STATE_DIM}): x, y and the 27 numbers of AntMaze v4's "
        f"observation. This has {states.shape}.",
    )
    return states


def rotate(vectors: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Turn the first two components of vectors, (N, 2 or 3), by angles, (N,)."""
    cos, sin = np.cos(angles), np.sin(angles)
    turned = np.array(vectors, dtype=float)
    turned[:, 0] = cos * vectors[:, 0] - sin * vectors[:, 1]
    turned[:, 1] = sin * vectors[:, 0] + cos * vectors[:, 1]
    return turned


def yaw(states: np.ndarray) -> np.ndarray:
    """The turn about the vertical, (N,): what is left of the attitude without its tilt.

    2 atan2(z, w) of the quaternion (its twist) grows by exactly the angle by which the world or
    the names of the legs are turned, however the body is tilted.
    """
    return 2 * np.arctan2(states[:, 6], states[:, 3])


def up_vector(states: np.ndarray) -> np.ndarray:
    """The torso's own vertical in the world, (N, 3); its last component is 1 upright."""
    w, x, y, z = states[:, 3:7].T
    return np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)


def own_frame(states: Tensor) -> Tensor:
    """What an ant sees of itself along its heading: (..., 29) to (..., 7).

    Its up-vector (3), turned back by the yaw, the yaw's cosine and sine, and half its horizontal
    velocity (2), turned likewise.
    """
    heading, flat, upright = _posture(states)
    up, velocity = _turned(flat, heading[..., None, :]).unbind(-2)
    return torch.cat([up, upright, heading, velocity], -1)


def _posture(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The heading's cosine and sine, (..., 2); the tilt and half the velocity on the map,
    (..., 2, 2); the upright part of the up-vector, (..., 1). states: (..., 29).
    """
    w, x, y, z = states[..., 3:7].unbind(-1)
    length = (w.square() + z.square()).clamp_min(1e-6)
    heading = torch.stack([(w.square() - z.square()) / length, 2 * w * z / length], -1)
    up = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x)], -1)
    flat = torch.stack([up, _VELOCITY * states[..., 15:17]], -2)
    return heading, flat, (1 - 2 * (x.square() + y.square()))[..., None]


def _turned(vectors: Tensor, direction: Tensor) -> Tensor:
    """Vectors as seen by who looks along a direction, its cosine and sine; (..., 2) each."""
    (a, b), (cos, sin) = vectors.unbind(-1), direction.unbind(-1)
    return torch.stack([cos * a + sin * b, cos * b - sin * a], -1)


LED_FRAME = 28  # numbers of `led_frame` for the ant itself
_QUARTERS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
_BENDS_DOWN = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, -1.0], [1.0, 1.0]])  # as _DOWN


def lead_fronts(states: Tensor, lead: Tensor) -> Tensor:
    """Which side each ant calls its front, that nearest the lead: (...) integers in 0 to 3.

    `quadrants` for tensors, without a memory. states: (..., 29); lead: (..., 2), a direction on
    the map.
    """
    yaw = 2 * torch.atan2(states[..., 6], states[..., 3])
    bearing = torch.atan2(lead[..., 1], lead[..., 0]) - yaw
    return torch.round(bearing / (math.pi / 2)).long() % 4


def led_frame(states: Tensor, vectors: Tensor, front: Tensor) -> Tensor:
    """What an ant sees of itself and of vectors on the map along its front: (..., 28 + 2 V).

    Nothing of it but the cosine and sine of the front's direction changes where the world is
    turned, and nothing at all where the legs are renamed with their front. Not its place.
    states: (..., 29); vectors: (..., V, 2); front: (...) of `lead_fronts`.
    """
    heading, flat, upright = _posture(states)
    quarter = _QUARTERS.to(states)[front]  # (..., 2), cosine and sine
    facing = _turned(quarter, heading * heading.new_tensor([1.0, -1.0]))
    flat = _turned(torch.cat([flat, vectors], -2), facing[..., None, :])  # (..., 2 + V, 2)
    seen = (
        flat.flatten(-2),
        upright,
        facing,
        states[..., 2:3],
        _ANGULAR * _turned(states[..., 18:20], quarter),
        _VELOCITY * states[..., 17:18],
        _ANGULAR * states[..., 20:21],
        _renamed(states[..., 7:15], front),
        _JOINT_VELOCITY * _renamed(states[..., 21:29], front),
    )
    return torch.cat(seen, -1)


def led_torques(actions: Tensor, front: Tensor) -> Tensor:
    """`torques` for tensors: (..., 8) of ants that look along their front, in MuJoCo's order."""
    legs = _from_leg(actions.unflatten(-1, (4, 2)), -front) * _BENDS_DOWN.to(actions)
    return legs.roll(1, -2).flatten(-2)


def _renamed(joints: Tensor, front: Tensor) -> Tensor:
    """`_rename_legs` for tensors: (..., 8) and (...) to (..., 8)."""
    return _from_leg(joints.unflatten(-1, (4, 2)) * _BENDS_DOWN.to(joints), front).flatten(-2)


def _from_leg(legs: Tensor, first: Tensor) -> Tensor:
    """Legs counted from another one, (..., 4, 2); first: (...)."""
    order = (torch.arange(4, device=first.device) + first[..., None]) % 4  # (..., 4)
    return legs.gather(-2, order[..., None].expand(legs.shape))


def flipped(states: np.ndarray) -> np.ndarray:
    """Whether ants lie on their back, (N,) bool: they cannot get up from there."""
    return up_vector(states)[:, 2] < 0.0


def quadrants(
    states: np.ndarray, targets: np.ndarray, before: np.ndarray | None = None
) -> np.ndarray:
    """Which side each ant calls its front, (N,) int in 0 to 3: counter-clockwise quarter turns.

    The side nearest the target, or the one of `before`, (N,), as long as the target lies within
    60° of it: a target at 45° does not make the ant hesitate between two fronts.
    """
    offset = targets - states[:, :2]
    bearing = np.arctan2(offset[:, 1], offset[:, 0]) - yaw(states)
    nearest = np.rint(bearing / (np.pi / 2)).astype(int) % 4
    if before is None:
        return nearest
    away = (bearing - before * (np.pi / 2) + np.pi) % (2 * np.pi) - np.pi
    return np.where(np.abs(away) <= KEEP_QUADRANT, before, nearest)


def features(states: np.ndarray, targets: np.ndarray, front: np.ndarray) -> np.ndarray:
    """What the controller sees, (N, 29) float32.

    Height, up-vector, velocity, angular velocity, joints, their velocities, direction to the
    target, min(distance, 4)/4: all as seen by the ant that looks along its front.
    states: (N, 29). targets: (N, 2). front: (N,) of `quadrants`.
    """
    quarter = front * (np.pi / 2)
    facing = -(yaw(states) + quarter)
    offset = targets - states[:, :2]
    distance = np.hypot(offset[:, 0], offset[:, 1])[:, None]  # (N, 1)
    seen = (
        states[:, 2:3],
        rotate(up_vector(states), facing),
        _VELOCITY * rotate(states[:, 15:18], facing),
        _ANGULAR * rotate(states[:, 18:21], -quarter),
        _rename_legs(states[:, 7:15], front),
        _JOINT_VELOCITY * _rename_legs(states[:, 21:29], front),
        rotate(offset / np.maximum(distance, NEAR), facing),
        np.minimum(distance, FAR) / FAR,
    )
    return np.concatenate(seen, axis=1).astype(np.float32)


def _rename_legs(joints: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Joints in MuJoCo's order to those of the ant that looks along its front, (N, 8)."""
    legs = joints.reshape(-1, 4, 2) * np.stack([np.ones(4), _DOWN], axis=1)
    order = (_LEGS + front[:, None]) % 4  # (N, 4)
    return np.take_along_axis(legs, order[..., None], axis=1).reshape(-1, ACTION_DIM)


def torques(actions: np.ndarray, front: np.ndarray) -> np.ndarray:
    """The actions of ants that look along their front, (N, 8), in the environment's order."""
    order = (_LEGS - front[:, None]) % 4  # (N, 4)
    legs = np.take_along_axis(actions.reshape(-1, 4, 2), order[..., None], axis=1)
    legs = legs * np.stack([np.ones(4), _DOWN], axis=1)
    return np.roll(legs, 1, axis=1).reshape(-1, ACTION_DIM)  # the last leg has the first motor


def beyond(states: np.ndarray, targets: np.ndarray, distance: float = 0.8) -> np.ndarray:
    """Targets moved straight away from the ants until they are at least that far, (N, 2).

    Without noise in its actions, the trained ant can come to rest 0.45 to 0.65 short of a target.
    An ant that is shown this point instead walks through the target.
    """
    offset = targets - states[:, :2]
    near = np.hypot(offset[:, 0], offset[:, 1])[:, None]
    return states[:, :2] + offset * np.maximum(1.0, distance / np.maximum(near, 1e-6))


def mirror_features(seen: Tensor) -> Tensor:
    """Features of the ant in a mirror that stands along its front, (..., 29)."""
    return seen[..., _FEATURE_ORDER] * torch.as_tensor(_FEATURE_SIGNS, dtype=seen.dtype)


def mirror_actions(actions: Tensor) -> Tensor:
    """Actions of the ant in that mirror, (..., 8)."""
    return actions[..., _MIRRORED_LEGS] * torch.as_tensor(_MIRRORED_SIGNS, dtype=actions.dtype)


# -- the simulator ------------------------------------------------------------------------------


def world(env_id: str = "AntMaze_Medium-v4", open_field: bool = False) -> mujoco.MjModel:
    """MuJoCo's model of the ant in that environment's maze, or without walls."""
    options = {"maze_map": [[0, 0], [0, 0]]} if open_field else {}
    with warnings.catch_warnings():
        # v4 is what D4RL's data was made in; gymnasium would have one use v5.
        warnings.simplefilter("ignore", DeprecationWarning)
        env = gym.make(env_id, **options)
    model = env.unwrapped.ant_env.model
    env.close()
    Path(env.unwrapped.tmp_xml_file_path).unlink(missing_ok=True)  # the environment leaves it
    return model


class Ants:
    """N ants, each alone in the same world, stepped as the environment steps one.

    threads: of the processor that step them; the numbers do not depend on it.
    """

    def __init__(self, model: mujoco.MjModel, count: int, threads: int = 1):
        require(count >= 1, f"The number of ants must be at least 1, not {count}.")
        self.model = model
        self.data = [mujoco.MjData(model) for _ in range(count)]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def states(self) -> np.ndarray:
        """(N, 29)."""
        return np.stack([self.state(index) for index in range(len(self))])

    def state(self, index: int) -> np.ndarray:
        """Of one ant, (29,)."""
        return np.concatenate([self.data[index].qpos, self.data[index].qvel])

    def place(self, index: int, state: np.ndarray) -> None:
        """Put one ant into a state, (29,), with nothing left of what it did before."""
        data = self.data[index]
        mujoco.mj_resetData(self.model, data)
        data.qpos[:], data.qvel[:] = state[:15], state[15:]
        mujoco.mj_forward(self.model, data)

    def push(self, kicks: np.ndarray) -> None:
        """Add to the torsos' velocities and angular velocities, (N, 6)."""
        for data, kick in zip(self.data, kicks, strict=True):
            data.qvel[:6] += kick

    def step(self, actions: np.ndarray, rows: Iterable[int] | None = None) -> np.ndarray:
        """Apply torques in [−1, 1] for one step: to all ants, (N, 8), or to those of rows.

        Returns their states, (N, 29) or (rows, 29).
        """
        rows = range(len(self)) if rows is None else rows
        mapped = map if self._pool is None else self._pool.map
        return np.stack(list(mapped(self._step_one, rows, actions)))

    def _step_one(self, index: int, action: np.ndarray) -> np.ndarray:
        self.data[index].ctrl[:] = action
        mujoco.mj_step(self.model, self.data[index], FRAME_SKIP)  # other threads may run
        return self.state(index)


def standing(xy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The state of an ant dropped at a point with a random heading, (29,), else as on a reset."""
    state = np.zeros(STATE_DIM)
    heading = rng.uniform(-np.pi, np.pi)
    state[:3] = *xy, START_HEIGHT
    state[3:7] = np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2)
    state[7:15] = rng.uniform(-0.1, 0.1, ACTION_DIM)
    state[15:] = 0.1 * rng.standard_normal(STATE_DIM - 15)
    return state


# -- the controller -----------------------------------------------------------------------------


class AntController(nn.Module):
    """Features to actions in [−1, 1]: the mean of the policy that was trained."""

    def __init__(self, hidden: int = 128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURE_DIM, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, ACTION_DIM),
        )

    def forward(self, seen: Tensor) -> Tensor:
        """Actions of ants that look along their front, (..., 8), for their features, (..., 29)."""
        return self.layers(seen).tanh()


class Walkers:
    """Walks N ants to their targets; remembers which side each calls its front.

    walkers = Walkers(load_controller(), count)
    actions = walkers.act(states, targets)      # every step
    walkers.forget(index)                       # where an ant starts anew
    """

    def __init__(self, controller: nn.Module, count: int):
        self.controller = controller
        self.front = np.full(count, -1)  # −1: none yet

    def forget(self, which: np.ndarray | int | slice = slice(None)) -> None:
        """Ants that were put somewhere else choose their front anew."""
        self.front[which] = -1

    def look(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Features of the ants, (N, 29), after each has chosen or kept its front."""
        states = check_states(states)
        targets = np.asarray(targets, dtype=float)
        require(
            len(states) == len(self.front) and targets.shape == (len(states), 2),
            f"{len(self.front)} ants walk; states of {len(states)} and targets of shape "
            f"{targets.shape} were given.",
        )
        kept = quadrants(states, targets, self.front)
        self.front = np.where(self.front < 0, quadrants(states, targets), kept)
        return features(states, targets, self.front)

    @torch.no_grad()
    def act(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Torques in the environment's order, (N, 8): states (N, 29), targets (N, 2)."""
        seen = torch.from_numpy(self.look(states, targets))
        return torques(self.controller(seen).numpy(), self.front)


def load_controller(path: Path = CONTROLLER) -> AntController:
    """The controller that is shipped, or another file's; UserError says what is wrong with it."""
    require(
        path.is_file(),
        f"There is no trained ant controller at {path}. "
        "Train one: python scripts/ant_controller.py train (about an hour of one core).",
    )
    checkpoint = load_checkpoint(path, KIND)
    try:
        controller = AntController(checkpoint.config["hidden"])
        controller.load_state_dict(checkpoint.tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} does not fit the controller's networks: {error}.") from error
    return controller.requires_grad_(False).eval()
