"""Four Rooms: the map, the slip before the move, the environment, and runs side by side."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mbta_helpers.errors import UserError
from mbta_helpers.hierarchical import four_rooms
from mbta_helpers.hierarchical.four_rooms import (
    ENV_ID,
    FOUR_ROOMS,
    HALLWAYS,
    FourRooms,
    Runs,
    World,
    choose,
    mean_interval,
    parse,
    rooms,
    slips,
    start_states,
    world_of,
)

EVEN = (np.arange(3000) + 0.5) / 3000  # as good as uniform draws, and exact in counts


@pytest.fixture(scope="module")
def world():
    return world_of(FourRooms())


# -- the map ----------------------------------------------------------------------------------


def test_the_map_is_that_of_the_paper():
    assert len(FOUR_ROOMS.cells) == 104
    assert sorted(map(len, rooms())) == [20, 25, 25, 30]
    for cell in HALLWAYS.values():
        around = FOUR_ROOMS.next_state[FOUR_ROOMS.state_of(cell)]
        assert sum(bool(set(room) & set(around.tolist())) for room in rooms()) == 2


def test_moves_go_one_cell_or_nowhere_and_can_be_taken_back():
    cells = np.array(FOUR_ROOMS.cells)
    opposite = [1, 0, 3, 2]
    for action, move in enumerate(four_rooms.MOVES):
        after = FOUR_ROOMS.next_state[:, action]
        moved = after != np.arange(104)
        assert (cells[after[moved]] - cells[moved] == move).all()
        assert (
            FOUR_ROOMS.next_state[after[moved], opposite[action]] == np.flatnonzero(moved)
        ).all()
        for i, j in cells[~moved] + move:
            assert FOUR_ROOMS.walls[i][j]


def test_picture_puts_each_value_on_its_cell():
    image = FOUR_ROOMS.picture(np.arange(104.0))
    assert np.isnan(image[0, 0]) and np.isnan(image).sum() == 169 - 104
    assert all(image[cell] == state for state, cell in enumerate(FOUR_ROOMS.cells))


def test_a_ragged_layout_and_a_wall_are_refused():
    with pytest.raises(UserError, match="equally long"):
        parse("###\n####")
    with pytest.raises(UserError, match="no free cell"):
        FOUR_ROOMS.state_of((0, 0))


# -- the dynamics -----------------------------------------------------------------------------


@pytest.mark.parametrize("slip", [0.0, 0.3, 1.0])
def test_slips_have_their_probabilities(slip):
    shares = np.bincount(slips(EVEN, slip, 4), minlength=4) / len(EVEN)
    assert np.allclose(shares, [1 - slip, slip / 3, slip / 3, slip / 3], atol=2 / len(EVEN))


def test_the_slip_comes_before_the_move(world):
    """No step goes farther than one cell, which a second move after the first would."""
    cells = np.array(FOUR_ROOMS.cells)
    states = np.arange(104)
    for action in range(4):
        for slip in range(4):
            after, _ = world.step(states, np.full(104, action), np.full(104, slip), world.goal)
            assert (np.abs(cells[after] - cells).sum(1) <= 1).all()
            assert (after == world.next_state[:, (action + slip) % 4]).all()


def test_transitions_and_rewards_are_those_of_steps(world):
    slip = slips(EVEN, world.slip, 4)
    for state, action in ((0, 0), (30, 3), (FOUR_ROOMS.state_of((8, 9)), 0), (61, 1)):
        full = np.full(len(EVEN), state), np.full(len(EVEN), action)
        after, terminated = world.step(*full, slip, world.goal)
        shares = np.bincount(after, minlength=104) / len(EVEN)
        assert np.allclose(shares, world.transitions[state, action], atol=1e-3)
        assert np.isclose(terminated.mean(), world.rewards[state, action], atol=1e-3)
    assert np.allclose(world.transitions.sum(-1), 1)


def test_reward_is_expected_next_to_the_goal_alone(world):
    near = np.flatnonzero((world.next_state == world.goal).any(1))
    near = near[near != world.goal]
    rewarded = np.flatnonzero(world.rewards.any(1))
    assert (rewarded == near).all() and len(near) == 2
    above = FOUR_ROOMS.state_of((6, 9))
    assert np.allclose(world.rewards[above], [1 / 9, 2 / 3, 1 / 9, 1 / 9])


@pytest.mark.parametrize("values", [{"slip": 1.5}, {"goal": 104}, {"goal": -1}])
def test_an_impossible_world_is_refused(values):
    with pytest.raises(UserError):
        World(**({"next_state": FOUR_ROOMS.next_state, "slip": 0.1, "goal": 3} | values))


# -- the environment --------------------------------------------------------------------------


def test_gymnasium_accepts_the_environment():
    env = gym.make(ENV_ID, render_mode="ansi")
    check_env(env.unwrapped)
    assert env.spec.max_episode_steps == 1000
    env.reset(seed=1, options={"start": (1, 1)})
    assert env.render().split("\n")[1][1] == "o" and "G" in env.render()


def test_the_environment_moves_as_its_transitions_say():
    env = FourRooms()
    env.reset(seed=0)
    counts = np.zeros(104)
    for _ in range(4000):
        env.reset(options={"start": (6, 9)})
        counts[env.step(1)[0]] += 1
    expected = env.world.transitions[FOUR_ROOMS.state_of((6, 9)), 1]
    assert np.abs(counts / 4000 - expected).max() < 4 * np.sqrt(0.25 / 4000)


def test_the_goal_ends_an_episode_and_can_be_moved():
    env = FourRooms(goal=(1, 1), slip=0.0)
    env.reset(seed=0, options={"start": (1, 2)})
    assert env.step(2)[1:4] == (1.0, True, False)
    env.move_goal((1, 3))
    env.reset(options={"start": (1, 2)})
    assert env.step(2)[1:4] == (0.0, False, False)
    env.reset(options={"start": (1, 2)})
    assert env.step(3)[1:4] == (1.0, True, False)
    with pytest.raises(UserError, match="no free cell"):
        env.move_goal((0, 0))
    with pytest.raises(UserError, match="no action"):
        env.step(7)


class Odd(gym.Env):
    """An environment that lacks what the agents need."""

    def __init__(self, actions, world=None):
        self.observation_space = gym.spaces.Discrete(104)
        self.action_space = actions
        if world is not None:
            self.world = world


@pytest.mark.parametrize(
    ("actions", "has_world", "message"),
    [
        (gym.spaces.Box(-1, 1, (2,)), True, "need Discrete"),
        (gym.spaces.Discrete(4), False, "no attribute `world`"),
        (gym.spaces.Discrete(3), True, "104 states and 3 actions"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(world, actions, has_world, message):
    with pytest.raises(UserError, match=message):
        world_of(Odd(actions, world if has_world else None))


# -- runs side by side ------------------------------------------------------------------------


def test_starts_are_uniform_over_all_but_the_goal():
    draw = (np.arange(1030) + 0.5) / 1030
    assert (np.bincount(start_states(draw, 7, 104)) == [10] * 7 + [0] + [10] * 96).all()


def test_choose_has_the_given_probabilities():
    probability = np.tile([0.2, 0.0, 0.5, 0.3], (len(EVEN), 1))
    shares = np.bincount(choose(probability, EVEN), minlength=4) / len(EVEN)
    assert np.allclose(shares, [0.2, 0.0, 0.5, 0.3], atol=1e-3)
    short = np.array([[0.5, 0.4999]])  # sums may round below 1
    assert choose(short, np.array([0.99999])) == [1]


def test_interval_of_a_mean():
    mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    half = 1.96 * np.sqrt(5 / 3) / 2
    assert np.allclose([mean, low, high], [2.5, 2.5 - half, 2.5 + half])


def wander(world, seeds, goals, max_steps=300, watch=None):
    """Runs of an agent that chooses at random."""
    runs = Runs(world, seeds, goals, max_steps, draws=1)
    while runs.row.size:
        before = runs.row, runs.state.copy(), runs.goal.copy()
        after, terminated, truncated = runs.step((runs.uniform[0] * 4).astype(int))
        if watch:
            watch(*before, after, terminated, truncated)
        runs.go_on(after, terminated | truncated)
    return runs.steps


def test_a_run_depends_on_its_own_seed_alone(world):
    goals = np.tile([world.goal, 5, 99], (3, 1))
    together = wander(world, [8, 3, 5], goals)
    for row, seed in enumerate([8, 3, 5]):
        assert (wander(world, [seed], goals[:1]) == together[row]).all()
    assert len(set(map(tuple, together))) == 3


def test_episodes_have_their_goals_and_their_ends(world):
    goals = np.array([[4, 60, 20, 7], [11, 12, 13, 14]])
    lengths, episode, clock = [[], []], [0, 0], [0, 0]

    def watch(row, state, goal, after, terminated, truncated):
        for n, r in enumerate(row):
            assert goal[n] == goals[r, episode[r]]
            assert state[n] != goal[n], "an episode begins or goes on at its goal"
            assert terminated[n] == (after[n] == goal[n])
            clock[r] += 1
            assert truncated[n] == (clock[r] == 40 and not terminated[n])
            if terminated[n] or truncated[n]:
                lengths[r].append(clock[r])
                episode[r], clock[r] = episode[r] + 1, 0

    steps = wander(world, [0, 1], goals, 40, watch)
    assert steps.tolist() == lengths and (steps == 40).any() and (steps <= 40).all()


def test_runs_refuse_what_makes_no_sense(world):
    for seeds, goals, steps in (
        ([], np.zeros((0, 3), int), 9),
        ([1], np.zeros((2, 3), int), 9),
        ([1], np.zeros((1, 0), int), 9),
        ([1], np.zeros((1, 3), int), 0),
    ):
        with pytest.raises(UserError):
            Runs(world, seeds, goals, steps, 1)
