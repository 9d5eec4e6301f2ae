"""Imagination: trajectories of the world model under a policy, and their returns.

In a trajectory the action a_n is taken in s_n and leads to s_{n+1}, drawn from the prior. The
reward that follows a_n is that of arriving, r(s_{n+1}).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mbta_helpers.errors import require
from mbta_helpers.latent.rssm import RSSM, State, stack


class Trajectory(NamedTuple):
    """states: (B, H + 1, ...), the start first. actions: (B, H, A), a_n taken in s_n."""

    states: State
    actions: Tensor


def imagine(
    rssm: RSSM,
    start: State,
    policy: Callable[[State], Tensor],
    horizon: int,
    generator: torch.Generator,
) -> Trajectory:
    """Follow a policy in the model; start: (B, ...), policy: states to actions (B, A)."""
    states, actions = [start], []
    for _ in range(horizon):
        actions.append(policy(states[-1]))
        states.append(rssm.imagine_step(states[-1], actions[-1], generator))
    return Trajectory(stack(states), torch.stack(actions, 1))


def lambda_return(reward: Tensor, value: Tensor, discount: Tensor, lam: float) -> Tensor:
    """G_n = r_n + d_n ((1 − λ) v_{n+1} + λ G_{n+1}) with G_H = v_H: the λ-return, (..., H).

    reward, discount: (..., H); r_n follows the action in s_n, d_n is γ times the probability that
    the episode goes on after it. value: (..., H + 1), v_n of s_n. It is the mean of the n-step
    returns with weights (1 − λ) λ^{n−1} and λ^{H−1} (Hafner et al. 2020, equations 5 and 6).
    """
    require(
        value.shape[-1] == reward.shape[-1] + 1 == discount.shape[-1] + 1,
        f"Of {reward.shape[-1]} rewards and {discount.shape[-1]} discounts there must be as many, "
        f"and one value more, not {value.shape[-1]}.",
    )
    after = reward + discount * (1 - lam) * value[..., 1:]
    returns, following = [], value[..., -1]
    for n in reversed(range(reward.shape[-1])):
        following = after[..., n] + discount[..., n] * lam * following
        returns.append(following)
    return torch.stack(returns[::-1], -1)
