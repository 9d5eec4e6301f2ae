"""Baselines: a one-step model, planning over primitive actions, cloning with hindsight goals."""

import numpy as np
import pytest
import torch

from mbta_helpers.baselines import (
    BaselineConfig,
    GoalPolicy,
    GoalPolicyAgent,
    OneStepModel,
    PrimitivePlannerConfig,
    PrimitivePlanningAgent,
    hindsight_goals,
    train_goal_policy,
    train_one_step_model,
)
from mbta_helpers.datasets import Transitions
from mbta_helpers.errors import UserError
from mbta_helpers.planning import CEMConfig
from mbta_helpers.windows import Windows

QUICK = BaselineConfig(hidden=32, updates=400, batch_size=64)
SMALL_CEM = CEMConfig(candidates=64, iterations=4, elites=8)


def double_integrator(seed: int, episodes: int = 30, length: int = 20) -> Transitions:
    """s = (x, v): x moves by 0.1 v, v by 0.2 a, with random actions."""
    rng = np.random.default_rng(seed)
    states, actions = [], []
    for _ in range(episodes):
        state = rng.uniform(-1, 1, 4)
        path, moves = [state], rng.uniform(-1, 1, (length, 2))
        for move in moves:
            state = np.concatenate([state[:2] + 0.1 * state[2:], state[2:] + 0.2 * move])
            path.append(state)
        states += path
        actions.append(moves)
    return Transitions(
        np.array(states, np.float32),
        np.concatenate(actions).astype(np.float32),
        np.full(episodes, length),
        np.zeros((episodes, 2)),
    )


@pytest.fixture(scope="module")
def data():
    return double_integrator(0)


@pytest.fixture(scope="module")
def model(data):
    return train_one_step_model(data, 0, QUICK)


def step(state, action):
    """The true dynamics of the double integrator."""
    return torch.cat([state[..., :2] + 0.1 * state[..., 2:], state[..., 2:] + 0.2 * action], -1)


class Exact(OneStepModel):
    """A one-step model that is right."""

    def forward(self, state, action):
        return step(state, action)


def test_one_step_model_learns_linear_dynamics(model):
    other = double_integrator(1)
    first = torch.from_numpy(other.states[:20])
    actions = torch.from_numpy(other.actions[:20])
    truth = step(first, actions)
    error = (model(first, actions) - truth).detach().square().mean().sqrt()
    still = (first - truth).square().mean().sqrt()
    assert error < 0.15 * still


def test_one_step_model_starts_at_no_change(data):
    """Without a head the prediction is the state itself; the head counts in the data's changes."""
    model = OneStepModel(4, 2, 8)
    model.normaliser.fit(Windows(data, 1))
    starts = np.delete(np.arange(len(data.states)), data.state_starts + data.lengths)
    change = np.sqrt(np.square(data.states[starts + 1] - data.states[starts]).mean(0))
    state = torch.ones(3, 4)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        assert torch.equal(model(state, torch.ones(3, 2)), state)
        model.head.bias.fill_(1.0)
        moved = model(state, torch.ones(3, 2)) - state
    assert torch.allclose(moved, torch.from_numpy(change).expand(3, 4), atol=1e-5)


def test_baselines_with_waves_see_the_position_twice_and_more():
    """Two positions a wavelength apart look alike through the waves, and not without them."""
    far = 1e9  # a spread so wide that the plain coordinates vanish
    for waves, alike in (((0.5,), True), ((), False)):
        torch.manual_seed(0)
        policy = GoalPolicy(4, 2, 8, waves)
        policy.normaliser.std.fill_(far if waves else 1.0)
        here, there = torch.zeros(1, 4), torch.tensor([[0.5, 1.0, 0.0, 0.0]])
        goal = torch.tensor([[0.2, 0.1]])
        assert torch.allclose(policy(here, goal), policy(there, goal), atol=1e-4) == alike
        assert not torch.allclose(policy(here, goal), policy(here, goal + 0.2), atol=1e-4)


def test_training_is_reproducible_and_leaves_the_global_generator(data):
    before = torch.get_rng_state()
    quick = BaselineConfig(hidden=8, updates=3, batch_size=4)
    for train in (train_one_step_model, train_goal_policy):
        one, two, other = train(data, 5, quick), train(data, 5, quick), train(data, 6, quick)
        pairs = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b, _ in pairs)
        assert not all(torch.equal(a, c) for a, _, c in pairs)
    assert torch.equal(before, torch.get_rng_state())


def test_training_uses_the_given_episodes_only(data):
    """What lies in the other episodes changes nothing."""
    broken = Transitions(data.states.copy(), data.actions.copy(), data.lengths, data.goals)
    broken.states[broken.state_starts[20] :] += 100.0
    broken.actions[broken.action_starts[20] :] = 7.0
    quick = BaselineConfig(hidden=8, updates=3, batch_size=4)
    for train in (train_one_step_model, train_goal_policy):
        some = np.arange(20)
        pairs = zip(
            train(data, 0, quick, some).state_dict().values(),
            train(broken, 0, quick, some).state_dict().values(),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_roll_out_repeats_single_steps(model):
    state, actions = torch.randn(3, 4), torch.randn(3, 5, 2)
    path = model.roll_out(state, actions)
    assert path.shape == (3, 6, 4)
    expected = state
    for t in range(5):
        assert torch.equal(path[:, t], expected)
        expected = model(expected, actions[:, t])
    assert torch.equal(path[:, 5], expected)


def test_hindsight_goals_lie_ahead_in_the_same_episode():
    """With states that are their own number, a goal names its episode and step."""
    lengths = np.array([1, 5, 3])
    states = np.repeat(np.arange(12.0, dtype=np.float32)[:, None], 4, 1)
    data = Transitions(states, np.zeros((9, 2), np.float32), lengths, np.zeros((3, 2)))
    ends = {0: 1, 2: 7, 3: 7, 6: 7, 8: 11, 10: 11}
    index = torch.tensor(list(ends)).repeat_interleave(300)
    goals = hindsight_goals(data, index, torch.Generator().manual_seed(0))[:, 0]
    for start, end in ends.items():
        seen = goals[index == start].long().unique().tolist()
        assert seen == list(range(start + 1, end + 1))


def agent_for(model, **options) -> PrimitivePlanningAgent:
    options = {"horizon": 20, "action_repeat": 5, "replan_every": 5, "cem": SMALL_CEM, **options}
    return PrimitivePlanningAgent(
        model, PrimitivePlannerConfig(**options), torch.Generator().manual_seed(0)
    )


def test_planned_actions_are_repeated_and_stay_in_the_box():
    agent = agent_for(Exact(4, 2, 8))
    knots = torch.tensor([[[3.0, 0.1], [-2.0, 0.2], [0.5, 0.3], [0.0, 0.4]]])
    actions = agent.actions(knots)
    assert actions.shape == (1, 20, 2)
    assert torch.equal(actions[0, ::5], knots[0].clamp(-1, 1))
    assert torch.equal(actions[0, 4], actions[0, 0])
    assert not torch.equal(actions[0, 5], actions[0, 4])


def test_planning_with_the_true_dynamics_comes_near_the_goal():
    agent = agent_for(Exact(4, 2, 8))
    state = torch.zeros(2, 4)
    goal = torch.tensor([[1.0, 0.5], [-1.0, 0.0]])
    running = np.arange(2)
    for _ in range(6):
        decision = agent.decide(state, goal, running)
        assert decision.shape == (2, 5, 2)
        for t in range(5):
            state = step(state, agent.act(state, goal, decision, t))
            reached = (state[:, :2] - goal).norm(dim=1)
        if reached.max() < 0.3:
            break
    assert reached.max() < 0.3


def test_the_last_plan_is_taken_up_for_the_episodes_that_still_run():
    agent = agent_for(Exact(4, 2, 8), cem=CEMConfig(candidates=2, iterations=1, elites=2))
    state, goal = torch.zeros(3, 4), torch.ones(3, 2)
    agent.decide(state, goal, np.arange(3))
    last = agent.search.best
    agent.config = PrimitivePlannerConfig(20, 5, 5, CEMConfig(2, 1, 2, min_std=0.0))
    seen = []
    original = agent.imagine

    def watch(state, knots):
        seen.append(knots)
        return original(state, knots)

    agent.imagine = watch
    agent.decide(state[:2], goal[:2], np.array([0, 2]))
    first = seen[0][:, 0]  # the first candidate of CEM is the mean
    assert torch.equal(first[:, :3], last[[0, 2], 1:])
    assert torch.equal(first[:, 3:], torch.zeros(2, 1, 2))


def test_goal_policy_learns_to_head_for_the_goal():
    """Data whose actions point to where the episode ends."""
    rng = np.random.default_rng(0)
    states, actions = [], []
    for _ in range(60):
        angle = rng.uniform(0, 2 * np.pi)
        move = np.array([np.cos(angle), np.sin(angle)])
        path = rng.uniform(-1, 1, 2) + 0.2 * np.arange(11)[:, None] * move
        states.append(np.concatenate([path, np.zeros((11, 2))], 1))
        actions.append(np.repeat(move[None], 10, 0))
    data = Transitions(
        np.concatenate(states).astype(np.float32),
        np.concatenate(actions).astype(np.float32),
        np.full(60, 10),
        np.zeros((60, 2)),
    )
    agent = GoalPolicyAgent(train_goal_policy(data, 0, QUICK))
    state = torch.zeros(2, 4)
    goal = torch.tensor([[1.5, 0.0], [0.0, -1.5]])
    action = agent.act(state, goal, agent.decide(state, goal, np.arange(2)), 0)
    assert (action * goal).sum(1).min() > 0.75 * 1.5
    assert action.abs().max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"horizon": 20, "action_repeat": 3},
        {"replan_every": 0},
        {"replan_every": 61},
        {"replan_every": 12, "action_repeat": 5},
    ],
)
def test_planner_settings_out_of_range_are_refused(options):
    with pytest.raises(UserError):
        PrimitivePlannerConfig(**options)


@pytest.mark.parametrize("options", [{"updates": 0}, {"learning_rate": 0.0}])
def test_training_settings_out_of_range_are_refused(options):
    with pytest.raises(UserError):
        BaselineConfig(**options)
