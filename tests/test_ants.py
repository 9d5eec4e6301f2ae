"""The ant: its symmetry checked in the simulator itself, its features, its controller."""

import importlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from mbta_helpers import ants as module
from mbta_helpers.ants import (
    ACTION_DIM,
    CONTROLLER,
    FEATURE_DIM,
    AntController,
    Ants,
    Walkers,
    beyond,
    features,
    flipped,
    lead_fronts,
    led_frame,
    led_torques,
    load_controller,
    mirror_actions,
    mirror_features,
    own_frame,
    quadrants,
    standing,
    torques,
    up_vector,
    world,
    yaw,
)
from mbta_helpers.checkpoints import save_checkpoint
from mbta_helpers.errors import UserError
from mbta_helpers.mazes import gym

COUNT = 5
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def field():
    return world(open_field=True)


@pytest.fixture(scope="module")
def ants(field):
    return Ants(field, COUNT)


@pytest.fixture(scope="module")
def lively(ants):
    """States of ants that have moved at random, tilted and with their feet on the ground."""
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        ants.place(index, standing(np.zeros(2), rng))
    for _ in range(30):
        ants.step(rng.uniform(-1, 1, (COUNT, ACTION_DIM)))
    states = ants.states
    assert up_vector(states)[:, 2].min() < 0.99
    return states


@pytest.fixture(scope="module")
def script():
    """scripts/ant_controller.py as a module."""
    path = str(ROOT / "scripts")
    sys.path.insert(0, path)
    yield importlib.import_module("ant_controller")
    sys.path.remove(path)


@pytest.fixture
def targets():
    return np.random.default_rng(1).uniform(-4, 4, (COUNT, 2))


def times(p, q):
    """Product of quaternions, (4,)."""
    vector = p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:])
    return np.r_[p[0] * q[0] - p[1:] @ q[1:], vector]


def about_z(angle):
    return np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])


BEND = np.array([1.0, -1.0, -1.0, 1.0])  # how the model's ankles bend down


def legs(joints):
    return joints.reshape(4, 2) * np.stack([np.ones(4), BEND], 1)


def unlegs(parts):
    return (parts * np.stack([np.ones(4), BEND], 1)).ravel()


def renamed(state, k):
    """The same picture with leg k called leg 0: the body's axes turn by k quarters."""
    state, angle = state.copy(), k * np.pi / 2
    state[3:7] = times(state[3:7], about_z(angle))
    state[18:20] = module.rotate(state[None, 18:20], np.array([-angle]))[0]
    for part in (slice(7, 15), slice(21, 29)):
        state[part] = unlegs(np.roll(legs(state[part]), -k, axis=0))
    return state


def turned(state, angle):
    """The same ant, elsewhere in the world and looking elsewhere."""
    state = state.copy()
    state[:2] = module.rotate(state[None, :2], np.array([angle]))[0] + [3.0, -1.0]
    state[3:7] = times(about_z(angle), state[3:7])
    state[15:17] = module.rotate(state[None, 15:17], np.array([angle]))[0]
    return state


def mirrored(state):
    """The ant behind a mirror in the plane of x and z."""
    state = state.copy()
    state[[1, 4, 6, 16, 18, 20]] *= -1
    for part in (slice(7, 15), slice(21, 29)):
        state[part] = unlegs(legs(state[part])[::-1] * [-1, 1])
    return state


def walk(ants, states, actions, front):
    """States after steps of actions of ants that look along their front, (steps, N, 8)."""
    for index, state in enumerate(states):
        ants.place(index, state)
    for action in actions:
        ants.step(torques(action, front))
    return ants.states


@pytest.fixture(scope="module")
def actions():
    return np.random.default_rng(2).uniform(-1, 1, (12, COUNT, ACTION_DIM))


# -- symmetry -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3])
def test_renamed_legs_step_to_renamed_legs(ants, lively, actions, targets, k):
    here, there = np.zeros(COUNT, int), np.full(COUNT, (4 - k) % 4)
    other = np.stack([renamed(state, k) for state in lively])
    seen = features(lively, targets, here)
    assert np.allclose(features(other, targets, there), seen, atol=1e-5)
    plain = walk(ants, lively, actions, here)
    again = walk(ants, other, actions, there)
    assert np.abs(plain - lively).max() > 0.3
    assert np.allclose(again[:, :3], plain[:, :3], atol=0.025)
    seen = features(plain, targets, here)
    assert np.allclose(features(again, targets, there), seen, atol=0.025)


def test_mirrored_ants_step_to_mirrored_ants(ants, lively, actions, targets):
    front, across = np.zeros(COUNT, int), targets * [1, -1]
    other = np.stack([mirrored(state) for state in lively])
    seen = torch.from_numpy(features(lively, targets, front))
    assert np.allclose(features(other, across, front), mirror_features(seen), atol=1e-5)
    plain = walk(ants, lively, actions, front)
    again = walk(ants, other, mirror_actions(torch.from_numpy(actions)).numpy(), front)
    assert np.allclose(again, [mirrored(state) for state in plain], atol=1e-6)


def test_a_mirror_twice_is_none():
    seen = torch.randn(7, FEATURE_DIM, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mirror_features(mirror_features(seen)), seen)
    assert not torch.equal(mirror_features(seen), seen)
    assert torch.equal(mirror_actions(mirror_actions(seen[:, :8])), seen[:, :8])


@pytest.mark.parametrize("angle", [0.3, 2.0, -2.9])
def test_features_do_not_depend_on_place_and_heading(lively, targets, angle):
    other = np.stack([turned(state, angle) for state in lively])
    there = module.rotate(targets, np.full(COUNT, angle)) + np.array([3.0, -1.0])
    assert (quadrants(other, there) == quadrants(lively, targets)).all()
    front = quadrants(lively, targets)
    assert np.allclose(features(other, there, front), features(lively, targets, front), atol=1e-5)


def test_heading_grows_by_the_turn_however_the_body_is_tilted(lively):
    for angle in (0.5, 1.7):
        by_world = yaw(np.stack([turned(state, angle) for state in lively])) - yaw(lively)
        assert np.allclose(np.exp(1j * by_world), np.exp(1j * angle))
    by_name = yaw(np.stack([renamed(state, 1) for state in lively])) - yaw(lively)
    assert np.allclose(np.exp(1j * by_name), 1j)


def test_every_torque_reaches_its_joint(field):
    """The motors are listed from another leg on: names of the model say which is which."""
    for leg in range(4):
        for joint, kind in enumerate(("hip", "ankle")):
            action = np.zeros((1, ACTION_DIM))
            action[0, 2 * leg + joint] = 1.0
            applied = torques(action, np.zeros(1, int))[0]
            (motor,) = np.flatnonzero(applied)
            driven = field.joint(field.actuator_trnid[motor, 0]).name
            assert driven == f"{kind}_{leg + 1}"
            assert applied[motor] == (BEND[leg] if kind == "ankle" else 1.0)


# -- what the controller sees -------------------------------------------------------------------


def still(x=0.0, y=0.0, heading=0.0):
    """An ant at rest, upright."""
    state = np.zeros(29)
    state[:3] = x, y, 0.6
    state[3:7] = about_z(heading)
    return state


def test_features_of_an_ant_at_rest():
    state = still(1.0, 2.0, heading=np.pi / 2)
    state[7:15] = unlegs(np.array([[0.1, 1.0], [0.2, 1.1], [0.3, 1.2], [0.4, 1.3]]))
    state[15:18] = 0.0, 2.0, 0.5  # north, which is ahead
    (seen,) = features(state[None], np.array([[1.0, 4.0]]), np.zeros(1, int))
    assert seen[0] == pytest.approx(0.6)
    assert np.allclose(seen[1:4], [0, 0, 1], atol=1e-6)
    assert np.allclose(seen[4:7], [1.0, 0.0, 0.25], atol=1e-6)
    assert np.allclose(seen[10:18], [0.1, 1.0, 0.2, 1.1, 0.3, 1.2, 0.4, 1.3], atol=1e-6)
    assert np.allclose(seen[26:29], [1.0, 0.0, 0.5], atol=1e-6)
    (left,) = features(state[None], np.array([[1.0, 4.0]]), np.ones(1, int))
    assert np.allclose(left[10:18], [0.2, 1.1, 0.3, 1.2, 0.4, 1.3, 0.1, 1.0], atol=1e-6)
    assert np.allclose(left[26:28], [0.0, -1.0], atol=1e-6)


def test_the_distance_saturates_and_the_direction_shrinks_at_the_target():
    offsets = np.array([[8.0, 0.0], [4.0, 0.0], [0.5, 0.0], [0.1, 0.0], [0.0, 0.0]])
    states = np.stack([still()] * 5)
    seen = features(states, offsets, np.zeros(5, int))
    assert np.allclose(seen[:, 28], [1, 1, 0.125, 0.025, 0])
    assert np.allclose(seen[:, 26], [1, 1, 1, 0.2, 0])


def at_bearing(degrees):
    angle = np.deg2rad(degrees)
    return 3 * np.array([[np.cos(angle), np.sin(angle)]])


@pytest.mark.parametrize(
    ("degrees", "front"), [(0, 0), (44, 0), (46, 1), (134, 1), (180, 2), (-90, 3), (-44, 0)]
)
def test_the_front_is_the_side_nearest_the_target(degrees, front):
    assert quadrants(still()[None], at_bearing(degrees))[0] == front


@pytest.mark.parametrize(
    ("degrees", "before", "front"),
    [(59, 0, 0), (61, 0, 1), (-59, 0, 0), (-61, 0, 3), (119, 2, 1), (-121, 2, 2), (35, 1, 1)],
)
def test_the_front_is_kept_within_sixty_degrees(degrees, before, front):
    assert quadrants(still()[None], at_bearing(degrees), np.array([before]))[0] == front


def test_beyond_moves_near_targets_away_in_their_direction():
    states = np.stack([still(1.0, 1.0)] * 3)
    targets = np.array([[1.0, 1.2], [4.0, 1.0], [1.0, 1.0]])
    assert np.allclose(beyond(states, targets), [[1.0, 1.8], [4.0, 1.0], [1.0, 1.0]])


def test_ants_on_their_back_have_flipped():
    over = still()
    over[3:7] = 0, 1, 0, 0  # half a turn about x
    tilted = still()
    tilted[3:7] = np.cos(0.7), np.sin(0.7), 0, 0  # 80°
    assert flipped(np.stack([still(), over, tilted])).tolist() == [False, True, False]


def test_own_frame_is_the_tilt_and_the_velocity_turned_back_by_the_yaw(lively):
    seen = own_frame(torch.from_numpy(lively)).numpy()
    back = -yaw(lively)
    assert np.allclose(seen[:, :3], module.rotate(up_vector(lively), back))
    assert np.allclose(seen[:, 3:5], np.stack([np.cos(back), -np.sin(back)], 1))
    assert np.allclose(seen[:, 5:], 0.5 * module.rotate(lively[:, 15:17], back))


def test_an_ant_that_turns_with_the_world_sees_the_same(lively):
    before = own_frame(torch.from_numpy(lively)).numpy()
    after = own_frame(torch.from_numpy(np.stack([turned(s, 0.8) for s in lively]))).numpy()
    assert np.allclose(before[:, [0, 1, 2, 5, 6]], after[:, [0, 1, 2, 5, 6]])
    heading = np.arctan2(after[:, 4], after[:, 3]) - np.arctan2(before[:, 4], before[:, 3])
    assert np.allclose(np.exp(1j * heading), np.exp(0.8j))


def test_own_frame_takes_imagined_states_whose_quaternion_is_none():
    """A world model predicts four numbers; at none of them may a plan become NaN."""
    states = torch.zeros(3, 4, 29, requires_grad=True)
    seen = own_frame(states)
    assert seen.shape == (3, 4, 7) and seen.isfinite().all()
    seen.sum().backward()
    assert states.grad.isfinite().all()


def test_the_led_frame_is_what_the_controller_sees(lively, targets):
    lead = targets - lively[:, :2]
    front = quadrants(lively, targets)
    assert len(set(front)) > 1
    states, vectors = torch.from_numpy(lively), torch.from_numpy(lead)
    assert lead_fronts(states, vectors).tolist() == front.tolist()
    seen = led_frame(states, vectors[:, None], torch.from_numpy(front)).numpy()
    known = features(lively, targets, front)
    order = [1, 2, 4, 5, 3, 0, 7, 8, 6, 9, *range(10, 26)]
    own = np.delete(seen, [4, 5, 7, 8], axis=1)  # without the vector and the front's direction
    assert np.allclose(own, known[:, order], atol=1e-5)
    facing = yaw(lively) + front * np.pi / 2
    assert np.allclose(seen[:, 4:6], module.rotate(lead, -facing))
    assert np.allclose(seen[:, 7:9], np.stack([np.cos(facing), np.sin(facing)], 1))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_led_frame_does_not_know_the_legs_names(lively, targets, k):
    other = np.stack([renamed(state, k) for state in lively])
    lead = torch.from_numpy(targets - lively[:, :2])
    views = []
    for states in (torch.from_numpy(lively), torch.from_numpy(other)):
        front = lead_fronts(states, lead)
        views.append(led_frame(states, lead[:, None], front))
    assert torch.allclose(*views)


def test_led_torques_are_torques(actions):
    front = torch.arange(12 * COUNT).reshape(12, COUNT) % 4
    led = led_torques(torch.from_numpy(actions), front)
    for one, given, sides in zip(led, actions, front, strict=True):
        assert np.array_equal(one, torques(given, sides.numpy()))


# -- the simulator ------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["AntMaze_Medium-v4", "AntMaze_UMaze-v4"])
def test_ants_step_as_the_environment_does(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        env = gym.make(env_id, continuing_task=True, max_episode_steps=10**9)
    seen, _ = env.reset(seed=3)
    ants = Ants(world(env_id), 1)
    ants.place(0, np.concatenate([seen["achieved_goal"], seen["observation"]]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = rng.uniform(-1, 1, ACTION_DIM).astype(np.float32)
        seen = env.step(action)[0]
        (state,) = ants.step(action[None])
        assert np.allclose(state, np.r_[seen["achieved_goal"], seen["observation"]], atol=1e-6)
    env.close()


def test_placing_forgets_what_was_before(ants, lively, actions):
    first = walk(ants, lively, actions, np.zeros(COUNT, int))
    again = walk(ants, lively, actions, np.zeros(COUNT, int))
    assert np.array_equal(first, again)


def test_a_push_changes_velocities_alone(ants, lively):
    for index, state in enumerate(lively):
        ants.place(index, state)
    kicks = np.arange(6.0 * COUNT).reshape(COUNT, 6)
    ants.push(kicks)
    change = ants.states - lively
    assert np.allclose(change[:, 15:21], kicks)
    assert not change[:, :15].any() and not change[:, 21:].any()


def test_standing_depends_on_the_generator_alone():
    first, again = (standing(np.ones(2), np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.allclose(first[:3], [1, 1, 0.75])
    assert np.linalg.norm(first[3:7]) == pytest.approx(1)


# -- the controller -----------------------------------------------------------------------------


def test_walkers_keep_their_front_until_they_forget():
    walkers = Walkers(AntController(8), 2)
    states = np.stack([still(), still()])
    walkers.look(states, np.repeat(at_bearing(0), 2, axis=0))
    walkers.look(states, np.repeat(at_bearing(55), 2, axis=0))
    assert walkers.front.tolist() == [0, 0]
    walkers.forget(1)
    walkers.look(states, np.repeat(at_bearing(55), 2, axis=0))
    assert walkers.front.tolist() == [0, 1]


def test_walkers_turn_the_controllers_actions(lively, targets):
    walkers = Walkers(AntController(8), COUNT)
    applied = walkers.act(lively, targets)
    front = quadrants(lively, targets)
    seen = torch.from_numpy(features(lively, targets, front))
    assert np.allclose(applied, torques(walkers.controller(seen).detach().numpy(), front))
    assert np.abs(applied).max() <= 1


def test_a_written_controller_comes_back(tmp_path):
    torch.manual_seed(0)
    controller = AntController(8)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, module.KIND, controller.state_dict(), {"hidden": 8}, {})
    back = load_controller(path)
    seen = torch.randn(3, FEATURE_DIM)
    assert torch.equal(back(seen), controller(seen))
    assert not any(p.requires_grad for p in back.parameters())


def test_the_shipped_controller_walks(field):
    """From a standstill to a target 4 units away: most ants are there within 100 steps."""
    count, rng = 10, np.random.default_rng(77)
    ants, walkers = Ants(field, count), Walkers(load_controller(), count)
    bearings = rng.uniform(-np.pi, np.pi, count)
    goals = 4 * np.stack([np.cos(bearings), np.sin(bearings)], 1)
    for index in range(count):
        ants.place(index, standing(np.zeros(2), rng))
    there = np.zeros(count, bool)
    for _ in range(100):
        states = ants.step(walkers.act(ants.states, goals))
        there |= np.hypot(*(goals - states[:, :2]).T) < 0.5
    assert there.sum() >= 8
    assert not flipped(ants.states).any()


def test_the_sidecar_fits_the_parameters(script):
    sidecar = json.loads((CONTROLLER.parent / script.SIDECAR).read_text(encoding="utf-8"))
    curve = json.loads((CONTROLLER.parent / script.LOG).read_text(encoding="utf-8"))
    assert sidecar["final"] == curve[-1]
    assert sidecar["steps"] == curve[-1]["steps"]
    stages = [stage["steps"] for stage in sidecar["stages"]]
    assert sum(stages) <= sidecar["steps"] < sum(stages) + script.ANTS
    for world_ in ("field", "maze"):
        for count in sidecar["evaluation"][world_]:
            rate = 1000 * count["flips"] / count["steps"]
            low, high = count["flips_per_1000_95"]
            assert count["flips_per_1000"] == pytest.approx(rate, abs=1e-4)
            assert low <= count["flips_per_1000"] <= high
    sizes = [path.stat().st_size for path in CONTROLLER.parent.iterdir()]
    assert sum(sizes) < 300_000


# -- training it --------------------------------------------------------------------------------


def test_routes_are_shortest_and_end_at_the_goal(script):
    cells = script.route((1, 1), (6, 6))
    assert len(cells) == script.MAZE.distances((6, 6))[(1, 1)]
    assert cells[-1] == (6, 6)
    assert all(
        b in script.MAZE.neighbours(a) for a, b in zip([(1, 1), *cells], cells, strict=False)
    )
    assert script.route((1, 1), (1, 1)) == [(1, 1)]


def test_the_reward_by_hand(script):
    stage = script.Stage(
        steps=1, learning_rate=1e-3, speed_cap=2.0, fall_cost=100.0, tilt=1.0, overspeed=0.5
    )
    fast = still()
    fast[15:17] = 3.0, 4.0
    states, actions = np.stack([still(), fast]), np.stack([np.zeros(8), np.ones(8)])
    gained = script.reward(stage, np.array([1.5, 5.0]), actions, states, np.array([False, True]))
    assert np.allclose(gained, [0.2 * 2.0, 0.2 * (2.0 + 0.5 - 0.4 - 1.5 - 100)])


def test_targets_that_hold_stay_and_others_move_on(script):
    course = script.Course(2, False, 0.0, np.random.default_rng(0))
    course.hold[:] = 0, 1
    states = course.ants.states
    states[:, :2] = course.targets
    old = course.targets.copy()
    course.arrivals(states)
    assert np.abs(course.targets - old).max(1).tolist()[1] == 0
    assert np.hypot(*(course.targets - old)[0]) >= script.DISTANCES[0]
    assert (course.hits, course.misses) == (2, 0)
    states[:, :2] += 100
    for _ in range(script.SOON + 5):
        course.arrivals(states)
    assert (course.hits, course.misses) == (2, 1)  # the one that holds has been reached before


@pytest.fixture
def short(script, monkeypatch):
    """A recipe of a few steps."""
    stage = script.Stage(steps=800, learning_rate=1e-3, speed_cap=3.0, push=0.1)
    for name, value in (("RANDOM_STEPS", 320), ("RECORD_EVERY", 400), ("BUFFER", 2000)):
        monkeypatch.setattr(script, name, value)
    return (stage, stage)


def test_a_stopped_training_goes_on(script, short, tmp_path):
    first = script.Training(0, short)
    while first.steps < 640:
        first.step()
    first.save(tmp_path)
    second = script.Training(0, short)
    second.load(tmp_path)
    assert second.steps == 640 and second.resumed == [640]
    for name in ("actor", "critics", "targets"):
        pairs = zip(
            getattr(first.agent, name).parameters(),
            getattr(second.agent, name).parameters(),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)
    second.run(tmp_path)
    assert second.steps == 1600 and second.stage_index == 1
    assert len(second.log) >= 2
    seen = torch.from_numpy(second.seen)
    greedy = second.agent.act(seen, greedy=True)
    assert torch.allclose(second.controller()(seen), greedy, atol=1e-6)
    with pytest.raises(UserError, match="recipe"):
        script.Training(1, short).load(tmp_path)


def test_the_same_seed_gives_the_same_training(script, short):
    runs = []
    for seed in (0, 0, 1):
        training = script.Training(seed, short)
        while training.steps < 480:
            training.step()
        runs.append(torch.cat([p.flatten() for p in training.agent.actor.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.slow
def test_two_minutes_of_training_show(script, tmp_path):
    """It starts to walk: faster towards its targets than random torques, and fewer falls."""
    stage = script.Stage(steps=100_000, learning_rate=5e-4, speed_cap=3.0)
    training = script.Training(3, (stage,))
    training.run(tmp_path)
    first, last = training.log[0], training.log[-1]
    assert last["speed"] > first["speed"] + 0.1
    assert last["falls"] < first["falls"]


# -- bad input ----------------------------------------------------------------------------------


def test_bad_input_is_refused(field, tmp_path):
    walkers = Walkers(AntController(8), 2)
    with pytest.raises(UserError, match=r"\(2, 27\)"):
        walkers.act(np.zeros((2, 27)), np.zeros((2, 2)))
    with pytest.raises(UserError, match="2 ants walk"):
        walkers.act(np.zeros((3, 29)), np.zeros((3, 2)))
    with pytest.raises(UserError, match="at least 1"):
        Ants(field, 0)
    with pytest.raises(UserError, match=r"python scripts/ant_controller.py train"):
        load_controller(tmp_path / "model.safetensors")
    path = tmp_path / "other.safetensors"
    wrong = AntController(8).state_dict()
    save_checkpoint(path, module.KIND, wrong, {"hidden": 9}, {})
    with pytest.raises(UserError, match="does not fit"):
        load_controller(path)
    save_checkpoint(path, "skill model", wrong, {"hidden": 8}, {})
    with pytest.raises(UserError, match="ant controller is needed"):
        load_controller(path)
