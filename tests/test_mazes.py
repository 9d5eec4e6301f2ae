"""Mazes: geometry against brute force, and against the simulator that uses it."""

import heapq
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbta_helpers.errors import UserError
from mbta_helpers.mazes import (
    BALL_RADIUS,
    MAZES,
    POSITION_NOISE,
    SUCCESS_RADIUS,
    corner_tasks,
    get_maze,
    make_env,
    opened,
    place,
    sample_tasks,
    shortest_path_length,
)

ALL = sorted(MAZES)
POINT = [maze for maze in MAZES.values() if maze.body == "point"]
every_maze = pytest.mark.parametrize("maze", MAZES.values(), ids=list(MAZES))
every_pointmaze = pytest.mark.parametrize("maze", POINT, ids=lambda maze: maze.name)


@every_maze
def test_cells_have_the_simulator_s_coordinates(maze):
    with opened(maze) as env:
        theirs = env.unwrapped.maze
    for cell in maze.cells:
        assert np.allclose(maze.centre(cell), theirs.cell_rowcol_to_xy(np.array(cell)))
        assert maze.cell_at(maze.centre(cell)) == cell
    assert maze.walls == tuple(tuple(value == 1 for value in row) for row in theirs.maze_map)
    assert maze.side == theirs.maze_size_scaling
    assert not Path(env.unwrapped.tmp_xml_file_path).exists()


@given(st.data())
def test_a_point_is_in_the_cell_whose_centre_is_nearest(data):
    maze = get_maze(data.draw(st.sampled_from(ALL)))
    cell = data.draw(st.sampled_from(maze.cells))
    offset = data.draw(st.tuples(*[st.floats(-0.49, 0.49)] * 2))
    assert maze.cell_at(maze.centre(cell) + maze.side * np.array(offset)) == cell


@every_pointmaze
def test_a_larger_cell_is_the_same_maze_in_other_units(maze):
    large = replace(maze, side=4.0, radius=4 * maze.radius)
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (200, 2)) * (maze.shape[1], maze.shape[0])
    for clearance in (0.0, 0.2):
        free = maze.is_free(points, clearance)
        assert np.array_equal(large.is_free(4 * points, 4 * clearance), free)
    assert [large.cell_at(4 * point) for point in points] == list(map(maze.cell_at, points))
    assert large.extent == tuple(4 * end for end in maze.extent)
    for start, goal in points[free].reshape(-1)[:8].reshape(2, 2, 2):
        length = shortest_path_length(maze, start, goal)
        assert shortest_path_length(large, 4 * start, 4 * goal) == pytest.approx(4 * length)
    small, wide = sample_tasks(maze, 20, 3), sample_tasks(large, 20, 3)
    assert np.allclose(wide.starts, 4 * small.starts) and np.allclose(wide.goals, 4 * small.goals)


def test_ants_have_cells_of_four_and_room_for_their_legs():
    for name in ("umaze", "medium", "large"):
        ant, point = get_maze(f"antmaze-{name}"), get_maze(f"pointmaze-{name}")
        assert (ant.side, ant.body, ant.max_steps) == (4.0, "ant", 1000)
        assert ant.walls == point.walls and ant.radius > 1.0
        assert (point.side, point.body, point.radius) == (1.0, "point", BALL_RADIUS)
    with pytest.raises(UserError, match=r"outside antmaze-umaze, which spans x in \[-10, 10\]"):
        get_maze("antmaze-umaze").check_point("goal", np.array([11.0, 0.0]))


def touches_wall(maze, xy, clearance):
    """Whether a square of that half side around a point meets a wall or leaves the map."""
    rows, columns = maze.shape
    for i in range(-1, rows + 1):
        for j in range(-1, columns + 1):
            solid = not (0 <= i < rows and 0 <= j < columns) or maze.walls[i][j]
            apart = np.abs(xy - maze.centre((i, j))).max(-1) >= 0.5 + clearance
            if solid and not apart:
                return True
    return False


@every_pointmaze
@pytest.mark.parametrize("clearance", [0.0, 0.1])
def test_is_free_equals_brute_force(maze, clearance):
    rows, columns = maze.shape
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (150, 2)) * (columns + 0.9, rows + 0.9)
    free = maze.is_free(points, clearance)
    assert free.any() and not free.all()
    for point, own in zip(points, free, strict=True):
        assert own == (not touches_wall(maze, point, clearance))


@every_maze
def test_distances_are_those_of_floyd_and_warshall(maze):
    cells = maze.cells
    steps = np.full((len(cells), len(cells)), np.inf)
    for a, one in enumerate(cells):
        for b, other in enumerate(cells):
            apart = abs(one[0] - other[0]) + abs(one[1] - other[1])
            steps[a, b] = apart if apart <= 1 else np.inf
    for k in range(len(cells)):
        steps = np.minimum(steps, steps[:, k, None] + steps[k])
    for goal, cell in enumerate(cells):
        own = maze.distances(cell)
        assert own == {cells[a]: steps[a, goal] for a in range(len(cells))}


FINE, REACH = 10, 4  # points of the grid a cell; a move goes at most so many points each way


def grid_distances(maze, goal):
    """Lengths of shortest ways to a goal on a fine grid, with 48 directions, by Dijkstra.

    Points of the grid are (row, column) from the upper left corner; a move is looked at in eight
    parts, so that it cannot cut through a wall, which is thicker by the ball's radius.
    """
    rows, columns = maze.shape
    parts = 8
    margin, thick = parts * REACH, round(parts * FINE * BALL_RADIUS)
    blocked = np.zeros((rows * FINE * parts + 1, columns * FINE * parts + 1), bool)
    for i in range(rows):
        for j in range(columns):
            if maze.walls[i][j]:  # the border of a thickened wall may be touched
                i0, j0 = (max(parts * FINE * k - thick + 1, 0) for k in (i, j))
                i1, j1 = (parts * FINE * (k + 1) + thick for k in (i, j))
                blocked[i0:i1, j0:j1] = True
    blocked = np.pad(blocked, margin, constant_values=True)
    height, width = rows * FINE + 1, columns * FINE + 1
    moves = []
    for a, b in itertools.product(range(-REACH, REACH + 1), repeat=2):
        if math.gcd(a, b) == 1:
            passed = [
                blocked[
                    margin + a * part : margin + a * part + parts * height : parts,
                    margin + b * part : margin + b * part + parts * width : parts,
                ][:height, :width]
                for part in range(parts + 1)
            ]
            moves.append((a, b, math.hypot(a, b) / FINE, ~np.any(passed, axis=0)))
    far = {grid_point(maze, goal): 0.0}
    frontier = [(0.0, grid_point(maze, goal))]
    while frontier:
        distance, here = heapq.heappop(frontier)
        if distance > far[here]:
            continue
        for a, b, length, allowed in moves:
            there = here[0] + a, here[1] + b
            if allowed[here] and distance + length < far.get(there, math.inf):
                far[there] = distance + length
                heapq.heappush(frontier, (distance + length, there))
    return far


def grid_point(maze, xy):
    rows, columns = maze.shape
    return round((rows / 2 - xy[1]) * FINE), round((xy[0] + columns / 2) * FINE)


@every_pointmaze
def test_shortest_paths_equal_a_fine_grid(maze):
    """The grid knows 48 directions, so its ways are at most one in a hundred longer."""
    rng = np.random.default_rng(1)
    cells = maze.cells
    goal = maze.centre(cells[rng.integers(len(cells))]) + rng.integers(-2, 3, 2) / FINE
    by_grid = grid_distances(maze, goal)
    for cell in cells:
        start = maze.centre(cell) + rng.integers(-2, 3, 2) / FINE
        own, grid = shortest_path_length(maze, start, goal), by_grid[grid_point(maze, start)]
        assert 0.99 * grid <= own <= 1.002 * grid, (start, goal)


def test_shortest_path_by_hand(umaze):
    """In the U: from one arm's end to the other, round the two corners of the wall between."""
    start, goal = np.array([-1.0, 1.0]), np.array([-1.0, -1.0])
    # The wall between ends at x = 0.5 and is one high; its corners are pushed out by the radius.
    corner = np.array([0.5 + BALL_RADIUS, 0.5 + BALL_RADIUS])
    expected = 2 * np.linalg.norm(start - corner) + 2 * corner[1]
    assert shortest_path_length(umaze, start, goal) == pytest.approx(expected)
    assert shortest_path_length(umaze, goal, start) == pytest.approx(expected)
    beside = start + np.array([1.0, 0.0])
    assert shortest_path_length(umaze, start, beside) == pytest.approx(1.0)


# -- tasks and placing ------------------------------------------------------------------------


@every_maze
def test_tasks_are_reproducible_and_lie_in_different_free_cells(maze):
    tasks, again, others = (sample_tasks(maze, 200, seed) for seed in (7, 7, 8))
    assert len(tasks) == 200
    assert np.array_equal(tasks.starts, again.starts) and np.array_equal(tasks.goals, again.goals)
    assert not np.array_equal(tasks.starts, others.starts)
    for start, goal in zip(tasks.starts, tasks.goals, strict=True):
        cells = [maze.cell_at(point) for point in (start, goal)]
        assert cells[0] != cells[1]
        for point, cell in zip((start, goal), cells, strict=True):
            assert cell in maze.cells
            assert np.abs(point - maze.centre(cell)).max() <= POSITION_NOISE * maze.side
    assert {maze.cell_at(goal) for goal in tasks.goals} == set(maze.cells)


@pytest.mark.parametrize("name", ["pointmaze-medium", "antmaze-umaze", "antmaze-large"])
def test_corner_tasks_lead_from_the_first_cell_to_the_farthest_corner(name):
    maze = get_maze(name)
    tasks, again, others = (corner_tasks(maze, 100, seed) for seed in (7, 7, 8))
    assert np.array_equal(tasks.starts, again.starts) and np.array_equal(tasks.goals, again.goals)
    assert not np.array_equal(tasks.goals, others.goals)
    ends = ((tasks.starts, (1, 1)), (tasks.goals, maze.far_corner))
    for points, cell in ends:
        assert {maze.cell_at(xy) for xy in points} == {cell}
        assert np.abs(points - maze.centre(cell)).max() <= 0.25 * maze.side
        assert np.ptp(points, axis=0).min() > 0.4 * maze.side
    rows, columns = maze.shape
    corners = {(i, j) for i in (1, rows - 2) for j in (1, columns - 2)}
    steps = maze.distances((1, 1))
    assert maze.far_corner in corners
    assert steps[maze.far_corner] == max(steps[cell] for cell in corners if cell in steps)


def test_tasks_are_counted_from_one(umaze):
    with pytest.raises(UserError, match="at least 1, not 0"):
        corner_tasks(umaze, 0, 0)
    with pytest.raises(UserError, match="at least 1, not 0"):
        sample_tasks(umaze, 0, 0)


@pytest.mark.parametrize("inside", [True, False])
def test_success_is_the_simulator_s_own(umaze, inside):
    env = make_env(umaze)
    start = np.array([-1.0, 1.0])
    away = SUCCESS_RADIUS - 0.01 if inside else SUCCESS_RADIUS + 0.01
    goal = start + np.array([away, 0.0])
    state = place(env, start, goal)
    assert np.array_equal(state, [*start, 0, 0])
    observation, _, terminated, truncated, info = env.step(np.zeros(2))
    assert np.allclose(observation["observation"], state, atol=1e-6)
    assert np.allclose(observation["desired_goal"], goal)
    assert info["success"] == inside and not terminated and not truncated
    env.close()


# -- errors -----------------------------------------------------------------------------------


def test_unknown_maze_names_the_nearest():
    with pytest.raises(UserError, match=r"'pointmaze-meduim'. Did you mean pointmaze-medium"):
        get_maze("pointmaze-meduim")
    with pytest.raises(UserError, match=r"Known: antmaze-large, .*, pointmaze-medium, pointmaze"):
        get_maze("xyz")


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ((0.0, 0.0), "inside a wall"),
        ((9.0, 0.0), r"outside pointmaze-umaze, which spans x in \[-2.5, 2.5\]"),
        ((0.0, -2.6), "outside"),
        ((math.nan, 0.0), "not a point"),
        ((math.inf, 0.0), "not a point"),
    ],
)
def test_points_that_nothing_can_stand_on_are_refused(umaze, point, message):
    with pytest.raises(UserError, match=f"The goal .*{message}"):
        umaze.check_point("goal", np.array(point))


@every_maze
def test_every_free_cell_is_accepted(maze):
    for cell in maze.cells:
        maze.check_point("start", maze.centre(cell))
