"""DreamerV3: each part against brute force, and what may not learn from what."""

import json
import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from samples import load_script
from torch.distributions import Independent, Normal

import mbta_helpers.latent.environments  # noqa: F401, registers the tasks
from mbta_helpers.errors import UserError
from mbta_helpers.latent.dreamer_v3 import (
    MARGIN,
    NEAR,
    Actor,
    BlockGRU,
    DreamerV3,
    DreamerV3Config,
    ReturnScale,
    WorldModelV3,
    actor_loss,
    closeness,
    replay_returns,
    scaled_point_tasks,
    train_dreamer_v3,
)
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import CategoricalLatent

SMALL = DreamerV3Config(
    latent=CategoricalLatent(3, 4, 0.01),
    deterministic=16,
    hidden=12,
    embedding=10,
    layers=1,
    horizon=4,
    batch=3,
    length=6,
    first=8,
    warm_up=2,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(batch=3, length=6, seed=0):
    """Rows at random; an episode starts inside the second sequence, one ends in the third."""
    g = generator(seed)
    is_first, is_terminal = torch.zeros(batch, length), torch.zeros(batch, length)
    is_first[1, 3], is_terminal[2, 4], is_first[2, 5] = 1, 1, 1
    return Sequences(
        torch.randn(batch, length, 5, generator=g),
        torch.randn(batch, length, 2, generator=g).clamp(-1, 1),
        torch.randn(batch, length, generator=g),
        is_first,
        is_terminal,
    )


def agent_of(**values):
    return DreamerV3((5,), 2, replace(SMALL, **values), seed=1)


def shaken(module, seed=2, size=0.3):
    """Parameters moved from where they start, so that nothing is 0 by construction."""
    g = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=g))
    return module


@pytest.mark.parametrize(
    "values",
    [
        {"heads": "V4"},
        {"blocks": 3},
        {"gamma": 1.0},
        {"lam": 1.2},
        {"slow_rate": 0.0},
        {"dynamics": -1},
        {"representation": -1},
        {"entropy": -1},
        {"replay_value": -1},
        {"learning_rate": 0},
        {"last_rate": 0},
        {"horizon": 0},
        {"length": 1},
        {"first": 3},
        {"warm_up": -1},
        {"extent": 0.0},
        {"observation_scale": -1},
    ],
)
def test_a_wrong_configuration_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        replace(SMALL, **values)


# -- the block GRU ----------------------------------------------------------------------------


def test_block_gru_is_a_gru_of_each_block():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        cell = BlockGRU(7, 12, 3).double()
    x, h = torch.randn(5, 7).double(), torch.randn(5, 12).double()
    wanted = torch.empty_like(h)
    for row in range(5):
        from_x = cell.inputs.weight @ x[row] + cell.inputs.bias  # 12 numbers for each block
        for block in range(3):
            own = h[row, 4 * block : 4 * block + 4]
            gates = from_x[12 * block : 12 * block + 12] + own @ cell.weight[block]
            reset, update = torch.sigmoid(gates[:4]), torch.sigmoid(gates[8:] - 1)
            candidate = torch.tanh(reset * gates[4:8])
            wanted[row, 4 * block : 4 * block + 4] = update * candidate + (1 - update) * own
    assert torch.allclose(cell(x, h), wanted)


def test_block_gru_with_zero_weights_keeps_most_of_h():
    cell, h = BlockGRU(2, 4, 2), torch.ones(1, 4)
    for parameter in cell.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.allclose(cell(torch.zeros(1, 2), h), h / (1 + math.exp(-1)))


def test_blocks_do_not_see_each_other_but_through_the_input():
    cell, x = BlockGRU(7, 12, 3), torch.randn(1, 7)
    slopes = torch.autograd.functional.jacobian(lambda h: cell(x, h[None])[0], torch.randn(12))
    blocks = torch.arange(12) // 4
    other = blocks[:, None] != blocks
    assert (slopes[other] == 0).all() and (slopes[~other] != 0).all()
    assert sum(p.numel() for p in cell.parameters()) == 3 * 12 * 12 // 3 + 3 * 12 * 8
    model = WorldModelV3((5,), 2, SMALL)
    start = model.rssm.start(1)
    mixed = torch.autograd.functional.jacobian(
        lambda h: model.rssm.advance(start._replace(h=h[None]), torch.zeros(1, 2))[0],
        torch.randn(16),
    )
    assert (mixed != 0).all()


def test_the_model_sees_actions_cut_off():
    model = WorldModelV3((5,), 2, SMALL)
    start = model.rssm.start(1)
    far, edge = (model.rssm.advance(start, torch.tensor([[x, -x]])) for x in (1.7, 1.0))
    assert (far == edge).all()


# -- the divergence ---------------------------------------------------------------------------


def test_unimix_bounds_probabilities_and_divergence():
    latent = CategoricalLatent(2, 4, 0.01)
    sure = torch.tensor([[50.0, 0, 0, 0, 0, 0, 0, 50.0]])
    wrong = sure.view(2, 4).flip(0).view(1, 8)
    p = latent.probabilities(sure)
    assert math.isclose(float(p.min()), 0.0025, rel_tol=1e-3)
    assert math.isclose(float(p.max()), 0.9925, rel_tol=1e-4)
    assert latent.kl(sure, wrong) <= 2 * math.log(4 / 0.01)
    assert latent.kl(sure, wrong) > 2 * 5.8
    assert CategoricalLatent(2, 4).kl(sure, wrong) > 90
    assert SMALL.latent.uniform == 0.01 == DreamerV3Config().latent.uniform


def terms_of_divergence(free_nats, q, p):
    """The value and the gradients to q and p of the divergence; p and q: (2, P)."""
    model = WorldModelV3((5,), 2, replace(SMALL, free_nats=free_nats))
    q, p = q.clone().requires_grad_(), p.clone().requires_grad_()
    value = model.divergence(q, p)
    return value.detach(), *torch.autograd.grad(value.sum(), (q, p))


def test_divergence_weighs_dynamics_ten_times_as_much_as_representation():
    q, p = torch.randn(2, 12, generator=generator(4)), torch.randn(2, 12, generator=generator(5))
    value, to_q, to_p = terms_of_divergence(0.0, q, p)
    q, p = q.requires_grad_(), p.requires_grad_()
    kl = SMALL.latent.kl(q, p)
    whole_q, whole_p = torch.autograd.grad(kl.sum(), (q, p))
    assert torch.allclose(value, 1.1 * kl)
    assert torch.allclose(to_q, 0.1 * whole_q) and torch.allclose(to_p, whole_p)


def test_nats_are_free_after_the_sum_over_groups_and_in_each_half():
    """Three groups of 0.6 nats cost 1.8: more than the free nat, though no group costs one."""
    near, far = torch.zeros(1, 12), torch.zeros(1, 12)
    far[0, ::4] = 2.2
    kl = float(SMALL.latent.kl(far, near))
    assert 1.5 < kl < 2.4
    value, to_q, to_p = terms_of_divergence(1.0, far, near)
    assert math.isclose(float(value), 1.1 * kl, rel_tol=1e-5)
    assert (to_q != 0).any() and (to_p != 0).any()
    value, to_q, to_p = terms_of_divergence(1.0, far / 4, near)
    assert math.isclose(float(value), 1.1, rel_tol=1e-6), "each half costs its free nat"
    assert (to_q == 0).all() and (to_p == 0).all()


# -- scales -----------------------------------------------------------------------------------


def test_return_scale_is_a_mean_of_spreads_and_never_below_one():
    scale = ReturnScale(rate=0.01)
    assert scale.value == 1.0
    ramp = torch.linspace(0, 1, 101)
    scale.update(ramp.view(1, 101))
    assert scale.value == 1.0, "a spread of 0.9 is not blown up"
    scale = ReturnScale(rate=0.25)
    scale.update(100 * ramp)
    assert math.isclose(scale.value, 90, rel_tol=1e-5), "the first spread counts in full"
    scale.update(200 * ramp + 1000)
    assert math.isclose(scale.value, (0.75 * 90 + 180) / 1.75, rel_tol=1e-5)
    assert math.isclose(ReturnScale().rate, 0.01)


def test_return_scale_is_not_moved_by_a_few_extremes():
    scale, returns = ReturnScale(), torch.linspace(0, 10, 101)
    returns[-3:] = 1e6
    scale.update(returns)
    assert scale.value < 10


@pytest.mark.parametrize(("heads", "normalised"), [("V3", True), ("V2", False)])
def test_advantages_are_divided_by_the_scale(heads, normalised):
    """A large spread that came before makes the actor's loss small, with V3's heads only."""
    losses = []
    for spread in (0.0, 1e12):
        agent = agent_of(heads=heads, entropy=0.0)
        shaken(agent.critic, size=0.05)
        batch = batch_of()
        agent.scale.spread, agent.scale.seen = spread, 1.0
        states, _ = agent.model.observe(batch, generator())
        losses.append(agent.behaviour_losses(batch, states, generator(1))[0].abs().item())
    if normalised:
        assert losses[1] < 1e-3 * losses[0]
    else:
        assert losses[0] == losses[1]


# -- the actor --------------------------------------------------------------------------------


def test_actor_stays_in_its_bounds_and_starts_in_the_middle():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        actor = Actor(6, 8, 1, 2)
    policy = actor(torch.randn(50, 6, generator=generator()))
    assert policy.mean.abs().max() < 0.4 and policy.stddev.min() > 0.8
    wild = shaken(actor, size=30.0)(10 * torch.randn(50, 6, generator=generator()))
    assert wild.mean.abs().max() <= 1 and wild.mean.abs().max() > 0.99
    assert 0.1 <= wild.stddev.min() < 0.11 and 0.99 < wild.stddev.max() <= 1


def test_reinforce_is_that_of_each_step():
    g = generator()
    mean = torch.randn(2, 3, 2, generator=g).requires_grad_()
    std = torch.full((2, 3, 2), 0.7).requires_grad_()
    action, advantage = torch.randn(2, 3, 2, generator=g), torch.randn(2, 3, generator=g)
    advantage.requires_grad_()
    weight = torch.rand(2, 3, generator=g)
    loss = actor_loss(Independent(Normal(mean, std), 1), action, advantage, weight, 0.3)
    loss.backward()
    assert advantage.grad is None
    wanted = 0.0
    for b in range(2):
        for n in range(3):
            one = Normal(mean[b, n].detach(), 0.7)
            gain = advantage[b, n] * one.log_prob(action[b, n]).sum() + 0.3 * one.entropy().sum()
            wanted = wanted - weight[b, n] * gain / 6
    assert torch.allclose(loss, wanted)
    pull = advantage[..., None] * (action - mean) / 0.49
    assert torch.allclose(mean.grad, -(weight[..., None] * pull).detach() / 6, atol=1e-6)


def test_actor_learns_from_states_in_which_it_acted():
    """The loss is that of REINFORCE on (s_n, a_n, G_n − v_n), from the dream itself."""
    agent = agent_of(entropy=0.01)
    for part in (agent.critic, agent.model.reward, agent.actor):
        shaken(part)
    batch = batch_of()
    states, _ = agent.model.observe(batch, generator())
    loss, _ = agent.behaviour_losses(batch, states, generator(7))
    alive = 1 - batch.is_terminal.flatten()
    dream = agent.dream(states.detach().flatten(), alive, generator(7))
    wanted = 0.0
    for n in range(SMALL.horizon):
        policy = agent.actor(dream.trajectory.states.features[:, n])
        advantage = (dream.returns[:, n] - dream.value[:, n]) / agent.scale.value
        log_prob = policy.log_prob(dream.trajectory.actions[:, n])
        gain = advantage * log_prob + 0.01 * policy.entropy()
        wanted = wanted - (dream.weight[:, n] * gain).mean() / SMALL.horizon
    assert torch.allclose(loss, wanted, rtol=1e-4)


def test_a_dream_pays_for_arriving_and_stops_where_episodes_end():
    agent = agent_of()
    for part in (agent.critic, agent.model.reward, agent.model.continuation):
        shaken(part)
    start = agent.model.rssm.start(5)
    alive = torch.tensor([1.0, 1, 1, 1, 0])
    dream = agent.dream(start, alive, generator())
    features = dream.trajectory.states.features
    reward = agent.model.predict_reward(features).detach()
    goes_on = agent.model.predict_continuation(features).detach()
    value = agent.critic.mean(agent.critic(features)).detach()
    following = value[:, -1]
    for n in reversed(range(SMALL.horizon)):
        future = 0.05 * value[:, n + 1] + 0.95 * following
        following = reward[:, n + 1] + SMALL.gamma * goes_on[:, n + 1] * future
        assert torch.allclose(dream.returns[:, n], following, rtol=1e-4)
    assert (dream.weight[:, 0] == alive).all()
    assert torch.allclose(dream.weight[:, 1], alive * SMALL.gamma * goes_on[:, 1])


# -- the critic -------------------------------------------------------------------------------


def test_replayed_returns_by_hand():
    reward = torch.tensor([[9.0, 1.0, 2.0, 4.0, 8.0, 16.0]])
    value = torch.tensor([[100.0, 10.0, 20.0, 30.0, 40.0, 50.0]])
    none = torch.zeros(1, 6)
    first, terminal = none.clone(), none.clone()
    batch = Sequences(none, none, reward, first, terminal)
    g, lam = 0.5, 0.5
    wanted, following = [], 50.0
    for t in (5, 4, 3, 2, 1):
        future = value[0, t] if t == 5 else (1 - lam) * value[0, t] + lam * following
        following = float(reward[0, t] + g * future)
        wanted.insert(0, following)
    assert torch.allclose(replay_returns(batch, value, g, lam)[0], torch.tensor(wanted))
    first[0, 3] = 1  # row 2 was the last that was seen of its episode
    assert replay_returns(batch, value, g, lam)[0, 1] == 2 + g * 20
    terminal[0, 2] = 1  # and now it ended there
    assert replay_returns(batch, value, g, lam)[0, 1] == 2
    assert math.isclose(replay_returns(batch, value, g, lam)[0, 0], 1 + g * (5 + 1), rel_tol=1e-6)


def test_rows_before_a_new_episode_teach_the_critic_nothing():
    """The reward in a row that starts an episode is no one's."""
    agent, losses = agent_of(), []
    shaken(agent.critic)
    for reward in (0.0, 1e4):
        batch = batch_of()
        batch.reward[1, 3] = reward
        states, _ = agent.model.observe(batch, generator())
        losses.append(agent.behaviour_losses(batch, states, generator(1))[1].item())
    assert losses[0] == losses[1]


def test_replayed_rows_teach_the_critic():
    losses = {}
    for weight in (0.0, 0.3, 0.6):
        agent = agent_of(replay_value=weight)
        batch = batch_of()
        states, _ = agent.model.observe(batch, generator())
        losses[weight] = agent.behaviour_losses(batch, states, generator(1))[1].item()
    assert math.isclose(losses[0.6] - losses[0.3], losses[0.3] - losses[0.0], rel_tol=1e-3)
    assert losses[0.3] > losses[0.0]


def test_the_slow_critic_follows_at_its_rate():
    agent = agent_of(slow_rate=0.02)
    slow = [parameter.clone() for parameter in agent.slow.parameters()]
    agent.update(batch_of(), generator())
    for old, new, now in zip(slow, agent.critic.parameters(), agent.slow.parameters(), strict=True):
        assert torch.allclose(now, 0.98 * old + 0.02 * new, atol=1e-7)
    assert not any(parameter.requires_grad for parameter in agent.slow.parameters())


def test_the_critic_is_drawn_to_its_slow_copy():
    agent = agent_of()
    shaken(agent.slow.requires_grad_(False))
    features = torch.randn(4, 28, generator=generator())
    target = torch.zeros(4)
    output = agent.critic(features)
    slow = agent.slow.mean(agent.slow(features))
    wanted = agent.critic.loss(output, target) + agent.critic.loss(output, slow)
    assert torch.allclose(agent.critic_loss(features, target), wanted)
    assert (slow != 0).all()


# -- who learns from what ---------------------------------------------------------------------


def test_actor_and_critic_teach_the_world_model_nothing():
    agent, batch = agent_of(), batch_of()
    for part in (agent.critic, agent.model.reward, agent.actor):
        shaken(part)
    states, _ = agent.model.observe(batch, generator())
    actor, critic = agent.behaviour_losses(batch, states, generator(1))
    actor.backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in agent.critic.parameters())
    assert all(parameter.grad is not None for parameter in agent.actor.parameters())
    agent.actor.zero_grad(set_to_none=True)
    critic.backward()
    assert all(parameter.grad is None for parameter in agent.actor.parameters())
    assert all(parameter.grad is not None for parameter in agent.critic.parameters())
    assert all(parameter.grad is None for parameter in agent.model.parameters())


def test_before_it_behaves_only_the_model_learns():
    agent = agent_of()
    before = [
        [parameter.clone() for parameter in part.parameters()]
        for part in (agent.actor, agent.critic, agent.model)
    ]
    agent.update(batch_of(), generator(), behave=False)
    after = [list(part.parameters()) for part in (agent.actor, agent.critic, agent.model)]
    same = [
        all(torch.equal(*pair) for pair in zip(*parts, strict=True))
        for parts in zip(before, after, strict=True)
    ]
    assert same == [True, True, False]


# -- the heads --------------------------------------------------------------------------------


def test_with_the_heads_of_v3_observations_and_rewards_may_be_large():
    """Symlog and two-hot keep the loss of a thousandfold row small; V2's squared reward grows."""
    large = {}
    for heads in ("V3", "V2"):
        model = WorldModelV3((5,), 2, replace(SMALL, heads=heads, observation_scale=10.0))
        small = batch_of()
        huge = small._replace(observation=1e3 * small.observation, reward=1e3 * small.reward)
        states, priors = model.observe(small, generator())
        terms = model.terms(huge, states, priors)
        large[heads] = [terms.observation.mean().item(), terms.reward.mean().item()]
    assert large["V3"][0] < 2000 and large["V3"][1] < 30
    assert large["V2"][0] < 2000 and large["V2"][1] > 1e5, "the arms differ in rewards alone"


def test_predicted_observations_are_in_their_own_units():
    """A decoder that fits symlog(o) predicts o."""
    observation = torch.tensor([[[-20.0, 0.0, 0.5, 3.0, 100.0]]])
    model = WorldModelV3((5,), 2, SMALL)
    torch.nn.init.zeros_(model.decoder[-1].weight)
    with torch.no_grad():
        model.decoder[-1].bias.copy_(observation[0, 0].sign() * observation[0, 0].abs().log1p())
    features = torch.zeros(1, 1, 28)
    assert torch.allclose(model.predict_observation(features), observation, rtol=1e-5)
    assert model.observation_loss(features, observation).item() < 1e-10
    more = model.observation_loss(features, torch.zeros(1, 1, 5)).item()
    logs = observation.abs().log1p().square().sum().item() / 2
    assert math.isclose(more, logs, rel_tol=1e-5)


def test_the_weight_of_observations_counts_once():
    batch, terms = batch_of(), []
    for weight in (1.0, 30.0):
        model = WorldModelV3((5,), 2, replace(SMALL, observation_scale=weight))
        terms.append(model.terms(batch, *model.observe(batch, generator())))
    plain, weighted = terms
    assert torch.allclose(weighted.observation, 30 * plain.observation)
    assert torch.allclose(weighted.reward, plain.reward)


# -- training ---------------------------------------------------------------------------------


def test_a_short_training_acts_learns_and_evaluates():
    environments, tests = (
        gym.make_vec("mbta/PointTask-v0", num_envs=count, vectorization_mode="sync")
        for count in (2, 3)
    )
    agents = []
    for _ in range(2):
        agent, history = train_dreamer_v3(environments, tests, SMALL, 4, seed=5, evaluate_every=2)
        agents.append((agent, history))
    (agent, history), (_, again) = agents
    assert history.updates.tolist() == [2, 4] and history.steps.tolist() == [24, 32]
    assert history.returns.shape == (2, 3) and (history.returns < 0).all()
    assert (history.returns == again.returns).all(), "the seed decides"
    (group,) = agent.optimizer.param_groups
    assert math.isclose(group["lr"], SMALL.last_rate * SMALL.learning_rate, rel_tol=1e-6)
    assert group["betas"] == (0.9, 0.99), "large gradients of the first updates are forgotten"
    action = agent.act(agent.model.rssm.start(4), generator(), explore=True)
    assert action.shape == (4, 2) and action.abs().max() <= 1


def test_closeness_is_one_near_the_goal_and_a_tenth_at_the_margin():
    assert closeness(0.0) == closeness(NEAR) == 1
    assert math.isclose(closeness(NEAR + MARGIN), 0.1)
    half = math.exp(math.log(0.1) / 4)  # a Gaussian: a quarter of the exponent half-way
    assert math.isclose(closeness(NEAR + MARGIN / 2), half)


def test_rewards_are_closeness_times_the_scale():
    for scale in (1.0, 100.0):
        environments = scaled_point_tasks(2, scale)
        seen, _ = environments.reset(seed=0)
        reward = environments.step(np.zeros((2, 2), np.float32))[1]
        distances = np.linalg.norm(seen[:, :2] - seen[:, 4:], axis=1)  # nothing has moved
        assert np.allclose(reward, [scale * closeness(each) for each in distances])


# -- the script -------------------------------------------------------------------------------


def test_the_script_writes_each_run_once_in_units_of_the_task(tmp_path, monkeypatch, capsys):
    script = load_script("dreamer_v3_scales")
    for name in ("UPDATES", "EVALUATE_EVERY", "EPISODES"):
        monkeypatch.setattr(script, name, 2)
    out = tmp_path / "runs.json"
    wanted = ["--heads", "V3", "--scales", "100", "--seeds", "9", "--out", str(out)]
    assert script.main(wanted) == 0
    stored = json.loads(out.read_text("utf-8"))
    (row,) = stored["runs"]
    assert (row["heads"], row["scale"], row["seed"]) == ("V3", 100.0, 9)
    assert np.shape(row["returns"]) == (1, 2) and 0 < np.mean(row["returns"]) < 50
    assert stored["provenance"]["config"]["entropy"] == 3e-4
    capsys.readouterr()
    assert script.main(wanted) == 0
    assert capsys.readouterr().out == "", "a run that is there is not made again"
