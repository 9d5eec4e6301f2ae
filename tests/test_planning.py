"""Planning: CEM where the optimum is known, roll-outs against a plain loop, costs by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from samples import SKILL, STATE, small_model
from torch.distributions import Normal

from mbta_helpers import precision
from mbta_helpers.errors import UserError
from mbta_helpers.planning import (
    CEMConfig,
    Planner,
    PlannerConfig,
    SearchState,
    cem,
    imagine,
    squared_distance,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quadratic(optimum, weights):
    """A cost for each problem with its own optimum, (P, D), and curvature, (P, D)."""
    return lambda x: (weights[:, None] * (x - optimum[:, None]).square()).sum(-1)


OPTIMUM = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, -0.7], [2.5, 1.0, -1.5]], dtype=torch.float64)
WEIGHTS = torch.tensor([[1.0, 3.0, 0.5], [2.0, 1.0, 1.0], [0.3, 1.0, 4.0]], dtype=torch.float64)
START = (torch.zeros_like(OPTIMUM), 2 * torch.ones_like(OPTIMUM))


# -- the cross-entropy method -----------------------------------------------------------------


def test_cem_finds_known_optima_of_several_problems():
    config = CEMConfig(candidates=200, iterations=30, elites=20, momentum=0.1, min_std=0.0)
    search = cem(quadratic(OPTIMUM, WEIGHTS), *START, config, seeded())
    assert torch.allclose(search.best, OPTIMUM, atol=1e-3)
    assert torch.allclose(search.mean, OPTIMUM, atol=1e-3)
    assert (search.cost < 1e-5).all()
    assert (search.std < 0.01).all()


def replay(monkeypatch, draws):
    """torch.randn gives out prepared draws, one an iteration."""
    waiting = iter(draws)
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: next(waiting))


def test_a_batch_of_problems_is_the_same_as_one_by_one(monkeypatch):
    config = CEMConfig(candidates=40, iterations=6, elites=7, momentum=0.3, min_std=0.01)
    draws = [torch.randn(3, 40, 3, generator=seeded(i), dtype=torch.float64) for i in range(6)]
    replay(monkeypatch, draws)
    batched = cem(quadratic(OPTIMUM, WEIGHTS), *START, config, seeded())
    for p in range(3):
        one = slice(p, p + 1)
        replay(monkeypatch, [draw[one] for draw in draws])
        single = cem(
            quadratic(OPTIMUM[one], WEIGHTS[one]), START[0][one], START[1][one], config, seeded()
        )
        for name in ("mean", "std", "best", "cost"):
            assert torch.allclose(getattr(single, name)[0], getattr(batched, name)[p]), name


def test_draws_come_from_the_generator_alone():
    config = CEMConfig(candidates=30, iterations=3, elites=5)
    before = torch.get_rng_state()
    runs = [cem(quadratic(OPTIMUM, WEIGHTS), *START, config, seeded(s)) for s in (4, 4, 5)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(runs[0].mean, runs[1].mean) and torch.equal(runs[0].best, runs[1].best)
    assert not torch.equal(runs[0].mean, runs[2].mean)


def watched(config, cost=None, start=START, seed=0):
    """Candidates and costs of every iteration, and the search that came out."""
    seen = []
    search = cem(
        cost or quadratic(OPTIMUM, WEIGHTS),
        *start,
        config,
        seeded(seed),
        watch=lambda candidates, costs: seen.append((candidates.clone(), costs.clone())),
    )
    return seen, search


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_update_takes_the_cheapest_and_keeps_a_part_of_the_old(momentum):
    """Against numpy, iteration by iteration."""
    config = CEMConfig(candidates=25, iterations=4, elites=6, momentum=momentum, min_std=0.05)
    seen, search = watched(config)
    mean, std = START[0].numpy(), START[1].numpy()
    for candidates, costs in seen:
        for p in range(3):
            cheapest = np.argsort(costs[p].numpy())[:6]
            elites = candidates[p].numpy()[cheapest]
            mean[p] = momentum * mean[p] + (1 - momentum) * elites.mean(0)
            spread = np.maximum(elites.std(0, ddof=1), 0.05)
            std[p] = momentum * std[p] + (1 - momentum) * spread
    np.testing.assert_allclose(search.mean, mean)
    np.testing.assert_allclose(search.std, std)


def test_candidates_are_drawn_from_the_search_distribution():
    config = CEMConfig(candidates=20000, iterations=1, elites=2)
    mean, std = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.5, 2.0]])
    (candidates, _), *_ = watched(config, lambda x: x.sum(-1), (mean, std))[0]
    assert torch.allclose(candidates[0].mean(0), mean[0], atol=0.06)
    assert torch.allclose(candidates[0].std(0), std[0], rtol=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_best_so_far_is_never_lost(seed):
    config = CEMConfig(candidates=8, iterations=12, elites=2, momentum=0.0, min_std=2.0)
    seen, search = watched(config, seed=seed)
    lowest = torch.stack([costs.amin(1) for _, costs in seen])  # (iterations, P)
    assert (lowest.diff(dim=0) <= 0).all(), "an iteration forgot the best before it"
    assert torch.equal(search.cost, lowest.amin(0))
    assert torch.allclose(quadratic(OPTIMUM, WEIGHTS)(search.best[:, None])[:, 0], search.cost)


def test_first_candidate_is_the_mean():
    """A plan that is taken up again is itself a candidate, so replanning cannot lose it."""
    config = CEMConfig(candidates=5, iterations=1, elites=2)
    seen, search = watched(config, start=(OPTIMUM.clone(), START[1]))
    assert torch.equal(seen[0][0][:, 0], OPTIMUM)
    assert torch.equal(search.best, OPTIMUM) and (search.cost == 0).all()


def test_search_never_gets_narrower_than_the_least_std():
    config = CEMConfig(candidates=50, iterations=30, elites=5, momentum=0.0, min_std=0.2)
    assert (watched(config)[1].std >= 0.2).all()


def test_a_candidate_without_a_finite_cost_is_never_chosen():
    cost = quadratic(OPTIMUM, WEIGHTS)
    config = CEMConfig(candidates=60, iterations=10, elites=6)
    for bad in (torch.nan, torch.inf):
        search = cem(
            lambda x, bad=bad: torch.where(x[..., 0] < -0.5, bad, cost(x)), *START, config, seeded()
        )
        assert torch.isfinite(search.mean).all() and torch.isfinite(search.cost).all()


def test_candidates_may_have_any_shape():
    config = CEMConfig(candidates=300, iterations=20, elites=20)
    mean = torch.zeros(2, 4, 3)
    search = cem(lambda x: (x - 1).square().sum((-1, -2)), mean, mean + 1, config, seeded())
    assert search.best.shape == (2, 4, 3)
    assert search.cost.max() < 0.3


def test_select_takes_rows():
    search = cem(quadratic(OPTIMUM, WEIGHTS), *START, CEMConfig(20, 2, 4), seeded())
    some = search.select(torch.tensor([True, False, True]))
    for name in ("mean", "std", "best", "cost"):
        assert torch.equal(getattr(some, name), getattr(search, name)[[0, 2]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": 1}, "K must be at least 2"),
        ({"candidates": 10, "elites": 11}, "elites must lie between 2 and the 10 candidates"),
        ({"elites": 0}, "elites"),
        ({"elites": 1}, "elites"),
        ({"iterations": 0}, "iterations"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"min_std": -1.0}, "min_std"),
    ],
)
def test_impossible_searches_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        CEMConfig(**wrong)


# -- roll-outs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return small_model()


def some_plans(problems=2, candidates=5, length=4, seed=0):
    """States, goals and whitened skills."""
    generator = seeded(seed)
    state = torch.randn(problems, STATE, generator=generator, dtype=torch.float64)
    goal = torch.randn(problems, 2, generator=generator, dtype=torch.float64)
    shape = (problems, candidates, length, SKILL)
    return state, goal, torch.randn(shape, generator=generator, dtype=torch.float64)


def loop(model, state, epsilon):
    """One candidate, one skill at a time; yields the path, the skills and the variances."""
    path, skills, variance = [state], [], []
    for whitened in epsilon:
        prior = model.prior(path[-1])
        skills.append(prior.loc + prior.scale * whitened)
        outcome = model.world_model(path[-1], skills[-1])
        path.append(outcome.loc)
        variance.append((outcome.scale[0] ** 2 + outcome.scale[1] ** 2) / 2)
    return torch.stack(path), torch.stack(skills), torch.stack(variance)


@torch.no_grad()
def test_imagine_equals_a_plain_loop(model):
    state, _, epsilon = some_plans()
    imagined = imagine(model, state, epsilon, with_variance=True)
    plain = imagine(model, state, epsilon)
    assert plain.variance is None
    for p in range(2):
        for k in range(5):
            path, skills, variance = loop(model, state[p], epsilon[p, k])
            for either in (imagined, plain):
                assert torch.allclose(either.path[p, k], path)
                assert torch.allclose(either.skills[p, k], skills)
            assert torch.allclose(imagined.variance[p, k], variance)


def planner_of(model, custom=None, **settings):
    """A planner of which every setting is stated; T is 20."""
    explicit = {
        "plan_length": 4,
        "replan_every": 20,
        "cost": "min",
        "epsilon_penalty": 0.0,
        "variance_penalty": 0.0,
        "support_penalty": 0.0,
        "time_penalty": 0.0,
        "warm_start": True,
        "warm_std": 1.0,
        "cem": CEMConfig(candidates=30, iterations=4, elites=5, momentum=0.1, min_std=0.05),
    }
    return Planner(model, PlannerConfig(**(explicit | settings)), 20, custom)


def distances_by_hand(model, state, goal, epsilon):
    """Squared distance after each skill, (P, K, L)."""
    return torch.stack(
        [
            torch.stack(
                [
                    (loop(model, state[p], each)[0][1:, :2] - goal[p]).square().sum(-1)
                    for each in epsilon[p]
                ]
            )
            for p in range(len(state))
        ]
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", ["min", "final"])
def test_cost_is_the_smallest_or_the_last_distance(model, kind):
    state, goal, epsilon = some_plans()
    along = distances_by_hand(model, state, goal, epsilon)
    expected = along.min(-1).values if kind == "min" else along[..., -1]
    cost = planner_of(model, cost=kind).evaluate(state, goal, epsilon)
    assert torch.allclose(cost, expected)


def test_distance_counts_no_step_before_the_first_skill():
    """The current state is no achievement: only states after a skill are in the cost."""
    path = torch.zeros(1, 1, 3, 4)
    path[0, 0, :, 0] = torch.tensor([5.0, 3.0, 4.0])
    distance = squared_distance(path, torch.tensor([[5.0, 0.0]]))
    assert distance.tolist() == [[[4.0, 1.0]]]


@torch.no_grad()
def test_epsilon_penalty_is_the_mean_square_of_epsilon_a_skill(model):
    state, goal, epsilon = some_plans()
    free = planner_of(model, cost="final").evaluate(state, goal, epsilon)
    held = planner_of(model, cost="final", epsilon_penalty=0.7).evaluate(state, goal, epsilon)
    by_hand = 0.7 * (epsilon**2).sum((-1, -2)) / SKILL
    assert torch.allclose(held - free, by_hand)


@torch.no_grad()
def test_variance_penalty_is_the_variance_of_the_predicted_position(model):
    state, goal, epsilon = some_plans()
    free = planner_of(model, cost="final").evaluate(state, goal, epsilon)
    held = planner_of(model, cost="final", variance_penalty=0.7).evaluate(state, goal, epsilon)
    for p in range(2):
        for k in range(5):
            variance = loop(model, state[p], epsilon[p, k])[2]
            assert torch.isclose(held[p, k] - free[p, k], 0.7 * variance.sum())


@torch.no_grad()
def test_support_penalty_is_minus_the_log_probability_of_each_state_passed(model):
    state, goal, epsilon = some_plans()
    free = planner_of(model, cost="final").evaluate(state, goal, epsilon)
    held = planner_of(model, cost="final", support_penalty=0.7).evaluate(state, goal, epsilon)
    for p in range(2):
        for k in range(5):
            path = loop(model, state[p], epsilon[p, k])[0][1:]
            known = torch.log(1 / (1 + torch.exp(-model.support(path))))
            assert torch.isclose(held[p, k] - free[p, k], -0.7 * known.sum())


@torch.no_grad()
def test_arrival_spares_the_state_where_the_distance_is_read(model):
    state, goal, epsilon = some_plans()
    costs = planner_of(model, cost="arrival", support_penalty=0.7, time_penalty=0.1).evaluate(
        state, goal, epsilon
    )
    plain = planner_of(model, support_penalty=0.7, time_penalty=0.1).evaluate(state, goal, epsilon)
    away = distances_by_hand(model, state, goal, epsilon)  # (P, K, L)
    for p in range(2):
        for k in range(5):
            path = loop(model, state[p], epsilon[p, k])[0][1:]
            surprise = 0.7 * torch.log(1 + torch.exp(-model.support(path)))
            kinds = [away[p, k, n] + 0.1 * (n + 1) + surprise[:n].sum() for n in range(4)]
            assert torch.isclose(costs[p, k], torch.stack(kinds).min())
    assert (costs < plain).all()
    free = [
        planner_of(model, cost=cost).evaluate(state, goal, epsilon) for cost in ("arrival", "min")
    ]
    assert torch.equal(*free)  # without the penalty there is nothing to spare


@torch.no_grad()
def test_custom_cost_takes_the_place_of_the_distance(model):
    state, goal, epsilon = some_plans()
    calls = []

    def highest(path, target):
        calls.append((path.shape, target))
        return -path[..., 1].amax(-1)

    planner = planner_of(model, custom=highest)
    costs = planner.evaluate(state, goal, epsilon)
    assert calls[0][0] == (2, 5, 5, STATE) and torch.equal(calls[0][1], goal)
    for p in range(2):
        for k in range(5):
            path = loop(model, state[p], epsilon[p, k])[0]
            assert torch.isclose(costs[p, k], -path[:, 1].max())
    plan = planner.plan(state, goal, seeded())
    assert torch.allclose(plan.cost, -plan.path[..., 1].amax(-1))


# -- plans ------------------------------------------------------------------------------------


def test_a_plan_is_consistent_with_itself(model):
    state, goal, _ = some_plans()
    planner = planner_of(model)
    plan = planner.plan(state, goal, seeded())
    with torch.no_grad():
        assert torch.allclose(planner.evaluate(state, goal, plan.epsilon[:, None])[:, 0], plan.cost)
        for p in range(2):
            path, skills, _ = loop(model, state[p], plan.epsilon[p])
            assert torch.allclose(plan.path[p], path)
            assert torch.allclose(plan.skills[p], skills)
    assert not plan.path.requires_grad


def test_planning_side_by_side_equals_one_by_one(model, monkeypatch):
    state, goal, _ = some_plans(problems=3)
    planner = planner_of(model)
    shape = (3, 30, 4, SKILL)
    draws = [torch.randn(shape, generator=seeded(i), dtype=torch.float64) for i in range(4)]
    replay(monkeypatch, draws)
    together = planner.plan(state, goal, seeded())
    for p in range(3):
        one = slice(p, p + 1)
        replay(monkeypatch, [draw[one] for draw in draws])
        alone = planner.plan(state[one], goal[one], seeded())
        assert torch.allclose(alone.path[0], together.path[p])
        assert torch.allclose(alone.cost[0], together.cost[p])


def test_bfloat16_rounds_the_networks_and_nothing_else(monkeypatch):
    """Plans keep the state's precision, and costs are nearly those of single precision."""
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda kind: True)
    single, (state, goal, _) = small_model().float(), some_plans()
    state, goal = state.float(), goal.float()
    exact, rounded = (planner_of(single, precision=name) for name in ("float32", "bfloat16"))
    plan, other = (planner.plan(state, goal, seeded()) for planner in (exact, rounded))
    assert other.path.dtype == other.skills.dtype == other.cost.dtype == torch.float32
    assert not torch.equal(plan.path, other.path)
    with torch.no_grad():
        again = exact.evaluate(state, goal, other.epsilon[:, None])[:, 0]
    assert torch.allclose(again, other.cost, rtol=0.05, atol=0.05)


class Walk:
    """Each skill moves the point by z; the prior is N(0, 1): plans are known in closed form."""

    def __init__(self):
        self.config = SimpleNamespace(skill_dim=2)
        self.world_model = self

    def prior(self, state):
        zeros = torch.zeros_like(state[..., :2])
        return Normal(zeros, zeros + 1)

    def mean(self, state, z):
        return torch.cat([state[..., :2] + z, state[..., 2:]], -1)

    def __call__(self, state, z):
        return Normal(self.mean(state, z), torch.full_like(state, 0.1))


def test_planner_walks_to_the_goal():
    state, goal = torch.zeros(2, 4), torch.tensor([[2.0, 1.0], [-1.5, 0.5]])
    search = CEMConfig(candidates=300, iterations=15, elites=30, momentum=0.1, min_std=0.01)
    plan = planner_of(Walk(), cost="final", cem=search).plan(state, goal, seeded())
    assert torch.allclose(plan.path[:, -1, :2], goal, atol=0.05)


def test_penalised_plan_equals_the_closed_form():
    """|g − Σ ε_l|² + λ Σ |ε_l|² / Z is least where every ε_l = g / (L + λ / Z)."""
    goal, strength, length = torch.tensor([[2.0, -1.0]]), 0.8, 3
    search = CEMConfig(candidates=800, iterations=30, elites=60, momentum=0.1, min_std=0.0)
    settings = {"plan_length": length, "cost": "final", "epsilon_penalty": strength}
    plan = planner_of(Walk(), cem=search, **settings).plan(torch.zeros(1, 4), goal, seeded())
    expected = (goal / (length + strength / 2)).expand(length, -1)
    assert torch.allclose(plan.epsilon[0], expected, atol=0.03)


def random_search(length=4) -> SearchState:
    best = torch.randn(2, length, SKILL, generator=seeded(), dtype=torch.float64)
    return SearchState(best + 9, torch.ones_like(best), best, torch.zeros(2, dtype=torch.float64))


def test_warm_start_after_a_whole_skill_drops_it(model):
    search = random_search()
    mean, std = planner_of(model, warm_std=0.6).shift(search)
    assert torch.equal(mean[:, :-1], search.best[:, 1:])
    assert (mean[:, -1] == 0).all(), "the end of the plan comes from the prior"
    assert (std == 0.6).all() and std.shape == search.best.shape


def test_warm_start_in_the_middle_of_a_skill_moves_part_of_the_way(model):
    search = random_search()
    mean, _ = planner_of(model, replan_every=5).shift(search)
    for number in range(4):
        following = search.best[:, number + 1] if number < 3 else torch.zeros(2, SKILL)
        expected = 0.75 * search.best[:, number] + 0.25 * following
        assert torch.allclose(mean[:, number], expected)


@pytest.mark.parametrize("warm", [True, False])
def test_warm_start_is_used_only_if_it_is_wanted(model, warm):
    state, goal, _ = some_plans()
    planner = planner_of(model, warm_start=warm)
    first = planner.plan(state, goal, seeded(1))
    seen = []
    planner.plan(state, goal, seeded(2), first.search, lambda x, costs: seen.append(x.clone()))
    expected = planner.shift(first.search)[0] if warm else torch.zeros_like(seen[0][:, 0])
    assert torch.equal(seen[0][:, 0], expected)


def test_a_new_search_begins_at_the_prior(model):
    state, _, _ = some_plans()
    mean, std = planner_of(model).first_search(2, state)
    assert mean.shape == std.shape == (2, 4, SKILL)
    assert (mean == 0).all() and (std == 1).all() and mean.dtype == state.dtype


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"plan_length": 0}, "L must be at least 1"),
        ({"replan_every": 0}, "H must be at least 1"),
        ({"cost": "mean"}, "min, arrival or final"),
        ({"epsilon_penalty": -1.0}, "epsilon_penalty"),
        ({"variance_penalty": -1.0}, "variance_penalty"),
        ({"least_move": -0.1}, "least_move"),
        ({"precision": "half"}, "precision is float32 or bfloat16"),
    ],
)
def test_impossible_planners_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        PlannerConfig(**wrong)


def test_a_skill_cannot_be_carried_out_longer_than_it_lasts():
    with pytest.raises(UserError, match="H = 31 must not exceed the 30 steps"):
        Planner(small_model(), PlannerConfig(replan_every=31), window_length=30)
