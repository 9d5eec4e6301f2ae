"""Soft actor-critic: densities and targets against torch.distributions and by hand."""

import math

import pytest
import torch
from samples import random_steps, seeded
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from mbta_helpers.errors import UserError
from mbta_helpers.hierarchical.sac import (
    CRITICS,
    SAC,
    Actor,
    Batch,
    Critics,
    ReplayBuffer,
    SACConfig,
    move_towards,
    squash,
)

SIZES = {"observation_dim": 3, "action_dim": 2}


def agent(seed: int = 0, **options) -> SAC:
    return SAC(3, 2, SACConfig(hidden=16, **options), seed)


# -- the policy ---------------------------------------------------------------------------------


def test_log_density_equals_torch_distributions():
    g = seeded()
    mean, log_std, noise = (torch.randn(50, 2, generator=g, dtype=torch.float64) for _ in range(3))
    action, log_density = squash(mean, log_std, noise)
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    same = torch.atanh(action).isfinite().all(-1) & (action.abs() < 1 - 1e-9).all(-1)
    assert same.sum() > 40
    expected = squashed.log_prob(action).sum(-1)
    assert torch.allclose(log_density[same], expected[same], atol=1e-5)


def test_density_of_one_action_integrates_to_one():
    noise = torch.linspace(-8, 8, 20001, dtype=torch.float64)[:, None]
    action, log_density = squash(torch.tensor([0.4]).double(), torch.tensor([-0.3]).double(), noise)
    assert torch.trapezoid(log_density.exp(), action[:, 0]).item() == pytest.approx(1.0, abs=1e-5)


def test_log_density_stays_finite_where_tanh_saturates():
    mean = torch.tensor([[30.0, -30.0]], requires_grad=True)
    action, log_density = squash(mean, torch.zeros(1, 2), torch.zeros(1, 2))
    log_density.sum().backward()
    assert (action.abs() == 1).all()
    # log(1 − tanh² u) → log 4 − 2 |u|
    assert log_density.item() == pytest.approx(-math.log(2 * math.pi) - 2 * (math.log(4) - 60))
    assert mean.grad.isfinite().all()


def test_log_std_is_bounded_and_greedy_is_the_mean():
    actor = Actor(3, 2, 16)
    with torch.no_grad():
        actor.layers[-1].bias[2:] = 100.0
    observation = torch.randn(5, 3, generator=seeded())
    assert (actor(observation)[1] == 2.0).all()
    learner = agent()
    expected = learner.actor(observation)[0].tanh()
    assert torch.equal(learner.act(observation, greedy=True), expected)
    assert not torch.equal(learner.act(observation), learner.act(observation))


# -- the critics --------------------------------------------------------------------------------


def single_critic(critics: Critics, k: int) -> nn.Sequential:
    """Critic k as a plain network."""
    layers = []
    for index, (weight, bias) in enumerate(zip(critics.weights, critics.biases, strict=True)):
        linear = nn.Linear(*weight.shape[1:])
        linear.load_state_dict({"weight": weight[k].T, "bias": bias[k, 0]})
        layers.append(linear)
        if index < 2:
            layers += [nn.LayerNorm(16, elementwise_affine=False)] * critics.layer_norm
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_twin_critics_equal_two_single_ones(layer_norm):
    critics = Critics(3, 2, 16, layer_norm)
    batch = random_steps()
    both = critics(batch.observation, batch.action)
    assert both.shape == (CRITICS, 8)
    pairs = torch.cat([batch.observation, batch.action], 1)
    for k in range(CRITICS):
        alone = single_critic(critics, k)(pairs)[:, 0]
        assert torch.allclose(both[k], alone, atol=1e-6)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_target_by_hand_for_terminated_and_cut_off():
    learner = agent(gamma=0.9)
    with torch.no_grad():
        learner.log_temperature.fill_(math.log(0.3))
        learner.targets.biases[-1].add_(0.5)  # so that they differ from the critics
    batch = random_steps()
    learner.generator.manual_seed(5)
    target = learner.critic_target(batch)
    noise = torch.randn(8, 2, generator=seeded(5))
    action, log_density = learner.actor.sample(batch.next_observation, noise)
    q = learner.targets(batch.next_observation, action)
    smaller = torch.where(q[0] < q[1], q[0], q[1])
    expected = batch.reward + 0.9 * (smaller - 0.3 * log_density)
    over = batch.terminated == 1
    assert torch.allclose(target[~over], expected[~over], atol=1e-6)
    assert torch.equal(target[over], batch.reward[over])


def test_losses_by_hand():
    learner, batch = agent(), random_steps()
    target = torch.randn(8, generator=seeded(1))
    q = learner.critics(batch.observation, batch.action)
    expected = 0.5 * sum(((q[k] - target) ** 2).mean() for k in range(CRITICS))
    assert torch.allclose(learner.critic_loss(batch, target), expected)

    with torch.no_grad():
        learner.log_temperature.fill_(math.log(0.7))
    noise = torch.randn(8, 2, generator=seeded(2))
    loss, log_density = learner.actor_loss(batch.observation, noise)
    action, expected_density = learner.actor.sample(batch.observation, noise)
    q = learner.critics(batch.observation, action)
    assert torch.equal(log_density, expected_density)
    smaller = torch.stack([q[0], q[1]]).min(0).values
    assert torch.allclose(loss, (0.7 * log_density - smaller).mean(), atol=1e-6)


def test_temperature_rises_where_the_entropy_is_too_low():
    for entropy, direction in ((-3.0, 1), (1.0, -1)):
        learner = agent(target_entropy=-1.0)
        learner.temperature_loss(torch.full((8,), -entropy)).backward()
        assert -learner.log_temperature.grad.sign().item() == direction
        assert learner.log_temperature.grad.item() == pytest.approx(entropy + 1.0)


def test_target_entropy_is_minus_the_actions_unless_given():
    assert agent().target_entropy == -2.0
    assert agent(target_entropy=0.5).target_entropy == 0.5


def test_targets_start_equal_and_move_by_their_share():
    learner = agent(tau=0.1)
    before = [p.clone() for p in learner.critics.parameters()]
    assert all(map(torch.equal, before, learner.targets.parameters()))
    learner.update(random_steps())
    triples = zip(before, learner.critics.parameters(), learner.targets.parameters(), strict=True)
    for old, new, target in triples:
        assert not torch.equal(old, new)
        assert torch.allclose(target, 0.9 * old + 0.1 * new, atol=1e-6)
    move_towards(learner.targets, learner.critics, 1.0)
    pairs = zip(learner.targets.parameters(), learner.critics.parameters(), strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)


def test_the_actors_update_leaves_the_critics_alone():
    learner, batch = agent(actor_every=2), random_steps()
    learner.update(batch)  # of both
    actor = [p.clone() for p in learner.actor.parameters()]
    metrics = learner.update(batch)  # of the critics alone
    assert "actor_loss" not in metrics
    assert all(map(torch.equal, actor, learner.actor.parameters()))
    critics = [p.clone() for p in learner.critics.parameters()]
    learner._update_actor(batch.observation)
    assert all(map(torch.equal, critics, learner.critics.parameters()))
    assert not all(map(torch.equal, actor, learner.actor.parameters()))
    assert all(p.requires_grad for p in learner.critics.parameters())


def test_a_fixed_temperature_stays():
    learner = agent(temperature=0.1)
    learner.update(random_steps())
    assert learner.temperature.item() == pytest.approx(0.1)
    learned = agent()
    learned.update(random_steps())
    assert learned.temperature.item() != 1.0


def test_same_seed_same_run_and_nothing_global_is_touched():
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    runs = []
    for seed in (1, 1, 2):
        learner = agent(seed)
        for index in range(3):
            learner.update(random_steps(seed=index))
        runs.append(learner.act(random_steps().observation))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.rand(1), expected)


# -- replay -------------------------------------------------------------------------------------


def numbered(*numbers: int) -> Batch:
    """Transitions whose every entry is their number."""
    n = torch.tensor(numbers, dtype=torch.float32)
    return Batch(n[:, None].expand(-1, 3), n[:, None].expand(-1, 2), n, n[:, None].expand(-1, 3), n)


def test_the_oldest_transitions_make_room():
    replay = ReplayBuffer(5, **SIZES)
    for first in (0, 3, 6):
        replay.add(numbered(first, first + 1, first + 2))
        assert len(replay) == min(first + 3, 5)
    batch = replay.sample(200, seeded())
    assert sorted(set(batch.reward.tolist())) == [4, 5, 6, 7, 8]


def test_columns_of_a_sample_belong_together():
    replay = ReplayBuffer(10, **SIZES)
    replay.add(numbered(1, 2, 3))
    batch = replay.sample(50, seeded())
    shapes = [tuple(column.shape) for column in batch]
    assert shapes == [(50, 3), (50, 2), (50,), (50, 3), (50,)]
    assert all(torch.equal(c.reshape(50, -1)[:, 0], batch.reward) for c in batch)
    assert sorted(set(batch.reward.tolist())) == [1, 2, 3]
    again, other = replay.sample(50, seeded()), replay.sample(50, seeded(1))
    assert torch.equal(again.reward, batch.reward)
    assert not torch.equal(other.reward, batch.reward)


def test_each_part_has_its_column():
    replay = ReplayBuffer(10, **SIZES)
    stored = random_steps(1)
    replay.add(stored)
    for kept, given in zip(replay.sample(1, seeded()), stored, strict=True):
        assert torch.equal(kept, given)


# -- learning -----------------------------------------------------------------------------------


def test_it_finds_the_optimum_of_a_quadratic_bandit():
    """Reward −2 ‖a − a*(s)‖² and no future: at a fixed small α the mean goes to a*(s) = s / 2."""
    config = SACConfig(hidden=32, learning_rate=3e-3, batch_size=64, temperature=0.05)
    learner = SAC(1, 1, config, seed=0)
    replay, g = ReplayBuffer(5000, 1, 1), seeded()
    for _ in range(40):
        state = 2 * torch.rand(50, 1, generator=g) - 1
        action = 2 * torch.rand(50, 1, generator=g) - 1
        reward = -2 * (action - state / 2).square().sum(1)
        replay.add(Batch(state, action, reward, state, torch.ones(50)))
    for _ in range(400):
        learner.update(replay.sample(64, g))
    state = torch.linspace(-0.8, 0.8, 9)[:, None]
    assert torch.allclose(learner.act(state, greedy=True), state / 2, atol=0.12)
    # π ∝ exp(Q / α) is nearly Gaussian with variance α / 4.
    samples = torch.stack([learner.act(torch.zeros(1, 1)) for _ in range(500)])
    assert samples.std().item() == pytest.approx(math.sqrt(0.05 / 4), rel=0.35)


def test_the_learnt_temperature_holds_the_entropy():
    config = SACConfig(hidden=16, learning_rate=5e-3, batch_size=64, target_entropy=-0.5)
    learner = SAC(1, 1, config, seed=0)
    state = torch.zeros(64, 1)
    for index in range(500):
        action = 2 * torch.rand(64, 1, generator=seeded(index)) - 1
        batch = Batch(state, action, -5 * action[:, 0].square(), state, torch.ones(64))
        metrics = learner.update(batch)
    assert metrics["entropy"] == pytest.approx(-0.5, abs=0.35)


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        {"hidden": 0},
        {"batch_size": 0},
        {"actor_every": 0},
        {"gamma": 1.0},
        {"tau": 0.0},
        {"learning_rate": 0.0},
        {"temperature": -0.1},
    ],
)
def test_a_senseless_configuration_is_refused(option):
    with pytest.raises(UserError, match=next(iter(option))):
        SACConfig(**option)


def test_replay_refuses_what_it_cannot_hold():
    replay = ReplayBuffer(2, **SIZES)
    with pytest.raises(UserError, match="empty"):
        replay.sample(1, seeded())
    with pytest.raises(UserError, match="More transitions"):
        replay.add(numbered(1, 2, 3))
    wrong = random_steps(1)._replace(action=torch.zeros(1, 5))
    with pytest.raises(UserError, match="widths"):
        replay.add(wrong)
    with pytest.raises(UserError, match="capacity"):
        ReplayBuffer(0, **SIZES)
