"""The feudal maze: areas and moves against plain geometry, updates by hand, and flat Q-learning."""

import json

import numpy as np
import pytest
from samples import load_script

from mbta_helpers.errors import UserError
from mbta_helpers.hierarchical.feudal_maze import (
    COMMANDS,
    EAST,
    NORTH,
    SEARCH,
    SOUTH,
    WEST,
    FeudalAgents,
    FeudalConfig,
    GridMaze,
    live,
    train_feudal,
    u_maze,
)

OPEN = GridMaze(np.ones((4, 4), bool))
ONE = FeudalConfig(rate=0.5, gamma=0.8, initial=0.2, all_commands=False)


def agents(config=ONE, maze=OPEN, seeds=1):
    return FeudalAgents(maze, config, seeds, np.random.default_rng(0))


def command(agent, *commands):
    """Set the commands below level 0, coarse to fine."""
    agent.commands[1:] = np.array(commands)[:, None]


def learn(agent, before, after, hit=False):
    cells = [np.array([row * 4 + column]) for row, column in (before, after)]
    return agent.learn(*cells, np.array([hit]))[:, 0]


# -- geometry -------------------------------------------------------------------------------------


def test_areas_are_quarters_of_quarters():
    maze = u_maze(16)
    for level in range(maze.depth + 1):
        areas, width = maze.areas(level).reshape(16, 16), 16 >> level
        for row in range(16):
            for column in range(16):
                assert areas[row, column] == (row // width << level) + column // width


def test_moves_and_distances_agree_with_plain_geometry():
    maze = u_maze(8)
    steps, goal = maze.steps(), maze.number(0, 0)
    far = maze.distances(goal)
    for cell in maze.cells:
        row, column = divmod(cell, 8)
        for move, (down, right) in enumerate([(-1, 0), (1, 0), (0, -1), (0, 1)]):
            r, c = row + down, column + right
            free = 0 <= r < 8 and 0 <= c < 8 and maze.free[r, c]
            assert steps[cell, move] == (r * 8 + c if free else cell)
        assert far[cell] == (0 if cell == goal else 1 + far[steps[cell]].min())
    walls = np.flatnonzero(~maze.free)
    assert (far[walls] == -1).all() and (steps[walls] == walls[:, None]).all()
    assert (
        GridMaze(np.ones((8, 8), bool)).distances(0) == np.add.outer(*2 * [range(8)]).ravel()
    ).all()


# -- one update, by hand: M = 2, an area of level 1 is 2 × 2 cells --------------------------------


def test_a_command_carried_out_pays_one():
    agent = agents()
    command(agent, EAST, EAST)
    assert learn(agent, (0, 1), (0, 2)).tolist() == [False, True, True]
    q = agent.q[1][0, 1]  # of cell (0, 1)
    assert np.isclose(q[EAST, EAST], 0.5 * 0.2 + 0.5 * 1.0)
    assert np.isclose(q.sum(), 0.2 * 19 + 0.6)
    # Level 1 moved from area 0 to 1 under *, which still holds: γ max Q there.
    assert np.isclose(agent.q[0][0, 0, SEARCH, EAST], 0.5 * 0.2 + 0.5 * 0.8 * 0.2)


def test_leaving_the_area_another_way_pays_nothing_and_teaches_the_manager_nothing():
    agent = agents()
    command(agent, SOUTH, EAST)
    learn(agent, (0, 1), (0, 2))
    assert np.isclose(agent.q[1][0, 1, SOUTH, EAST], 0.5 * 0.2)
    assert (agent.q[0] == 0.2).all()


def test_managers_learn_only_from_obedience():
    """Three levels: who was not obeyed does not learn, nor does anybody above."""
    agent = agents(maze=GridMaze(np.ones((8, 8), bool)))
    move = np.array([3]), np.array([4]), np.array([False])  # east, over borders of all levels
    command(agent, EAST, NORTH, EAST)
    agent.learn(*move)
    assert (agent.q[0] == 0.2).all() and (agent.q[1] == 0.2).all()
    assert np.isclose(agent.q[2][0, 3, NORTH, EAST], 0.5 * 0.2)
    command(agent, NORTH, EAST, EAST)  # level 2 is obeyed and leaves another way than told
    agent.learn(*move)
    assert (agent.q[0] == 0.2).all()
    assert np.isclose(agent.q[1][0, 1, NORTH, EAST], 0.5 * 0.2)
    command(agent, EAST, EAST, EAST)
    agent.learn(*move)
    assert (agent.q[0] != 0.2).sum() == 1
    assert np.isclose(agent.q[1][0, 1, EAST, EAST], 0.5 * 0.2 + 0.5)


def test_a_step_within_the_area_looks_ahead_under_the_same_command():
    agent = agents()
    agent.q[1][0, 1, WEST] = 0.3, 0.9, 0.1, 0.2
    agent.q[1][0, 1, EAST] = 5.0
    command(agent, WEST, EAST)
    assert learn(agent, (0, 0), (0, 1)).tolist() == [False, False, True]
    assert np.isclose(agent.q[1][0, 0, WEST, EAST], 0.5 * 0.2 + 0.5 * 0.8 * 0.9)
    assert (agent.q[0] == 0.2).all()


def test_a_wall_costs_a_decision():
    agent = agents()
    agent.q[1][0, 0, WEST] = 0.4
    command(agent, WEST, NORTH)
    assert learn(agent, (0, 0), (0, 0)).tolist() == [False, False, True]
    assert np.isclose(agent.q[1][0, 0, WEST, NORTH], 0.5 * 0.4 + 0.5 * 0.8 * 0.4)


def test_the_goal_pays_those_who_were_told_to_search():
    for order, pay in ((SEARCH, 1.0), (WEST, 0.0)):
        agent = agents()
        command(agent, order, EAST)
        assert learn(agent, (0, 0), (0, 1), hit=True).all()
        assert np.isclose(agent.q[1][0, 0, order, EAST], 0.1 + 0.5 * pay)
        # Level 1 learns what its own search brings, and nothing from a find under another order.
        assert np.isclose(agent.q[0][0, 0, SEARCH, order], 0.1 + 0.5 if order == SEARCH else 0.2)


def test_a_goal_beyond_the_border_is_no_find_of_the_area_s_search():
    agent = agents()
    command(agent, SEARCH, EAST)
    learn(agent, (0, 1), (0, 2), hit=True)
    assert np.isclose(agent.q[1][0, 1, SEARCH, EAST], 0.1)
    agent = agents()
    command(agent, EAST, EAST)
    learn(agent, (0, 1), (0, 2), hit=True)
    assert np.isclose(agent.q[1][0, 1, EAST, EAST], 0.1 + 0.5)


def test_without_reward_hiding_only_the_goal_pays():
    agent = agents(FeudalConfig(rate=0.5, initial=0.2, all_commands=False, hide_rewards=False))
    command(agent, EAST, EAST)
    learn(agent, (0, 1), (0, 2))
    assert np.isclose(agent.q[1][0, 1, EAST, EAST], 0.1)
    command(agent, WEST, EAST)
    learn(agent, (0, 0), (0, 1), hit=True)
    assert np.isclose(agent.q[1][0, 0, WEST, EAST], 0.1 + 0.5)


def test_a_command_is_given_up_after_some_decisions():
    agent = agents()  # patience 3
    command(agent, NORTH, WEST)
    agent.q[0][0, 0, SEARCH] = 0.0, 0.7, 0.1, 0.1, 0.1
    ended = [learn(agent, (0, 0), (0, 0)).tolist() for _ in range(4)]
    assert ended == [[False, False, True]] * 2 + [[False, True, True]] + [[False, False, True]]
    # The area has not changed, so the order counts as a decision lost.
    assert np.isclose(agent.q[0][0, 0, SEARCH, NORTH], 0.5 * 0.0 + 0.5 * 0.8 * 0.7)


def test_all_commands_learn_from_one_move_what_each_would_have_paid():
    both = {}
    for every in (False, True):
        for order in range(COMMANDS):
            agent = agents(FeudalConfig(rate=0.5, gamma=0.8, initial=0.2, all_commands=every))
            command(agent, order, EAST)
            learn(agent, (0, 1), (0, 2))
            both[every, order] = agent.q[1][0, 1, :, EAST].copy()
    single = [both[False, order][order] for order in range(COMMANDS)]
    for order in range(COMMANDS):
        assert np.allclose(both[True, order], single)


def test_new_commands_follow_from_the_command_above():
    agent = agents(FeudalConfig(temperature=1e-6))
    agent.q[0][0, 0, SEARCH, SOUTH] = 1.0
    agent.q[1][0, 0, SOUTH, EAST] = 1.0
    agent.q[1][0, 0, NORTH, WEST] = 2.0
    fresh = np.array([[True], [True], [True]])
    assert agent.choose(np.array([0]), fresh).tolist() == [EAST]
    assert agent.commands[:, 0].tolist() == [SEARCH, SOUTH, EAST]
    command(agent, NORTH, EAST)
    fresh[1] = False
    assert agent.choose(np.array([0]), fresh).tolist() == [WEST]
    assert agent.commands[1, 0] == NORTH


def test_softmax_has_the_probabilities_of_softmax():
    agent = agents(FeudalConfig(temperature=0.5), seeds=20_000)
    values = np.array([0.1, 0.5, 0.0, 0.9, 0.3])
    agent.q[0][:, 0, SEARCH] = values
    agent.choose(np.zeros(20_000, int), np.ones((3, 20_000), bool))
    share = np.bincount(agent.commands[1], minlength=COMMANDS) / 20_000
    expected = np.exp(values / 0.5) / np.exp(values / 0.5).sum()
    assert np.allclose(share, expected, atol=4 * np.sqrt(0.25 / 20_000))


# -- flat Q-learning is the hierarchy of one level ------------------------------------------------


def test_one_level_is_q_learning():
    """The same life again, with a plain loop over one table of state and action."""
    config = FeudalConfig(levels=(2,), rate=0.5, gamma=0.9, temperature=0.05, initial=0.3)
    goal, steps = 5, 300
    agent, _ = train_feudal(OPEN, (goal,), steps, config, seeds=1, seed=4)
    rng = np.random.default_rng(4)
    starts = np.array([cell for cell in range(16) if cell != goal])
    q, cell, moves = np.full((16, 4), 0.3), rng.choice(starts, 1)[0], OPEN.steps()
    for _ in range(steps):
        action = (q[cell] / 0.05 + rng.gumbel(size=(1, 4))[0]).argmax()
        after = moves[cell, action]
        target = 1.0 if after == goal else 0.9 * q[after].max()
        q[cell, action] += 0.5 * (target - q[cell, action])
        cell = rng.choice(starts, 1)[0] if after == goal else after
    assert np.allclose(agent.q[0][0, :, SEARCH], q)


# -- training -------------------------------------------------------------------------------------


def test_seeds_do_not_touch_each_other():
    agent = agents(seeds=3)
    agent.commands[1:] = [[EAST] * 3, [EAST, EAST, WEST]]
    cells = np.array([1, 1, 1])
    agent.learn(cells, np.array([2, 2, 0]), np.zeros(3, bool))
    assert np.array_equal(agent.q[1][0], agent.q[1][1])
    assert (agent.q[1][2] != agent.q[1][0]).any()


def test_history_counts_the_steps_of_each_life():
    maze = u_maze(8)
    _, history = train_feudal(maze, (maze.number(0, 0), maze.number(7, 7)), 400, ONE, 5, seed=1)
    assert (np.diff(history.step) >= 0).all() and history.step.max() <= 800
    assert (history.length >= history.shortest).all() and (history.shortest >= 1).all()
    for seed in range(5):
        for low in (0, 400):
            mine = (history.seed == seed) & (history.step > low) & (history.step <= low + 400)
            ends, lengths = history.step[mine], history.length[mine]
            assert np.array_equal(np.cumsum(lengths), ends - low)


def test_training_repeats_with_its_seed():
    lives = [train_feudal(u_maze(8), (0,), 200, FeudalConfig(), 3, seed) for seed in (1, 1, 2)]
    tables = [np.concatenate([q.ravel() for q in agent.q]) for agent, _ in lives]
    assert np.array_equal(tables[0], tables[1]) and not np.array_equal(tables[0], tables[2])


def test_a_life_goes_on_where_it_was_left():
    """Two goals in one call, or one after the other by hand: the same tables, the same history."""
    maze = u_maze(8)
    agent, history = train_feudal(maze, (0, 63), 200, FeudalConfig(), 3, seed=1)
    other, first = train_feudal(maze, (0,), 200, FeudalConfig(), 3, seed=1)
    second = live(other, maze, 63, 200, lived=200)
    for whole, *parts in zip(history, first, second, strict=True):
        assert np.array_equal(whole, np.concatenate(parts))
    assert all(np.array_equal(*each) for each in zip(agent.q, other.q, strict=True))


def test_both_learn_the_way():
    maze = u_maze(8)
    for levels in (None, (3,)):
        config = FeudalConfig(levels=levels, gamma=0.8)
        _, history = train_feudal(maze, (0,), 4000, config, seeds=10, seed=3)
        late = history.step > 3000
        assert history.length[late].sum() < 3 * history.shortest[late].sum()


def test_settings_are_chosen_by_what_the_script_writes(tmp_path, monkeypatch, capsys):
    script = load_script("feudal_maze_grid")
    few = [script.settings()[0], script.settings()[-1]]
    assert len(script.settings()) == 27 and few[1].levels is None
    monkeypatch.setattr(script, "settings", lambda: few)
    monkeypatch.setattr(script, "LIFE", 400)
    assert script.main(["--seeds", "3", "--out", str(tmp_path / "grid.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "grid.jsonl").read_text().splitlines()]
    assert [line["agent"] for line in lines] == ["flat", "feudal"]
    for line in lines:
        for phase in ("first", "moved"):
            counts = line[phase]["seeds"]
            assert len(counts) == 3 and abs(line[phase]["mean"] - sum(counts) / 3) <= 0.051
    assert len(capsys.readouterr().out.splitlines()) == 2


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"rate": 0.0}, {"rate": 2.0}, {"gamma": 1.0}, {"temperature": 0.0}, {"patience": 1}],
)
def test_a_configuration_that_cannot_work_is_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        FeudalConfig(**change)


def test_bad_input_says_what_is_wrong():
    for levels in ((), (2, 1, 3), (1,), (0, 2)):
        with pytest.raises(UserError, match="levels rise"):
            agents(FeudalConfig(levels=levels))
    with pytest.raises(UserError, match="square"):
        GridMaze(np.ones((4, 6), bool))
    with pytest.raises(UserError, match="square"):
        GridMaze(np.ones((6, 6), bool))
    with pytest.raises(UserError, match="no free cell"):
        u_maze(8).number(8, 0)
    with pytest.raises(UserError, match="side"):
        u_maze(4)
    with pytest.raises(UserError, match="at least 1 seed"):
        agents(seeds=0)
    with pytest.raises(UserError, match="one goal"):
        train_feudal(OPEN, (), 10, ONE, 1, seed=0)
    with pytest.raises(UserError, match="at least 1 step"):
        train_feudal(OPEN, (0,), 0, ONE, 1, seed=0)
    wall = 2 * 8 + 2  # the top of the barrier's left side
    assert not u_maze(8).free.ravel()[wall]
    for goal in (-1, 64, wall):
        with pytest.raises(UserError, match=r"maze\.cells"):
            train_feudal(u_maze(8), (goal,), 10, ONE, 1, seed=0)
    with pytest.raises(UserError, match="No way leads"):
        train_feudal(GridMaze(np.eye(4, dtype=bool)), (0,), 10, ONE, 1, seed=0)
    with pytest.raises(UserError, match="no free cell"):
        OPEN.number(0, 4)
    with pytest.raises(UserError, match="two free cells"):
        GridMaze(np.zeros((4, 4), bool))
