"""Option-Critic: each equation by hand, both gradients against finite differences, plain loops."""

import json

import numpy as np
import pytest
from samples import load_script

from mbta_helpers.errors import UserError
from mbta_helpers.hierarchical.four_rooms import FourRooms, World, start_states
from mbta_helpers.hierarchical.option_critic import (
    OptionCriticConfig,
    SarsaConfig,
    arrival_value,
    exact_values,
    moving_goals,
    option_value,
    policy_gradient,
    sigmoid,
    softmax,
    termination_gradient,
    train_option_critic,
    train_sarsa,
)

GAMMA = 0.9


def small_mdp():
    """Six states, three actions and two options, everything else at random."""
    rng = np.random.default_rng(4)
    world = World(rng.integers(0, 6, (6, 3)), 0.3, 5)
    theta, vartheta = rng.normal(size=(6, 2, 3)), rng.normal(size=(6, 2))
    meta = softmax(rng.normal(size=(6, 2)))
    start = np.append(rng.dirichlet(np.ones(5)), 0.0)
    return world, theta, vartheta, meta, start


def corridor(states=5):
    """Cells in a row, actions left and right, the goal at the right end."""
    here = np.arange(states)
    moves = np.stack([np.maximum(here - 1, 0), np.minimum(here + 1, states - 1)], 1)
    return World(moves, 0.0, states - 1)


def ring():
    """Nine cells in a ring, actions left, right and stay, with slips."""
    here = np.arange(9)
    return World(np.stack([(here - 1) % 9, (here + 1) % 9, here], 1), 0.2, 4)


# -- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"options": 0},
        {"gamma": 1.0},
        {"critic_rate": 0.0},
        {"actor_rate": -1},
        {"termination_rate": -1},
        {"deliberation_cost": -0.1},
        {"epsilon": 1.2},
        {"baseline": "median"},
    ],
)
def test_a_wrong_configuration_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        OptionCriticConfig(**values)


@pytest.mark.parametrize("values", [{"gamma": 1}, {"learning_rate": 0}, {"temperature": 0}])
def test_a_wrong_baseline_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        SarsaConfig(**values)


# -- the equations by hand --------------------------------------------------------------------


def test_option_value_is_the_mean_over_the_policy_over_options():
    q = np.array([[1.0, 5.0, 3.0], [2.0, 2.0, 2.0]])
    probabilities = np.array([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])  # ε-greedy with ε = 0.3
    assert np.allclose(option_value(q, 0.3), (probabilities * q).sum(-1))
    assert option_value(q, 0.3, "max").tolist() == [5.0, 2.0]


def test_arrival_value_by_hand():
    q, v = np.array([4.0, 4.0, 4.0]), np.array([2.0, 2.0, 2.0])
    beta = np.array([0.0, 0.25, 1.0])
    assert arrival_value(q, v, beta, 0.0).tolist() == [4.0, 3.5, 2.0]
    assert np.allclose(arrival_value(q, v, beta, 0.4), [4.0, 3.4, 1.6])


def test_policy_gradient_is_that_of_the_logarithm():
    logits, action, advantage = np.array([[0.3, -1.0, 0.8]]), np.array([2]), np.array([1.7])
    gradient = policy_gradient(softmax(logits), action, advantage)
    for a in range(3):
        step = np.eye(3)[a] * 1e-6
        difference = np.log(softmax(logits + step)) - np.log(softmax(logits - step))
        assert np.isclose(gradient[0, a], 1.7 * difference[0, 2] / 2e-6)


def test_termination_gradient_by_hand():
    """An option better than the others goes on longer, a worse one ends sooner; a cost delays."""
    q, v, beta = np.array([3.0, 1.0, 2.0]), np.full(3, 2.0), np.full(3, 0.25)
    assert np.allclose(termination_gradient(q, v, beta, 0.0), [-0.1875, 0.1875, 0.0])
    assert np.allclose(termination_gradient(q, v, beta, 1.0), [-0.375, 0.0, -0.1875])


# -- the exact objective ----------------------------------------------------------------------


@pytest.mark.parametrize("cost", [0.0, 0.2])
def test_exact_values_satisfy_their_equations(cost):
    world, theta, vartheta, meta, start = small_mdp()
    exact = exact_values(world, theta, vartheta, meta, start, GAMMA, cost)
    pi, beta = softmax(theta), sigmoid(vartheta)
    q = np.zeros((6, 2))
    for _ in range(500):  # the definitions, one after the other
        u = (1 - beta) * q + beta * ((meta * q).sum(1, keepdims=True) - cost)
        u[world.goal] = 0.0
        q_u = world.rewards[:, None] + GAMMA * np.einsum("sat,to->soa", world.transitions, u)
        q = (pi * q_u).sum(-1)
    alive = np.arange(6) != world.goal
    assert np.allclose(exact.q, q) and np.allclose(exact.q_u, q_u)
    assert np.allclose(exact.u[alive], u[alive])
    assert np.allclose(exact.v, (meta * q).sum(1))
    assert np.isclose(exact.objective, start @ exact.v)


@pytest.mark.parametrize("cost", [0.0, 0.2])
@pytest.mark.parametrize("which", ["policy", "termination"])
def test_gradients_are_finite_differences_of_the_objective(which, cost):
    world, theta, vartheta, meta, start = small_mdp()
    gradient = getattr(exact_values(world, theta, vartheta, meta, start, GAMMA, cost), which)
    for index in np.ndindex(gradient.shape):
        values = []
        for sign in (1, -1):
            logits = {"policy": theta.copy(), "termination": vartheta.copy()}
            logits[which][index] += sign * 1e-5
            moved = exact_values(world, *logits.values(), meta, start, GAMMA, cost)
            values.append(moved.objective)
        assert np.isclose(gradient[index], (values[0] - values[1]) / 2e-5, atol=1e-8)
    assert np.abs(gradient).max() > 1e-3


def test_sampled_policy_gradient_has_the_exact_one_as_its_mean():
    world, theta, vartheta, meta, start = small_mdp()
    exact = exact_values(world, theta, vartheta, meta, start, GAMMA)
    policy = softmax(theta[2, 1])[None]
    mean = sum(
        policy[0, a]
        * policy_gradient(policy, np.array([a]), exact.q_u[2, 1, a] - exact.q[2, 1, None])
        for a in range(3)
    )
    assert np.allclose(
        mean[0] / np.abs(mean).max(), exact.policy[2, 1] / np.abs(exact.policy[2, 1]).max()
    )


def test_with_one_option_terminations_change_nothing():
    world, theta, vartheta, _, start = small_mdp()
    one = theta[:, :1], np.ones((6, 1)), start, GAMMA
    values = [exact_values(world, one[0], shift + vartheta[:, :1], *one[1:]) for shift in (0, 3)]
    assert np.allclose(values[0].q_u, values[1].q_u)
    assert np.allclose(values[0].termination, 0)


# -- the agent against a plain loop -----------------------------------------------------------


def numbers(seed, draws):
    """The uniform numbers of a run, a row for each step, as `Runs` draws them."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.random((512, draws + 2))


def act(world, state, action, row, goal):
    shift = int((row[-1] < world.slip * np.arange(1, world.actions) / (world.actions - 1)).sum())
    after = int(world.next_state[state, (action + shift) % world.actions])
    return after, after == goal


def pick(probabilities, uniform):
    return int((np.cumsum(probabilities)[:-1] <= uniform).sum())


def plain_option_critic(world, config, seed, goals):
    """One run, step by step and number by number."""
    S, W, A = world.states, config.options, world.actions
    theta, vartheta = np.zeros((S, W, A)), np.zeros((S, W))
    q_u, steps, endings = np.zeros((S, W, A)), [], []
    stream = numbers(seed, 4)
    row = next(stream)
    state = int(start_states(row[-2:-1], goals[0], S)[0])
    for goal in goals:
        count, ends, option, over = 0, 0, None, False
        while not over:
            values = (softmax(theta) * q_u).sum(-1)  # Q_Ω, (S, W)
            if option is None:
                if row[0] < config.epsilon:
                    option = int(row[3] * W)
                else:
                    option = int(values[state].argmax())
            policy = softmax(theta[state, option])
            action = pick(policy, row[1])
            after, terminated = act(world, state, action, row, goal)
            count += 1
            over = terminated or count == config.max_steps
            beta = sigmoid(vartheta[after, option])
            probability = np.full(W, config.epsilon / W)
            probability[values[after].argmax()] += 1 - config.epsilon
            v = values[after].max() if config.baseline == "max" else probability @ values[after]
            advantage = values[after, option] - v + config.deliberation_cost
            u = (1 - beta) * values[after, option] + beta * (v - config.deliberation_cost)
            target = 1.0 if terminated else config.gamma * u
            q_u[state, option, action] += config.critic_rate * (target - q_u[state, option, action])
            gain = q_u[state, option, action] - policy @ q_u[state, option]
            theta[state, option] += config.actor_rate * gain * (np.eye(A)[action] - policy)
            if not terminated:
                slope = beta * (1 - beta)
                vartheta[after, option] -= config.termination_rate * slope * advantage
            ended = not over and row[2] < beta
            ends += ended
            option = None if ended else option
            state = after
            if over:
                steps.append(count)
                endings.append(ends)
                following = len(steps)
                if following < len(goals):
                    state = int(start_states(row[-2:-1], goals[following], S)[0])
            row = next(stream)
    q = (softmax(theta) * q_u).sum(-1)
    return steps, endings, q, softmax(theta), sigmoid(vartheta)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"deliberation_cost": 0.02},
        {"baseline": "max"},
        {"options": 1, "epsilon": 0.0},
        {"max_steps": 25, "epsilon": 0.4},
    ],
)
def test_runs_side_by_side_are_the_plain_loop(values):
    """Seven episodes on a ring with slips, the goal moved after three: the same numbers."""
    world = ring()
    config = OptionCriticConfig(**({"options": 3, "critic_rate": 0.3, "gamma": GAMMA} | values))
    goals = np.array([[4, 4, 4, 0, 0, 0, 0], [4, 4, 4, 8, 8, 8, 8]])
    history = train_option_critic(world, config, [11, 12], goals)
    for row, seed in enumerate([11, 12]):
        steps, endings, q, policy, termination = plain_option_critic(
            world, config, seed, goals[row]
        )
        assert history.steps[row].tolist() == steps
        assert history.endings[row].tolist() == endings
        assert np.allclose(history.q[row], q)
        assert np.allclose(history.policy[row], policy)
        assert np.allclose(history.termination[row], termination)
    assert np.allclose(history.durations, history.steps / (history.endings + 1))


def plain_sarsa(world, config, seed, goals):
    q, steps, stream = np.zeros((world.states, world.actions)), [], numbers(seed, 2)
    row = next(stream)
    state = int(start_states(row[-2:-1], goals[0], world.states)[0])
    action = pick(softmax(q[state] / config.temperature), row[0])
    for goal in goals:
        count, over = 0, False
        while not over:
            after, terminated = act(world, state, action, row, goal)
            following = pick(softmax(q[after] / config.temperature), row[1])
            target = 1.0 if terminated else config.gamma * q[after, following]
            q[state, action] += config.learning_rate * (target - q[state, action])
            count += 1
            over = terminated or count == config.max_steps
            state, action = after, following
            last, row = row, next(stream)
        steps.append(count)
        if len(steps) < len(goals):
            state = int(start_states(last[-2:-1], goals[len(steps)], world.states)[0])
            action = pick(softmax(q[state] / config.temperature), row[0])
    return steps


def test_sarsa_side_by_side_is_the_plain_loop():
    """The goal moves to a cell that has a value by then, which must not be added to the reward."""
    goals = np.array([[4] * 30 + [0] * 60, [4] * 30 + [8] * 60])
    config = SarsaConfig(gamma=GAMMA, max_steps=30, temperature=0.3)
    steps = train_sarsa(ring(), config, [21, 22], goals)
    plain = [plain_sarsa(ring(), config, seed, goals[row]) for row, seed in enumerate((21, 22))]
    assert steps.tolist() == plain


# -- the ends of episodes ---------------------------------------------------------------------


def test_the_goal_is_the_end():
    """One reward of 1 an episode: no value passes it, not even where an old goal has a value."""
    goals = np.tile([4] * 60 + [1] * 60, (3, 1))
    history = train_option_critic(corridor(6), OptionCriticConfig(options=2), [0, 1, 2], goals)
    assert history.q.max() <= 1 + 1e-12
    assert (history.q[:, 2] > 0.5).all()


def test_running_out_of_steps_is_not_the_end():
    """Episodes of one step: states far from the goal still learn that they have a value."""
    world, goals = corridor(5), np.full((1, 3000), 4)
    config = OptionCriticConfig(options=2, gamma=GAMMA, max_steps=1, epsilon=0.5)
    history = train_option_critic(world, config, [0], goals)
    assert (history.q[0, 0] > 0.3).any() and (history.steps == 1).all()


# -- the mistake of chapter 10 ----------------------------------------------------------------


def test_with_the_best_option_as_baseline_terminations_only_rise():
    world = FourRooms().world
    goals = np.full((4, 40), world.goal)
    histories = {
        baseline: train_option_critic(world, OptionCriticConfig(baseline=baseline), range(4), goals)
        for baseline in ("mean", "max")
    }
    assert (histories["max"].termination >= 0.5).all()
    assert (histories["mean"].termination < 0.5).any()
    assert (histories["mean"].termination > 0.5).any()


def test_moving_goals_depend_on_the_seed():
    goals = moving_goals([3, 4, 5], 10, 6, 62, [7, 8, 9])
    assert (goals[:, :6] == 62).all() and np.isin(goals[:, 6:], [7, 8, 9]).all()
    assert (goals[:, 6:] == goals[:, 6:7]).all() and len(set(goals[:, 6])) > 1
    assert (moving_goals([4], 10, 6, 62, [7, 8, 9])[0] == goals[1]).all()
    with pytest.raises(UserError, match="moves between"):
        moving_goals([3], 10, 10, 62, [7])


# -- the script that chooses the settings -----------------------------------------------------


def test_settings_are_chosen_by_what_the_script_writes(tmp_path, monkeypatch, capsys):
    script = load_script("four_rooms_grid")
    agents = [type(each).__name__ for each in script.settings()]
    assert agents.count("SarsaConfig") == 9 and agents.count("OptionCriticConfig") == 12
    few = [script.settings()[0], script.settings()[-1]]
    monkeypatch.setattr(script, "settings", lambda: few)
    monkeypatch.setattr(script, "EPISODES", 5)
    monkeypatch.setattr(script, "MOVED_AT", 3)
    assert script.main(["--seeds", "3", "--out", str(tmp_path / "grid.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "grid.jsonl").read_text().splitlines()]
    assert [line["agent"] for line in lines] == ["Sarsa", "OptionCritic"]
    for line in lines:
        assert abs(line["all"][0] - line["before"][0] - line["after"][0]) <= 1
        assert line["all"][1] < line["all"][0] < line["all"][2]
    assert len(capsys.readouterr().out.splitlines()) == 2
