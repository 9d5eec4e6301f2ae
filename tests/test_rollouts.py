"""Roll-outs side by side: the same as one after the other, each in a simulator of its own."""

import numpy as np
import pytest
import torch
from samples import small_model

from mbta_helpers.errors import UserError
from mbta_helpers.mazes import make_env
from mbta_helpers.rollouts import roll_out, run_skills

STEPS = 12


@pytest.fixture(scope="module")
def starts(umaze):
    """States in free cells, moving; the last one hits a wall soon."""
    centres = np.stack([umaze.centre(cell) for cell in umaze.cells[:4]])
    generator = torch.Generator().manual_seed(0)
    velocity = torch.randn((4, 2), generator=generator)
    velocity[-1] = torch.tensor([4.0, 4.0])
    return torch.cat([torch.from_numpy(centres).float(), velocity], 1)


def alone(maze, state, actions):
    """One row in an environment of its own, by its public step."""
    env = make_env(maze)
    env.reset(seed=0)
    env.unwrapped.point_env.set_state(state[:2].double().numpy(), state[2:].double().numpy())
    path = [state]
    for action in actions.double().numpy():
        path.append(torch.from_numpy(env.step(action)[0]["observation"]).float())
    env.close()
    return torch.stack(path)


def test_side_by_side_is_the_same_as_alone(umaze, starts):
    actions = torch.rand((4, STEPS, 2), generator=torch.Generator().manual_seed(1)) * 2 - 1
    paths = roll_out(umaze, starts, lambda state, step: actions[:, step], STEPS)
    assert paths.shape == (4, STEPS + 1, 4)
    for row in range(4):
        assert torch.equal(paths[row], alone(umaze, starts[row], actions[row]))


def test_rows_do_not_disturb_each_other(umaze, starts):
    actions = torch.rand((4, STEPS, 2), generator=torch.Generator().manual_seed(2)) * 2 - 1
    paths = roll_out(umaze, starts, lambda state, step: actions[:, step], STEPS)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = roll_out(umaze, starts[order], lambda state, step: actions[order, step], STEPS)
    assert torch.equal(shuffled, paths[order])


def test_recorded_actions_lead_where_they_led(umaze, played):
    rows = played.state_starts[:6]
    actions = np.stack([played.actions[i : i + STEPS] for i in played.action_starts[:6]])
    recorded = np.stack([played.states[i : i + STEPS + 1] for i in rows])
    paths = roll_out(
        umaze,
        torch.from_numpy(recorded[:, 0]),
        lambda state, step: torch.from_numpy(actions[:, step]),
        STEPS,
    )
    # The data is stored in float32, hence not exactly.
    assert torch.allclose(paths, torch.from_numpy(recorded), atol=2e-3)


def test_a_skill_follows_the_policy(umaze, starts):
    model = small_model(dtype=torch.float32)
    skills = torch.randn((4, 3), generator=torch.Generator().manual_seed(3))
    paths = run_skills(model, umaze, starts, skills, STEPS)
    with torch.no_grad():
        actions = torch.stack([model.policy.act(paths[:, t], skills) for t in range(STEPS)], 1)
    assert torch.equal(paths[1], alone(umaze, starts[1], actions[1]))


def test_sampled_actions_repeat_with_the_seed_and_differ_from_the_mean(umaze, starts):
    model = small_model(dtype=torch.float32)
    skills = torch.zeros((4, 3))
    first, again, other = (
        run_skills(model, umaze, starts, skills, STEPS, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, run_skills(model, umaze, starts, skills, STEPS))


def test_mismatched_rows_are_refused(umaze, starts):
    with pytest.raises(UserError, match="one skill for each state"):
        run_skills(small_model(), umaze, starts, torch.zeros((3, 3)), STEPS)
    with pytest.raises(UserError, match="x, y, v_x, v_y"):
        roll_out(umaze, starts[:, :2], lambda state, step: state, STEPS)
