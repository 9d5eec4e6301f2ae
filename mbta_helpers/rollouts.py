"""Roll-outs: the same skill, or the same actions, from any states, many of them side by side.

One simulator serves all of them. Its whole physical state is put down and taken up again between
the steps, so that each step asks the policy once for all rows.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import torch
from torch import Tensor

from mbta_helpers.errors import require
from mbta_helpers.mazes import Maze, make_env
from mbta_helpers.networks import SkillModel

PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION  # with the solver's warm start: steps repeat exactly


@torch.no_grad()
def roll_out(
    maze: Maze, states: Tensor, act: Callable[[Tensor, int], Tensor], steps: int
) -> Tensor:
    """Simulate from each state; states: (N, S), position and velocity.

    act: states (N, S) and the number of the step to actions (N, A).
    Returns the states passed, (N, steps + 1, S), the first ones included.
    """
    require(states.ndim == 2 and states.shape[1] == 4, "states must be (N, 4): x, y, v_x, v_y.")
    env = make_env(maze)
    env.reset(seed=0)
    point = env.unwrapped.point_env
    physics = np.zeros((len(states), mujoco.mj_stateSize(point.model, PHYSICS)))
    for row, state in enumerate(states.double().numpy()):
        point.set_state(state[:2], state[2:])
        mujoco.mj_getState(point.model, point.data, physics[row], PHYSICS)
    now = states.double().numpy().copy()
    path = [states.float()]
    for step in range(steps):
        actions = act(path[-1], step).double().numpy()
        for row, action in enumerate(actions):
            mujoco.mj_setState(point.model, point.data, physics[row], PHYSICS)
            now[row] = point.step(action)[0]
            mujoco.mj_getState(point.model, point.data, physics[row], PHYSICS)
        path.append(torch.from_numpy(now).float())
    env.close()
    return torch.stack(path, 1)


def run_skills(
    model: SkillModel,
    maze: Maze,
    states: Tensor,
    skills: Tensor,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Carry out one skill from each state; states: (N, S), skills: (N, Z).

    With a generator the actions are sampled from the policy and clipped to the box; without one
    they are its mean, as in planning. Returns the states passed, (N, steps + 1, S).
    """
    require(len(states) == len(skills), "There must be one skill for each state.")

    def act(state: Tensor, step: int) -> Tensor:
        if generator is None:
            return model.policy.act(state, skills)
        policy = model.policy(state, skills)
        noise = torch.randn(policy.loc.shape, generator=generator)
        return (policy.loc + policy.scale * noise).clamp(-1.0, 1.0)

    return roll_out(maze, states, act, steps)
