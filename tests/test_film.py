"""Pictures of the ant: what they show where there is OpenGL, and what is said without it."""

import mujoco
import numpy as np
import pytest

from mbta_helpers.ants import standing
from mbta_helpers.errors import UserError
from mbta_helpers.film import render
from mbta_helpers.mazes import get_maze


@pytest.fixture
def maze():
    return get_maze("antmaze-umaze")


@pytest.fixture
def states(maze):
    rng = np.random.default_rng(0)
    return np.stack([standing(maze.centre(cell), rng) for cell in ((1, 1), (1, 2))])


def test_without_opengl_the_remedy_is_said(maze, states, monkeypatch):
    def no_opengl(*arguments):
        raise RuntimeError("an OpenGL platform library has not been loaded")

    monkeypatch.setattr(mujoco, "Renderer", no_opengl)
    with pytest.raises(UserError, match=r"no OpenGL.*MUJOCO_GL=osmesa"):
        render(maze, states, np.zeros(2))


def test_states_of_something_else_are_refused(maze):
    with pytest.raises(UserError, match=r"\(N, 29\)"):
        render(maze, np.zeros((3, 4)), np.zeros(2))


def test_pictures_show_the_ant_where_it_is(maze, states):
    """Drawn from above its place, and again with the goal there: a red ball appears."""
    try:
        far = render(maze, states, maze.centre((3, 1)), (160, 120))
    except UserError as error:
        pytest.skip(str(error))
    near = render(maze, states, states[0, :2], (160, 120))
    assert far.shape == (2, 120, 160, 3) and far.dtype == np.uint8
    assert not np.array_equal(far[0], far[1])
    red = (near[0].astype(int) - far[0].astype(int))[..., 0].max()
    changed = (near[0] != far[0]).any(-1)
    assert changed.any() and red > 30
    columns = np.nonzero(changed)[1]
    assert abs(columns.mean() - 80) < 12, "the goal should stand in the middle of the picture"
