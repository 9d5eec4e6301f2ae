"""Datasets: play in a maze collected with a waypoint controller, stored by Minari, loaded flat.

A dataset has observations as in D4RL/pointmaze (a dictionary of observation, achieved_goal and
desired_goal) and no reward that training would look at. D4RL's own datasets of the same schema
load the same way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.episode_data import EpisodeData
from minari.storage import get_dataset_path
from tqdm.auto import tqdm

from mbta_helpers import __version__
from mbta_helpers.errors import UserError, require, unknown
from mbta_helpers.mazes import (
    BALL_RADIUS,
    POSITION_NOISE,
    SUCCESS_RADIUS,
    Cell,
    Maze,
    get_maze,
    make_env,
    place,
)


@dataclass(frozen=True)
class Transitions:
    """A dataset as flat arrays: N actions in E episodes, and N + E states.

    states: (N + E, S), each episode's last state included, the map position first.
    actions: (N, A).
    lengths: (E,) actions an episode.
    goals: (E, 2) where the data's controller was heading; looked at, never trained on.
    """

    states: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray
    goals: np.ndarray

    @property
    def action_starts(self) -> np.ndarray:
        """Index of each episode's first action, (E,)."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def state_starts(self) -> np.ndarray:
        """Index of each episode's first state, (E,)."""
        return self.action_starts + np.arange(len(self.lengths))

    def digest(self) -> str:
        """A hash of the content, which provenance records name."""
        content = hashlib.sha256()
        for array in (self.states, self.actions, self.lengths):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()[:16]


# -- collecting ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Controller:
    """A waypoint controller: a PD law towards the next cell, with noise on the actions.

    Its spring pulls with position_gain towards the waypoint, but never asks for more than the
    cruising speed, which is drawn anew for every route from speeds (map units a second).
    """

    position_gain: float = 8.0
    velocity_gain: float = 0.6
    speeds: tuple[float, float] = (2.8, 3.2)
    waypoint_radius: float = 0.3
    noise: float = 0.2

    def act(self, state: np.ndarray, waypoint: np.ndarray, speed: float) -> np.ndarray:
        """The action without noise, a = k_v (clip(k_p (x* − x), speed) − v)."""
        wanted = self.position_gain * (waypoint - state[:2])
        wanted = wanted * min(1.0, speed / max(float(np.hypot(*wanted)), 1e-9))
        return self.velocity_gain * (wanted - state[2:])


def shortest_route(maze: Maze, start: Cell, goal: Cell, rng: np.random.Generator) -> list[Cell]:
    """Cells from a start to a goal along a shortest way; ties are broken at random."""
    steps = maze.distances(goal)
    route = [start]
    while route[-1] != goal:
        nearer = [cell for cell in maze.neighbours(route[-1]) if steps[cell] < steps[route[-1]]]
        route.append(nearer[rng.integers(len(nearer))])
    return route


def choose_route(maze: Maze, start: Cell, reach: int, rng: np.random.Generator) -> list[Cell]:
    """Cells from a start to a random goal at most `reach` cells away, one in four by a detour.

    The cap means that no episode shows a long route: those have to be composed.
    """
    near = [cell for cell, steps in maze.distances(start).items() if 0 < steps <= reach]
    goal = near[rng.integers(len(near))]
    if rng.random() < 0.75:
        return shortest_route(maze, start, goal, rng)
    via = near[rng.integers(len(near))]
    return shortest_route(maze, start, via, rng) + shortest_route(maze, via, goal, rng)[1:]


def random_position(maze: Maze, rng: np.random.Generator) -> np.ndarray:
    """A point anywhere in free space, often at a wall or in a corner, (2,).

    Draws reach beyond the cell; where a wall stands there, the ball is put against it. A walk
    seldom touches walls, and a policy that has never stood in a corner cannot leave it.
    """
    touching = 0.499 - BALL_RADIUS
    while True:
        centre = maze.centre(maze.cells[rng.integers(len(maze.cells))])
        offset = rng.uniform(-0.65, 0.65, 2)
        for axis, beyond in enumerate(np.diag(np.sign(offset))):
            if not maze.is_free(centre + beyond):
                offset[axis] = np.clip(offset[axis], -touching, touching)
        if maze.is_free(centre + offset, clearance=BALL_RADIUS):
            return centre + offset


def play(
    maze: Maze,
    steps: int,
    seed: int,
    controller: Controller | None = None,
    restart_every: int = 2,
    change_of_mind: float = 0.5,
    progress: bool = False,
) -> Transitions:
    """Let the controller play: go to a near goal, then on to the next one, and so on.

    One route in four takes a detour over a random cell. An episode ends at its goal, or on the
    way where the controller changes its mind, with that probability on routes of three cells and
    more: so the data shows turns at speed anywhere. Every `restart_every` episodes the point is
    put at rest somewhere else.
    """
    controller = controller or Controller()
    reach = max(max(maze.distances(cell).values()) for cell in maze.cells) // 2
    rng = np.random.default_rng(seed)
    env = make_env(maze)
    states, actions, lengths, goals = [], [], [], []
    bar = tqdm(total=steps, desc=f"playing in {maze.name}", disable=not progress, unit="step")
    total, state = 0, np.zeros(4)
    while total < steps:
        if len(lengths) % restart_every == 0:
            start = random_position(maze, rng)
            state = place(env, start, start)
        route = choose_route(maze, maze.cell_at(state[:2]), reach, rng)
        goal = maze.centre(route[-1]) + rng.uniform(-POSITION_NOISE, POSITION_NOISE, 2)
        waypoints = np.stack([*map(maze.centre, route[1:-1]), goal])
        if len(waypoints) > 2 and rng.random() < change_of_mind:
            waypoints = waypoints[: rng.integers(2, len(waypoints))]
        path, moves = _follow(env, state, waypoints, controller, rng)
        state = path[-1]
        states.append(path)
        actions.append(moves)
        lengths.append(len(moves))
        goals.append(goal)
        total += len(moves)
        bar.update(len(moves))
    bar.close()
    env.close()
    return Transitions(
        np.concatenate(states, dtype=np.float32),
        np.concatenate(actions, dtype=np.float32),
        np.array(lengths),
        np.stack(goals),
    )


def _follow(
    env: gym.Env,
    state: np.ndarray,
    waypoints: np.ndarray,
    controller: Controller,
    rng: np.random.Generator,
    patience: int = 200,
) -> tuple[np.ndarray, np.ndarray]:
    """Walk through waypoints, (W, 2), giving up after `patience` steps without reaching one.

    Returns states (n + 1, S) and actions (n, A).
    """
    states, actions = [state], []
    speed = rng.uniform(*controller.speeds)
    for waypoint in waypoints:
        for _ in range(patience):
            action = controller.act(state, waypoint, speed)
            action = np.clip(action + controller.noise * rng.standard_normal(2), -1.0, 1.0)
            state = env.step(action)[0]["observation"]
            states.append(state)
            actions.append(action)
            if np.hypot(*(state[:2] - waypoint)) < controller.waypoint_radius:
                break
        else:
            break
    return np.stack(states), np.stack(actions)


# -- storing ------------------------------------------------------------------------------------


def default_id(maze_name: str) -> str:
    """The Minari id under which `collect` stores a maze's dataset: mbta/pointmaze/medium-v0."""
    return "mbta/" + maze_name.replace("-", "/") + "-v0"


def collect(
    maze: Maze,
    steps: int = 200_000,
    seed: int = 0,
    dataset_id: str | None = None,
    progress: bool = False,
) -> str:
    """Play in a maze and store the result as a Minari dataset; returns its id.

    The dataset is written beside its place and moved there when it is whole. Raises UserError if
    the id is taken, badly formed, being written by another process, or if the disk is full.
    """
    require(steps >= 1, f"The number of steps must be at least 1, not {steps}.")
    dataset_id = dataset_id or default_id(maze.name)
    try:
        minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"'{dataset_id}' is not a Minari dataset id. Write it like {default_id(maze.name)}."
        ) from error
    with _reserved(dataset_id) as target:
        transitions = play(maze, steps, seed, progress=progress)
        try:
            _store(transitions, maze, steps, seed, dataset_id, target)
        except OSError as error:
            raise UserError(
                f"{dataset_id} could not be stored ({error}). Nothing is left."
            ) from error
    return dataset_id


@contextlib.contextmanager
def _reserved(dataset_id: str) -> Iterator[Path]:
    """Hold a dataset's place against other processes; the lock ends with the process."""
    target = get_dataset_path(dataset_id)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = (target.parent / f".{target.name}.lock").open("w")
    except OSError as error:
        raise UserError(f"{target.parent} cannot be written to ({error}).") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"Another process is collecting into {dataset_id}. Wait for it, or take another "
                "--out."
            ) from error
        require(
            not target.exists(),
            f"The dataset {dataset_id} exists already. Take another --out, or delete it first: "
            f"minari delete {dataset_id}",
        )
        yield target


def _store(
    transitions: Transitions, maze: Maze, steps: int, seed: int, dataset_id: str, target: Path
) -> None:
    """Let Minari write into a temporary root, then move the whole dataset to its place."""
    root = get_dataset_path("")
    with tempfile.TemporaryDirectory(dir=root, prefix=".partial-") as partial:
        with _minari_root(partial), warnings.catch_warnings():
            # Minari recommends an author's e-mail address and an evaluation environment.
            warnings.simplefilter("ignore", UserWarning)
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                _buffers(transitions),
                env=maze.env_id,
                algorithm_name="waypoint controller",
                author={"mbta_helpers"},
                code_permalink="",
                description=(
                    f"Play in {maze.name}: a waypoint controller (breadth-first search over the "
                    "cells, PD law, Gaussian noise on the actions) walks to goals at most half the "
                    "maze away, one in four by a detour. An episode ends at its goal or where the "
                    "controller changes its mind."
                ),
            )
            dataset.storage.update_metadata(
                {
                    "mbta_command": f"mbta collect {maze.name} --steps {steps} --seed {seed}",
                    "mbta_seed": seed,
                    "mbta_versions": versions(),
                    "mbta_digest": transitions.digest(),
                }
            )
        for parent in reversed(Path(dataset_id).parents[:-1]):
            # A namespace is a folder with a note of its own, made where it is not there yet.
            made = Path(partial) / parent / "namespace_metadata.json"
            here = root / parent / "namespace_metadata.json"
            if made.exists() and not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(made, here)
        os.rename(Path(partial) / dataset_id, target)


@contextlib.contextmanager
def _minari_root(path: str) -> Iterator[None]:
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = path
    try:
        yield
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before


def _buffers(transitions: Transitions) -> Iterator[EpisodeBuffer]:
    for episode, length in enumerate(transitions.lengths):
        first = transitions.state_starts[episode]
        states = transitions.states[first : first + length + 1].astype(np.float64)
        begin = transitions.action_starts[episode]
        goal = np.repeat(transitions.goals[episode][None], length + 1, axis=0)
        reached = np.linalg.norm(states[1:, :2] - goal[1:], axis=1) <= SUCCESS_RADIUS
        last = np.arange(length) == length - 1
        yield EpisodeBuffer(
            id=episode,
            observations={
                "observation": states,
                "achieved_goal": states[:, :2],
                "desired_goal": goal,
            },
            actions=transitions.actions[begin : begin + length],
            rewards=reached.astype(np.float64),
            terminations=np.zeros(length, bool),
            truncations=last,
            infos={"success": np.concatenate([[False], reached])},
        )


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("torch", "numpy", "minari", "gymnasium", "gymnasium-robotics", "mujoco")
    return {"mbta_helpers": __version__, **{name: version(name) for name in names}}


# -- loading ------------------------------------------------------------------------------------


def load(dataset_id: str) -> Transitions:
    """Load a Minari dataset of the D4RL maze schema as flat arrays.

    A state is the observation, with achieved_goal put first where it is not there already.
    Raises UserError for a dataset that is unknown, misses keys, or has NaN or odd dimensions.
    """
    if not (get_dataset_path(dataset_id) / "data").exists():
        raise unknown("dataset", dataset_id, minari.list_local_datasets())
    states, actions, lengths, goals = [], [], [], []
    for episode in _episodes(dataset_id):
        where = f"Episode {episode.id} of {dataset_id}"
        observations = episode.observations
        require(
            isinstance(observations, dict)
            and {"observation", "achieved_goal", "desired_goal"} <= observations.keys(),
            f"{where} needs dictionary observations with observation, achieved_goal and "
            "desired_goal, as in D4RL/pointmaze.",
        )
        body, xy = observations["observation"], observations["achieved_goal"]
        require(
            body.ndim == 2 and xy.shape == (len(body), 2),
            f"{where}: observation must be (T + 1, S) and achieved_goal (T + 1, 2), but they are "
            f"{body.shape} and {xy.shape}.",
        )
        state = body if np.array_equal(body[:, :2], xy) else np.concatenate([xy, body], axis=1)
        require(
            episode.actions.ndim == 2,
            f"{where}: actions must be (T, A), numbers of a box, but are {episode.actions.shape}.",
        )
        require(
            len(state) == len(episode.actions) + 1,
            f"{where} has {len(state)} states for {len(episode.actions)} actions; one more state "
            "than actions is needed.",
        )
        require(
            not states or state.shape[1] == states[0].shape[1],
            f"{where} has states of {state.shape[1]} dimensions, which differs from the first's.",
        )
        require(
            bool(np.isfinite(state).all() and np.isfinite(episode.actions).all()),
            f"{where} holds NaN or infinite numbers. Collect it again, or drop the episode.",
        )
        states.append(state)
        actions.append(episode.actions)
        lengths.append(len(episode.actions))
        goals.append(observations["desired_goal"][-1])
    require(bool(lengths), f"{dataset_id} has no episode.")
    return Transitions(
        np.concatenate(states, dtype=np.float32, casting="same_kind"),
        np.concatenate(actions, dtype=np.float32, casting="same_kind"),
        np.array(lengths),
        np.stack(goals),
    )


def _episodes(dataset_id: str) -> Iterator[EpisodeData]:
    """The episodes as Minari reads them; a UserError where its files are damaged."""
    try:
        yield from minari.load_dataset(dataset_id).iterate_episodes()
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"{dataset_id} cannot be read ({error or type(error).__name__}). Delete it (minari "
            f"delete {dataset_id}) and collect or download it again."
        ) from error


def load_or_collect(maze_name: str, progress: bool = False) -> Transitions:
    """The maze's own dataset: loaded where it is, collected where it is not yet."""
    dataset_id = default_id(get_maze(maze_name).name)
    if not (get_dataset_path(dataset_id) / "data").exists():
        collect(get_maze(maze_name), progress=progress)
    return load(dataset_id)
