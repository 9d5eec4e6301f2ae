"""Options: models against brute force and by hand, planning and learning against exact values."""

import numpy as np
import pytest

from mbta_helpers.errors import UserError
from mbta_helpers.hierarchical.four_rooms import FOUR_ROOMS, HALLWAYS, FourRooms, World, rooms
from mbta_helpers.hierarchical.options import (
    Option,
    Options,
    QConfig,
    collect,
    greedy,
    hallway_options,
    option_models,
    primitive_options,
    smdp_target,
    solve,
    train_q,
    utility,
    value_sweeps,
)

GAMMA = 0.9


@pytest.fixture(scope="module")
def world():
    return FourRooms().world


@pytest.fixture(scope="module")
def hallways():
    return hallway_options()


def corridor(states=5, slip=0.0):
    """Cells in a row, actions left and right, the goal at the right end."""
    here = np.arange(states)
    moves = np.stack([np.maximum(here - 1, 0), np.minimum(here + 1, states - 1)], 1)
    return World(moves, slip, states - 1)


def rightwards(states=5, ends=0.0):
    """Go right; end on arrival with a probability, and at the goal."""
    termination = np.full(states, float(ends))
    termination[-1] = 1.0
    return Option(np.ones(states, bool), np.tile([0.0, 1.0], (states, 1)), termination)


# -- options as tuples ------------------------------------------------------------------------


def test_each_room_has_an_option_to_each_of_its_hallways(hallways):
    assert len(hallways) == 8
    doors = {FOUR_ROOMS.state_of(cell) for cell in HALLWAYS.values()}
    for n, option in enumerate(hallways):
        room = rooms()[n // 2]
        begins = set(np.flatnonzero(option.initiation))
        assert set(room) < begins and len(begins) == len(room) + 1 and begins - set(room) <= doors
        assert (option.termination == ~np.isin(np.arange(104), room)).all()


def test_hallway_options_take_a_shortest_way(hallways):
    """Without slips: as many steps as breadth-first search over the room finds."""
    for option in hallways:
        begins = np.flatnonzero(option.initiation)
        after = FOUR_ROOMS.next_state[np.arange(104), option.policy.argmax(-1)]
        ends = set()
        for start in begins:
            state, steps = start, 0
            while steps == 0 or option.termination[state] == 0:
                state, steps = after[state], steps + 1
            ends.add(state)
            reach, shortest = {start}, 0
            while state not in reach:
                allowed = [s for s in reach if option.initiation[s]]
                reach |= set(FOUR_ROOMS.next_state[allowed].ravel().tolist())
                shortest += 1
            assert steps == shortest
        assert len(ends) == 1 and not option.initiation[list(ends)].any()


def options_with(**values):
    two = collect([rightwards(), rightwards(ends=0.5)])
    parts = {name: getattr(two, name) for name in ("initiation", "policy", "termination")}
    return lambda: Options(**(parts | values))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: collect([]), "no options"),
        (options_with(policy=np.zeros((0, 5, 2))), "no options"),
        (options_with(policy=np.zeros((5, 2))), "shape"),
        (options_with(policy=np.full((2, 5, 2), 0.7)), "add up to 1"),
        (options_with(termination=np.full((2, 5), 1.2)), "probabilities"),
        (options_with(termination=np.ones((2, 4))), "must have the shape"),
        (options_with(initiation=np.eye(5, dtype=bool)[:2]), "no option may begin"),
        (lambda: option_models(options_with()(), corridor(), 1.0), "gamma"),
        (lambda: QConfig(rule="sarsa"), "smdp or intra"),
        (lambda: QConfig(learning_rate=0), "learning_rate"),
        (lambda: QConfig(gamma=1), "gamma"),
        (lambda: QConfig(epsilon=2), "epsilon"),
        (lambda: QConfig(episodes=0), "episodes"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_learning_refuses_what_it_cannot_learn(world):
    with pytest.raises(UserError, match="the world has"):
        train_q(world, collect([rightwards()]), QConfig(), [0])
    half = Option(np.ones(5, bool), np.full((5, 2), 0.5), np.ones(5))
    with pytest.raises(UserError, match="deterministic"):
        train_q(corridor(), collect([half]), QConfig(rule="intra"), [0])


@pytest.mark.parametrize("rule", ["smdp", "intra"])
def test_an_option_must_be_able_to_begin_where_it_can_go_on(rule):
    """Where it may not begin its value is −∞, and it would be learned from."""
    begins, policy = np.array([True, False, True, True, True]), np.eye(2)[np.ones(5, int)]
    once = Option(begins, policy, np.ones(5))
    on = Option(begins, policy, np.full(5, 0.3))
    primitives = primitive_options(5, 2)
    with pytest.raises(UserError, match="able to begin"):
        train_q(corridor(), collect([*primitives, on]), QConfig(rule, episodes=3), [0])
    q = train_q(corridor(), collect([*primitives, once]), QConfig(rule, episodes=3), [0]).q[0]
    assert not np.isnan(q).any()
    assert (np.isinf(q) == ~np.stack([*np.ones((2, 5), bool), begins], 1)).all()


# -- models -----------------------------------------------------------------------------------


def test_models_by_hand():
    models = option_models(collect([rightwards(), rightwards(ends=0.25)]), corridor(), GAMMA)
    assert np.allclose(models.reward[0], [GAMMA**3, GAMMA**2, GAMMA, 1, 0])
    assert np.allclose(models.arrival[0], 0), "the goal is worth nothing more"
    # With β = 1/4 the option gets through a state with 3/4.
    on = 0.75 * GAMMA
    assert np.allclose(models.reward[1], [on**3, on**2, on, 1, 0])
    end = 0.25 * GAMMA
    assert np.allclose(models.arrival[1, 0], [0, end, end * on, end * on**2, 0])


def test_models_against_the_sum_over_steps(world, hallways):
    """Follow the distribution over states of each option, step by step."""
    soft = Option(np.ones(104, bool), np.full((104, 4), 0.25), np.full(104, 0.2))
    options = collect([*hallways[:3], soft])
    models = option_models(options, world, GAMMA)
    lives = np.arange(104) != world.goal
    for n, (policy, beta) in enumerate(zip(options.policy, options.termination, strict=True)):
        step = np.einsum("sa,sat->st", policy, world.transitions)
        running = np.eye(104) * lives[:, None]
        reward, arrival = np.zeros(104), np.zeros((104, 104))
        for k in range(400):
            reward += GAMMA**k * running @ step[:, world.goal]
            running = running @ step * lives
            arrival += GAMMA ** (k + 1) * running * beta
            running = running * (1 - beta)
        assert np.allclose(models.reward[n], reward, atol=1e-10)
        assert np.allclose(models.arrival[n], arrival, atol=1e-10)


def test_models_of_primitive_options_are_the_mdp(world):
    models = option_models(collect(primitive_options(104, 4)), world, GAMMA)
    lives = np.arange(104) != world.goal
    assert np.allclose(models.reward, world.rewards.T)
    expected = GAMMA * world.transitions.swapaxes(0, 1) * lives * lives[:, None]
    assert np.allclose(models.arrival, expected)


# -- planning ---------------------------------------------------------------------------------


def test_solution_with_primitive_options_is_that_of_the_mdp(world):
    options = collect(primitive_options(104, 4))
    q = solve(option_models(options, world, GAMMA), options.initiation)
    value = np.zeros(104)
    for _ in range(400):
        value = (world.rewards + GAMMA * world.transitions @ value).max(1)
        value[world.goal] = 0
    assert np.allclose(q.max(0), value)


def test_options_beside_primitive_ones_do_not_change_the_optimum(world, hallways):
    primitive = primitive_options(104, 4)
    found = {}
    for name, chosen in (("A", primitive), ("H", hallways), ("AH", primitive + hallways)):
        options = collect(chosen)
        found[name] = solve(option_models(options, world, GAMMA), options.initiation).max(0)
    assert np.allclose(found["A"], found["AH"])
    assert (found["H"] <= found["A"] + 1e-9).all() and (found["H"] < found["A"] - 1e-3).any()


def test_value_spreads_by_cells_or_by_rooms(world, hallways):
    primitive = collect(primitive_options(104, 4))
    sweeps = value_sweeps(option_models(primitive, world, GAMMA), primitive.initiation, 3)
    reach = np.arange(104) == world.goal
    for value in sweeps[1:]:
        reach |= reach[world.next_state].any(1)
        assert (value[reach & (np.arange(104) != world.goal)] > 0).all() and not value[~reach].any()
    options = collect(hallways)
    sweeps = value_sweeps(option_models(options, world, GAMMA), options.initiation, 2)
    beside = [room for room in rooms() if (world.next_state[room] == world.goal).any()]
    assert len(beside) == 2 and (sweeps[1][np.concatenate(beside)] > 0).all()
    assert (np.delete(sweeps[2], world.goal) > 0).all(), "two sweeps reach every room"
    assert (np.diff(sweeps, axis=0) >= -1e-12).all()


# -- the rules of learning --------------------------------------------------------------------


def test_targets_by_hand():
    total, discount = np.array([0.5, 0.5]), np.array([0.25, 0.25])
    target = smdp_target(total, discount, np.array([False, True]), np.array([2.0, 2.0]))
    assert target.tolist() == [1.0, 0.5]
    beta = np.array([0.0, 0.25, 1.0])
    own = np.array([4.0, 4.0, -np.inf])  # −∞: may not begin there, and need not
    assert utility(own, beta, np.full(3, 8.0)).tolist() == [4.0, 5.0, 8.0]


def test_greedy_chooses_among_what_may_begin():
    q = np.array([[1.0, 3.0, -np.inf, 3.0], [-np.inf, 0.0, 2.0, 1.0]])
    expected = [[0.1, 0.45, 0, 0.45], [0, 0.1, 0.8, 0.1]]
    assert np.allclose(greedy(q, 0.3), expected)


@pytest.mark.parametrize("rule", ["smdp", "intra"])
def test_learned_values_are_the_exact_ones(rule):
    """A corridor without slips, where a constant rate leaves no noise."""
    world = corridor()
    to_middle = rightwards()._replace(termination=np.array([0, 0, 1.0, 1, 1]))
    options = collect([*primitive_options(5, 2), rightwards(), to_middle])
    exact = solve(option_models(options, world, GAMMA), options.initiation)
    config = QConfig(rule=rule, gamma=GAMMA, learning_rate=0.5, epsilon=0.8, episodes=1200)
    history = train_q(world, options, config, [0, 1, 2], exact.max(0))
    assert np.allclose(history.q[:, :-1], exact.T[:-1], atol=1e-3)
    gap = history.q[:, :-1].max(-1) - exact.max(0)[:-1]
    assert np.allclose(history.error[:, -1], np.sqrt((gap**2).mean(-1)))
    assert (history.error[:, 0] > 0.1).all() and (history.error[:, -1] < 1e-3).all()


@pytest.mark.parametrize("rule", ["smdp", "intra"])
def test_running_out_of_steps_is_not_the_end(rule):
    """Episodes of one step: values beyond it are still learnt, from those of the next states."""
    world, options = corridor(), collect([rightwards(), rightwards(ends=1.0)])
    config = QConfig(rule, GAMMA, learning_rate=0.5, epsilon=0.5, episodes=600, max_steps=1)
    history = train_q(world, options, config, [0])
    assert np.allclose(history.q[0, :4], GAMMA ** np.array([[3], [2], [1], [0]]), atol=1e-3)


def test_both_rules_are_q_learning_where_options_are_primitive(world):
    options = collect(primitive_options(104, 4))
    both = [
        train_q(world, options, QConfig(rule, episodes=5), [3, 4]) for rule in ("smdp", "intra")
    ]
    assert (both[0].steps == both[1].steps).all() and np.allclose(both[0].q, both[1].q)
    assert both[0].error is None


def test_intra_option_learning_updates_every_option_that_would_have_acted_alike():
    """One step to the right, at the goal: all options that go right learn, the other does not."""
    world = corridor(2)
    options = collect([*primitive_options(2, 2), rightwards(2), rightwards(2, ends=0.5)])
    config = QConfig("intra", GAMMA, learning_rate=0.5, epsilon=1.0, episodes=1)
    q = train_q(world, options, config, [0]).q[0, 0]
    assert q[0] == 0 and np.allclose(q[1:], 0.5)
    q = train_q(world, options, QConfig("smdp", GAMMA, 0.5, 1.0, 1), [0]).q[0, 0]
    assert (q > 0).sum() == 1


def test_a_run_depends_on_its_own_seed_alone(world, hallways):
    options = collect(primitive_options(104, 4) + hallways)
    config = QConfig("smdp", episodes=3)
    together = train_q(world, options, config, [5, 6, 7])
    alone = train_q(world, options, config, [6])
    assert (together.steps[1] == alone.steps[0]).all() and (together.q[1] == alone.q[0]).all()
