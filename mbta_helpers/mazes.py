"""Mazes: geometry, shortest paths, tasks, and the simulated environments.

Cells are (row, column), row 0 at the top. A cell is one map unit wide in gymnasium-robotics'
PointMaze and four in its AntMaze, and the origin of x and y is the middle of the map.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mbta_helpers.errors import require, unknown

with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
    # Importing gymnasium-robotics warns of Adroit environments that nothing here uses.
    warnings.simplefilter("ignore")
    import gymnasium as gym
    import gymnasium_robotics
    from gymnasium_robotics.envs.maze import maps

    gym.register_envs(gymnasium_robotics)

Cell = tuple[int, int]

SUCCESS_RADIUS = 0.45  # the radius behind info["success"] in gymnasium-robotics
BALL_RADIUS = 0.1  # of the point mass (its geom in gymnasium-robotics)
ANT_RADIUS = 1.1  # of an ant with its legs stretched out
DIMENSIONS = {"point": (4, 2), "ant": (29, 8)}  # of a body's states and actions
ANT_SIDE = 4.0  # of AntMaze's cells
POSITION_NOISE = 0.25  # starts and goals lie within this of their cell's centre, in cells


@dataclass(frozen=True)
class Maze:
    """A maze: its walls, its environment, and the steps that one task may take.

    side: of a cell, in map units. body: what moves in it, "point" or "ant". radius: how near to a
    wall the body's centre is put. far_corner: of the corners, the one farthest from (1, 1).
    """

    name: str
    env_id: str
    walls: tuple[tuple[bool, ...], ...]
    max_steps: int
    side: float = 1.0
    body: str = "point"
    radius: float = BALL_RADIUS
    far_corner: Cell = (3, 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.walls), len(self.walls[0])

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Lowest and highest x, lowest and highest y, in map units."""
        rows, columns = self.shape
        x, y = self.side * columns / 2, self.side * rows / 2
        return -x, x, -y, y

    @property
    def cells(self) -> list[Cell]:
        """All free cells, row by row."""
        rows, columns = self.shape
        return [(i, j) for i in range(rows) for j in range(columns) if not self.walls[i][j]]

    def centre(self, cell: Cell) -> np.ndarray:
        """The middle of a cell in map units, (2,)."""
        rows, columns = self.shape
        return self.side * np.array([cell[1] + 0.5 - columns / 2, rows / 2 - cell[0] - 0.5])

    def cell_at(self, xy: np.ndarray) -> Cell:
        """The cell that holds a point; it may be a wall or lie outside."""
        rows, columns = self.shape
        x, y = xy[0] / self.side, xy[1] / self.side
        return int(np.floor(rows / 2 - y)), int(np.floor(x + columns / 2))

    def is_free(self, xy: np.ndarray, clearance: float = 0.0) -> np.ndarray:
        """Whether points keep a distance (per axis) from every wall.

        xy: (..., 2). Returns (...) bool. Points outside the map are not free.
        """
        rows, columns = self.shape
        walls = np.array(self.walls)
        free = np.ones(np.shape(xy)[:-1], bool)
        for dx in (-clearance, clearance):
            for dy in (-clearance, clearance):
                i = np.floor(rows / 2 - (xy[..., 1] + dy) / self.side).astype(int)
                j = np.floor((xy[..., 0] + dx) / self.side + columns / 2).astype(int)
                inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
                free &= inside & ~walls[i.clip(0, rows - 1), j.clip(0, columns - 1)]
        return free

    def neighbours(self, cell: Cell) -> list[Cell]:
        """The free cells that share a side with a cell."""
        around = [(cell[0] + i, cell[1] + j) for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        rows, columns = self.shape
        return [
            (i, j) for i, j in around if 0 <= i < rows and 0 <= j < columns and not self.walls[i][j]
        ]

    def distances(self, goal: Cell) -> dict[Cell, int]:
        """Steps from cell to cell to the goal, from every cell that reaches it (breadth first)."""
        steps = {goal: 0}
        frontier = deque([goal])
        while frontier:
            cell = frontier.popleft()
            for neighbour in self.neighbours(cell):
                if neighbour not in steps:
                    steps[neighbour] = steps[cell] + 1
                    frontier.append(neighbour)
        return steps

    def check_point(self, what: str, xy: np.ndarray) -> None:
        """Raise a UserError unless a point lies in free space."""
        xy = np.asarray(xy, dtype=float)
        shown = ",".join(f"{value:g}" for value in xy)
        require(bool(np.isfinite(xy).all()), f"The {what} {shown} is not a point of the map.")
        rows, columns = self.shape
        left, right, low, high = self.extent
        i, j = self.cell_at(xy)
        free = [f"{x:g},{y:g}" for x, y in (self.centre(cell) for cell in self.cells[:3])]
        advice = f"Free cells have their centres at {', '.join(free)}, …"
        require(
            0 <= i < rows and 0 <= j < columns,
            f"The {what} {shown} lies outside {self.name}, which spans x in "
            f"[{left:g}, {right:g}] and y in [{low:g}, {high:g}]. {advice}",
        )
        require(
            bool(self.is_free(xy)),
            f"The {what} {shown} lies inside a wall of {self.name}. {advice}",
        )


FAR_CORNERS = {"UMaze": (3, 1), "Medium": (6, 6), "Large": (7, 10)}


def _pointmaze(size: str, walls: list[list], max_steps: int) -> Maze:
    return Maze(
        name=f"pointmaze-{size.lower()}",
        env_id=f"PointMaze_{size}-v3",
        walls=tuple(tuple(cell == 1 for cell in row) for row in walls),
        max_steps=max_steps,
        far_corner=FAR_CORNERS[size],
    )


def _antmaze(size: str, walls: list[list]) -> Maze:
    return Maze(
        name=f"antmaze-{size.lower()}",
        env_id=f"AntMaze_{size}-v4",  # 27 observations; those of v5 have contact forces besides
        walls=tuple(tuple(cell == 1 for cell in row) for row in walls),
        max_steps=1000,
        side=ANT_SIDE,
        body="ant",
        radius=ANT_RADIUS,
        far_corner=FAR_CORNERS[size],
    )


MAZES = {
    maze.name: maze
    for maze in (
        _pointmaze("UMaze", maps.U_MAZE, 600),
        _pointmaze("Medium", maps.MEDIUM_MAZE, 600),
        _pointmaze("Large", maps.LARGE_MAZE, 800),
        _antmaze("UMaze", maps.U_MAZE),
        _antmaze("Medium", maps.MEDIUM_MAZE),
        _antmaze("Large", maps.LARGE_MAZE),
    )
}


def get_maze(name: str) -> Maze:
    """The maze of that name; a UserError names the nearest ones if there is none."""
    if name not in MAZES:
        raise unknown("maze", name, MAZES)
    return MAZES[name]


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

    So no goal is far, and long routes have to be composed; a detour and its goal may lie on
    opposite sides of the start.
    """
    near = [cell for cell, steps in maze.distances(start).items() if 0 < steps <= reach]
    goal = near[rng.integers(len(near))]
    if rng.random() < 0.75:
        return shortest_route(maze, start, goal, rng)
    via = near[rng.integers(len(near))]
    return shortest_route(maze, start, via, rng) + shortest_route(maze, via, goal, rng)[1:]


def random_position(maze: Maze, rng: np.random.Generator) -> np.ndarray:
    """A point anywhere in free space, often at a wall or in a corner, (2,).

    Draws reach beyond the cell; where a wall stands there, the body is put against it. A walk
    seldom touches walls, and a policy that has never stood in a corner cannot leave it.
    """
    touching = 0.499 * maze.side - maze.radius
    while True:
        centre = maze.centre(maze.cells[rng.integers(len(maze.cells))])
        offset = maze.side * rng.uniform(-0.65, 0.65, 2)
        for axis, beyond in enumerate(maze.side * np.diag(np.sign(offset))):
            if not maze.is_free(centre + beyond):
                offset[axis] = np.clip(offset[axis], -touching, touching)
        if maze.is_free(centre + offset, clearance=maze.radius):
            return centre + offset


@dataclass(frozen=True)
class Tasks:
    """Start and goal positions of N tasks, in map units.

    starts, goals: (N, 2).
    """

    starts: np.ndarray
    goals: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


def sample_tasks(maze: Maze, count: int, seed: int) -> Tasks:
    """Tasks between different random cells; POSITION_NOISE times a cell's side off the centres."""
    require(count >= 1, f"The number of episodes must be at least 1, not {count}.")
    rng = np.random.default_rng(seed)
    centres = np.stack([maze.centre(cell) for cell in maze.cells])  # (cells, 2)
    pairs = np.stack([rng.choice(len(centres), 2, replace=False) for _ in range(count)])
    noise = maze.side * rng.uniform(-POSITION_NOISE, POSITION_NOISE, (2, count, 2))
    return Tasks(centres[pairs[:, 0]] + noise[0], centres[pairs[:, 1]] + noise[1])


def corner_tasks(maze: Maze, count: int, seed: int) -> Tasks:
    """Tasks from cell (1, 1) to the far corner, off the centres as those of `sample_tasks`.

    On Medium these are the cells of D4RL's evaluation. The data shows such long ways in pieces.
    """
    require(count >= 1, f"The number of episodes must be at least 1, not {count}.")
    rng = np.random.default_rng(seed)
    ends = np.stack([maze.centre((1, 1)), maze.centre(maze.far_corner)])  # (2, 2)
    noise = maze.side * rng.uniform(-POSITION_NOISE, POSITION_NOISE, (2, count, 2))
    return Tasks(*(ends[:, None] + noise))


PROTOCOLS = {"random": sample_tasks, "corner": corner_tasks}


def make_env(maze: Maze) -> gym.Env:
    """The environment of a maze, which goes on at the goal and has no time limit of its own."""
    return _make(maze, continuing_task=True, reset_target=False, max_episode_steps=10**9)


def _make(maze: Maze, **options) -> gym.Env:
    with warnings.catch_warnings():
        # AntMaze v4 is what D4RL's data was made in; gymnasium would have one use v5.
        warnings.simplefilter("ignore", DeprecationWarning)
        env = gym.make(maze.env_id, **options)
    Path(env.unwrapped.tmp_xml_file_path).unlink(missing_ok=True)  # the environment leaves it
    return env


@contextlib.contextmanager
def opened(maze: Maze) -> Iterator[gym.Env]:
    """The environment of a maze as registered; closed at last."""
    env = _make(maze)
    try:
        yield env
    finally:
        env.close()


def place(env: gym.Env, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Put the point at rest at a start and set the goal; returns the state, (S,).

    The environment's own reset only takes cells and adds noise, hence the direct setting.
    """
    maze_env = env.unwrapped
    env.reset(seed=0)
    maze_env.goal = np.array(goal, dtype=float)
    maze_env.update_target_site_pos()
    maze_env.point_env.set_state(np.array(start, dtype=float), np.zeros(2))
    return np.concatenate([start, np.zeros(2)])


def shortest_path_length(maze: Maze, start: np.ndarray, goal: np.ndarray) -> float:
    """Length of the shortest way that keeps the body off the walls, in map units.

    The way bends only at walls' corners (pushed out by the body's radius), so it is a shortest
    path in the graph of the start, the goal and the corners that see each other.
    """
    corners, between = _corner_graph(maze)
    ends = np.stack([start, goal])
    to_corners = _visible_distance(maze, ends[:, None], corners[None])  # (2, corners)
    direct = _visible_distance(maze, ends[0], ends[1])
    via = (to_corners[0][:, None] + between + to_corners[1][None]).min(initial=np.inf)
    return float(min(direct, via))


@lru_cache
def _corner_graph(maze: Maze) -> tuple[np.ndarray, np.ndarray]:
    """Corners that a shortest path may bend at, (C, 2), and the ways between them, (C, C)."""
    rows, columns = maze.shape
    corners = []
    for i in range(1, rows):
        for j in range(1, columns):
            around = [(a, b) for a in (i - 1, i) for b in (j - 1, j)]
            solid = [cell for cell in around if maze.walls[cell[0]][cell[1]]]
            if len(solid) == 1:
                corner = maze.side * np.array([j - columns / 2, rows / 2 - i])
                outwards = np.sign(corner - maze.centre(solid[0]))
                corners.append(corner + maze.radius * outwards)
    corners = np.array(corners).reshape(-1, 2)
    lengths = _visible_distance(maze, corners[:, None], corners[None])
    for k in range(len(corners)):  # Floyd and Warshall
        lengths = np.minimum(lengths, lengths[:, k, None] + lengths[k])
    return corners, lengths


def _visible_distance(maze: Maze, a: np.ndarray, b: np.ndarray, points: int = 400) -> np.ndarray:
    """Distance between points that see each other, infinity otherwise; a, b: (..., 2)."""
    along = np.linspace(0, 1, points)[:, None]
    line = a[..., None, :] * (1 - along) + b[..., None, :] * along  # (..., points, 2)
    visible = maze.is_free(line, clearance=0.9 * maze.radius).all(-1)
    return np.where(visible, np.linalg.norm(a - b, axis=-1), np.inf)
