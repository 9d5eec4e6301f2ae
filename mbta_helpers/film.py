"""Film: pictures of an ant in its maze by MuJoCo's renderer, for which OpenGL is needed.

Only the script that makes the book's film strip needs this module; no chapter does.
"""

from __future__ import annotations

import mujoco
import numpy as np

from mbta_helpers.ants import check_states, world
from mbta_helpers.errors import UserError
from mbta_helpers.mazes import Maze

ELEVATION, DISTANCE = -55.0, 15.0  # of the camera that follows the ant, degrees and map units


def render(
    maze: Maze, states: np.ndarray, goal: np.ndarray, size: tuple[int, int] = (320, 240)
) -> np.ndarray:
    """Pictures of the ant from above, the goal as a red ball: (N, height, width, 3) uint8.

    states: (N, 29). goal: (2,). size: width and height in pixels, at most 640 by 480. Raises
    UserError where there is no OpenGL.
    """
    states = check_states(states)
    model = world(maze.env_id)
    model.site("target").pos[:2] = goal
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.elevation, camera.distance, camera.azimuth = ELEVATION, DISTANCE, 90.0
    width, height = size
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # each backend has errors of its own
        raise UserError(
            f"MuJoCo cannot render here ({error or type(error).__name__}): there is no OpenGL. On "
            "a machine without a screen, install a software renderer (Debian, Ubuntu, Colab: "
            "apt-get install libosmesa6) and set MUJOCO_GL=osmesa; with a GPU, MUJOCO_GL=egl."
        ) from error
    pictures = []
    with renderer:
        for state in states:
            data.qpos[:], data.qvel[:] = state[:15], state[15:]
            mujoco.mj_forward(model, data)
            camera.lookat[:] = *state[:2], 0.0
            renderer.update_scene(data, camera)
            pictures.append(renderer.render())
    return np.stack(pictures)
