"""Dreamer: which gradient reaches what, weights, the three representations, acting, a short run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import load_script

import mbta_helpers.latent.environments  # noqa: F401  (registers the tasks)
from mbta_helpers.errors import UserError
from mbta_helpers.latent.acting import Driver
from mbta_helpers.latent.dreamer import (
    REPRESENTATIONS,
    Dreamer,
    DreamerConfig,
    behaviour,
    choose,
    contrastive_loss,
    descend,
    load_dreamer,
    save_dreamer,
    train_dreamer,
    trajectory_weights,
)
from mbta_helpers.latent.replay import Sequences
from mbta_helpers.latent.rssm import GaussianLatent, State
from mbta_helpers.latent.world_model import WorldModelConfig

TINY = DreamerConfig(
    entropy=0.0,
    model=WorldModelConfig(GaussianLatent(3), deterministic=6, hidden=8, embedding=5),
    horizon=4,
    starts=7,
    batch=3,
    length=5,
    environments=2,
    first_rows=6,
    rows=5,
    updates=2,
)


@pytest.fixture
def agent():
    return Dreamer((6,), 2, TINY, seed=0)


def draw_batch(seed=1, shape=(3, 5)):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *more: torch.randn(*shape, *more, generator=generator)  # noqa: E731
    zeros = torch.zeros(shape)
    return Sequences(draw(6), draw(2).clamp(-1, 1), draw(), zeros, zeros)


def start_states(agent, count=7):
    generator = torch.Generator().manual_seed(2)
    start = agent.model.rssm.start(count)
    return State(*(torch.randn(part.shape, generator=generator) for part in start))


def imagined(agent, start=None, config=TINY):
    start = start_states(agent) if start is None else start
    generator = torch.Generator().manual_seed(3)
    return behaviour(agent.model, agent.actor, agent.critic, start, config, generator)


def copies(part):
    return {name: value.detach().clone() for name, value in part.state_dict().items()}


def same(part, before):
    return all(torch.equal(value, before[name]) for name, value in part.state_dict().items())


# -- imagination's losses -------------------------------------------------------------------------


def test_weights_are_products_of_the_discounts_before_and_start_at_one():
    discount = torch.tensor([[0.9, 0.8, 0.0, 0.7, 0.6]], requires_grad=True)
    weights = trajectory_weights(discount)
    assert torch.allclose(weights, torch.tensor([[1.0, 0.9, 0.72, 0.0, 0.0]]))
    assert not weights.requires_grad


def test_returns_are_made_of_rewards_on_arrival_and_values_one_step_ahead(agent):
    found = imagined(agent)
    features = found.trajectory.states.features
    reward = agent.model.predict_reward(features[:, 1:])
    discount = TINY.gamma * agent.model.predict_continuation(features[:, 1:])
    value = agent.critic(features).squeeze(-1)
    after = value[:, -1]
    for n in reversed(range(TINY.horizon)):
        mixed = (1 - TINY.lam) * value[:, n + 1] + TINY.lam * after
        after = reward[:, n] + discount[:, n] * mixed
        assert torch.allclose(found.returns[:, n], after, atol=1e-5)


def test_losses_are_weighted_means_over_starts_and_steps(agent, monkeypatch):
    monkeypatch.setattr(agent.actor, "entropy", lambda features, generator: features[..., 0])
    found = imagined(agent, config=replace(TINY, entropy=0.5))
    discount = TINY.gamma * agent.model.predict_continuation(
        found.trajectory.states.features[:, 1:]
    )
    weights = torch.ones(7, TINY.horizon)
    for n in range(1, TINY.horizon):
        weights[:, n] = weights[:, n - 1] * discount[:, n - 1]
    value = agent.critic(found.trajectory.states.features[:, :-1]).squeeze(-1)
    drawn = agent.actor.entropy(found.trajectory.states.features[:, :-1], None)
    actor_loss = -(weights * (found.returns + 0.5 * drawn)).mean()
    critic_loss = (weights * 0.5 * (value - found.returns).square()).mean()
    assert torch.allclose(found.actor_loss, actor_loss)
    assert torch.allclose(found.critic_loss, critic_loss)


def test_the_actor_is_moved_through_the_dynamics_and_nowhere_else(agent):
    """With dynamics that ignore actions, nothing that the actor does changes a return."""
    parameters = list(agent.actor.parameters())
    gradient = torch.autograd.grad(imagined(agent).actor_loss, parameters)
    assert all(part.abs().max() > 0 for part in gradient)
    with torch.no_grad():
        agent.model.rssm.inputs[0].weight[:, TINY.model.latent.size :] = 0  # columns of actions
    gradient = torch.autograd.grad(imagined(agent).actor_loss, parameters)
    assert all(part.abs().max() == 0 for part in gradient)


def test_the_actors_input_is_detached(agent, monkeypatch):
    """It sees each imagined state, and no gradient goes back through it to earlier actions."""
    seen, sample = [], agent.actor.sample
    monkeypatch.setattr(
        agent.actor,
        "sample",
        lambda state, generator: seen.append(state) or sample(state, generator),
    )
    states = imagined(agent).trajectory.states.features
    assert states.requires_grad and len(seen) == TINY.horizon
    for n, features in enumerate(seen):
        assert torch.equal(features, states[:, n]) and not features.requires_grad


def test_the_critics_target_and_input_are_detached(agent):
    """∂(critic loss)/∂ψ = Σ w (v − G) ∂v/∂ψ, with G and the states fixed; nothing for θ and φ."""
    found = imagined(agent)
    features = found.trajectory.states.features[:, :-1].detach()
    value = agent.critic(features).squeeze(-1)
    error = (value - found.returns).detach()
    parameters = list(agent.critic.parameters())
    expected = torch.autograd.grad((found.weights * error * value).mean(), parameters)
    others = [*agent.actor.parameters(), *agent.model.parameters()]
    untouched = torch.autograd.grad(found.critic_loss, others, allow_unused=True, retain_graph=True)
    assert all(part is None for part in untouched)
    for ours, theirs in zip(
        torch.autograd.grad(found.critic_loss, parameters), expected, strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_each_loss_moves_its_own_part(agent):
    optimisers = dict(zip(("model", "actor", "critic"), agent.optimisers, strict=True))
    for name in ("actor", "critic"):
        before = {part: copies(getattr(agent, part)) for part in optimisers}
        loss = getattr(imagined(agent), f"{name}_loss")
        descend(loss, getattr(agent, name), optimisers[name], 100.0)
        for part in optimisers:
            assert same(getattr(agent, part), before[part]) == (part != name)
        assert all(parameter.grad is None for parameter in agent.model.parameters())


def test_an_update_descends_all_three_and_scales_rewards():
    losses = {}
    for factor in (1.0, 0.1):
        agent = Dreamer((6,), 2, replace(TINY, reward_factor=factor), seed=0)
        parts = (agent.model, agent.actor, agent.critic)
        before = [copies(part) for part in parts]
        batch = draw_batch()
        losses[factor] = agent.update(batch._replace(reward=batch.reward / factor))
        assert not any(same(part, old) for part, old in zip(parts, before, strict=True))
    for name, value in losses[1.0].items():
        assert losses[0.1][name] == pytest.approx(value, rel=1e-4)


def test_rates_stay_for_half_a_run_and_then_fall(agent):
    for progress, factor in ((0.1, 1.0), (0.5, 1.0), (0.75, 0.525), (1.0, 0.05)):
        agent.anneal(progress)
        rates = [optimiser.param_groups[0]["lr"] for optimiser in agent.optimisers]
        wanted = [factor * rate for rate in (TINY.model_rate, TINY.actor_rate, TINY.critic_rate)]
        assert rates == pytest.approx(wanted)


def test_the_start_states_are_filtered_ones_without_a_gradient(agent):
    states, _ = agent.model.observe(draw_batch(), torch.Generator().manual_seed(0))
    chosen = choose(states, 7, torch.Generator().manual_seed(0))
    assert chosen.h.shape == (7, 6)
    rows = states.features.flatten(0, 1)
    assert all((rows == row).all(-1).any() for row in chosen.features)
    assert len(torch.unique(chosen.features, dim=0)) == 7
    loss = imagined(agent, chosen).actor_loss
    (through,) = torch.autograd.grad(loss, agent.model.encoder[0].weight, allow_unused=True)
    assert through is None


def test_imagined_returns_rise_while_the_model_is_held_fixed(agent):
    start = start_states(agent, 64)
    config = replace(TINY, lam=1.0, gamma=0.9)
    first = imagined(agent, start, config).returns.mean().item()
    for _ in range(60):
        loss = imagined(agent, start, config).actor_loss
        descend(loss, agent.actor, agent.optimisers[1], 100.0)
    assert imagined(agent, start, config).returns.mean().item() > first + 1e-3


# -- actions --------------------------------------------------------------------------------------


def test_a_drawn_action_is_the_tanh_of_a_gaussian(agent):
    features = torch.randn(1, 9).expand(200_000, 9)
    mean, std = agent.actor.moments(features)
    action = agent.actor.sample(features, torch.Generator().manual_seed(0))
    before = torch.atanh(action.double())
    assert torch.allclose(before.mean(0), mean[0].double(), atol=0.01)
    assert torch.allclose(before.std(0), std[0].double(), rtol=0.01)
    assert torch.equal(agent.actor.mode(features), torch.tanh(mean))


def test_entropy_is_that_of_the_tanh_of_a_gaussian(agent):
    """Against torch.distributions, and above that of a saturated actor, which has a gradient."""
    features = torch.randn(1, 9, generator=torch.Generator().manual_seed(5)).expand(200_000, 9)
    mean, std = (part.double() for part in agent.actor.moments(features))
    distribution = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, std),
        [torch.distributions.transforms.TanhTransform(cache_size=1)],
    )
    torch.manual_seed(0)
    expected = -distribution.log_prob(distribution.sample()).sum(-1).mean()
    found = agent.actor.entropy(features, torch.Generator().manual_seed(0))
    assert found.mean().item() == pytest.approx(expected.item(), abs=0.02)
    with torch.no_grad():
        agent.actor.layers[-1].bias[:2] += 100.0  # μ = 5
    saturated = agent.actor.entropy(features[:10], torch.Generator().manual_seed(0)).mean()
    assert torch.isfinite(saturated) and saturated < found.mean() - 3


def test_exploring_adds_noise_and_stays_in_bounds(agent):
    state = start_states(agent, 4000)
    generator = torch.Generator().manual_seed(0)
    quiet = Dreamer((6,), 2, replace(TINY, noise=0.0), seed=0)
    plain = quiet.act(state, torch.Generator().manual_seed(0), explore=True)
    noisy = agent.act(state, generator, explore=True)
    assert noisy.abs().max() <= 1
    inside = noisy.abs() < 1
    assert (noisy - plain)[inside].std().item() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(agent.act(state, generator, explore=False), agent.actor.mode(state.features))


def test_acting_forgets_the_episode_before(agent):
    """In the row that starts an episode, neither the state nor the action before matters."""
    import gymnasium as gym

    environments = gym.make_vec("mbta/PointTask-v0", 2, vectorization_mode="sync")
    seen = []
    for other in (0.0, 5.0):
        driver = Driver(environments, agent.model, seed=0)
        driver.state = State(*(part + other for part in driver.state))
        driver.row = driver.row._replace(action=driver.row.action + other)
        driver.step(agent, explore=True)
        seen.append((driver.state.features, driver.row.action))
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[1][1])


# -- representations ------------------------------------------------------------------------------


def gradient_of_observation_loss(name):
    torch.manual_seed(0)
    model = REPRESENTATIONS[name]((6,), 2, TINY.model, seed=0)
    batch = draw_batch()
    states, _ = model.observe(batch, torch.Generator().manual_seed(0))
    loss = model.observation_loss(states.features, batch.observation).sum()
    posterior = model.rssm.posterior[0].weight
    decoder = model.decoder[0].weight
    return torch.autograd.grad(loss, [posterior, decoder], allow_unused=True)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_who_learns_from_observations(name):
    """The decoder always; the state by reconstruction and contrast, not from rewards alone."""
    posterior, decoder = gradient_of_observation_loss(name)
    assert decoder.abs().max() > 0
    assert (posterior is None) == (name == "reward")


def test_contrast_is_between_all_observations_of_the_batch():
    model = REPRESENTATIONS["contrastive"]((6,), 2, TINY.model, seed=0)
    batch = draw_batch()
    states, _ = model.observe(batch, torch.Generator().manual_seed(0))
    found = model.observation_loss(states.features, batch.observation)
    a = model.projection(states.features).reshape(15, -1)
    b = model.embed(batch.observation).reshape(15, -1)
    own = torch.stack([-(a[i] @ b.T).log_softmax(0)[i] for i in range(15)]).view(3, 5)
    decoded = model.predict_observation(states.features)
    probe = 0.5 * (decoded - batch.observation).square().sum(-1)
    assert torch.allclose(found, own + probe, atol=1e-5)


def test_the_probe_of_contrast_moves_no_state():
    """The states' gradient is that of the contrast alone."""
    model = REPRESENTATIONS["contrastive"]((6,), 2, TINY.model, seed=0)
    batch = draw_batch()
    features = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (whole,) = torch.autograd.grad(
        model.observation_loss(features, batch.observation).sum(), features
    )
    scores = (
        model.projection(features).flatten(0, 1) @ model.embed(batch.observation).flatten(0, 1).T
    )
    (contrast,) = torch.autograd.grad(contrastive_loss(scores).sum(), features)
    assert torch.allclose(whole, contrast, atol=1e-6)


def test_contrastive_bound_comes_near_the_information_of_gaussians_and_stays_below():
    """s and o with correlation 0.9: I = −½ log(1 − 0.81) = 0.83 nats; score log p(o|s)/p(o)."""
    generator, rho, n = torch.Generator().manual_seed(0), 0.9, 2000
    s = torch.randn(n, generator=generator, dtype=torch.float64)
    o = rho * s + (1 - rho**2) ** 0.5 * torch.randn(n, generator=generator, dtype=torch.float64)
    best = -0.5 * (o - rho * s[:, None]).square() / (1 - rho**2) + 0.5 * o.square()
    information = -0.5 * np.log(1 - rho**2)
    bound = np.log(n) - contrastive_loss(best).mean()
    assert information - 0.08 < bound < information + 0.08
    assert np.log(n) - contrastive_loss(0.5 * best).mean() < bound
    few = [contrastive_loss(part[:, i : i + 2]).mean() for i, part in blocks(best, 2)]
    assert np.log(2) - torch.stack(few).mean() < bound - 0.1


def blocks(scores, size):
    """Pairs of a start and the rows that belong to it."""
    return ((i, scores[i : i + size]) for i in range(0, len(scores), size))


# -- training -------------------------------------------------------------------------------------


def test_training_counts_decisions_and_repeats_itself(tmp_path):
    runs = [train_dreamer("mbta/PointTask-v0", TINY, 3, seed=4, episodes=2) for _ in range(2)]
    first, again = runs
    assert first.steps.tolist() == [(6 + 3 * 5) * 2]
    assert first.returns.shape == (1, 2) and len(first.losses["kl"]) == 3 * 2
    assert np.array_equal(first.returns, again.returns)
    assert all(np.array_equal(first.losses[name], again.losses[name]) for name in first.losses)


def test_an_agent_comes_back_from_its_file(tmp_path, agent):
    save_dreamer(tmp_path / "agent.safetensors", agent, {"command": "a test"})
    again = load_dreamer(tmp_path / "agent.safetensors")
    state = start_states(agent)
    assert again.config == TINY
    for ours, theirs in zip(
        again.networks().parameters(), agent.networks().parameters(), strict=True
    ):
        assert torch.equal(ours, theirs.half().float())
    rounded = again.actor.mode(state.features)
    assert torch.allclose(rounded, agent.actor.mode(state.features), atol=2e-3)


# -- the script of the shipped runs ---------------------------------------------------------------


def test_the_script_writes_each_run_once_and_keeps_one_agent(tmp_path, monkeypatch, capsys):
    script = load_script("dreamer_runs")
    assert {name: seeds for name, (_, _, _, seeds) in script.KINDS.items()} == {
        "pendulum": (10, 11, 12),
        "point": (31, 32, 33),
    }
    tiny = {name: (kind[0], TINY, 8, (4, 5)) for name, kind in script.KINDS.items()}
    monkeypatch.setattr(script, "KINDS", tiny)
    monkeypatch.setattr(script, "SHIPPED", 5)
    assert script.main(["--out", str(tmp_path)]) == 0
    stored = json.loads((tmp_path / "runs.json").read_text("utf-8"))
    made = [(row["name"], row["seed"]) for row in stored["runs"]]
    assert made == [(name, seed) for name in ("pendulum", "point") for seed in (4, 5)]
    for row in stored["runs"]:
        assert row["updates"] == 8 * TINY.updates and len(row["losses"]["kl"]) == 8
        assert len(row["final"]) == 40 and max(row["final"]) < 0 and row["random"] < 0
        assert row["provenance"]["command"].startswith("python scripts/dreamer_runs.py")
    assert load_dreamer(tmp_path / "pendulum.safetensors").config == TINY
    capsys.readouterr()
    assert script.main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "", "a run that is there is not made again"


def test_mistakes_are_named():
    with pytest.raises(UserError, match="Did you mean reconstruction"):
        DreamerConfig(representation="reconstruct")
    with pytest.raises(UserError, match="must hold a sequence"):
        DreamerConfig(first_rows=3)
    with pytest.raises(UserError, match="lies in"):
        DreamerConfig(gamma=1.5)
