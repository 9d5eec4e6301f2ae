"""DreamerV2: gradients against enumeration, torch.distributions and brute force."""

import itertools
import math
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from torch import nn

from mbta_helpers.errors import UserError
from mbta_helpers.latent import grids
from mbta_helpers.latent.dreamer_v2 import (
    BehaviourConfig,
    Choice,
    DreamerV2,
    DreamerV2Model,
    DreamerV2ModelConfig,
    ModelLearner,
    Push,
    RandomChoices,
    TrainingConfig,
    actor_loss,
    balanced_kl,
    code_parameters,
    critic_loss,
    discounted_returns,
    fit,
    hold_codes,
    random_play,
    slow_codes,
    spread_codes,
    step_weights,
    train,
)
from mbta_helpers.latent.grids import environments
from mbta_helpers.latent.imagination import Trajectory
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import CategoricalLatent, GaussianLatent, State

LATENTS = {"categories": CategoricalLatent(3, 4), "gaussian": GaussianLatent(5)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(*shape, seed=0, grad=True):
    return torch.randn(*shape, generator=generator(seed)).requires_grad_(grad)


def distribution(latent, parameters):
    if isinstance(latent, GaussianLatent):
        each = torch.distributions.Normal(*latent.moments(parameters))
        return torch.distributions.Independent(each, 1)
    logits = parameters.unflatten(-1, (latent.groups, latent.classes))
    return torch.distributions.Independent(torch.distributions.OneHotCategorical(logits=logits), 1)


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (DreamerV2ModelConfig, {"balance": 1.2}),
        (DreamerV2ModelConfig, {"kl_scale": 0.0}),
        (DreamerV2ModelConfig, {"free_nats": -1.0}),
        (DreamerV2ModelConfig, {"spread": 0.0}),
        (BehaviourConfig, {"mix": -0.1}),
        (BehaviourConfig, {"gamma": 1.0}),
        (BehaviourConfig, {"lam": 1.1}),
        (BehaviourConfig, {"slow_every": 0}),
        (TrainingConfig, {"batch": 0}),
        (TrainingConfig, {"rate": 0.0}),
    ],
)
def test_a_wrong_configuration_is_refused(kind, values):
    with pytest.raises(UserError, match=next(iter(values))):
        kind(**values)


# -- classes and their gradient -------------------------------------------------------------------


def test_classes_are_drawn_with_their_frequencies():
    latent, parameters = CategoricalLatent(2, 3), numbers(6, grad=False)
    p = latent.probabilities(parameters)
    draws = 20_000
    z = latent.sample(parameters.expand(draws, 6), generator()).view(draws, 2, 3)
    assert torch.allclose(z.sort(-1).values, torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
    error = (p * (1 - p) / draws).sqrt()
    assert ((z.mean(0) - p).abs() < 4 * error).all()


def exact_gradient(latent, parameters, loss):
    """∇ Σ_z p(z) loss(z), by enumeration of all z."""
    eyes = torch.eye(latent.classes)
    every = torch.stack([torch.cat(z) for z in itertools.product(eyes, repeat=latent.groups)])
    probability = latent.log_prob(parameters.expand(len(every), -1), every).exp()
    return torch.autograd.grad((probability * loss(every)).sum(), parameters)[0]


def straight_through_gradient(latent, parameters, loss, draws):
    z = latent.sample(parameters.expand(draws, -1), generator())
    return torch.autograd.grad(loss(z).mean(), parameters)[0]


def test_the_straight_through_gradient_of_a_linear_loss_is_exact():
    latent, parameters = LATENTS["categories"], numbers(12)
    weights = torch.linspace(-2, 3, 12)
    exact = exact_gradient(latent, parameters, lambda z: z @ weights)
    assert exact.abs().max() > 0.1
    assert torch.allclose(
        straight_through_gradient(latent, parameters, lambda z: z @ weights, 50), exact, atol=1e-5
    )


def test_the_sum_of_the_state_proves_nothing():
    """Probabilities add up to 1: the gradient of the sum vanishes, right or wrong."""
    gradient = straight_through_gradient(LATENTS["categories"], numbers(12), lambda z: z.sum(-1), 9)
    assert gradient.abs().max() < 1e-6


def test_the_straight_through_gradient_sees_slopes_and_not_differences():
    """f(z) = (w·z)²: the estimate's mean is Σ_i ∂p_i E[2 (w·z) w_i], not Σ_i ∂p_i w_i²."""
    latent, parameters = CategoricalLatent(1, 3), numbers(3)
    weights = torch.tensor([0.0, 1.0, 3.0])
    p = latent.probabilities(parameters)[0]
    mean = (p.detach() * weights).sum()
    (expected,) = torch.autograd.grad((p * 2 * mean * weights).sum(), parameters)
    sampled = straight_through_gradient(
        latent, parameters, lambda z: (z @ weights).square(), 40_000
    )
    exact = exact_gradient(latent, parameters, lambda z: (z @ weights).square())
    assert torch.allclose(sampled, expected, atol=0.03)
    assert (sampled - exact).norm() > 0.1


# -- balanced divergence --------------------------------------------------------------------------


@pytest.mark.parametrize("name", LATENTS)
def test_the_divergence_is_that_of_torch_and_the_balance_leaves_its_value(name):
    latent = LATENTS[name]
    q, p = numbers(7, latent.parameter_count), numbers(7, latent.parameter_count, seed=1)
    exact = torch.distributions.kl_divergence(distribution(latent, q), distribution(latent, p))
    assert torch.allclose(latent.kl(q, p), exact, atol=1e-5)
    for balance in (0.0, 0.3, 0.8, 1.0):
        assert torch.allclose(balanced_kl(latent, q, p, balance), exact, atol=1e-5)


@pytest.mark.parametrize("name", LATENTS)
def test_the_prior_gets_the_balance_and_the_posterior_the_rest(name):
    latent = LATENTS[name]
    q, p = numbers(7, latent.parameter_count), numbers(7, latent.parameter_count, seed=1)
    exact = torch.distributions.kl_divergence(distribution(latent, q), distribution(latent, p))
    to_q, to_p = torch.autograd.grad(exact.sum(), (q, p))
    ours = torch.autograd.grad(balanced_kl(latent, q, p, 0.8).sum(), (q, p))
    assert torch.allclose(ours[0], 0.2 * to_q, atol=1e-5)
    assert torch.allclose(ours[1], 0.8 * to_p, atol=1e-5)


def model(**values) -> DreamerV2Model:
    values = {"deterministic": 8, "hidden": 8, "embedding": 8} | values
    return DreamerV2Model((16, 16), 4, DreamerV2ModelConfig(**values), seed=2)


def test_the_loss_takes_the_balanced_divergence_scaled_and_free_nats_off():
    latent = CategoricalLatent(8, 8)
    q, p = numbers(3, 64), numbers(3, 64, seed=1)
    kl = latent.kl(q, p)
    scaled = model(kl_scale=0.5).divergence(q, p)
    assert torch.allclose(scaled, 0.5 * kl, atol=1e-5)
    (to_p,) = torch.autograd.grad(scaled.sum(), p)
    (half,) = torch.autograd.grad(0.4 * kl.sum(), p)
    assert torch.allclose(to_p, half, atol=1e-5)
    free = float(kl.detach().max()) + 1
    assert torch.allclose(model(free_nats=free).divergence(q, p), torch.tensor(free))


def test_pixels_are_bernoulli():
    net, features = model(), numbers(5, 72, grad=False)
    picture = (torch.rand(5, 16, 16, generator=generator()) < 0.2).float()
    p = net.predict_observation(features)
    exact = torch.distributions.Independent(torch.distributions.Bernoulli(p), 2).log_prob(picture)
    assert torch.allclose(net.observation_loss(features, picture), -exact, atol=1e-3)


def test_the_encoder_sees_standardised_pixels():
    net = model()
    picture = torch.zeros(16, 16)
    picture[:2, :2] = 1.0  # the share of a model that has seen nothing yet
    assert torch.allclose(
        net.predict_observation(torch.zeros(72)).mean(), picture.mean(), atol=0.01
    )
    given = (picture - 1 / 64) / math.sqrt(63 / 64**2)
    assert torch.isclose(given.mean(), torch.tensor(0.0), atol=1e-6)
    assert torch.isclose(given.std(correction=0), torch.tensor(1.0), atol=1e-5)
    assert torch.allclose(net.embed(picture), net.encoder(given.flatten()))


def test_the_posterior_starts_spread():
    plain, spread = model(), model(spread=10.0)
    assert torch.allclose(10 * plain.rssm.posterior[-1].weight, spread.rssm.posterior[-1].weight)
    assert torch.equal(plain.rssm.prior[-1].weight, spread.rssm.prior[-1].weight)


def test_the_decoder_starts_at_the_mean_picture():
    net = model()
    pictures = (torch.rand(3, 50, 16, 16, generator=generator()) < 0.3).float()
    net.start_at(pictures)
    nn.init.zeros_(net.decoder[-1].weight)
    assert torch.allclose(
        net.predict_observation(torch.zeros(72)), pictures.mean((0, 1)), atol=1e-5
    )


def test_codes_are_spread_about_zero_over_pictures():
    net = DreamerV2Model((16, 16), 4, DreamerV2ModelConfig(latent=CategoricalLatent(1, 512)), 0)
    pictures = torch.from_numpy(grids.draw_agent(grids.STARTS))
    spread_codes(net, pictures, 15.0)
    batch = Sequences(pictures[:, None], *(torch.zeros(len(pictures), 1, *n) for n in SHAPES))
    logits = net.observe(batch, generator())[0].parameters[:, 0]
    assert torch.allclose(logits.mean(0), torch.zeros(512), atol=1e-3)
    assert torch.isclose(logits.std(), torch.tensor(15.0), atol=0.2)
    assert len(set(logits.argmax(-1).tolist())) > 0.8 * len(pictures)


SHAPES = ((4,), (), (), ())  # of action, reward, is_first and is_terminal


def test_held_codes_stay_and_learn_slowly_afterwards():
    play = random_play(grids.environments(4), model(), 40, 0)
    before, held, free = (model() for _ in range(3))
    fit(held, play, TrainingConfig(batch=4, length=5, hold=3), 3, 0)
    fit(free, play, TrainingConfig(batch=4, length=5), 3, 0)
    pairs = [code_parameters(net) for net in (before, held, free)]
    assert all(torch.equal(a, b) for a, b in zip(pairs[0], pairs[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(pairs[0], pairs[2], strict=True))
    assert not torch.equal(before.rssm.prior[-1].weight, held.rssm.prior[-1].weight)
    rates = [group["lr"] for group in slow_codes(held, 0.02).param_groups]
    assert rates == pytest.approx([0.02, 0.002])
    counted = sum(len(group["params"]) for group in slow_codes(held, 0.02).param_groups)
    assert counted == len(list(held.parameters()))


def test_the_divergence_counts_a_tenth_while_codes_are_held():
    net = model()
    q, p = (numbers(5, net.latent.parameter_count, seed=seed) for seed in (0, 1))
    whole = net.divergence(q, p)
    hold_codes(net, True)
    assert torch.allclose(net.divergence(q, p), 0.1 * whole)
    hold_codes(net, False)
    assert torch.equal(net.divergence(q, p), whole)


# -- policies -------------------------------------------------------------------------------------


def test_a_choice_is_a_one_hot_categorical():
    policy, logits = Choice(4), numbers(6, 4)
    exact = torch.distributions.OneHotCategorical(logits=logits)
    action = policy.sample(logits, generator()).detach().round()
    assert torch.allclose(policy.log_prob(logits, action), exact.log_prob(action))
    assert torch.allclose(policy.entropy(logits), exact.entropy(), atol=1e-6)
    assert (policy.mode(logits).argmax(-1) == logits.argmax(-1)).all()


def test_a_push_is_a_gaussian_cut_off():
    """Mass, entropy and moments by a fine grid; draws have the moments."""
    policy, parameters = Push(1), torch.tensor([0.7, -0.3])
    x = torch.linspace(-1, 1, 20_001)
    density = policy.log_prob(parameters.expand(len(x), 2), x[:, None]).exp()
    assert torch.isclose(torch.trapezoid(density, x), torch.tensor(1.0), atol=1e-4)
    entropy = torch.trapezoid(-density * density.log(), x)
    assert torch.isclose(policy.entropy(parameters), entropy, atol=1e-4)
    mean, std, _, _ = policy.cut(parameters)
    a, b = density[0], density[5000]  # at −1 and at −0.5: the shape is that of N(μ, σ)
    assert torch.isclose(
        (a / b).log(), -0.5 * (((-1 - mean) / std) ** 2 - ((-0.5 - mean) / std) ** 2)[0], atol=1e-4
    )
    draws = policy.sample(parameters.expand(20_000, 2), generator())
    assert draws.abs().max() <= 1
    first, second = (torch.trapezoid(density * x**k, x) for k in (1, 2))
    error = (second - first**2).sqrt() / math.sqrt(20_000)
    assert abs(draws.mean() - first) < 4 * error


def test_a_push_has_the_gradient_of_its_mean():
    policy, parameters = Push(1), torch.tensor([0.4, -0.5], requires_grad=True)
    x = torch.linspace(-1, 1, 20_001)
    density = policy.log_prob(parameters.expand(len(x), 2), x[:, None]).exp()
    (exact,) = torch.autograd.grad(torch.trapezoid(density * x, x), parameters)
    draws = policy.sample(parameters.expand(50_000, 2), generator())
    (sampled,) = torch.autograd.grad(draws.mean(), parameters)
    assert torch.allclose(sampled, exact, atol=0.01)


# -- the actor's and the critic's loss ------------------------------------------------------------


def test_weights_are_products_of_discounts_before_the_step():
    discount = torch.tensor([[0.9, 0.5, 0.8], [0.9, 0.5, 0.8]], requires_grad=True)
    weight = step_weights(discount, torch.tensor([1.0, 0.0]))
    assert torch.allclose(weight, torch.tensor([[1.0, 0.9, 0.45], [0.0, 0.0, 0.0]]))
    assert not weight.requires_grad


def test_losses_by_hand_and_what_they_move():
    one = [torch.tensor([[value]], requires_grad=True) for value in (-0.7, 1.2, 3.0, 2.0, 0.5)]
    log_prob, entropy, returns, value, weight = one
    config = BehaviourConfig(mix=0.25, entropy=0.1)
    loss = actor_loss(log_prob, entropy, returns, value, weight.detach(), config)
    assert torch.isclose(loss, torch.tensor(-0.5 * (0.25 * -0.7 * 1.0 + 0.75 * 3.0 + 0.12)))
    gradients = torch.autograd.grad(loss, one[:4], allow_unused=True)
    assert torch.allclose(
        torch.stack(gradients[:3]).squeeze(), torch.tensor([-0.125, -0.05, -0.375])
    )
    assert gradients[3] is None  # the advantage is detached
    error = critic_loss(value, returns, weight.detach())
    assert torch.isclose(error, torch.tensor(0.25))
    gradients = torch.autograd.grad(error, (value, returns), allow_unused=True)
    assert torch.isclose(gradients[0], torch.tensor(-0.5)) and gradients[1] is None


class TwoStates(nn.Module):
    """A world of two states, seen as they are: h is one-hot, z is empty.

    Action a leads to state a with probability `stick`, otherwise to the other one.
    """

    reward = torch.tensor([0.3, -1.0])
    value = torch.tensor([0.5, 2.0])
    goes_on = torch.tensor([0.9, 0.6])
    config = SimpleNamespace(deterministic=2)
    latent = SimpleNamespace(size=0)

    def __init__(self, stick: float):
        super().__init__()
        self.rssm, self.stick = self, stick

    def imagine_step(self, state, action, generator):
        stays = torch.rand(len(action), 1, generator=generator) < self.stick
        return world_state(torch.where(stays, action, 1 - action))

    def predict_reward(self, features):
        return features @ self.reward

    def predict_continuation(self, features):
        return features @ self.goes_on


def world_state(h):
    return State(h, h[..., :0], h[..., :0])


LOGITS = torch.tensor([[0.4, -0.2], [-0.5, 0.8]])  # of the actions, for each state


def two_state_agent(stick, **values):
    config = BehaviourConfig(gamma=0.8, lam=0.7, horizon=2, entropy=0.0, **values)
    agent = DreamerV2(TwoStates(stick), Choice(2), config)
    agent.actor, agent.slow_critic = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    agent.actor.weight.data = LOGITS.T.clone()
    agent.slow_critic.weight.data = TwoStates.value[None].clone()
    agent.slow_critic.requires_grad_(False)
    return agent


def expected_values(stick):
    """Q_1(s, a) and Q_0(s, a), and w for the step after each state: λ-returns of two steps."""
    eye = torch.eye(2)
    table = stick * eye + (1 - stick) * (1 - eye)  # p(s'|a)
    discount = 0.8 * TwoStates.goes_on
    q_1 = table @ (TwoStates.reward + discount * TwoStates.value)
    v_1 = LOGITS.softmax(-1) @ q_1  # (2,), G_1's mean from each state
    mixed = 0.3 * TwoStates.value + 0.7 * v_1
    q_0 = table @ (TwoStates.reward + discount * mixed)
    return table, discount, q_0, q_1


def test_reinforce_is_the_policy_gradient_of_two_states():
    """ρ = 1: all paths with their probabilities, against Σ_n Σ_s P(s) w Σ_a ∇π(a|s) Q_n(a)."""
    stick = 0.8
    agent = two_state_agent(stick, mix=1.0)
    eye, pi = torch.eye(2), LOGITS.softmax(-1)
    table, discount, q_0, q_1 = expected_values(stick)
    paths = list(itertools.product(range(2), repeat=5))  # s_0, a_0, s_1, a_1, s_2
    states = torch.stack([eye[[s0, s1, s2]] for s0, _, s1, _, s2 in paths])
    actions = torch.stack([eye[[a0, a1]] for _, a0, _, a1, _ in paths])
    probability = torch.tensor(
        [
            0.5 * pi[s0, a0] * table[a0, s1] * pi[s1, a1] * table[a1, s2]
            for s0, a0, s1, a1, s2 in paths
        ]
    )
    assert torch.isclose(probability.sum(), torch.tensor(1.0))
    trajectory = Trajectory(world_state(states), actions)
    loss, _ = agent.losses(trajectory, probability * len(paths))
    (ours,) = torch.autograd.grad(loss, agent.actor.weight)

    logits = LOGITS.clone().requires_grad_()
    policy = logits.softmax(-1)
    first = 0.5 * (policy @ q_0).sum()
    arrived = 0.5 * (pi @ table).sum(0)  # P(s_1)
    second = (arrived * discount * (policy @ q_1)).sum()
    (exact,) = torch.autograd.grad(-(first + second) / 2, logits)
    assert exact.abs().max() > 0.02
    assert torch.allclose(ours.T, exact, atol=1e-6)


def test_the_dynamics_gradient_of_two_states():
    """ρ = 0, where action a leads to state a: all is linear in the actions, so no bias is left.

    An action moves the reward and the value of where it leads, at a fixed discount and with what
    later policies do held fixed: they see states without a gradient.
    """
    agent = two_state_agent(1.0, mix=0.0)
    agent.model.goes_on = torch.tensor([0.9, 0.9])  # the discount does not depend on the action
    agent.model.reward = reward = torch.tensor([2.0, -1.0])
    draws = 4000
    start = world_state(torch.eye(2).repeat(draws, 1))
    loss, _ = agent.losses(agent.imagine(start, generator()), torch.ones(2 * draws))
    (ours,) = torch.autograd.grad(loss, agent.actor.weight)

    logits = LOGITS.clone().requires_grad_()
    policy, d = logits.softmax(-1), 0.8 * 0.9
    first = 0.5 * (policy @ (reward + d * 0.3 * TwoStates.value)).sum()
    arrived = 0.5 * LOGITS.softmax(-1).sum(0)
    later = policy @ (reward + d * TwoStates.value)
    second = (d + d * 0.7) * (arrived * later).sum()  # as part of G_1, and of G_0 through λ
    (exact,) = torch.autograd.grad(-(first + second) / 2, logits)
    assert exact.abs().max() > 0.02
    assert torch.allclose(ours.T, exact, atol=0.01)


def test_the_mixed_gradient_is_the_mixture():
    gradients = []
    for mix in (1.0, 0.0, 0.3):
        agent = two_state_agent(0.8, mix=mix)
        start = world_state(torch.eye(2).repeat(50, 1))
        loss, _ = agent.losses(agent.imagine(start, generator()), torch.ones(100))
        gradients.append(torch.autograd.grad(loss, agent.actor.weight)[0])
    assert torch.allclose(gradients[2], 0.3 * gradients[0] + 0.7 * gradients[1], atol=1e-6)
    assert (gradients[0] - gradients[1]).abs().max() > 0.01


# -- the agent ------------------------------------------------------------------------------------


def small_agent(**values) -> DreamerV2:
    return DreamerV2(model(), Choice(4), BehaviourConfig(hidden=8, horizon=3, **values), seed=1)


def test_the_slow_critic_is_a_copy_of_every_third_update():
    agent = small_agent(slow_every=3, critic_rate=0.01)
    start, alive = agent.model.rssm.start(6), torch.ones(6)
    before = []
    for update in range(7):
        before.append(agent.critic[0].weight.detach().clone())
        agent.improve(start, alive, generator(update))
        assert torch.equal(agent.slow_critic[0].weight, before[update // 3 * 3])
    assert not torch.equal(before[0], before[3])


@pytest.mark.parametrize("mix", [1.0, 0.0])
def test_behaviour_leaves_the_world_model_alone(mix):
    agent = small_agent(mix=mix)
    actor = agent.actor[0].weight.detach().clone()
    agent.improve(agent.model.rssm.start(6), torch.ones(6), generator())
    assert all(parameter.grad is None for parameter in agent.model.parameters())
    assert not torch.equal(actor, agent.actor[0].weight)


def test_where_nothing_is_alive_nothing_is_learnt():
    agent = small_agent(entropy=1.0)
    trajectory = agent.imagine(agent.model.rssm.start(6), generator())
    losses = agent.losses(trajectory, torch.zeros(6))
    assert [loss.item() for loss in losses] == [0.0, 0.0]


def test_random_play_chooses_alike_and_its_model_gets_better():
    net = model(latent=CategoricalLatent(2, 4))
    replay = random_play(environments(2), net, 200, seed=3)
    batch = replay.sample(64, 50, generator())
    actions = batch.action[batch.is_first == 0]
    assert torch.equal(actions.sum(-1).round(), torch.ones(len(actions)))
    assert (actions.mean(0) - 0.25).abs().max() < 0.08
    learner = ModelLearner(net, TrainingConfig(batch=16, length=8, rate=0.01))
    losses = [learner.update(replay, generator(i))[2].loss.item() for i in range(30)]
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_an_agent_trains_and_is_reproducible():
    runs = []
    for _ in range(2):
        agent, seen = small_agent(), []
        config = TrainingConfig(batch=4, length=5, prefill=10)
        train(environments(2), agent, config, 3, seed=5, each=seen.append)
        assert seen == [1, 2, 3]
        runs.append(torch.cat([part.flatten() for part in agent.actor.parameters()]))
    assert torch.equal(*runs)


def test_discounted_returns_count_steps_to_the_goal():
    """From the cell left of the goal, always right: 1 at once. A walk into a wall earns nothing."""

    class Right(RandomChoices):
        def act(self, state, generator, explore):
            return torch.eye(4)[3].expand(len(state.h), 4)

    envs = environments(1)
    net = model()
    assert discounted_returns(Right(net), envs, seed=0, gamma=0.9).tolist() == [0.0]

    class Late(gym.Env):
        observation_space, action_space = envs.single_observation_space, envs.single_action_space

        def reset(self, *, seed=None, options=None):
            self.time = 0
            return np.zeros((16, 16), np.float32), {}

        def step(self, action):
            self.time += 1
            return np.zeros((16, 16), np.float32), float(self.time == 3), self.time == 3, False, {}

    returns = discounted_returns(Right(net), SyncVectorEnv([Late] * 2), seed=0, gamma=0.9)
    assert np.allclose(returns, 0.81)


def test_a_drawn_action_carries_no_gradient_into_its_probability():
    """A drawn action must not carry a gradient into log π: with it, the sum is not REINFORCE."""
    agent = two_state_agent(0.8, mix=1.0)
    with torch.enable_grad():
        policy = agent.policy
        logits = agent.actor(torch.eye(2))
        action = policy.sample(logits, generator())
        trajectory = Trajectory(
            world_state(torch.eye(2)[:, None].repeat(1, 3, 1)), action[:, None].repeat(1, 2, 1)
        )
    loss, _ = agent.losses(trajectory, torch.ones(2))
    held, _ = agent.losses(trajectory._replace(actions=trajectory.actions.detach()), torch.ones(2))
    one, two = (torch.autograd.grad(each, agent.actor.weight)[0] for each in (loss, held))
    assert torch.allclose(one, two)
