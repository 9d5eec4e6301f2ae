"""Option-Critic with tables: options whose policies and terminations are learnt from the reward.

Bacon, Harb and Precup (2017), "The Option-Critic Architecture"; the deliberation cost: Harb, Bacon,
Klissarov and Precup (2018), "When Waiting Is Not an Option". With one option it is actor-critic;
SARSA (Rummery and Niranjan 1994) is the other baseline.

Symbols: S states, A actions, Ω options, N runs side by side, one for each seed. ω is an option
here, θ the logits of the options' policies, ϑ those of their terminations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbta_helpers.errors import require
from mbta_helpers.hierarchical.four_rooms import MAX_STEPS, Runs, World, choose


@dataclass(frozen=True)
class OptionCriticConfig:
    """How to learn. Rates are for logits, so they take the place of a softmax temperature.

    The defaults, and those of SARSA, are what `scripts/four_rooms_grid.py` found best.

    options: Ω; 1 is actor-critic. epsilon: of the policy over options, ε-greedy in Q_Ω.
    deliberation_cost: η, paid whenever an option ends. baseline: what stands for V_Ω, the mean over
    the policy over options ("mean") or, a mistake kept for chapter 10, the best option ("max").
    """

    options: int = 4
    gamma: float = 0.99
    critic_rate: float = 1.0
    actor_rate: float = 3.0
    termination_rate: float = 3.0
    epsilon: float = 0.1
    deliberation_cost: float = 0.0
    baseline: str = "mean"
    max_steps: int = MAX_STEPS

    def __post_init__(self):
        require(self.options >= 1, f"options must be at least 1, not {self.options}.")
        require(0 <= self.gamma < 1, f"gamma lies in [0, 1), not {self.gamma}.")
        require(0 < self.critic_rate <= 1, f"critic_rate lies in (0, 1], not {self.critic_rate}.")
        for name in ("actor_rate", "termination_rate", "deliberation_cost"):
            require(getattr(self, name) >= 0, f"{name} must not be negative.")
        require(0 <= self.epsilon <= 1, f"epsilon is a probability, not {self.epsilon}.")
        require(self.baseline in ("mean", "max"), f"baseline: mean or max, not {self.baseline}.")


# -- the equations, one function each -------------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of termination from their logits."""
    return 1 / (1 + np.exp(-logits))


def option_value(q: np.ndarray, epsilon: float, baseline: str = "mean") -> np.ndarray:
    """V_Ω(s) = Σ_ω π_Ω(ω|s) Q_Ω(s, ω) with the ε-greedy π_Ω (10.2); q: (N, Ω) to (N,)."""
    if baseline == "max":
        return q.max(-1)
    return (1 - epsilon) * q.max(-1) + epsilon * q.mean(-1)


def arrival_value(q: np.ndarray, v: np.ndarray, beta: np.ndarray, cost: float) -> np.ndarray:
    """U(ω, s') = (1 − β) Q_Ω(s', ω) + β (V_Ω(s') − η) (10.3); all of the same shape."""
    return (1 - beta) * q + beta * (v - cost)


def policy_gradient(policy: np.ndarray, action: np.ndarray, advantage: np.ndarray) -> np.ndarray:
    """∇_θ log π_ω(a|s) · (Q_U − Q_Ω) for softmax logits (10.9); policy: (N, A). Returns (N, A)."""
    gradient = -policy * advantage[:, None]
    gradient[np.arange(len(action)), action] += advantage
    return gradient


def termination_gradient(q: np.ndarray, v: np.ndarray, beta: np.ndarray, cost: float) -> np.ndarray:
    """−∇_ϑ β_ω(s') · (Q_Ω(s', ω) − V_Ω(s') + η), ω the option in force on arrival (10.13)."""
    return -beta * (1 - beta) * (q - v + cost)


# -- the agent ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptionCriticHistory:
    """What N runs did and learnt.

    steps, endings: (N, episodes), steps of an episode and ends of options in it. q: (N, S, Ω).
    policy: (N, S, Ω, A). termination: (N, S, Ω). The last three at the end.
    """

    steps: np.ndarray
    endings: np.ndarray
    q: np.ndarray
    policy: np.ndarray
    termination: np.ndarray

    @property
    def durations(self) -> np.ndarray:
        """Steps for each option that was begun, (N, episodes)."""
        return self.steps / (self.endings + 1)


def train_option_critic(
    world: World, config: OptionCriticConfig, seeds: Sequence[int], goals: np.ndarray
) -> OptionCriticHistory:
    """Option-Critic, one run for each seed; goals: (N, episodes), the goal of each episode."""
    count, states, actions = len(seeds), world.states, world.actions
    theta = np.zeros((count, states, config.options, actions))
    vartheta = np.zeros((count, states, config.options))
    q_u = np.zeros_like(theta)
    q = np.zeros_like(vartheta)  # Q_Ω = Σ_a π Q_U, kept up to date where it changes
    runs = Runs(world, seeds, goals, config.max_steps, draws=4)
    endings = np.zeros(goals.shape, int)
    option, begin = np.zeros(count, int), np.ones(count, bool)
    while runs.row.size:
        row, state, uniform = runs.row, runs.state, runs.uniform
        new = np.flatnonzero(begin)
        if new.size:
            best = q[row[new], state[new]].argmax(-1)
            other = (uniform[3, new] * config.options).astype(int)
            option[new] = np.where(uniform[0, new] < config.epsilon, other, best)
        policy = softmax(theta[row, state, option])  # (N, A)
        action = choose(policy, uniform[1])
        after, terminated, truncated = runs.step(action)

        beta = sigmoid(vartheta[row, after, option])  # of ω, which is in force on arrival
        q_after = q[row, after]  # (N, Ω)
        q_same = q_after[np.arange(len(row)), option]
        v = option_value(q_after, config.epsilon, config.baseline)
        u = arrival_value(q_same, v, beta, config.deliberation_cost)
        target = terminated + config.gamma * ~terminated * u  # truncated: still bootstrapped

        error = target - q_u[row, state, option, action]
        q_u[row, state, option, action] += config.critic_rate * error
        values = q_u[row, state, option]  # (N, A)
        advantage = values[np.arange(len(row)), action] - (policy * values).sum(-1)
        step = policy_gradient(policy, action, advantage)
        theta[row, state, option] += config.actor_rate * step
        q[row, state, option] = (softmax(theta[row, state, option]) * values).sum(-1)
        step = termination_gradient(q_same, v, beta, config.deliberation_cost)
        vartheta[row, after, option] += config.termination_rate * ~terminated * step

        over = terminated | truncated
        ended = ~over & (uniform[2] < beta)
        endings[row, runs.episode] += ended
        begin = over | ended
        stays = runs.go_on(after, over)
        if stays is not None:
            option, begin = option[stays], begin[stays]
    return OptionCriticHistory(runs.steps, endings, q, softmax(theta), sigmoid(vartheta))


# -- the baseline ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SarsaConfig:
    """SARSA with Boltzmann exploration: actions are drawn from softmax(Q / temperature)."""

    gamma: float = 0.99
    learning_rate: float = 0.5
    temperature: float = 0.03
    max_steps: int = MAX_STEPS

    def __post_init__(self):
        require(0 <= self.gamma < 1, f"gamma lies in [0, 1), not {self.gamma}.")
        require(0 < self.learning_rate <= 1, "learning_rate lies in (0, 1].")
        require(self.temperature > 0, "temperature must be positive.")


def train_sarsa(
    world: World, config: SarsaConfig, seeds: Sequence[int], goals: np.ndarray
) -> np.ndarray:
    """Steps of each episode, (N, episodes); goals: (N, episodes)."""
    q = np.zeros((len(seeds), world.states, world.actions))
    runs = Runs(world, seeds, goals, config.max_steps, draws=2)
    action = choose(softmax(q[runs.row, runs.state] / config.temperature), runs.uniform[0])
    while runs.row.size:
        row, state, uniform = runs.row, runs.state, runs.uniform
        after, terminated, truncated = runs.step(action)
        following = choose(softmax(q[row, after] / config.temperature), uniform[1])
        future = config.gamma * ~terminated * q[row, after, following]
        error = terminated + future - q[row, state, action]
        q[row, state, action] += config.learning_rate * error
        over = terminated | truncated
        stays = runs.go_on(after, over)
        if stays is not None:
            following, over = following[stays], over[stays]
        action = following
        new = np.flatnonzero(over)
        if new.size:
            values = q[runs.row[new], runs.state[new]]
            action[new] = choose(softmax(values / config.temperature), runs.uniform[0, new])
    return runs.steps


# -- the moved goal -------------------------------------------------------------------------------


def moving_goals(
    seeds: Sequence[int], episodes: int, moved_at: int, first: int, later: Sequence[int]
) -> np.ndarray:
    """The goal of each episode, (N, episodes): from `moved_at` on another, drawn for each seed."""
    require(0 < moved_at < episodes, f"The goal moves between episodes 1 and {episodes - 1}.")
    goals = np.full((len(seeds), episodes), first)
    for row, seed in enumerate(seeds):
        goals[row, moved_at:] = np.random.default_rng([seed, 1]).choice(later)
    return goals


# -- the exact objective --------------------------------------------------------------------------


@dataclass(frozen=True)
class ExactValues:
    """The values of options in a known MDP, and the gradient of the objective.

    objective: J. q_u: (S, Ω, A). q, u: (S, Ω). v: (S,). policy: ∂J/∂θ, (S, Ω, A).
    termination: ∂J/∂ϑ, (S, Ω).
    """

    objective: float
    q_u: np.ndarray
    q: np.ndarray
    v: np.ndarray
    u: np.ndarray
    policy: np.ndarray
    termination: np.ndarray


def exact_values(
    world: World,
    theta: np.ndarray,
    vartheta: np.ndarray,
    meta: np.ndarray,
    start: np.ndarray,
    gamma: float,
    cost: float = 0.0,
) -> ExactValues:
    """J = Σ_s d(s) Σ_ω π_Ω(ω|s) Q_Ω(s, ω) and both gradients, by solving linear equations.

    theta: (S, Ω, A), vartheta: (S, Ω), logits. meta: (S, Ω), π_Ω, held fixed. start: (S,), d.
    """
    states, options = vartheta.shape
    pi, beta = softmax(theta), sigmoid(vartheta)
    lives = (np.arange(states) != world.goal).astype(float)
    arrive = gamma * np.einsum("soa,sat->sot", pi, world.transitions) * lives  # γ P_ω(s, s')
    reward = np.einsum("soa,sa->so", pi, world.rewards)
    # From (s, ω) to (s', ω'): keep ω with 1 − β, or end it and choose ω' (10.5).
    keep = np.einsum("sot,to,ow->sotw", arrive, 1 - beta, np.eye(options))
    switch = np.einsum("sot,to,tw->sotw", arrive, beta, meta)
    chain = np.eye(states * options) - (keep + switch).reshape(states * options, -1)
    paid = cost * np.einsum("sot,to->so", arrive, beta)
    q = np.linalg.solve(chain, (reward - paid).ravel()).reshape(states, options)
    v = (meta * q).sum(-1)
    u = arrival_value(q, v[:, None], beta, cost)
    future = np.einsum("sat,to->soa", world.transitions * lives, u)
    q_u = world.rewards[:, None] + gamma * future
    first = start[:, None] * meta
    visits = np.linalg.solve(chain.T, first.ravel()).reshape(states, options)  # μ (10.8)
    arrivals = np.einsum("so,sot->to", visits, arrive)  # μ' (10.12)
    return ExactValues(
        objective=float((first * q).sum()),
        q_u=q_u,
        q=q,
        v=v,
        u=u,
        policy=visits[..., None] * pi * (q_u - q[..., None]),
        termination=arrivals * termination_gradient(q, v[:, None], beta, cost),
    )
