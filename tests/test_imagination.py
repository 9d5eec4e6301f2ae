"""Imagination and λ-returns, against brute force, a world that can be solved, and other code."""

import pytest
import torch

from mbta_helpers.errors import UserError
from mbta_helpers.latent.imagination import imagine, lambda_return
from mbta_helpers.latent.linear_quadratic import LinearWorld, sampled_gradients
from mbta_helpers.latent.rssm import RSSM, GaussianLatent

H = 6


def n_step_return(reward, value, discount, tau, n):
    """V^n_N of one trajectory at τ, from its definition: h = min(τ + n, H)."""
    total, factor = 0.0, 1.0
    h = min(tau + n, len(reward))
    for step in range(tau, h):
        total = total + factor * reward[step]
        factor = factor * discount[step]
    return total + factor * value[h]


def weighted_sum(reward, value, discount, lam, tau):
    """V_λ at τ: (1 − λ) Σ_{n<H−τ} λ^{n−1} V^n_N + λ^{H−τ−1} V^{H−τ}_N."""
    left = len(reward) - tau
    parts = [n_step_return(reward, value, discount, tau, n) for n in range(1, left + 1)]
    shares = [(1 - lam) * lam ** (n - 1) for n in range(1, left)] + [lam ** (left - 1)]
    return sum(share * part for share, part in zip(shares, parts, strict=True))


@pytest.fixture
def numbers():
    """Rewards, values and discounts of 3 trajectories; the second ends in the middle."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    discount = torch.full((3, H), 0.9, dtype=torch.float64)
    discount[1, 2] = 0.0
    discount[2] = torch.rand(H, generator=generator, dtype=torch.float64)
    return draw(3, H), draw(3, H + 1), discount


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
def test_lambda_return_is_the_weighted_sum_of_all_n_step_returns(numbers, lam):
    reward, value, discount = numbers
    found = lambda_return(reward, value, discount, lam)
    for row in range(3):
        for tau in range(H):
            parts = reward[row], value[row], discount[row]
            assert torch.isclose(found[row, tau], weighted_sum(*parts, lam, tau), atol=1e-12)


def test_n_step_weights_after_the_horizon_collapse_onto_the_last(numbers):
    """The paper's sum runs to H from every τ; n-step returns beyond t + H are all the last one."""
    reward, value, discount = (part[0] for part in numbers)
    lam, tau = 0.7, 2
    parts = [n_step_return(reward, value, discount, tau, n) for n in range(1, H + 1)]
    total = (1 - lam) * sum(lam ** (n - 1) * parts[n - 1] for n in range(1, H))
    total = total + lam ** (H - 1) * parts[H - 1]
    assert torch.isclose(lambda_return(reward, value, discount, lam)[tau], total, atol=1e-12)


def test_lambda_zero_bootstraps_one_step_ahead_and_lambda_one_only_at_the_end(numbers):
    reward, value, discount = numbers
    one_step = reward + discount * value[:, 1:]
    assert torch.allclose(lambda_return(reward, value, discount, 0.0), one_step)
    full = lambda_return(reward, value, discount, 1.0)
    moved = value.clone()
    moved[:, :-1] += 5.0
    assert torch.equal(lambda_return(reward, moved, discount, 1.0), full)
    assert not torch.allclose(lambda_return(reward, value + 1, discount, 1.0)[0], full[0])


def test_nothing_after_an_end_counts(numbers):
    reward, value, discount = numbers
    changed = reward.clone(), value.clone()
    changed[0][1, 3:] += 10.0  # after a_2, where the discount is 0
    changed[1][1, 3:] += 10.0
    before = lambda_return(reward, value, discount, 0.8)[1, :3]
    assert torch.allclose(lambda_return(*changed, discount, 0.8)[1, :3], before)


def test_lambda_return_agrees_with_torchrl(numbers):
    functional = pytest.importorskip("torchrl.objectives.value.functional")
    reward, value, discount = numbers
    for lam in (0.0, 0.7, 1.0):
        done = (discount[:2] == 0).unsqueeze(-1)  # rows of constant γ, one with an end
        theirs = functional.td_lambda_return_estimate(
            0.9, lam, value[:2, 1:, None], reward[:2, :, None], done=done, terminated=done
        )
        ours = lambda_return(reward[:2], value[:2], discount[:2], lam)
        assert torch.allclose(ours, theirs.squeeze(-1), atol=1e-6)


def test_lambda_return_says_what_does_not_fit():
    with pytest.raises(UserError, match="one value more, not 6"):
        lambda_return(torch.zeros(1, 6), torch.zeros(1, 6), torch.zeros(1, 6), 0.9)


def test_an_action_is_taken_in_the_state_before_it_and_leads_to_the_next():
    rssm = RSSM(1, 4, GaussianLatent(2, least_std=1e-6), deterministic=3, hidden=5)
    start = rssm.start(2)
    start = start._replace(h=torch.randn(2, 3, generator=torch.Generator().manual_seed(1)))
    policy = lambda state: state.h[:, :1] * 10  # noqa: E731
    trajectory = imagine(rssm, start, policy, 4, torch.Generator().manual_seed(2))
    states, actions = trajectory
    assert states.h.shape == (2, 5, 3) and actions.shape == (2, 4, 1)
    assert torch.equal(states.h[:, 0], start.h)
    assert torch.equal(actions, states.h[:, :-1, :1] * 10)
    for n in range(4):
        now = type(start)(*(part[:, n] for part in states))
        assert torch.allclose(states.h[:, n + 1], rssm.advance(now, actions[:, n]), atol=1e-6)


# -- the linear world -----------------------------------------------------------------------------

WORLD = LinearWorld()
SIGMA = 0.3


def exact_gradient(k, x0, horizon):
    """∂J/∂k by central differences of the closed form; the value after the last step is fixed."""
    after = WORLD.for_ever(k, SIGMA)

    def objective(gain):
        p, q = WORLD.to_go(gain, SIGMA, horizon, after)
        return -(p * x0**2 + q)

    return (objective(k + 1e-5) - objective(k - 1e-5)) / 2e-5


def best_gain():
    gains = torch.linspace(-2, -1, 10_001, dtype=torch.float64)
    return gains[WORLD.for_ever(gains, SIGMA)[0].argmin()].item()


def test_values_for_ever_are_the_limit_of_longer_and_longer_returns():
    limit = WORLD.to_go(-0.8, SIGMA, 2000)
    assert torch.allclose(torch.tensor(limit), torch.tensor(WORLD.for_ever(-0.8, SIGMA)))


def test_imagined_returns_have_the_closed_form_as_their_mean():
    k, x0, count = -0.8, 1.5, 50_000
    generator = torch.Generator().manual_seed(3)
    start = WORLD.start(torch.full((count,), x0, dtype=torch.float64))

    def policy(state):
        noise = torch.randn((count, 1), generator=generator).double()
        return k * state.z[:, :1] + SIGMA * noise

    states, _ = imagine(WORLD, start, policy, H, generator)
    reward = WORLD.reward(type(start)(*(part[:, 1:] for part in states)))
    discount = torch.full_like(reward, WORLD.gamma)
    returns = lambda_return(reward, torch.zeros(count, H + 1).double(), discount, 1.0)[:, 0]
    p, q = WORLD.to_go(k, SIGMA, H)
    assert abs(returns.mean() + p * x0**2 + q) < 4 * returns.std() / count**0.5


@pytest.mark.parametrize("k", [-0.3, -1.0])
@pytest.mark.parametrize("horizon", [1, 8])
def test_pathwise_and_score_gradients_have_the_exact_gradient_as_their_mean(k, horizon):
    x = torch.full((100_000,), 1.0, dtype=torch.float64)
    found = sampled_gradients(WORLD, k, SIGMA, x, horizon, torch.Generator().manual_seed(4))
    exact = exact_gradient(k, 1.0, horizon)
    for name in ("pathwise", "REINFORCE"):
        off = abs(found[name].mean() - exact)
        assert off < 4 * found[name].std() / len(x) ** 0.5, name
    assert found["pathwise"].std() < 0.6 * found["REINFORCE"].std()


def test_a_detached_actor_input_changes_the_gradient_except_at_the_best_gain():
    x = torch.full((100_000,), 1.0, dtype=torch.float64)
    error = len(x) ** -0.5
    for k, same in ((-1.0, False), (best_gain(), True)):
        cut = sampled_gradients(WORLD, k, SIGMA, x, 8, torch.Generator().manual_seed(5))[
            "open loop"
        ]
        off = abs(cut.mean() - exact_gradient(k, 1.0, 8))
        assert (off < 4 * cut.std() * error) == same
