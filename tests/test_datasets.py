"""Datasets: what is played, what is stored, and what is refused."""

import errno
import fcntl
import itertools
import json
import os
import threading

import minari
import numpy as np
import pytest
from minari.storage import get_dataset_path
from samples import numbered_transitions, store_episodes

from mbta_helpers import datasets
from mbta_helpers.errors import UserError
from mbta_helpers.mazes import (
    MAZES,
    SUCCESS_RADIUS,
    choose_route,
    make_env,
    place,
    random_position,
    shortest_route,
)


def tree(root):
    """Every file under a folder that is no lock, with size and time of change."""
    return {
        path.relative_to(root): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty root for datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


# -- playing ----------------------------------------------------------------------------------


def test_play_has_the_shapes_it_promises(played):
    steps, episodes = int(played.lengths.sum()), len(played.lengths)
    assert steps >= 3000
    assert played.states.shape == (steps + episodes, 4) and played.states.dtype == np.float32
    assert played.actions.shape == (steps, 2) and played.actions.dtype == np.float32
    assert played.goals.shape == (episodes, 2)
    assert np.isfinite(played.states).all()
    assert np.abs(played.actions).max() <= 1.0, "an action outside the box"
    assert played.action_starts.tolist() == [sum(played.lengths[:e]) for e in range(episodes)]
    assert played.state_starts.tolist() == [sum(played.lengths[:e]) + e for e in range(episodes)]


def test_an_episode_is_what_the_simulator_does(played, umaze):
    """The actions, carried out from the first state, lead through the states."""
    env = make_env(umaze)
    for episode in (0, 2):  # episodes that begin at rest
        first, begin = played.state_starts[episode], played.action_starts[episode]
        states = played.states[first : first + played.lengths[episode] + 1]
        assert (states[0, 2:] == 0).all()
        place(env, states[0, :2], played.goals[episode])
        for t in range(played.lengths[episode]):
            state = env.step(played.actions[begin + t])[0]["observation"]
            assert np.allclose(state, states[t + 1], atol=1e-3), (episode, t)
    env.close()


def test_an_episode_ends_at_its_goal_or_on_the_way(umaze):
    steadfast = datasets.play(umaze, 3000, seed=3, change_of_mind=0.0)
    fickle = datasets.play(umaze, 3000, seed=3, change_of_mind=1.0)
    at_goal = []
    for played in (steadfast, fickle):
        ends = played.states[played.state_starts + played.lengths, :2]
        at_goal.append(np.linalg.norm(ends - played.goals, axis=1) < SUCCESS_RADIUS)
        assert umaze.is_free(played.states[:, :2]).all()
    assert at_goal[0].mean() > 0.95
    assert 0.3 < at_goal[1].mean() < 0.95, "short routes are walked to their ends"
    centres = np.stack([umaze.centre(cell) for cell in umaze.cells])
    aside = np.linalg.norm(ends[~at_goal[1], None] - centres, axis=2).min(1)
    assert (aside < datasets.Controller().waypoint_radius + 1e-6).mean() > 0.95


@pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES)
def test_random_positions_are_free_and_reach_walls_and_corners(maze):
    rng = np.random.default_rng(0)
    points = np.stack([random_position(maze, rng) for _ in range(3000)])
    assert maze.is_free(points, clearance=maze.radius).all()
    step = 0.01 * maze.side * np.eye(2)
    touching = np.stack(
        [
            ~(maze.is_free(points + d, maze.radius) & maze.is_free(points - d, maze.radius))
            for d in step
        ]
    )
    most = 0.6 if maze.body == "point" else 0.9  # an ant fills more of its cell
    assert 0.2 < touching.any(0).mean() < most and touching.all(0).mean() > 0.01
    visited = {maze.cell_at(xy) for xy in points}
    assert visited == set(maze.cells)


def test_every_second_episode_goes_on_where_the_last_one_ended(played):
    first, last = played.states[played.state_starts], played.states[played.state_starts - 1]
    goes_on = (first == last).all(1)
    assert goes_on[1::2].all() and not goes_on[2::2].any()


def test_play_depends_on_the_seed_alone(umaze):
    one, two, other = (datasets.play(umaze, 300, seed) for seed in (1, 1, 2))
    assert one.digest() == two.digest() != other.digest()
    assert np.array_equal(one.states, two.states)


def test_digest_sees_every_part():
    base = numbered_transitions([4, 5])
    for name in ("states", "actions", "lengths"):
        changed = numbered_transitions([4, 5])
        getattr(changed, name).flat[-1] += 1
        assert changed.digest() != base.digest(), name


@pytest.mark.parametrize("maze", MAZES.values(), ids=list(MAZES))
def test_routes_are_connected_and_goals_are_near(maze):
    rng = np.random.default_rng(0)
    longest = max(max(maze.distances(cell).values()) for cell in maze.cells)
    detours = 0
    for _ in range(200):
        start = maze.cells[rng.integers(len(maze.cells))]
        route = choose_route(maze, start, longest // 2, rng)
        assert route[0] == start
        for here, there in itertools.pairwise(route):
            assert there in maze.neighbours(here)
        apart = maze.distances(start)[route[-1]]
        assert 0 < apart <= longest // 2
        detours += len(route) - 1 > apart
    assert 10 < detours < 80, "about one route in four takes a detour"


@pytest.mark.parametrize("maze", MAZES.values(), ids=list(MAZES))
def test_shortest_route_is_shortest(maze):
    rng = np.random.default_rng(1)
    for start in maze.cells:
        goal = maze.cells[rng.integers(len(maze.cells))]
        route = shortest_route(maze, start, goal, rng)
        assert (route[0], route[-1]) == (start, goal)
        assert len(route) - 1 == maze.distances(goal)[start]


def test_controller_by_hand():
    controller = datasets.Controller(position_gain=2.0, velocity_gain=0.5)
    state = np.array([1.0, 1.0, 0.3, -0.1])
    near = controller.act(state, np.array([1.5, 1.0]), speed=3.0)
    assert np.allclose(near, 0.5 * (np.array([1.0, 0.0]) - state[2:]))
    far = controller.act(state, np.array([4.0, 5.0]), speed=3.0)  # wants (6, 8), may have 3 of 10
    assert np.allclose(far, 0.5 * (np.array([1.8, 2.4]) - state[2:]))


# -- storing ----------------------------------------------------------------------------------


def test_what_was_collected_is_loaded(stored, played):
    loaded = datasets.load(stored)
    assert np.array_equal(loaded.states, played.states)
    assert np.array_equal(loaded.actions, played.actions)
    assert np.array_equal(loaded.lengths, played.lengths)
    assert np.allclose(loaded.goals, played.goals)
    assert loaded.digest() == played.digest()


def test_stored_dataset_has_the_schema_of_d4rl(stored, played):
    dataset = minari.load_dataset(stored)
    assert dataset.total_episodes == len(played.lengths)
    assert dataset.total_steps == int(played.lengths.sum())
    assert set(dataset.observation_space.spaces) == {"observation", "achieved_goal", "desired_goal"}
    episode = dataset[0]
    length = played.lengths[0]
    assert episode.observations["observation"].shape == (length + 1, 4)
    assert np.array_equal(
        episode.observations["achieved_goal"], episode.observations["observation"][:, :2]
    )
    assert episode.actions.shape == (length, 2)
    assert dataset.action_space.contains(episode.actions[0])
    assert episode.truncations.tolist() == [False] * (length - 1) + [True]
    assert not episode.terminations.any()
    goal = episode.observations["desired_goal"][0]
    near = np.linalg.norm(episode.observations["achieved_goal"][1:] - goal, axis=1) <= 0.45
    assert episode.rewards.tolist() == near.tolist()


def test_stored_dataset_says_how_it_was_made(stored, played):
    metadata = minari.load_dataset(stored).storage.metadata
    assert metadata["mbta_command"] == "mbta collect pointmaze-umaze --steps 3000 --seed 3"
    assert metadata["mbta_seed"] == 3 and metadata["mbta_digest"] == played.digest()
    assert {"mujoco", "minari", "torch"} <= set(metadata["mbta_versions"])
    assert "waypoint controller" in metadata["description"]


def test_minari_lists_it_without_complaint(stored):
    assert stored in minari.list_local_datasets()


def test_a_dataset_that_is_there_is_never_touched(stored, umaze, datasets_root):
    before = tree(datasets_root)
    with pytest.raises(UserError, match=r"exists already.*--out.*minari delete tests/umaze-v0"):
        datasets.collect(umaze, 100, dataset_id=stored)
    assert tree(datasets_root) == before


@pytest.mark.parametrize("bad", ["name", "a b-v0", "../out-v0", "tests/x", "/abs-v0", "x-v"])
def test_a_bad_id_is_refused(root, umaze, bad):
    with pytest.raises(UserError, match=r"not a Minari dataset id. Write it like mbta/pointmaze"):
        datasets.collect(umaze, 100, dataset_id=bad)
    assert list(root.iterdir()) == []


def test_steps_are_counted_from_one(root, umaze):
    with pytest.raises(UserError, match="at least 1, not 0"):
        datasets.collect(umaze, 0)
    assert list(root.iterdir()) == []


def test_two_cannot_collect_into_one_dataset(root, umaze):
    (root / "tests").mkdir()
    with (root / "tests" / ".busy-v0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(UserError, match="Another process is writing tests/busy-v0"):
            datasets.collect(umaze, 50, dataset_id="tests/busy-v0")
        assert tree(root) == {}
    assert datasets.collect(umaze, 50, dataset_id="tests/busy-v0") == "tests/busy-v0"
    assert len(datasets.load("tests/busy-v0").actions) >= 50


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place_of_fault", ["minari", "rename"])
def test_a_full_disk_leaves_nothing(root, umaze, monkeypatch, place_of_fault):
    if place_of_fault == "minari":
        monkeypatch.setattr(minari, "create_dataset_from_buffers", full_disk)
    else:
        monkeypatch.setattr(datasets.os, "rename", full_disk)
    with pytest.raises(UserError, match=r"could not be stored .*No space left.*Nothing is left"):
        datasets.collect(umaze, 50, dataset_id="full-v0")
    assert tree(root) == {}
    assert os.environ["MINARI_DATASETS_PATH"] == str(root), "the root was not set back"


def test_an_interrupt_leaves_nothing(root, umaze, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(minari, "create_dataset_from_buffers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.collect(umaze, 50, dataset_id="stopped-v0")
    assert tree(root) == {}


def test_a_root_that_cannot_be_written_to_is_a_clear_error(tmp_path, umaze, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (tmp_path / "tests").write_text("a file, where a folder should be")
    with pytest.raises(UserError, match="cannot be written to"):
        datasets.collect(umaze, 50, dataset_id="tests/x-v0")


def test_load_or_collect_collects_once(root, umaze, monkeypatch):
    calls = []

    def quick(maze, progress):
        calls.append(maze.name)
        return collect(maze, 50)

    collect = datasets.collect
    monkeypatch.setattr(datasets, "collect", quick)
    first = datasets.load_or_collect("pointmaze-umaze")
    second = datasets.load_or_collect("pointmaze-umaze")
    assert calls == ["pointmaze-umaze"] and first.digest() == second.digest()
    assert (root / "mbta" / "pointmaze" / "umaze-v0" / "data").exists()


@pytest.mark.parametrize("leaves_it", [True, False])
def test_load_or_collect_waits_for_who_collects(root, umaze, monkeypatch, leaves_it):
    """It takes the other's dataset, or collects where the other went away without leaving one."""
    collect, calls = datasets.collect, []
    target, aside = get_dataset_path(collect(umaze, 50)), root / "aside"
    target.rename(aside)
    held = (target.parent / f".{target.name}.lock").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)

    def quick(maze, progress):
        calls.append(maze.name)
        return collect(maze, 50)

    def end():
        if leaves_it:
            aside.rename(target)
        held.close()

    monkeypatch.setattr(datasets, "collect", quick)
    other = threading.Timer(0.3, end)
    other.start()
    assert len(datasets.load_or_collect("pointmaze-umaze").actions) >= 50
    other.join()
    assert len(calls) == (1 if leaves_it else 2)


# -- loading what others stored ---------------------------------------------------------------


def d4rl(length: int, seed: int = 0, body: int = 4, **changes) -> dict:
    """One episode of the maze schema; changes replace or (None) drop an observation."""
    rng = np.random.default_rng(seed)
    observation = rng.standard_normal((length + 1, body))
    goal = np.repeat(rng.standard_normal((1, 2)), length + 1, axis=0)
    observations = {
        "observation": observation,
        "achieved_goal": observation[:, :2].copy(),
        "desired_goal": goal,
    } | changes
    observations = {name: value for name, value in observations.items() if value is not None}
    actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    return {"observations": observations, "actions": actions}


def test_an_ant_has_its_position_put_first(root):
    """D4RL/antmaze: 27 observations without the position, which is the achieved goal."""
    ant = {"observation": np.random.default_rng(1).standard_normal((8, 27))}
    xy = np.random.default_rng(2).standard_normal((8, 2))
    store_episodes("tests/ant-v0", [d4rl(7, **ant, achieved_goal=xy)])
    transitions = datasets.load("tests/ant-v0")
    assert transitions.states.shape == (8, 29)
    assert np.allclose(transitions.states[:, :2], xy)
    assert np.allclose(transitions.states[:, 2:], ant["observation"])


def ant(length: int, body: int = 27, seed: int = 0, **changes) -> dict:
    """One episode as in D4RL/antmaze: the position is the achieved goal alone."""
    rng = np.random.default_rng(seed)
    goals = {"achieved_goal": rng.standard_normal((length + 1, 2)).cumsum(0)} | changes
    episode = d4rl(length, seed, body, **goals)
    return episode | {"actions": rng.uniform(-1, 1, (length, 8)).astype(np.float32)}


def test_an_ant_of_version_5_loses_its_contact_forces(root):
    episode = ant(7, body=105)
    store_episodes("tests/five-v0", [episode])
    states = datasets.load("tests/five-v0").states
    assert states.shape == (8, 29)
    observations = episode["observations"]
    assert np.allclose(states[:, :2], observations["achieved_goal"])
    assert np.allclose(states[:, 2:], observations["observation"][:, :27])


@pytest.mark.parametrize("body", [29, 111])
def test_an_ant_of_another_version_is_refused(root, body):
    store_episodes("tests/other-v0", [ant(7, body=body)])
    with pytest.raises(UserError, match=rf"27 numbers \(AntMaze v4\) or 105 \(v5\), not {body}"):
        datasets.load("tests/other-v0")


def test_an_ant_without_its_position_is_refused(root):
    store_episodes("tests/lost-v0", [ant(7, achieved_goal=None)])
    with pytest.raises(UserError, match=r"achieved_goal \(the position\).*; achieved_goal missing"):
        datasets.load("tests/lost-v0")


# -- downloading ------------------------------------------------------------------------------

REMOTE = "D4RL/antmaze/medium-play-v1"


def test_a_dataset_of_d4rl_that_is_here_is_not_downloaded(root, monkeypatch):
    monkeypatch.setattr(minari, "download_dataset", lambda *_: pytest.fail("downloaded"))
    store_episodes(REMOTE, [ant(12, seed=1), ant(9, seed=2)])
    transitions = datasets.load(REMOTE)
    assert transitions.lengths.tolist() == [12, 9] and transitions.states.shape == (23, 29)


def test_a_dataset_of_d4rl_is_downloaded_once(root, monkeypatch):
    asked = []

    def download(dataset_id):
        asked.append(dataset_id)
        store_episodes(dataset_id, [ant(12)])
        assert not (root / REMOTE).exists(), "nobody may see it before it is whole"

    monkeypatch.setattr(minari, "download_dataset", download)
    first, second = datasets.load(REMOTE), datasets.load(REMOTE)
    assert asked == [REMOTE] and first.digest() == second.digest()
    assert REMOTE in minari.list_local_datasets()
    assert not list(root.glob(".partial*"))


@pytest.mark.parametrize("error", [OSError("no route to host\nmore"), ImportError("no route")])
def test_without_a_network_one_message_says_so(root, monkeypatch, error):
    def download(dataset_id):
        store_episodes(dataset_id, [ant(12)])
        raise error

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(UserError) as caught:
        datasets.load(REMOTE)
    message = str(caught.value)
    assert "could not be downloaded (no route" in message and "\n" not in message
    assert "with a network" in message and "mbta collect antmaze-medium" in message
    assert tree(root) == {} and not list(root.glob(".partial*"))


def test_an_interrupted_download_leaves_nothing_and_starts_anew(root, monkeypatch):
    def interrupt(dataset_id):
        store_episodes(dataset_id, [ant(12)])
        raise KeyboardInterrupt

    monkeypatch.setattr(minari, "download_dataset", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.load(REMOTE)
    assert tree(root) == {}
    monkeypatch.setattr(minari, "download_dataset", lambda name: store_episodes(name, [ant(12)]))
    assert datasets.load(REMOTE).lengths.tolist() == [12]


def test_a_download_that_brings_nothing_is_refused(root, monkeypatch):
    monkeypatch.setattr(minari, "download_dataset", lambda _: None)
    with pytest.raises(UserError, match="could not be downloaded"):
        datasets.load(REMOTE)
    with pytest.raises(UserError, match=r"not a Minari dataset id. Write it like D4RL/antmaze"):
        datasets.load("D4RL/antmaze")
    assert tree(root) == {}


def test_two_do_not_download_one_dataset_at_once(root, monkeypatch):
    monkeypatch.setattr(minari, "download_dataset", lambda *_: pytest.fail("downloaded"))
    lock = root / "D4RL" / "antmaze" / ".medium-play-v1.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(UserError, match=f"Another process is writing {REMOTE}. Wait for it"):
            datasets.load(REMOTE)


# -- what is no dataset -----------------------------------------------------------------------


def test_unknown_dataset_names_the_nearest(stored):
    with pytest.raises(UserError, match=r"Unknown dataset 'tests/umase-v0'. Did you mean tests/um"):
        datasets.load("tests/umase-v0")


@pytest.mark.parametrize("name", ["", ".", "..", "tests", "/"])
def test_what_is_no_dataset_is_unknown(stored, name):
    with pytest.raises(UserError, match="Unknown dataset"):
        datasets.load(name)


NAN = np.full((8, 4), np.nan)
BAD = {
    "missing-key": ([d4rl(7, achieved_goal=None)], "needs dictionary observations"),
    "no-dictionary": ([{**d4rl(7), "observations": np.zeros((8, 4))}], "needs dictionary"),
    "nan-state": ([d4rl(7, observation=NAN, achieved_goal=np.zeros((8, 2)))], "NaN or infinite"),
    "nan-action": (
        [{**d4rl(7), "actions": np.full((7, 2), np.nan, np.float32)}],
        "NaN or infinite",
    ),
    "flat-goal": ([d4rl(7, achieved_goal=np.zeros((8, 3)))], r"achieved_goal \(T \+ 1, 2\)"),
    "deep-observation": ([d4rl(7, observation=np.zeros((8, 2, 2)))], r"must be \(T \+ 1, S\)"),
    "discrete-action": ([{**d4rl(7), "actions": np.zeros(7, np.int64)}], r"actions .*\(T, A\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_dataset_is_refused(root, name):
    episodes, message = BAD[name]
    store_episodes(f"tests/{name}-v0", episodes)
    before = tree(root)
    with pytest.raises(UserError, match=message):
        datasets.load(f"tests/{name}-v0")
    assert tree(root) == before


def test_a_later_episode_is_looked_at_too(root):
    bad = d4rl(7, seed=1)
    bad["observations"]["observation"][3, 2] = np.inf
    store_episodes("tests/later-v0", [d4rl(7), bad])
    with pytest.raises(UserError, match="Episode 1 of tests/later-v0 holds NaN or infinite"):
        datasets.load("tests/later-v0")


@pytest.mark.parametrize("harm", ["cut", "emptied", "no metadata", "text"])
def test_a_damaged_dataset_is_a_clear_error(root, harm):
    store_episodes("tests/damaged-v0", [d4rl(7)])
    data = get_dataset_path("tests/damaged-v0") / "data"
    file = data / "main_data.hdf5"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-3000])
    elif harm == "emptied":
        file.unlink()
    elif harm == "no metadata":
        (data / "metadata.json").unlink()
    else:
        (data / "metadata.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match="tests/damaged-v0 cannot be read"):
        datasets.load("tests/damaged-v0")
