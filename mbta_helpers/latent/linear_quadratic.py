"""A world in which everything about imagination is known: linear dynamics, quadratic cost.

    x_{n+1} = α x_n + β a_n + ς ξ_n,   r_n = −(x_{n+1}² + ρ a_n²),   a_n = k x_n + σ ε_n

The state's z is (x, the action before), so that a reward is that of arriving, as in a world model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mbta_helpers.latent.imagination import imagine, lambda_return
from mbta_helpers.latent.rssm import State


@dataclass(frozen=True)
class LinearWorld:
    """α, β, ς and ρ of the equations above, and the discount γ."""

    alpha: float = 1.0
    beta: float = 0.5
    noise: float = 0.2
    cost: float = 0.1
    gamma: float = 0.95

    def start(self, x: Tensor) -> State:
        """The state at x, (N,), with no action before."""
        z = torch.stack([x, torch.zeros_like(x)], -1)
        return State(z[..., :0], z, z[..., :0])

    def imagine_step(self, state: State, action: Tensor, generator: torch.Generator) -> State:
        """As `RSSM.imagine_step`; action: (N, 1)."""
        disturbance = self.noise * torch.randn(action.shape, generator=generator).to(action)
        x = self.alpha * state.z[..., :1] + self.beta * action + disturbance
        return State(state.h, torch.cat([x, action], -1), state.parameters)

    def reward(self, states: State) -> Tensor:
        """Of arriving: (..., 2) in z to (...)."""
        return -states.z[..., 0].square() - self.cost * states.z[..., 1].square()

    def to_go(self, k, sigma: float, horizon: int, after=(0.0, 0.0)):
        """p and q of the return over `horizon` steps from x, −(p x² + q), under the gain k (16.13).

        after: p and q of what follows the last step.
        """
        p, q = after
        spread = self.beta**2 * sigma**2 + self.noise**2
        for _ in range(horizon):
            q = (1 + self.gamma * p) * spread + self.cost * sigma**2 + self.gamma * q
            p = (1 + self.gamma * p) * (self.alpha + self.beta * k) ** 2 + self.cost * k**2
        return p, q

    def for_ever(self, k, sigma: float):
        """The p and q that one more step does not change; γ (α + β k)² must be below 1."""
        m = self.alpha + self.beta * k
        p = (m**2 + self.cost * k**2) / (1 - self.gamma * m**2)
        spread = self.beta**2 * sigma**2 + self.noise**2
        return p, ((1 + self.gamma * p) * spread + self.cost * sigma**2) / (1 - self.gamma)

    def value(self, x: Tensor, k: float, sigma: float) -> Tensor:
        """v(x) of the policy with gain k, which is never replaced."""
        p, q = self.for_ever(k, sigma)
        return -(p * x.square() + q)


def sampled_gradients(
    world: LinearWorld, k: float, sigma: float, x: Tensor, horizon: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Estimates of ∂J/∂k from each of N imagined trajectories, (N,) each; x: (N,), their starts.

    J is the return of H steps, followed by the value v(x_H) of the policy as it is: a function that
    does not move with k. "pathwise": through actions and dynamics. "open loop": the same with the
    actor's input detached, as in Dreamer. "REINFORCE": scores times returns, with v as baseline.
    """
    found = {}
    draws = generator.get_state()
    for name in ("pathwise", "open loop"):
        generator.set_state(draws)
        gain = torch.full_like(x, k).requires_grad_()  # one for each trajectory

        def policy(state: State, gain=gain, cut=name == "open loop") -> Tensor:
            seen = state.z[..., :1].detach() if cut else state.z[..., :1]
            noise = torch.randn(seen.shape, generator=generator).to(seen)
            return gain[:, None] * seen + sigma * noise

        trajectory = imagine(world, world.start(x), policy, horizon, generator)
        place = trajectory.states.z[..., 0]  # (N, H + 1)
        reward = world.reward(State(*(part[:, 1:] for part in trajectory.states)))  # (N, H)
        discount = torch.full_like(reward, world.gamma)
        value = world.value(place, k, sigma)
        returns = lambda_return(reward, value, discount, 1.0)  # (N, H)
        (found[name],) = torch.autograd.grad(returns[:, 0].sum(), gain, retain_graph=True)
    place, returns, value = place.detach(), returns.detach(), value.detach()
    noise = (trajectory.actions[..., 0].detach() - k * place[:, :-1]) / sigma
    score = noise * place[:, :-1] / sigma  # ∂ log π(a_n | x_n) / ∂k
    powers = world.gamma ** torch.arange(horizon).to(x)
    found["REINFORCE"] = (powers * score * (returns - value[:, :-1])).sum(-1)
    return found
