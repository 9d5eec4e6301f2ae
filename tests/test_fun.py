"""FeUdal Networks: rewards and targets against loops, gradients against finite differences."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mbta_helpers.errors import UserError
from mbta_helpers.hierarchical.fun import (
    ROOMS,
    Agent,
    FuN,
    FuNConfig,
    PixelMaze,
    View,
    advantages,
    ends,
    fun_loss,
    intrinsic_reward,
    manager_loss,
    train_fun,
    try_out,
)

SMALL = FuNConfig(environments=6, rollout=24, horizon=5, dim=4, embedding=3, hidden=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def maze(count=6, limit=10, seed=0, rooms=ROOMS):
    return PixelMaze(rooms, count, limit, np.random.default_rng(seed))


def networks(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return FuN(maze().pictures.shape[1:], 4, config)


def agent(config=SMALL, limit=10, seed=0):
    return Agent(maze(config.environments, limit), networks(config), config, seed)


# -- the maze -------------------------------------------------------------------------------------


def test_a_picture_shows_walls_goal_and_agent():
    one = maze()
    height, width = len(ROOMS), len(ROOMS[0])
    assert one.pictures.shape[1:] == (3, 2 * height, 2 * width)
    small = one.pictures[:, :, ::2, ::2]  # a pixel of each cell
    assert np.array_equal(one.pictures, small.repeat(2, 2).repeat(2, 3))
    walls = np.array([[letter == "#" for letter in row] for row in ROOMS])
    for picture in small:
        assert np.array_equal(picture[0] > 0, walls)
        assert picture[2].sum() == 1 and not walls[picture[2] > 0].any()
    assert len(np.unique(small[:, 2].reshape(len(small), -1), axis=0)) == (~walls).sum()


def test_moves_lead_to_neighbours_or_nowhere():
    one = maze()
    place = np.argwhere(one.pictures[:, 2, ::2, ::2] > 0)[:, 1:]
    for cell, (row, column) in enumerate(place):
        for action, (down, right) in enumerate([(-1, 0), (1, 0), (0, -1), (0, 1)]):
            free = ROOMS[row + down][column + right] != "#"
            expected = (row + down, column + right) if free else (row, column)
            assert tuple(place[one.after[cell, action]]) == expected


def test_an_end_is_seen_before_the_reset_and_the_reset_pays_nothing():
    one = maze(count=1, limit=1000)
    one.reset()
    near = (one.after == one.goal).any(1)
    near[one.goal] = False
    one.cell = np.flatnonzero(near)[:1]
    action = (one.after[one.cell[0]] == one.goal).argmax()[None]
    cell, reward, terminated, truncated = one.step(action)
    assert (cell == one.goal).all() and reward == 1 and terminated and not truncated
    cell, reward, terminated, truncated = one.step(action)
    assert np.isin(cell, one.starts).all() and reward == 0 and not terminated and not truncated
    assert one.age == 0


def test_the_time_limit_cuts_off_and_does_not_terminate():
    one = maze(count=1, limit=3, rooms=("#####", "#.#G#", "#####"))  # the goal is walled off
    one.reset()
    seen = np.array([one.step(np.zeros(1, int))[2:] for _ in range(8)])[..., 0]  # (8, 2)
    assert not seen[:, 0].any()
    assert seen[:, 1].tolist() == [0, 0, 1, 0, 0, 0, 1, 0]


# -- rewards, advantages, ends --------------------------------------------------------------------


def numbers_of_episodes(steps, count, seed):
    jumps = torch.rand(steps, count, generator=seeded(seed)) < 0.2
    return jumps.long().cumsum(0)


def test_intrinsic_reward_equals_a_plain_loop():
    c, steps, count = 3, 12, 5
    state, goal = random(c + steps + 1, count, 4), random(c + steps + 1, count, 4, seed=1)
    episode = numbers_of_episodes(c + steps + 1, count, 2)
    found = intrinsic_reward(state, goal, episode, c)
    assert found.shape == (steps + 1, count)
    for t in range(steps + 1):
        for n in range(count):
            total = 0.0
            for i in range(1, c + 1):
                if episode[c + t, n] == episode[c + t - i, n]:
                    moved = state[c + t, n] - state[c + t - i, n]
                    aim = goal[c + t - i, n]
                    total += (moved @ aim / (moved.norm() * aim.norm())).item()
            assert math.isclose(found[t, n].item(), total / c, abs_tol=1e-12)


def test_intrinsic_reward_is_one_on_a_straight_way_and_zero_without_goals():
    c = 4
    direction = F.normalize(random(3), dim=0)
    state = torch.arange(10.0)[:, None, None] * direction
    goal = direction.expand(10, 1, 3)
    episode = torch.zeros(10, 1, dtype=torch.long)
    assert torch.allclose(intrinsic_reward(state, goal, episode, c), torch.ones(6, 1).double())
    assert (intrinsic_reward(state, 0 * goal, episode, c) == 0).all()


def test_advantages_equal_a_plain_sum_and_stop_at_ends():
    gamma, smoothing, steps = 0.9, 0.8, 9
    reward, value = random(steps, 1), random(steps + 1, 1, seed=1)
    terminated, live = torch.zeros(steps, 1).double(), torch.ones(steps + 1, 1).double()
    terminated[2] = 1  # terminated by the action at 2; the picture of step 3 is the last
    live[3] = 0
    live[7] = 0  # the action at 6 was the last before the time limit
    found = advantages(reward, value, terminated, live, gamma, smoothing)

    def plain(t, stop):
        total, weight = 0.0, 1.0
        for u in range(t, stop):
            after = 0.0 if terminated[u] else value[u + 1].item()
            total += weight * (reward[u].item() + gamma * after - value[u].item())
            weight *= gamma * smoothing
        return total

    expected = [plain(t, 3) for t in range(3)] + [0.0] + [plain(t, 7) for t in range(4, 7)]
    expected += [0.0, plain(8, 9)]
    assert np.allclose(found.squeeze(1), expected)


def test_a_goal_is_judged_after_c_steps_or_at_the_end_of_its_episode():
    live = torch.ones(11, 1)
    live[4] = 0
    end, known = ends(live, 3)
    assert end[:4, 0].tolist() == [3, 4, 4, 4]
    assert known[:, 0].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 0, 0]
    assert end[5:8, 0].tolist() == [8, 9, 10]


def test_no_goal_is_judged_across_an_end():
    live = (torch.rand(40, 7, generator=seeded(3)) > 0.15).float()
    end, known = ends(live, 5)
    for t, n in known.nonzero().tolist():
        assert t < end[t, n] <= t + 5
        assert live[t : end[t, n], n].all()


# -- the manager ----------------------------------------------------------------------------------


def manager_case():
    state, wish = random(8, 2, 3), random(8, 2, 3, seed=1)
    live = torch.ones(8, 2).double()
    live[3, 0] = 0
    advantage = random(7, 2, seed=2)
    return state, wish, live, advantage


def view_of(state, wish):
    return View(state, state, F.normalize(wish, dim=-1), state[..., 0])


def test_manager_loss_equals_a_plain_loop():
    state, wish, live, advantage = manager_case()
    end, known = ends(live, 2)
    total, count = 0.0, 0
    for t in range(7):
        for n in range(2):
            if known[t, n]:
                moved, aim = state[end[t, n], n] - state[t, n], wish[t, n]
                cosine = moved @ aim / (moved.norm() * aim.norm())
                total, count = total - (advantage[t, n] * cosine).item(), count + 1
    loss = manager_loss(view_of(state, wish), end, known, advantage)
    assert count == int(known.sum()) and math.isclose(loss.item(), total / count, rel_tol=1e-9)


def test_manager_gradient_is_a_finite_difference_and_reaches_goals_only():
    state, wish, live, advantage = manager_case()
    target = ends(live, 2)
    state.requires_grad_()
    wish.requires_grad_()
    loss = manager_loss(view_of(state, wish), *target, advantage)
    loss.backward()
    assert state.grad is None
    step, index = 1e-6, (2, 1, 0)
    change = torch.zeros_like(wish)
    change[index] = step
    with torch.no_grad():
        up, down = (
            manager_loss(view_of(state, wish + sign * change), *target, advantage)
            for sign in (1, -1)
        )
    assert math.isclose(wish.grad[index].item(), ((up - down) / (2 * step)).item(), rel_tol=1e-5)
    assert wish.grad[index].abs() > 1e-4


def test_a_good_outcome_turns_the_goal_towards_where_the_agent_went():
    state = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]])
    wish = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]]], requires_grad=True)
    target = (torch.ones(1, 1, dtype=torch.long), torch.ones(1, 1))
    for advantage, sign in ((1.0, 1), (-1.0, -1)):
        wish.grad = None
        manager_loss(view_of(state, wish), *target, torch.full((1, 1), advantage)).backward()
        east, north = (-wish.grad[0, 0]).tolist()
        assert sign * east > 0 > sign * north


# -- the worker -----------------------------------------------------------------------------------


def test_goals_have_length_one_and_no_goals_give_a_uniform_policy():
    net = networks()
    view = net(torch.from_numpy(maze().pictures))
    assert torch.allclose(view.goal.norm(dim=-1), torch.ones(len(view.goal)))
    logits, _ = net.worker(view.features, torch.zeros(len(view.goal), SMALL.dim))
    assert (logits == 0).all()
    other = networks(FuNConfig(dim=4, embedding=3, hidden=8, bias=True))
    logits, _ = other.worker(view.features, torch.zeros(len(view.goal), SMALL.dim))
    assert logits.abs().max() > 1e-3


def test_logits_are_products_of_embedding_and_goal():
    net = networks()
    z, goals = random(7, 8, dtype=torch.float32), random(7, 4, seed=1, dtype=torch.float32)
    logits, value = net.worker(z, goals)
    assert logits.shape == (7, 4) and value.shape == (7,)
    w = goals @ net.phi.weight.T
    u = net.actions(z).reshape(7, 4, 3)
    assert torch.allclose(logits, torch.stack([u[n] @ w[n] for n in range(7)]), atol=1e-6)


def with_rollout(config=SMALL, **changes):
    one = agent(config)
    one.collect()
    return one, one.collect()._replace(**changes)


def test_the_worker_teaches_the_manager_nothing():
    """Without reward and with V^M = 0 the manager has no advantage, and its goals no gradient."""
    one, rollout = with_rollout()
    torch.nn.init.zeros_(one.networks.manager_value.weight)
    torch.nn.init.zeros_(one.networks.manager_value.bias)
    rollout = rollout._replace(reward=torch.zeros_like(rollout.reward))
    assert rollout.intrinsic.abs().max() > 0
    fun_loss(one.networks, one.pictures, rollout, SMALL).backward()
    directing = [*one.networks.director.parameters(), *one.networks.space.parameters()]
    assert all((p.grad == 0).all() for p in directing)
    assert one.networks.actions.weight.grad.abs().max() > 0


def test_the_worker_is_paid_for_directions_and_the_manager_for_the_goal():
    one, rollout = with_rollout()
    paid = rollout._replace(reward=rollout.reward + 1.0)
    driven = rollout._replace(intrinsic=rollout.intrinsic + 1.0)
    grads = []
    for each in (rollout, paid, driven):
        one.networks.zero_grad()
        fun_loss(one.networks, one.pictures, each, SMALL).backward()
        grads.append([one.networks.phi.weight.grad.clone(), one.networks.space.weight.grad.clone()])
    base, extrinsic, intrinsic = grads
    assert torch.equal(base[0], extrinsic[0]) and not torch.equal(base[1], extrinsic[1])
    assert not torch.equal(base[0], intrinsic[0]) and torch.equal(base[1], intrinsic[1])


def test_each_has_a_discount_of_its_own():
    one, rollout = with_rollout()
    rollout = rollout._replace(reward=rollout.reward + 0.1)
    grads = []
    for change in ({}, {"worker_gamma": 0.2}, {"manager_gamma": 0.2}):
        one.networks.zero_grad()
        fun_loss(one.networks, one.pictures, rollout, replace(SMALL, **change)).backward()
        grads.append([one.networks.phi.weight.grad.clone(), one.networks.space.weight.grad.clone()])
    base, worker, manager = grads
    assert not torch.equal(base[0], worker[0]) and torch.equal(base[1], worker[1])
    assert torch.equal(base[0], manager[0]) and not torch.equal(base[1], manager[1])


def test_only_the_manager_sees_the_goal_end_an_episode():
    one, rollout = with_rollout()
    ends_early = rollout._replace(terminated=1 - rollout.live[1:])
    assert not torch.equal(ends_early.terminated, rollout.terminated)
    for mortal in (False, True):
        config, grads = replace(SMALL, mortal_worker=mortal), []
        for each in (rollout, ends_early):
            one.networks.zero_grad()
            fun_loss(one.networks, one.pictures, each, config).backward()
            phi, space = one.networks.phi.weight.grad, one.networks.space.weight.grad
            grads.append([phi.clone(), space.clone()])
        assert torch.equal(grads[0][0], grads[1][0]) is not mortal
        assert not torch.equal(grads[0][1], grads[1][1])


def test_steps_that_reset_teach_nothing():
    one, rollout = with_rollout()
    resets = rollout.live[:-1] == 0
    assert resets.any()
    other = rollout._replace(
        action=torch.where(resets, (rollout.action + 1) % 4, rollout.action),
        reward=torch.where(resets, 7.0, rollout.reward),
        intrinsic=torch.where(resets, 7.0, rollout.intrinsic),
    )
    losses = [fun_loss(one.networks, one.pictures, each, SMALL) for each in (rollout, other)]
    assert torch.equal(*losses)


@torch.no_grad()
def test_the_bonus_is_the_mean_entropy_of_the_steps_that_act():
    one, rollout = with_rollout()
    one.networks.phi.weight.mul_(20)  # far from uniform, so that the steps differ
    view = one.networks(one.pictures)
    logits, _ = one.networks.worker(view.features[rollout.picture], rollout.goals)
    chance = logits[:-1].softmax(-1)
    entropy = -(chance * chance.log()).sum(-1)  # (T, N)
    acts = rollout.live[:-1] > 0
    expected = entropy[acts].mean()
    assert not torch.isclose(expected, entropy.mean(), rtol=1e-3)
    with_bonus, without = (
        fun_loss(one.networks, one.pictures, rollout, replace(SMALL, entropy=weight))
        for weight in (1.0, 0.0)
    )
    assert torch.isclose(without - with_bonus, expected, rtol=1e-4)


# -- acting ---------------------------------------------------------------------------------------


def test_a_rollout_carries_goals_of_its_own_episode_only():
    """The sums of goals and the intrinsic rewards again, from what the agent has kept."""
    one = agent()
    for _ in range(3):
        rollout = one.collect()
        c = SMALL.horizon
        view = one.networks(one.pictures)
        state = view.state[torch.from_numpy(one.picture)].detach()
        expected = intrinsic_reward(
            state, torch.from_numpy(one.goal), torch.from_numpy(one.episode), c
        )
        assert torch.equal(rollout.intrinsic, expected[1:])  # the reward of a_t is that of s_{t+1}
        for t in range(SMALL.rollout + 1):
            for n in range(SMALL.environments):
                total = sum(
                    one.goal[c + t - i, n]
                    for i in range(c)
                    if one.episode[c + t - i, n] == one.episode[c + t, n]
                )
                assert np.allclose(rollout.goals[t, n], total, atol=1e-6)
    assert (np.diff(one.episode, axis=0)[:, :] == (one.live[:-1] == 0)).all()
    assert (rollout.live == 0).any() and one.episode.max() > 2


def test_rollouts_join():
    one = agent()
    first, second = one.collect(), one.collect()
    assert torch.equal(first.picture[-1], second.picture[0])
    assert torch.equal(first.live[-1], second.live[0])
    assert first.picture.data_ptr() != second.picture.data_ptr()


def test_whims_last_c_steps_and_have_length_one():
    one = agent(FuNConfig(environments=6, rollout=40, horizon=5, dim=4, goals="random"))
    one.collect()  # the first whims begin at different steps
    one.collect()
    goal = one.goal[5:-1]  # the last row is not yet decided
    assert np.allclose(np.linalg.norm(goal, axis=-1), 1, atol=1e-6)
    changes = (np.diff(goal, axis=0) != 0).any(-1)  # (T − 1, N)
    for n in range(6):
        assert set(np.diff(np.flatnonzero(changes[:, n]))) == {5}


def test_random_goals_are_never_the_managers():
    """From the first step of the first roll-out on."""
    one = agent(FuNConfig(environments=6, rollout=8, horizon=5, dim=4, goals="random"))
    one.collect()
    wanted = one.networks(one.pictures).goal[torch.from_numpy(one.picture[5:])].detach()
    assert not np.isclose(one.goal[5:-1], wanted[:-1], atol=1e-6).all(-1).any()
    assert np.allclose(np.linalg.norm(one.goal[5:-1], axis=-1), 1, atol=1e-6)


def test_without_whims_the_goals_are_the_managers():
    one = agent(FuNConfig(environments=6, rollout=24, horizon=5, dim=4, whims=0.0))
    one.collect()
    wanted = one.networks(one.pictures).goal[torch.from_numpy(one.picture[5:])].detach()
    assert np.allclose(one.goal[5:], wanted)


def test_zeroed_goals_pay_nothing():
    rollout = agent(FuNConfig(environments=6, goals="zero")).collect()
    assert (rollout.goals == 0).all() and (rollout.intrinsic == 0).all()


# -- learning -------------------------------------------------------------------------------------


def test_training_repeats_with_its_seed_and_moves_every_parameter():
    runs = [train_fun(ROOMS, SMALL, 3, seed) for seed in (1, 1, 2)]
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net, _ in runs]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert runs[0][1].steps.tolist() == [144, 288, 432]
    torch.manual_seed(1)
    start = FuN(maze().pictures.shape[1:], 4, SMALL)
    for (name, before), after in zip(
        start.named_parameters(), runs[0][0].parameters(), strict=True
    ):
        assert not torch.equal(before, after), name


def test_trying_out_counts_first_episodes():
    success, rollout = try_out(networks(), ROOMS, SMALL, episodes=50, seed=0, limit=20)
    assert success.shape == (50,) and rollout.action.shape == (20, 50)
    for n in range(50):
        over = (rollout.live[1:, n] == 0).nonzero()[0].item()
        assert success[n] == bool(rollout.terminated[over, n])


@pytest.mark.parametrize(
    "change",
    [
        {"horizon": 0},
        {"environments": 0},
        {"rollout": 5, "horizon": 5},
        {"manager_gamma": 1.0},
        {"whims": 1.5},
        {"learning_rate": 0.0},
        {"manager_rate": -1.0},
        {"smoothing": 2.0},
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        FuNConfig(**change)


def test_bad_input_says_what_is_wrong():
    with pytest.raises(UserError, match="Did you mean"):
        FuNConfig(goals="learnt")
    with pytest.raises(UserError, match="equally long"):
        maze(rooms=("###", "##"))
    with pytest.raises(UserError, match="one goal"):
        maze(rooms=("#####", "#...#", "#####"))
    with pytest.raises(UserError, match="at least 1 update"):
        train_fun(ROOMS, SMALL, 0, seed=0)
    with pytest.raises(UserError, match="at least one"):
        maze(count=0)
