"""DIAYN: its reward and bound by hand, the discriminator, what skills do, planning over them."""

import dataclasses
import functools
import itertools
import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium.utils.env_checker import check_env
from samples import load_script

from mbta_helpers.errors import UserError
from mbta_helpers.evaluation import evaluate
from mbta_helpers.hierarchical import diayn_mistakes as mistakes
from mbta_helpers.hierarchical.diayn import (
    DIAYN,
    DIAYNConfig,
    accuracy,
    coverage,
    measure_skills,
    roll_out_skills,
    told_apart,
    train_diayn,
    update_prior,
)
from mbta_helpers.hierarchical.discovered import (
    DiscoveredAgent,
    DiscoveredSkills,
    Outcomes,
    Practice,
    load_skills,
    maze_world,
    practise,
    save_skills,
    train_outcomes,
)
from mbta_helpers.hierarchical.playgrounds import (
    ENV_ID,
    STRIDE,
    Displaced,
    PointWorld,
    SquareWorld,
    displaced,
    world_of,
)
from mbta_helpers.hierarchical.sac import SACConfig
from mbta_helpers.mazes import get_maze, make_env, place, sample_tasks
from mbta_helpers.planning import CEMConfig, Planner, PlannerConfig

MAZE = get_maze("pointmaze-umaze")
SAC = SACConfig(hidden=16, batch_size=32, temperature=0.1, learning_rate=1e-3)
SMALL = DIAYNConfig(skills=3, bodies=4, episode=5, episodes=4, warm_up=1, hidden=16, sac=SAC)


def learner(seed=0, kind=DIAYN, world=None, config=SMALL):
    return kind(world or SquareWorld(), config, seed)


def filled(kind=DIAYN):
    """A learner with 40 steps in its replay buffer."""
    agent, rng = learner(kind=kind), np.random.default_rng(3)
    for _ in range(10):
        state, z = rng.uniform(-1, 1, (4, 2)), agent.draw_skills(4)
        action = agent.act(state, z)
        agent.remember(state, z, action, agent.world.step(state, action))
    return agent


def watched(agent, monkeypatch):
    """Lists that fill with what the discriminator's loss and SAC's update are given."""
    seen = {"loss": [], "sac": []}
    loss, update = agent.discriminator_loss, agent.sac.update
    monkeypatch.setattr(
        agent, "discriminator_loss", lambda *given: (seen["loss"].append(given), loss(*given))[1]
    )
    monkeypatch.setattr(
        agent.sac, "update", lambda batch: (seen["sac"].append(batch), update(batch))[1]
    )
    return seen


# -- playgrounds ------------------------------------------------------------------------------


def test_square_passes_the_env_checker_and_is_its_world():
    env = gym.make(ENV_ID)
    check_env(env.unwrapped, skip_render_check=True)
    state, _ = env.reset(seed=3)
    assert np.abs(state).max() <= 0.02
    after, reward, terminated, _, _ = env.step(np.array([1.0, -0.5], np.float32))
    assert np.allclose(after, state + STRIDE * np.array([1.0, -0.5]))
    assert reward == 0 and not terminated
    for _ in range(30):
        after, _, _, truncated, _ = env.step(np.array([1.0, 1.0], np.float32))
        if truncated:
            break
    assert truncated and (after == 1).all()
    assert isinstance(world_of(env), SquareWorld)


def test_point_world_moves_as_the_environment():
    """Also at full speed and against walls: eight bodies push, 40 times for 5 steps."""
    world, rng = PointWorld(MAZE, 5), np.random.default_rng(0)
    state = world.start(8, rng)
    assert (state[:, 2:] == 0).all() and MAZE.is_free(state[:, :2]).all()
    env, largest, fastest = make_env(MAZE), 0.0, 0.0
    body = place(env, state[0, :2], state[0, :2])
    for index in range(40):
        if index % 8 == 0:
            action = rng.uniform(-1.5, 1.5, (8, 2))
        state = world.step(state, action)
        for _ in range(5):
            body = env.step(np.clip(action[0], -1, 1))[0]["observation"]
        largest = max(largest, np.abs(body - state[0]).max())
        fastest = max(fastest, np.abs(state[0, 2:]).max())
    env.close()
    assert largest < 1e-4 and fastest > 4.9
    assert MAZE.is_free(state[:, :2]).all()


def test_views_begin_with_what_tells_skills_apart():
    world = PointWorld(MAZE)
    state = torch.tensor([[1.0, -1.25, 2.5, -5.0]])
    view = world.view(state)
    assert view.shape == (1, world.view_dim)
    assert torch.allclose(view[0, :4], torch.tensor([0.4, -0.5, 0.5, -1.0]))
    phase = 2 * math.pi * 1.25 / 2
    assert math.isclose(view[0, 4 + 4 + 1].item(), -math.sin(phase), abs_tol=1e-6)
    apart = Displaced(world)
    assert torch.equal(
        apart.view(torch.cat([torch.tensor([[0.3, 0.4]]), state], 1))[0, 2:], view[0]
    )


def test_displacement_is_counted_from_the_start():
    world, rng = Displaced(PointWorld(MAZE)), np.random.default_rng(1)
    first = world.start(3, rng)
    assert (first[:, :2] == 0).all()
    state = first
    for _ in range(4):
        state = world.step(state, np.ones((3, 2)))
    assert np.allclose(state[:, :2], state[:, 2:4] - first[:, 2:4])
    assert np.abs(state[:, :2]).max() > 0.05
    assert np.array_equal(displaced(first[:, 2:], first[:, 2:]), first)


def test_bad_worlds_are_refused():
    with pytest.raises(UserError, match=r"Box of numbers, but the action space is Discrete\(2\)"):
        world_of(gym.make("CartPole-v1"))
    with pytest.raises(UserError, match="no attribute `world`"):
        world_of(gym.make("Pendulum-v1"))
    with pytest.raises(UserError, match="take a PointMaze"):
        PointWorld(get_maze("antmaze-umaze"))
    with pytest.raises(UserError, match="at least 1 step"):
        PointWorld(MAZE, 0)


# -- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"skills": 0}, "at least 1 skill"),
        ({"bodies": 0}, "bodies"),
        ({"episode": 0}, "episode"),
        ({"episodes": 0}, "episodes"),
        ({"warm_up": 0}, "warm_up"),
        ({"hidden": 0}, "hidden"),
        ({"replay": 3}, "replay"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"prior_rate": -1}, "prior_rate"),
    ],
)
def test_a_wrong_configuration_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        DIAYNConfig(**values)


# -- the equations by hand --------------------------------------------------------------------


def test_reward_is_log_q_minus_log_p():
    agent = learner()
    agent.prior_logits = torch.tensor([0.5, 0.2, 0.3]).log()
    view, z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), torch.eye(3)
    q = agent.discriminator.layers(view).softmax(-1).diagonal()
    expected = q.log() - torch.tensor([0.5, 0.2, 0.3]).log()
    assert torch.allclose(agent.reward(view, z), expected, atol=1e-6)


def test_uniform_prior_adds_the_logarithm_of_the_number_of_skills():
    agent, wrong = learner(), learner(kind=mistakes.NoPrior)
    view, z = torch.zeros(3, 2), torch.eye(3)
    difference = agent.reward(view, z) - wrong.reward(view, z)
    assert torch.allclose(difference, torch.full((3,), math.log(3)), atol=1e-6)


def test_the_bound_is_below_the_information_and_meets_it_at_the_posterior():
    """I(S; Z) ≥ E log q − log p for any q, on a table of p(s|z); equal for the true posterior."""
    rng = np.random.default_rng(2)
    channel, p = rng.dirichlet(np.ones(5), 3), np.array([0.2, 0.5, 0.3])  # (n, states)
    joint = p[:, None] * channel
    information = (joint * np.log(channel / joint.sum(0))).sum()
    posterior = joint / joint.sum(0)

    def bound(q):
        return (joint * (np.log(q) - np.log(p)[:, None])).sum()

    assert math.isclose(bound(posterior), information)
    for _ in range(20):
        assert bound(rng.dirichlet(np.ones(3), 5).T) < information


def test_discriminator_loss_is_the_cross_entropy():
    agent = learner()
    view, index = torch.randn(7, 2), torch.tensor([0, 1, 2, 0, 1, 1, 2])
    expected = F.cross_entropy(agent.discriminator.layers(view), index)
    assert torch.allclose(agent.discriminator_loss(view, F.one_hot(index, 3).float()), expected)


def test_discriminator_sees_only_what_is_shown():
    world = PointWorld(MAZE)
    agent = learner(world=world)
    view = torch.randn(5, world.view_dim)
    other = torch.cat([view[:, :2], torch.randn(5, world.view_dim - 2)], 1)
    assert torch.equal(agent.discriminator(view), agent.discriminator(other))


def test_prior_climbs_the_mean_return():
    """The mean step over many draws is the gradient of E_{z~p}[Σ_t r_t], r held fixed."""
    agent = learner(config=DIAYNConfig(skills=3, hidden=16, prior_rate=1.0, sac=SAC))
    logits = torch.tensor([0.4, -0.3, 0.1])
    path = np.stack([np.zeros((30_000, 2)), np.full((30_000, 2), 0.5)])
    agent.prior_logits = logits.clone()
    z = agent.draw_skills(30_000)
    returns = sum(agent.reward(torch.full((3, 2), x), torch.eye(3)) for x in (0.0, 0.5))
    update_prior(agent, path, z)
    moved = agent.prior_logits - logits
    variable = logits.clone().requires_grad_()
    (variable.softmax(0) * returns).sum().backward()
    assert torch.allclose(moved, variable.grad, atol=0.03)
    assert variable.grad.abs().max() > 0.1


# -- one update -------------------------------------------------------------------------------


def test_reward_is_that_of_the_discriminator_now(monkeypatch):
    """And of s', whatever was stored: an update hands SAC what q says at that moment."""
    agent = filled()
    seen = watched(agent, monkeypatch)
    batch = agent.replay.sample(32, agent.generator)
    assert (batch.reward == 0).all()
    for _ in range(2):
        agent.update(batch)
        after, z = agent.split(batch.next_observation)
        assert torch.equal(seen["sac"][-1].reward, agent.reward(after, z))
    assert not torch.allclose(seen["sac"][0].reward, seen["sac"][1].reward, atol=1e-5)


def test_discriminator_learns_from_the_whole_batch(monkeypatch):
    agent = filled()
    seen = watched(agent, monkeypatch)
    batch = agent.replay.sample(32, agent.generator)
    agent.update(batch)
    view, z = seen["loss"][0]
    assert torch.equal(view, batch.next_observation[:, :2])
    assert torch.equal(z, batch.next_observation[:, 2:])


def test_each_mistake_is_made(monkeypatch):
    def one(kind):
        agent = filled(kind)
        seen = watched(agent, monkeypatch)
        batch = agent.replay.sample(32, agent.generator)
        agent.update(batch)
        return agent, batch, seen["loss"][0][1], seen["sac"][0]

    _, batch, _, given = one(mistakes.StaleReward)
    assert (batch.reward != 0).any() and torch.equal(given.reward, batch.reward)
    agent, batch, _, given = one(mistakes.EarlyReward)
    assert torch.equal(given.reward, agent.reward(*agent.split(batch.observation)))
    assert len(one(mistakes.SingleSamples)[2]) == 1
    agent, batch, _, given = one(mistakes.RawNumber)
    number = agent.split(batch.observation)[1].argmax(-1)
    assert torch.equal(given.observation[:, 2], number.float())
    assert (given.observation[:, 3:] == 0).all()


def test_policy_is_trained_and_depends_on_the_skill():
    """The loss of the policy changes with the policy as −min Q does, entropy aside."""
    agent = filled()
    batch = agent.replay.sample(32, agent.generator)
    loss, log_density = agent.sac.actor_loss(batch.observation, torch.zeros(32, 2))
    weight = first_weight(agent)
    (gradient,) = torch.autograd.grad(loss - 0.1 * log_density.mean(), [weight])
    action = agent.sac.actor(batch.observation)[0].tanh()
    value = agent.sac.critics(batch.observation, action).amin(0).mean()
    (expected,) = torch.autograd.grad(-value, [weight])
    assert torch.allclose(gradient, expected, atol=1e-6) and expected.abs().max() > 1e-4
    before = weight.detach().clone()
    agent.update(batch)
    assert not torch.equal(before, first_weight(agent))
    actions = agent.act(np.zeros((3, 2)), torch.eye(3), greedy=True)
    assert np.abs(actions[0] - actions[1]).max() > 1e-4


def first_weight(agent):
    return agent.sac.actor.layers[0].weight


# -- a run ------------------------------------------------------------------------------------


def test_skill_is_one_hot_and_kept_through_an_episode():
    history = train_diayn(SquareWorld(), SMALL, seed=0, measure_every=2)
    rows = history.learner.replay.rows[: history.learner.replay.added]
    steps = rows.reshape(SMALL.episodes, SMALL.episode, SMALL.bodies, -1)
    before, after = steps[..., 2:5], steps[..., -1 - 3 : -1]
    assert ((before == 0) | (before == 1)).all() and (before.sum(-1) == 1).all()
    assert torch.equal(before, after)
    assert (before == before[:, :1]).all()  # the same at each step
    assert len(before[:, 0].reshape(-1, 3).unique(dim=0)) == 3
    positions, following = steps[..., :2], steps[..., 2 + 3 + 2 + 1 : -1 - 3]
    assert torch.equal(positions[:, 1:], following[:, :-1])


def test_skills_are_drawn_uniformly():
    agent = learner()
    shares = agent.draw_skills(6000).mean(0)
    assert torch.allclose(shares, torch.full((3,), 1 / 3), atol=0.03)


def test_history_counts_steps_and_repeats_with_its_seed():
    runs = [train_diayn(SquareWorld(), SMALL, seed, measure_every=2) for seed in (1, 1, 2)]
    assert runs[0].steps.tolist() == [2 * 5 * 4, 4 * 5 * 4]
    assert runs[0].effective.tolist() == pytest.approx([3.0, 3.0], rel=1e-5)
    assert np.array_equal(runs[0].bound, runs[1].bound)
    assert not np.array_equal(runs[0].bound, runs[2].bound)


@pytest.mark.slow
def test_three_skills_are_told_apart_after_seconds():
    config = DIAYNConfig(
        skills=3, bodies=8, episode=12, episodes=60, hidden=32,
        sac=SACConfig(hidden=32, batch_size=64, temperature=0.1, learning_rate=2e-3),
    )  # fmt: skip
    history = train_diayn(SquareWorld(), config, seed=0, measure_every=30)
    paths = roll_out_skills(history.learner, SquareWorld().start(20, np.random.default_rng(5)))
    assert history.accuracy[-1] > 0.8
    assert (told_apart(paths) > 0.9).all()
    assert 0 < history.bound[-1] < math.log(3)


def test_learnt_prior_moves():
    config = DIAYNConfig(
        skills=3, bodies=4, episode=5, episodes=4, warm_up=1, hidden=16, prior_rate=10.0, sac=SAC
    )
    history = train_diayn(SquareWorld(), config, seed=0, measure_every=4)
    assert history.effective[-1] < 2.999


# -- what skills do ---------------------------------------------------------------------------


def test_roll_outs_keep_their_skill():
    agent = learner()
    starts = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 2))
    paths = roll_out_skills(agent, starts, greedy=True, steps=6)
    assert paths.shape == (3, 4, 7, 2)
    assert np.array_equal(paths[:, :, 0], np.stack([starts] * 3))
    state = starts
    for _ in range(6):
        z = torch.eye(3)[[1]].expand(4, -1)
        state = agent.world.step(state, agent.act(state, z, greedy=True))
    assert np.allclose(paths[1, :, -1], state, atol=1e-6)


def corners():
    """Three skills that walk to three corners of the square, from 5 starts."""
    ends = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])
    along = np.linspace(0, 1, 11)[:, None]
    return np.stack([[along * end] * 5 for end in ends])  # (3, 5, 11, 2)


def test_measures_by_hand():
    paths = corners()
    assert told_apart(paths).tolist() == [1, 1, 1]
    paths[2, :3] = paths[0, :3]  # the third skill mostly walks with the first
    assert told_apart(paths)[2] < 1
    paths = corners()
    low, high = -np.ones(2), np.ones(2)
    assert coverage(paths[:1], low, high, 2) == 0.25
    assert coverage(paths, low, high, 2) == 0.75


def test_accuracy_and_bound_of_a_perfect_discriminator():
    agent = learner()

    def quadrants(view):
        right, up = view[..., 0] > 0, view[..., 1] > 0
        index = torch.where(right, 0, torch.where(up, 1, 2))
        return (0.97 * F.one_hot(index, 3) + 0.01).log()

    agent.discriminator.forward = quadrants
    assert accuracy(agent, corners()) == 1.0
    assert accuracy(agent, corners()[[1, 0, 2]]) == pytest.approx(1 / 3)
    assert measure_skills(agent, np.zeros((2, 2)))[1] < math.log(3)


def test_effective_skills_of_a_collapsed_prior():
    """Also where all but one probability is zero in single precision."""
    agent = learner()
    for logits, expected in (([0.0, 0.0, 0.0], 3), ([500.0, 0.0, 0.0], 1), ([0.0, 0.0, -500.0], 2)):
        agent.prior_logits = torch.tensor(logits)
        assert measure_skills(agent, np.zeros((2, 2)))[2] == pytest.approx(expected)


# -- planning over skills ---------------------------------------------------------------------


class Jumps(Outcomes):
    """Four skills that jump by one map unit: east, north, west, south."""

    def __init__(self):
        super().__init__(PointWorld(MAZE), 4, 4)

    def mean(self, state, z):
        jump = torch.tensor([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]])
        still = torch.zeros_like(state[..., 2:])
        return torch.cat([state[..., :2] + jump[z.argmax(-1)], still], -1)


def test_planner_finds_the_best_sequence_of_skills():
    """The CEM over vectors whose largest entry counts, against all 4⁵ sequences."""
    config = PlannerConfig(
        plan_length=5, replan_every=10, cost="final", cem=CEMConfig(candidates=200, elites=20)
    )
    planner = Planner(DiscoveredSkills(Jumps()), config, 10)
    rng = np.random.default_rng(0)
    state = torch.tensor(rng.uniform(-1, 1, (20, 4)), dtype=torch.float32)
    goal = torch.tensor(rng.uniform(-3, 3, (20, 2)), dtype=torch.float32)
    plan = planner.plan(state, goal, torch.Generator().manual_seed(0))
    every = torch.tensor(list(itertools.product(range(4), repeat=5)))
    epsilon = F.one_hot(every, 4).float().expand(20, -1, -1, -1)
    best = planner.evaluate(state, goal, epsilon).amin(1)
    assert (plan.cost - best).max() < 1e-4


def test_every_skill_is_as_likely_before_the_search():
    model = DiscoveredSkills(Jumps())
    prior = model.prior(torch.zeros(4000, 4))
    shares = F.one_hot(prior.sample().argmax(-1), 4).float().mean(0)
    assert torch.allclose(shares, torch.full((4,), 0.25), atol=0.03)


def test_outcomes_are_learnt_and_take_the_largest_entry():
    world, rng = PointWorld(MAZE), np.random.default_rng(1)
    first = torch.tensor(rng.uniform(-1, 1, (600, 4)), dtype=torch.float32)
    skill = torch.from_numpy(rng.integers(3, size=600))
    jump = torch.tensor([[1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 2.0, 0]])
    data = Practice(first, skill, first + jump[skill])
    model = train_outcomes(data, world, 3, seed=0, updates=300, batch=64)
    with torch.no_grad():
        predicted = model.mean(first, 0.1 + F.one_hot(skill, 3))
    assert (predicted - data.last).abs().mean() < 0.1
    assert data.part(slice(10)).first.shape == (10, 4)


def test_outcomes_start_from_the_state():
    model = Outcomes(PointWorld(MAZE), 3, 4)
    state, z = torch.randn(6, 4), torch.eye(3).repeat(2, 1)
    with torch.no_grad():
        for parameter in model.layers[-1].parameters():
            parameter.zero_()
        assert torch.equal(model.mean(state, z), state)


@pytest.mark.parametrize("apart", [False, True])
def test_practice_is_what_the_agent_does(apart):
    """A skill carried out by the agent ends where practice says, in the environment itself."""
    world = PointWorld(MAZE, 5)
    agent = learner(world=Displaced(world) if apart else world)
    fine = PointWorld(MAZE, 1)
    data = practise(agent, fine, steps=8, bodies=3, rounds=4, seed=0)
    assert data.first.shape == (12, 4) and data.skill.shape == (12,)
    assert torch.equal(data.first[3:6], data.last[:3])  # one after the other
    assert not torch.equal(data.first[6:9], data.last[3:6])  # put somewhere else, at rest
    assert (data.first[6:9, 2:] == 0).all() and (data.last[:, 2:] != 0).any()
    planner = Planner(
        DiscoveredSkills(Outcomes(world, 3, 4)),
        PlannerConfig(plan_length=2, replan_every=8, cem=CEMConfig(candidates=20, elites=5)),
        8,
    )
    acting = DiscoveredAgent(agent, planner, torch.Generator().manual_seed(0))
    tasks = sample_tasks(MAZE, 3, seed=5)
    found = evaluate(acting, MAZE, tasks, max_steps=8)
    chosen = acting.plan.skills[:, 0].argmax(-1)
    state = np.concatenate([tasks.starts, np.zeros((3, 2))], 1)
    first = state
    for _ in range(8):
        now = displaced(state, first) if apart else state
        state = fine.step(state, agent.act(now, F.one_hot(chosen, 3).float(), greedy=True))
    ends = np.stack([path[-1] for path in found.paths])
    unfinished = ~found.success
    assert unfinished.any()
    assert np.allclose(ends[unfinished], state[unfinished, :2], atol=1e-4)


def test_stored_skills_act_and_predict_the_same(tmp_path):
    path = tmp_path / "skills.safetensors"
    agent = learner(world=maze_world("pointmaze-umaze", "displacement"))
    outcomes = Outcomes(PointWorld(MAZE, 1), 3, 4)
    save_skills(path, agent, outcomes, "pointmaze-umaze", "displacement", {"seed": 0})
    again, model = load_skills(path, SMALL)
    state, z = agent.world.start(3, np.random.default_rng(0)), torch.eye(3)
    assert np.array_equal(agent.act(state, z, greedy=True), again.act(state, z, greedy=True))
    first = torch.from_numpy(state[:, 2:]).float()
    with torch.no_grad():
        assert torch.equal(outcomes.mean(first, z), model.mean(first, z))
    with pytest.raises(UserError, match="place or displacement, not 'speed'"):
        maze_world("pointmaze-umaze", "speed")


# -- scripts ----------------------------------------------------------------------------------


def test_runs_are_kept_and_not_made_again(tmp_path, monkeypatch, capsys):
    script = load_script("diayn_runs")
    assert set(script.KINDS) >= {"DIAYN", "stale reward", "z as a number", "single samples"}
    config = DIAYNConfig(skills=2, bodies=2, episode=3, episodes=10, warm_up=1, hidden=8, sac=SAC)
    monkeypatch.setattr(script, "KINDS", {"DIAYN": (DIAYN, config)})
    out = tmp_path / "square.json"
    for _ in range(2):
        assert script.main(["--seeds", "3", "--out", str(out)]) == 0
    study = json.loads(out.read_text(encoding="utf-8"))
    assert len(study["runs"]) == 1 and study["provenance"]["versions"]
    assert study["runs"][0]["steps"] == [10 * 3 * 2]
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.slow
def test_rows_of_the_closing_table(tmp_path, monkeypatch):
    """All kinds of rows, from runs of a few steps; what is there already is kept."""
    script = load_script("part_two_table")
    config = DIAYNConfig(
        skills=3, bodies=4, episode=5, episodes=60, warm_up=58, hidden=16, sac=SAC
    )  # fmt: skip
    monkeypatch.setattr(script.discovered, "MAZE_CONFIG", config)
    monkeypatch.setattr(script.discovered, "STEPS", 60)
    quick = functools.partial(train_outcomes, updates=10)
    monkeypatch.setattr(script.discovered, "train_outcomes", quick)
    monkeypatch.setattr(script.discovered, "PLANNER", PlannerConfig(1, 3, cem=CEMConfig(9, 1, 2)))
    monkeypatch.setattr(script, "MAZE", "pointmaze-umaze")
    monkeypatch.setattr(script, "PRACTICE", {"bodies": 8, "rounds": 3})
    monkeypatch.setattr(script, "GOAL_STEPS", 4)
    monkeypatch.setattr(script, "GOAL_SAC", SAC)
    small = dataclasses.replace(script.GOAL_OPTIONS, hidden=16, batch_size=16)
    monkeypatch.setattr(script, "GOAL_OPTIONS", small)
    monkeypatch.setattr(script, "FOLDER", tmp_path)

    def judged(agent, seed):
        return evaluate(agent, MAZE, sample_tasks(MAZE, 2, seed), max_steps=6).summary()

    monkeypatch.setattr(script, "judged", judged)
    out = tmp_path / "table.json"
    for _ in range(2):
        assert script.main(["--seeds", "7", "--out", str(out)]) == 0
    table = json.loads(out.read_text(encoding="utf-8"))
    assert table["Part I, planned; shipped"]["successes"] == 100
    own = {name: row for name, row in table.items() if name.endswith("; seed 7")}
    assert len(own) == 7 and (tmp_path / "place-seed7.safetensors").exists()
    budget = 60 * 5 * 4 * 5 + 8 * 3 * 60
    assert {row["environment_steps"] for row in own.values()} == {budget}


def test_rewards_of_the_baseline():
    rewards, distance = load_script("part_two_table").REWARDS, np.array([0.0, 0.45, 0.46, 2.0])
    assert np.allclose(rewards["dense"](distance), np.exp(-distance))
    assert rewards["sparse"](distance).tolist() == [1, 1, 0, 0]
