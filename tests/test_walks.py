"""How ants play: what is kept of it, what is cut, and what is stored."""

import hashlib

import minari
import numpy as np
import pytest
import torch

from mbta_helpers import datasets, walks
from mbta_helpers.ants import CONTROLLER, Ants, flipped, up_vector, world
from mbta_helpers.errors import UserError
from mbta_helpers.mazes import POSITION_NOISE, SUCCESS_RADIUS, get_maze
from mbta_helpers.walks import WalkConfig, walk
from mbta_helpers.windows import Windows

STEPS, SEED = 1500, 5


@pytest.fixture(scope="module")
def maze():
    return get_maze("antmaze-umaze")


@pytest.fixture(scope="module")
def walked(maze):
    """Two ants, each of which walks to several goals."""
    return walk(maze, STEPS, SEED)


@pytest.fixture(scope="module")
def held(maze):
    """An ant that stays at its goal."""
    return walk(maze, 500, 1, WalkConfig(after_goal="hold"))


@pytest.fixture(scope="module")
def stored_ant(maze):
    return datasets.collect(maze, STEPS, SEED, "tests/ant/umaze-v0", after_goal="resample")


class Thrown(Ants):
    """Ants, the first of which is thrown on its back in its hundredth step."""

    def step(self, actions):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 100:
            self.push(np.outer(np.arange(len(self)) == 0, [0, 0, 4, 12, 0, 0]))
        return super().step(actions)


@pytest.fixture(scope="module")
def fallen(maze):
    """Two ants, of which one falls after a hundred steps and goes on elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walks, "Ants", Thrown)
        return walk(maze, 300, 2, WalkConfig(episode=150))


def parts(played, array):
    """An array of states or goals, episode by episode."""
    return np.split(array, np.cumsum(played.lengths + 1)[:-1])


# -- walking ----------------------------------------------------------------------------------


def test_walks_have_the_shapes_they_promise(walked, maze):
    steps, episodes = int(walked.lengths.sum()), len(walked.lengths)
    assert steps >= STEPS and (walked.lengths <= 1000).all() and episodes == 2
    assert walked.states.shape == (steps + episodes, 29) and walked.states.dtype == np.float64
    assert walked.actions.shape == (steps, 8) and walked.actions.dtype == np.float32
    assert walked.goals.shape == (steps + episodes, 2) and walked.noises.shape == (episodes,)
    assert np.isfinite(walked.states).all() and np.abs(walked.actions).max() <= 1
    assert set(walked.noises) <= set(WalkConfig().noises)
    assert maze.is_free(walked.states[:, :2]).all()
    assert (walked.falls, walked.dropped) == (0, 0)


def test_the_noise_is_that_of_the_episode(maze):
    """Drawn from the same generator, no noise and some give different actions at once."""
    still, shaken = (walk(maze, 20, 0, WalkConfig(noises=(noise,))) for noise in (0.0, 0.3))
    assert set(still.noises) == {0.0} and set(shaken.noises) == {0.3}
    assert np.array_equal(still.states[0], shaken.states[0])
    apart = shaken.actions[0] - still.actions[0]
    assert 0.05 < np.abs(apart).max() < 1.5


def test_a_goal_is_taken_anew_when_it_is_reached(walked, maze):
    hops = 0
    both = parts(walked, walked.states), parts(walked, walked.goals)
    for states, goals in zip(*both, strict=True):
        away = np.linalg.norm(states[:, :2] - goals, axis=1)
        changed = (goals[1:] != goals[:-1]).any(1)
        assert (away[:-1][changed] <= SUCCESS_RADIUS).all(), "a goal was left before its time"
        assert changed[away[:-1] <= SUCCESS_RADIUS].all(), "an ant stayed at its goal"
        hops += changed.sum()
        for goal in np.unique(goals, axis=0):
            off = np.abs(goal - maze.centre(maze.cell_at(goal)))
            assert off.max() <= POSITION_NOISE * maze.side and maze.is_free(goal)
    assert hops >= 6, "several hops an episode"


def test_an_ant_that_holds_stays(held):
    (states,), (goals,) = parts(held, held.states), parts(held, held.goals)
    away = np.linalg.norm(states[:, :2] - goals, axis=1)
    first = np.flatnonzero(away <= SUCCESS_RADIUS)[0]
    assert first < 350 and (goals == goals[0]).all()
    assert (away[first:] < 1.5).all() and (away[first:] <= SUCCESS_RADIUS).mean() > 0.3


def test_an_ant_that_gets_nowhere_takes_another_goal(maze, monkeypatch):
    monkeypatch.setattr(walks, "beyond", lambda states, targets: states[:, :2])
    lost = walk(maze, 60, 3, WalkConfig(patience=20, noises=(0.0,)))
    assert 2 <= len(np.unique(lost.goals, axis=0)) <= 4


def test_an_episode_is_over_in_time(maze):
    short = walk(maze, 90, 0, WalkConfig(episode=25, ants=2))
    assert short.lengths.tolist() == [25, 25, 20, 20]
    again = parts(short, short.states)
    assert len({tuple(states[0, :2]) for states in again}) == len(again), "each begins elsewhere"


def test_walks_depend_on_the_seed_alone(maze):
    one, two, other = (walk(maze, 60, seed) for seed in (1, 1, 2))
    for name in ("states", "actions", "lengths", "goals", "noises"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert not np.array_equal(one.states, other.states)


# -- falls ------------------------------------------------------------------------------------


def test_no_fall_is_kept(fallen):
    assert fallen.falls == 1 and not flipped(fallen.states).any()
    ends = [states[-1] for states in parts(fallen, fallen.states)]
    assert (up_vector(np.stack(ends))[:, 2] >= WalkConfig().upright).all()
    assert fallen.lengths.sum() >= 300, "what a fall took is made good"
    cut = fallen.lengths[0]  # the episode that was over first
    assert 100 - WalkConfig().dropped < cut < 110
    assert WalkConfig().dropped < fallen.dropped < 60


def test_a_fall_is_cut_some_steps_before_the_ant_tilts(maze):
    crowd = walks._Crowd(maze, 2000, WalkConfig(dropped=7), np.random.default_rng(0))
    crowd.path[0, :61, 3:7] = 1, 0, 0, 0
    crowd.path[0, 30, 3:7] = crowd.path[0, 51:61, 3:7] = np.cos(0.6), np.sin(0.6), 0, 0  # 69°
    crowd.age[0] = 60
    crowd.keep(0)
    ((states, actions, *_),) = crowd.episodes
    assert (len(states), len(actions)) == (44, 43)  # state 50 was the last one upright
    assert (crowd.falls, crowd.dropped, crowd.taken) == (1, 17, 43)
    crowd.path[0, :6, 3:7] = 1, 0, 0, 0
    crowd.path[0, 5, 3:7] = 0, 1, 0, 0
    crowd.age[0] = 5
    crowd.keep(0)
    assert (len(crowd.episodes), crowd.falls, crowd.dropped) == (1, 2, 22), "nothing is left of it"


def test_windows_never_cross_a_cut(fallen):
    transitions = datasets.Transitions(
        fallen.states.astype(np.float32), fallen.actions, fallen.lengths, fallen.goals
    )
    windows = Windows(transitions, 10)
    batch = windows.gather(torch.arange(len(windows)))
    moved = np.linalg.norm(np.diff(batch.states[..., :2].numpy(), axis=1), axis=-1)
    jumps = np.linalg.norm(np.diff(fallen.states[:, :2], axis=0), axis=-1)
    assert moved.max() < 0.5 < np.sort(jumps)[-2]


# -- what is stored ---------------------------------------------------------------------------


def test_a_stored_ant_has_the_schema_of_d4rl(stored_ant, walked):
    dataset = minari.load_dataset(stored_ant)
    spaces = dataset.observation_space.spaces
    assert {name: space.shape for name, space in spaces.items()} == {
        "observation": (27,),
        "achieved_goal": (2,),
        "desired_goal": (2,),
    }
    assert dataset.action_space.shape == (8,)
    assert dataset.env_spec.id == "AntMaze_UMaze-v4"
    first = walked.lengths[0] + 1
    episode = dataset[0]
    assert np.array_equal(episode.observations["achieved_goal"], walked.states[:first, :2])
    assert np.array_equal(episode.observations["observation"], walked.states[:first, 2:])
    assert np.array_equal(episode.observations["desired_goal"], walked.goals[:first])
    assert np.array_equal(episode.actions, walked.actions[: first - 1])
    away = np.linalg.norm(walked.states[1:first, :2] - walked.goals[1:first], axis=1)
    assert np.array_equal(episode.rewards, away <= SUCCESS_RADIUS) and episode.rewards.sum() >= 3
    assert np.array_equal(episode.infos["success"][1:], episode.rewards)
    assert episode.truncations[-1] and not episode.terminations.any()


def test_every_stored_step_is_the_simulator_s(stored_ant):
    """From an observation and its action, MuJoCo goes to the next one."""
    ants = Ants(world("AntMaze_UMaze-v4"), 1)
    episode = minari.load_dataset(stored_ant)[1]
    seen = episode.observations
    states = np.concatenate([seen["achieved_goal"], seen["observation"]], axis=1)
    for step in range(0, len(episode.actions), 7):
        ants.place(0, states[step])
        (state,) = ants.step(episode.actions[step][None])
        assert np.abs(state - states[step + 1]).max() < 1e-6, step


def test_a_stored_ant_is_loaded_with_its_position_first(stored_ant, walked):
    loaded = datasets.load(stored_ant)
    assert np.array_equal(loaded.states, walked.states.astype(np.float32))
    assert np.array_equal(loaded.actions, walked.actions)
    assert np.array_equal(loaded.lengths, walked.lengths)
    assert np.array_equal(loaded.goals, walked.goals[np.cumsum(walked.lengths + 1) - 1])


def test_the_metadata_say_how_ants_walked(stored_ant):
    metadata = minari.load_dataset(stored_ant).storage.metadata
    assert metadata["mbta_command"] == (
        f"mbta collect antmaze-umaze --steps {STEPS} --seed {SEED} --after-goal resample"
    )
    assert metadata["mbta_after_goal"] == "resample" and metadata["mbta_seed"] == SEED
    assert list(metadata["mbta_noises"]) == [0.0, 0.1, 0.2]
    assert (metadata["mbta_falls"], metadata["mbta_steps_dropped"]) == (0, 0)
    assert metadata["mbta_digest"] == datasets.load(stored_ant).digest()
    controller = hashlib.sha256(CONTROLLER.read_bytes()).hexdigest()
    assert metadata["mbta_controller"] == controller[:16]
    assert "mujoco" in metadata["mbta_versions"] and "SAC" in metadata["algorithm_name"]


def test_falls_are_counted_in_the_metadata(fallen, maze, monkeypatch):
    monkeypatch.setattr(datasets, "walk", lambda *_: fallen)
    stored = datasets.collect(maze, 300, 2, "tests/ant/fallen-v0", after_goal="hold")
    metadata = minari.load_dataset(stored).storage.metadata
    assert (metadata["mbta_falls"], metadata["mbta_steps_dropped"]) == (1, fallen.dropped)
    assert metadata["mbta_after_goal"] == "hold" and "stays there" in metadata["description"]


# -- bad input --------------------------------------------------------------------------------


def test_what_ants_cannot_do_is_refused(maze):
    with pytest.raises(UserError, match="can resample or hold, not 'sleep'"):
        datasets.collect(maze, 10, dataset_id="tests/ant/x-v0", after_goal="sleep")
    with pytest.raises(UserError, match=r"--after-goal says what an ant does.*antmaze-umaze"):
        datasets.collect(get_maze("pointmaze-umaze"), 10, after_goal="hold")


def test_an_interrupt_leaves_nothing(maze, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(datasets, "walk", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.collect(maze, 50)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


def test_ants_play_more_by_default(maze, umaze, monkeypatch):
    asked = []

    def count(_, steps, *args, **kwargs):
        asked.append(steps)
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "walk", count)
    monkeypatch.setattr(datasets, "play", count)
    for place in (maze, umaze):
        with pytest.raises(KeyboardInterrupt):
            datasets.collect(place, dataset_id="tests/none-v0")
    assert asked == [1_000_000, 200_000]
