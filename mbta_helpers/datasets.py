"""Datasets: play in a maze collected with a waypoint controller, stored by Minari, loaded flat.

A dataset has observations as in D4RL/pointmaze and D4RL/antmaze (a dictionary of observation,
achieved_goal and desired_goal) and no reward that training would look at. D4RL's own datasets are
downloaded by Minari where they are not there, and load the same way.
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
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.episode_data import EpisodeData
from minari.storage import get_dataset_path
from tqdm.auto import tqdm

from mbta_helpers import __version__
from mbta_helpers.ants import ACTION_DIM, CONTROLLER, STATE_DIM
from mbta_helpers.errors import UserError, require, unknown
from mbta_helpers.mazes import (
    POSITION_NOISE,
    SUCCESS_RADIUS,
    Maze,
    choose_route,
    get_maze,
    make_env,
    opened,
    place,
    random_position,
)
from mbta_helpers.walks import WalkConfig, walk

STEPS = {"point": 200_000, "ant": 1_000_000}  # that `collect` plays by default, by the maze's body
REMOTE = "D4RL/"  # what Minari downloads begins with this
BODY = STATE_DIM - 2  # observations of an ant in AntMaze v4, which leaves out the position
BODY_AND_FORCES = BODY + 78  # in v5: the same, then contact forces


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
    steps: int | None = None,
    seed: int = 0,
    dataset_id: str | None = None,
    progress: bool = False,
    after_goal: str | None = None,
) -> str:
    """Play in a maze and store the result as a Minari dataset; returns its id.

    steps: 200,000 of the point or 1,000,000 of ants by default. after_goal: what an ant does at its
    goal, "resample" (default) or "hold"; not for the point.
    The dataset is written beside its place and moved there when it is whole. Raises UserError if
    the id is taken, badly formed, being written by another process, or if the disk is full.
    """
    steps = STEPS[maze.body] if steps is None else steps
    require(steps >= 1, f"The number of steps must be at least 1, not {steps}.")
    require(
        maze.body == "ant" or after_goal is None,
        f"--after-goal says what an ant does; in {maze.name} there is none. Leave it out, or take "
        f"{maze.name.replace('point', 'ant')}.",
    )
    walking = WalkConfig(after_goal=after_goal or "resample")
    dataset_id = dataset_id or default_id(maze.name)
    _check_id(dataset_id, default_id(maze.name))
    with _reserved(dataset_id) as target:
        if maze.body == "ant":
            recording = _record_ants(maze, steps, seed, walking, progress)
        else:
            recording = _record_point(maze, steps, seed, progress)
        try:
            with _arriving(dataset_id, target):
                _store(recording, maze, seed, dataset_id)
        except OSError as error:
            raise UserError(
                f"{dataset_id} could not be stored ({error}). Nothing is left."
            ) from error
    return dataset_id


def _check_id(dataset_id: str, example: str) -> None:
    try:
        minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"'{dataset_id}' is not a Minari dataset id. Write it like {example}."
        ) from error


@dataclass(frozen=True)
class _Recording:
    """Play as it is stored: the transitions, and what the files have besides.

    states: (N + E, S) float64, as simulated; observations begin at their component `body`.
    goals: (N + E, 2) at each state. command and notes: for the metadata.
    """

    transitions: Transitions
    states: np.ndarray
    body: int
    goals: np.ndarray
    algorithm: str
    description: str
    command: str
    notes: dict = field(default_factory=dict)


def _record_point(maze: Maze, steps: int, seed: int, progress: bool) -> _Recording:
    transitions = play(maze, steps, seed, progress=progress)
    return _Recording(
        transitions,
        states=transitions.states.astype(np.float64),
        body=0,
        goals=np.repeat(transitions.goals, transitions.lengths + 1, axis=0),
        algorithm="waypoint controller",
        description=(
            f"Play in {maze.name}: a waypoint controller (breadth-first search over the "
            "cells, PD law, Gaussian noise on the actions) walks to goals at most half the "
            "maze away, one in four by a detour. An episode ends at its goal or where the "
            "controller changes its mind."
        ),
        command=f"mbta collect {maze.name} --steps {steps} --seed {seed}",
    )


def _record_ants(
    maze: Maze, steps: int, seed: int, config: WalkConfig, progress: bool
) -> _Recording:
    walks = walk(maze, steps, seed, config, progress)
    ends = np.cumsum(walks.lengths + 1) - 1
    transitions = Transitions(
        walks.states.astype(np.float32), walks.actions, walks.lengths, walks.goals[ends]
    )
    end = {"resample": "takes a new goal there", "hold": "stays there"}[config.after_goal]
    return _Recording(
        transitions,
        states=walks.states,
        body=2,
        goals=walks.goals,
        algorithm="waypoint controller (SAC)",
        description=(
            f"Play in {maze.name}: an ant walks through the cells of shortest ways to goals at "
            f"most half the maze away, one in four by a detour, and {end}. Its controller was "
            "trained with SAC; Gaussian noise is added to the actions. Where the ant fell over, "
            "the episode was cut before."
        ),
        command=(
            f"mbta collect {maze.name} --steps {steps} --seed {seed} "
            f"--after-goal {config.after_goal}"
        ),
        notes={
            "mbta_after_goal": config.after_goal,
            "mbta_noises": [float(noise) for noise in config.noises],
            "mbta_falls": walks.falls,
            "mbta_steps_dropped": walks.dropped,
            "mbta_controller": hashlib.sha256(CONTROLLER.read_bytes()).hexdigest()[:16],
        },
    )


class BeingWritten(UserError):
    """Another process is about to store this dataset."""


def _lock_file(target: Path) -> IO[str]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return (target.parent / f".{target.name}.lock").open("w")
    except OSError as error:
        raise UserError(f"{target.parent} cannot be written to ({error}).") from error


def _wait_for(dataset_id: str) -> None:
    """Until no other process writes the dataset."""
    with _lock_file(get_dataset_path(dataset_id)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


@contextlib.contextmanager
def _reserved(dataset_id: str) -> Iterator[Path]:
    """Hold a dataset's place against other processes; the lock ends with the process."""
    target = get_dataset_path(dataset_id)
    with _lock_file(target) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BeingWritten(
                f"Another process is writing {dataset_id}. Wait for it, or take another id."
            ) from error
        require(
            not target.exists(),
            f"The dataset {dataset_id} exists already. Take another --out, or delete it first: "
            f"minari delete {dataset_id}",
        )
        yield target


@contextlib.contextmanager
def _arriving(dataset_id: str, target: Path) -> Iterator[Path]:
    """A temporary root for Minari; what the block puts there is moved to its place at the end."""
    root = get_dataset_path("")
    with tempfile.TemporaryDirectory(dir=root, prefix=".partial-") as partial:
        with _minari_root(partial):
            yield Path(partial) / dataset_id
        for parent in reversed(Path(dataset_id).parents[:-1]):
            # A namespace is a folder with a note of its own, made where it is not there yet.
            made = Path(partial) / parent / "namespace_metadata.json"
            here = root / parent / "namespace_metadata.json"
            if made.exists() and not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(made, here)
        os.rename(Path(partial) / dataset_id, target)


def _store(recording: _Recording, maze: Maze, seed: int, dataset_id: str) -> None:
    """Let Minari write a recording into its root."""
    with opened(maze) as env, warnings.catch_warnings():
        # Minari recommends an author's e-mail address and an evaluation environment.
        warnings.simplefilter("ignore", UserWarning)
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            _buffers(recording),
            env=env,
            algorithm_name=recording.algorithm,
            author={"mbta_helpers"},
            code_permalink="",
            description=recording.description,
        )
    dataset.storage.update_metadata(
        {
            "mbta_command": recording.command,
            "mbta_seed": seed,
            "mbta_versions": versions(),
            "mbta_digest": recording.transitions.digest(),
            **recording.notes,
        }
    )


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


def _buffers(recording: _Recording) -> Iterator[EpisodeBuffer]:
    transitions = recording.transitions
    for episode, length in enumerate(transitions.lengths):
        first = transitions.state_starts[episode]
        states = recording.states[first : first + length + 1]
        goals = recording.goals[first : first + length + 1]
        begin = transitions.action_starts[episode]
        reached = np.linalg.norm(states[1:, :2] - goals[1:], axis=1) <= SUCCESS_RADIUS
        last = np.arange(length) == length - 1
        yield EpisodeBuffer(
            id=episode,
            observations={
                "observation": states[:, recording.body :],
                "achieved_goal": states[:, :2],
                "desired_goal": goals,
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

    A state is the observation, with achieved_goal put first where it is not there already, and
    without AntMaze v5's contact forces. A dataset of D4RL that is not there is downloaded.
    Raises UserError for a dataset that is unknown, misses keys, or has NaN or odd dimensions.
    """
    if not _is_here(dataset_id):
        _download(dataset_id)
    states, actions, lengths, goals = [], [], [], []
    for episode in _episodes(dataset_id):
        where = f"Episode {episode.id} of {dataset_id}"
        state = _episode_states(episode, where)
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
        goals.append(episode.observations["desired_goal"][-1])
    require(bool(lengths), f"{dataset_id} has no episode.")
    return Transitions(
        np.concatenate(states, dtype=np.float32, casting="same_kind"),
        np.concatenate(actions, dtype=np.float32, casting="same_kind"),
        np.array(lengths),
        np.stack(goals),
    )


def _episode_states(episode: EpisodeData, where: str) -> np.ndarray:
    """The states of an episode, (T + 1, S), the position first; UserError if they are no such."""
    observations, actions = episode.observations, episode.actions
    names = ("observation", "achieved_goal", "desired_goal")
    given = observations.keys() if isinstance(observations, dict) else set()
    missing = [name for name in names if name not in given]
    require(
        not missing,
        f"{where} needs dictionary observations with observation, achieved_goal (the position) "
        f"and desired_goal, as in D4RL/pointmaze and D4RL/antmaze; {', '.join(missing)} missing.",
    )
    body, xy = observations["observation"], observations["achieved_goal"]
    require(
        body.ndim == 2 and xy.shape == (len(body), 2),
        f"{where}: observation must be (T + 1, S) and achieved_goal (T + 1, 2), but they are "
        f"{body.shape} and {xy.shape}.",
    )
    require(
        actions.ndim == 2,
        f"{where}: actions must be (T, A), numbers of a box, but are {actions.shape}.",
    )
    require(
        len(body) == len(actions) + 1,
        f"{where} has {len(body)} states for {len(actions)} actions; one more state "
        "than actions is needed.",
    )
    if actions.shape[1] == ACTION_DIM:
        require(
            body.shape[1] in (BODY, BODY_AND_FORCES),
            f"{where}: an ant's observation has {BODY} numbers (AntMaze v4) or {BODY_AND_FORCES} "
            f"(v5), not {body.shape[1]}. Make the data with one of these environments.",
        )
        body = body[:, :BODY]
    return body if np.array_equal(body[:, :2], xy) else np.concatenate([xy, body], axis=1)


def _is_here(dataset_id: str) -> bool:
    return (get_dataset_path(dataset_id) / "data").exists()


def _download(dataset_id: str) -> None:
    """Let Minari fetch a dataset of D4RL, whole or not at all; UserError for any other."""
    if not dataset_id.startswith(REMOTE):
        raise unknown("dataset", dataset_id, minari.list_local_datasets())
    _check_id(dataset_id, f"{REMOTE}antmaze/medium-play-v1")
    with _reserved(dataset_id) as target, _arriving(dataset_id, target):
        try:
            minari.download_dataset(dataset_id)  # shows its progress
            require(_is_here(dataset_id), "nothing arrived")
        except Exception as error:  # each kind of network trouble has a class of its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{dataset_id} is not in {target.parent}, and it could not be downloaded "
                f"({reason}). Nothing is left of the attempt. Try again with a network, or make "
                "data of the same kind without one: mbta collect antmaze-medium"
            ) from error


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
    """The maze's own dataset: loaded where it is, collected where it is not yet.

    Where another process collects it already, this one waits.
    """
    maze = get_maze(maze_name)
    dataset_id = default_id(maze.name)
    while not _is_here(dataset_id):
        try:
            collect(maze, progress=progress)
        except BeingWritten:
            if progress:
                tqdm.write(f"Another process collects {dataset_id}: waiting for it.")
            _wait_for(dataset_id)
    return load(dataset_id)
