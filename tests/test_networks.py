"""The four networks: against the equations written out, and what each may and must see."""

import numpy as np
import pytest
import torch
from samples import ACTION, SKILL, STATE, numbered_transitions, random_batch, small_model

from mbta_helpers.ants import led_frame, led_torques, own_frame
from mbta_helpers.errors import UserError
from mbta_helpers.networks import NetworkConfig, Normaliser, SkillPosterior
from mbta_helpers.windows import Windows


def linear(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def head(module, x):
    return linear(module.fc2, np.maximum(linear(module.fc1, x), 0))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_direction(gru, x, suffix):
    """The last hidden state of one direction, step by step as in Cho et al. (2014); x: (T, D)."""
    weights = {
        name: getattr(gru, f"{name}_l0{suffix}").detach().numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    hidden = np.zeros(gru.hidden_size)
    for step in x:
        r_in, u_in, n_in = np.split(weights["weight_ih"] @ step + weights["bias_ih"], 3)
        r_hid, u_hid, n_hid = np.split(weights["weight_hh"] @ hidden + weights["bias_hh"], 3)
        reset, update = sigmoid(r_in + r_hid), sigmoid(u_in + u_hid)
        hidden = (1 - update) * np.tanh(n_in + reset * n_hid) + update * hidden
    return hidden


def normalised(model, state):
    """What the networks see of a state: it in standard units, and waves of its position."""
    parts = [(state - model.normaliser.mean.numpy()) / model.normaliser.std.numpy()]
    for wavelength in model.config.wavelengths:
        angle = 2 * np.pi * state[..., :2] / wavelength
        parts += [np.sin(angle), np.cos(angle)]
    return np.concatenate(parts, axis=-1)


both_inputs = pytest.mark.parametrize("wavelengths", [(), (2.0, 0.7)], ids=["plain", "waves"])


@both_inputs
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_posterior_equals_its_equations(steps, wavelengths):
    model, batch = small_model(wavelengths=wavelengths), random_batch(3, steps)
    q = model.posterior(batch.before, batch.actions)
    posterior, config = model.posterior, model.config
    for row in range(3):
        state = normalised(model, batch.before[row].numpy())
        embedded = np.maximum(linear(posterior.embed, state), 0)
        x = np.concatenate([embedded, batch.actions[row].numpy()], axis=1)
        forward = gru_direction(posterior.gru, x, "")
        backward = gru_direction(posterior.gru, x[::-1], "_reverse")
        seen = np.concatenate([forward, backward])
        features = np.maximum(linear(posterior.readout, seen), 0)
        spread = sigmoid(head(posterior.heads.std_head, features))
        std = config.min_std + (config.max_std - config.min_std) * spread
        np.testing.assert_allclose(q.loc[row].detach(), head(posterior.heads.mean_head, features))
        np.testing.assert_allclose(q.scale[row].detach(), std)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_each_direction_of_the_posterior_sees_the_whole_window(direction, layers):
    """With the other direction cut off, every step still moves the mean."""
    model = small_model(gru_layers=layers)
    width = model.config.gru_hidden
    cut = slice(width, None) if direction == "forward" else slice(0, width)
    with torch.no_grad():
        model.posterior.readout.weight[:, cut] = 0
    batch = random_batch(4, 9)
    states, actions = batch.before.clone().requires_grad_(), batch.actions.clone().requires_grad_()
    model.posterior(states, actions).loc.square().sum().backward()
    assert (states.grad.abs().sum((0, 2)) > 0).all()
    assert (actions.grad.abs().sum((0, 2)) > 0).all()


def test_posterior_tells_apart_a_window_from_its_reverse():
    model, batch = small_model(), random_batch()
    here = model.posterior(batch.before, batch.actions).loc
    there = model.posterior(batch.before.flip(1), batch.actions.flip(1)).loc
    assert not torch.allclose(here, there, atol=1e-4)


def two_layers(trunk, x):
    return np.maximum(linear(trunk.fc2, np.maximum(linear(trunk.fc1, x), 0)), 0)


@both_inputs
def test_policy_world_model_and_prior_equal_their_equations(wavelengths):
    model, batch = small_model(wavelengths=wavelengths), random_batch(5, 1)
    state = batch.first
    z = torch.randn((5, SKILL), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    both = np.concatenate([normalised(model, state.numpy()), z.numpy()], axis=1)
    alone = normalised(model, state.numpy())
    displacement = model.normaliser.delta_std.numpy()
    low, high = model.config.min_std, model.config.max_std
    for network, inputs, given, shift, scale in (
        (model.policy, both, (state, z), 0.0, 1.0),
        (model.world_model, both, (state, z), state.numpy(), displacement),
        (model.prior, alone, (state,), 0.0, 1.0),
    ):
        out = network(*given)
        features = two_layers(network.trunk, inputs)
        mean = shift + scale * head(network.heads.mean_head, features)
        std = scale * (low + (high - low) * sigmoid(head(network.heads.std_head, features)))
        np.testing.assert_allclose(out.loc.detach(), mean, rtol=1e-10)
        np.testing.assert_allclose(out.scale.detach(), std, rtol=1e-10)


def test_world_model_predicts_a_difference():
    """A head of zeros leaves the state where it is, in map units, wherever it is."""
    model = small_model()
    torch.nn.init.zeros_(model.world_model.heads.mean_head.fc2.weight)
    torch.nn.init.zeros_(model.world_model.heads.mean_head.fc2.bias)
    state, z = 100 * random_batch().first, torch.ones((5, SKILL), dtype=torch.float64)
    assert torch.equal(model.world_model(state, z).loc, state)
    assert torch.equal(model.world_model.mean(state, z), state)


def test_world_model_mean_is_the_mean_of_its_distribution():
    model, state = small_model(), random_batch().first
    z = torch.ones((5, SKILL), dtype=torch.float64)
    assert torch.equal(model.world_model.mean(state, z), model.world_model(state, z).loc)


def test_a_skill_and_a_state_both_matter():
    model, batch = small_model(), random_batch()
    z = torch.ones((5, SKILL), dtype=torch.float64)
    for network in (model.policy, model.world_model):
        here = network(batch.first, z)
        assert not torch.allclose(here.loc, network(batch.first, -z).loc)
        assert not torch.allclose(here.scale, network(batch.last, z).scale)


@both_inputs
def test_support_equals_its_equation(wavelengths):
    model, state = small_model(wavelengths=wavelengths), random_batch().first
    support = model.support
    features = two_layers(support.trunk, normalised(model, state.numpy()))
    log_odds = linear(support.readout, features)[:, 0]
    np.testing.assert_allclose(support(state).detach(), log_odds, rtol=1e-10)


def test_extra_axes_are_batch_axes():
    model, batch = small_model(), random_batch()
    z = torch.ones((5, 6, SKILL), dtype=torch.float64)
    for network in (model.policy, model.world_model):
        whole = network(batch.before, z)
        for t in range(6):
            part = network(batch.before[:, t], z[:, t])
            assert torch.allclose(whole.loc[:, t], part.loc)
            assert torch.allclose(whole.scale[:, t], part.scale)
    assert model.prior(batch.before).loc.shape == (5, 6, SKILL)


def test_standard_deviations_stay_inside_their_bounds():
    model = small_model(dtype=torch.float32)
    config = model.config
    for size in (1e-3, 1.0, 1e4):
        state, z = size * torch.randn(50, STATE), size * torch.randn(50, SKILL)
        for scale in (
            model.policy(state, z).scale,
            model.world_model(state, z).scale / model.normaliser.delta_std,
            model.prior(state).scale,
            model.posterior(state[:, None], torch.randn(50, 1, ACTION)).scale,
        ):
            assert scale.min() >= config.min_std - 1e-5
            assert scale.max() <= config.max_std + 1e-5


def test_policy_acts_with_its_mean_inside_the_box():
    model = small_model()
    state = 30 * torch.randn(200, STATE, dtype=torch.float64)
    z = 30 * torch.randn(200, SKILL, dtype=torch.float64)
    action, mean = model.policy.act(state, z), model.policy(state, z).loc
    assert (mean.abs() > 1).any() and (mean.abs() < 1).any(), "both cases should be tried"
    assert torch.equal(action, mean.clip(-1, 1))


# -- normaliser -------------------------------------------------------------------------------


def test_normaliser_against_numpy():
    transitions = numbered_transitions([9, 4, 12])
    windows = Windows(transitions, 3)
    normaliser = Normaliser(STATE)
    normaliser.fit(windows)
    batch = windows.gather(torch.arange(len(windows)))
    first, last = batch.first.numpy(), batch.last.numpy()
    np.testing.assert_allclose(normaliser.mean, first.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normaliser.std, first.std(0, ddof=1), rtol=1e-5)
    rms = np.sqrt(((last - first) ** 2).mean(0))
    np.testing.assert_allclose(normaliser.delta_std, rms, rtol=1e-5)
    np.testing.assert_array_equal(normaliser.low, first.min(0))
    np.testing.assert_array_equal(normaliser.high, first.max(0))
    shown = normaliser(torch.from_numpy(first))
    np.testing.assert_allclose(shown.mean(0), np.zeros(STATE), atol=1e-5)
    np.testing.assert_allclose(shown.std(0), np.ones(STATE), rtol=1e-4)


def test_normaliser_survives_a_dimension_that_never_changes():
    transitions = numbered_transitions([9, 4])
    transitions.states[:, 3] = 2.0
    normaliser = Normaliser(STATE)
    normaliser.fit(Windows(transitions, 3))
    assert torch.isfinite(normaliser(torch.from_numpy(transitions.states))).all()


def test_all_networks_share_one_normaliser():
    model = small_model()
    for network in (model.posterior, model.policy, model.world_model, model.prior):
        assert network.normaliser is model.normaliser
    stored = [name for name in model.stored_tensors() if "normaliser" in name]
    assert stored == [f"normaliser.{name}" for name, _ in model.normaliser.named_buffers()]


# -- parameters -------------------------------------------------------------------------------


def test_parameters_are_phi_on_one_side_and_theta_psi_omega_on_the_other():
    model = small_model()
    phi = {id(parameter) for parameter in model.posterior.parameters()}
    generative = [id(parameter) for parameter in model.generative_parameters()]
    assert len(set(generative)) == len(generative)
    assert not phi & set(generative)
    networks = (model.policy, model.world_model, model.prior)
    assert len(generative) == sum(len(list(network.parameters())) for network in networks)
    assert set(generative) == {id(p) for network in networks for p in network.parameters()}


def test_an_ant_s_networks_see_it_from_its_heading_too():
    normaliser = small_model(
        state_dim=29, skill_dim=4, wavelengths=(4.0,), own_frame=True
    ).normaliser
    plain = small_model(state_dim=29, wavelengths=(4.0,)).normaliser
    plain.load_state_dict(normaliser.state_dict())
    state = torch.randn((2, 3, 29), dtype=torch.float64)
    seen = normaliser(state)
    assert seen.shape == (2, 3, normaliser.width) and normaliser.width == plain.width + 7
    assert torch.equal(seen[..., :-7], plain(state))
    assert torch.equal(seen[..., -7:], own_frame(state))


def ant_model():
    return small_model(state_dim=29, action_dim=8, skill_dim=6, own_frame=True).double()


def test_an_ant_s_skill_counts_from_its_way():
    model = ant_model()
    plain = SkillPosterior(model.config, model.normaliser).double()
    plain.load_state_dict(model.posterior.state_dict())
    model.normaliser.delta_std[:2] = torch.tensor([2.0, 4.0])
    states, actions = torch.randn(3, 5, 29).double(), torch.randn(3, 5, 8).double()
    q, without = model.posterior(states, actions), plain(states, actions)
    way = (states[:, -1, :2] - states[:, 0, :2]) / torch.tensor([2.0, 4.0])
    assert torch.allclose(q.loc[:, :2], without.loc[:, :2] + way)
    assert torch.equal(q.loc[:, 2:], without.loc[:, 2:]) and torch.equal(q.scale, without.scale)


def test_an_ant_s_policy_is_one_network_for_all_fronts():
    """A lead a quarter further on is another front: the same answer, to other legs."""
    policy = ant_model().policy
    state = torch.randn(29).double()
    state[3:7] = torch.tensor([1.0, 0, 0, 0])  # looks along x
    for front in range(4):
        lead = [[1.0, 0.1], [-0.1, 1.0], [-1.0, -0.1], [0.1, -1.0]][front]
        z = torch.tensor([*lead, 0.3, -0.2, 0.5, 0.1]).double()
        seen = led_frame(state, z.unflatten(-1, (3, 2)), torch.tensor(front))
        own = policy.heads(policy.trunk(torch.cat([policy.normaliser.place(state), seen, z])))
        found = policy(state, z)
        assert torch.allclose(found.loc, led_torques(own.loc, torch.tensor(front)))
        assert torch.equal(found.scale.sort().values, own.scale.sort().values)
        inverse = torch.linalg.inv(led_torques(torch.eye(8).double(), torch.tensor(front)))
        assert torch.allclose(found.scale, (own.scale @ inverse.T.abs()))
        assert torch.equal(policy.act(state, z), found.loc.clamp(-1, 1))


def test_an_ant_s_networks_keep_their_tensors_where_the_model_is():
    """The device "meta" computes nothing and refuses tensors of another device."""
    model = ant_model().to("meta")
    state, z = torch.empty((2, 5, 29), device="meta"), torch.empty((2, 5, 6), device="meta")
    assert model.policy(state, z).loc.device.type == "meta"
    assert model.posterior(state, torch.empty((2, 5, 8), device="meta")).loc.shape == (2, 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"skill_dim": 0},
        {"hidden": -1},
        {"gru_layers": 0},
        {"min_std": 0.0},
        {"min_std": 3.0},
        {"wavelengths": (1.0, 0.0)},
        {"own_frame": True},
    ],
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        NetworkConfig(state_dim=4, action_dim=2, **wrong)


def test_an_ant_s_skill_has_pairs():
    with pytest.raises(UserError, match="skill_dim is even"):
        NetworkConfig(state_dim=29, action_dim=8, skill_dim=5, own_frame=True)
