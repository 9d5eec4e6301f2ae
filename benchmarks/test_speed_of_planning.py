"""The planner against the loop that one writes first, and against its matrix products alone.

Networks of AntMaze's size: 29 numbers a state, 8 an action, 256 a skill, layers of 256. CEM with
1000 candidates of 3 skills, 200 elites, 10 iterations.
"""

import os
import time
from statistics import median

import pytest
import torch

from mbta_helpers.networks import NetworkConfig, SkillModel
from mbta_helpers.planning import CEMConfig, Planner, PlannerConfig

K, L, ELITES, ITERATIONS = 1000, 3, 200, 10
STATE, ACTION, SKILL, HIDDEN = 29, 8, 256, 256


@pytest.fixture(scope="module")
def problem():
    """A model, a planner, a state and a goal."""
    torch.manual_seed(0)
    sizes = {"hidden": HIDDEN, "model_hidden": HIDDEN, "gru_hidden": HIDDEN // 2}
    model = SkillModel(NetworkConfig(STATE, ACTION, SKILL, **sizes)).eval()
    config = PlannerConfig(
        plan_length=L,
        replan_every=30,
        cost="final",
        epsilon_penalty=0.0,
        variance_penalty=0.0,
        support_penalty=0.0,
        time_penalty=0.0,
        cem=CEMConfig(K, ITERATIONS, ELITES, momentum=0.0, min_std=0.0),
    )
    goal = torch.tensor([[3.0, -2.0]])
    return model, Planner(model, config, window_length=40), torch.randn(1, STATE), goal


@torch.no_grad()
def plain_loop(model, state, goal, generator):
    """CEM as one writes it first: one candidate, one skill, one call of a network at a time."""
    mean, std = torch.zeros(L, SKILL), torch.ones(L, SKILL)
    best = mean
    for _ in range(ITERATIONS):
        candidates = mean + std * torch.randn(1, K, L, SKILL, generator=generator)[0]
        candidates[0] = best
        costs = torch.empty(K)
        for k in range(K):
            current = state
            for number in range(L):
                prior = model.prior(current)
                z = prior.loc + prior.scale * candidates[k, number : number + 1]
                current = model.world_model(current, z).loc
            costs[k] = (current[0, :2] - goal[0]).square().sum()
        chosen = costs.topk(ELITES, largest=False)
        best, lowest = candidates[chosen.indices[0]], chosen.values[0]
        elites = candidates[chosen.indices]
        mean, std = elites.mean(0), elites.std(0)
    return mean, best, lowest


def test_planner_against_the_plain_loop(problem, take_turns, ratio, report):
    """The same plan from the same draws, on one thread.

    Where matrix products run at the processor's peak, they alone bound the ratio: see the last
    measurement here.
    """
    model, planner, state, goal = problem
    results = {}

    def loop():
        results["loop"] = plain_loop(model, state, goal, torch.Generator().manual_seed(1))

    def batched():
        results["plan"] = planner.plan(state, goal, torch.Generator().manual_seed(1))

    slow, fast = take_turns(loop, batched, rounds=3, warm_up=0)
    mean, best, lowest = results["loop"]
    plan = results["plan"]
    assert torch.allclose(plan.epsilon[0], best, atol=1e-5)
    assert torch.allclose(plan.search.mean[0], mean, atol=1e-4)
    assert torch.allclose(plan.cost[0], lowest, rtol=1e-3, atol=1e-4)
    times = ratio(slow, fast)
    report(
        f"planner: {median(fast):.3f} s a plan; loop over candidates and skills {median(slow):.2f} "
        f"s: {times:.1f} times as long (whole loops, {len(slow)} pairs)"
    )
    assert times >= 15


def busy() -> bool:
    """Whether other programs leave no second processor."""
    return (os.cpu_count() or 1) < 2 or os.getloadavg()[0] > os.cpu_count() - 0.5


@pytest.mark.skipif(busy(), reason="needs a second processor that has nothing to do")
def test_planner_on_two_threads_against_the_plain_loop(problem, take_turns, ratio, report):
    """A batch has work for a second thread; networks called with one row have none."""
    model, planner, state, goal = problem

    def on_two_threads():
        torch.set_num_threads(2)
        planner.plan(state, goal, torch.Generator().manual_seed(1))
        torch.set_num_threads(1)

    slow, fast = take_turns(
        lambda: plain_loop(model, state, goal, torch.Generator().manual_seed(1)),
        on_two_threads,
        rounds=3,
        clock=time.perf_counter,
    )
    times = ratio(slow, fast)
    report(
        f"planner on two threads: {median(fast):.3f} s a plan; the loop {median(slow):.2f} s: "
        f"{times:.1f} times as long (wall time)"
    )
    assert times >= 30


def matrix_products(shared_first_prior: bool):
    """The products of a plan, biases added, on numbers that do not matter."""

    def layer(inputs, outputs):
        return torch.randn(outputs), torch.randn(outputs, inputs).t()

    prior = [layer(STATE, HIDDEN), layer(HIDDEN, HIDDEN)]
    prior += [layer(HIDDEN, HIDDEN), layer(HIDDEN, SKILL)] * 2
    world_model = [layer(STATE + SKILL, HIDDEN), layer(HIDDEN, HIDDEN)]
    world_model += [layer(HIDDEN, HIDDEN), layer(HIDDEN, STATE)]
    inputs = {size: torch.randn(K, size) for size in (STATE, HIDDEN, STATE + SKILL)}

    @torch.no_grad()
    def run():
        for _ in range(ITERATIONS):
            for number in range(L):
                skip = shared_first_prior and number == 0
                for bias, weight in world_model if skip else prior + world_model:
                    torch.addmm(bias, inputs[len(weight)], weight)

    return run


def test_planner_against_its_matrix_products(problem, take_turns, ratio, report):
    _, planner, state, goal = problem
    plan, products, fewer = take_turns(
        lambda: planner.plan(state, goal, torch.Generator().manual_seed(1)),
        matrix_products(shared_first_prior=False),
        matrix_products(shared_first_prior=True),
        rounds=9,
        warm_up=2,
    )
    times = ratio(plan, products)
    report(
        f"planner: {median(plan):.3f} s a plan; its matrix products alone {median(products):.3f} s:"
        f" ratio {times:.2f}"
    )
    report(
        f"planner: against the products that remain, as the first skill's prior is asked once "
        f"({median(fewer):.3f} s): ratio {ratio(plan, fewer):.2f}"
    )
    assert times <= 1.4
