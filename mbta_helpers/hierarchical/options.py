"""Options: their models, planning with them, and learning their values in Four Rooms.

Sutton, Precup and Singh (1999), "Between MDPs and semi-MDPs: A framework for temporal abstraction
in reinforcement learning"; intra-option learning: the same authors (1998), "Intra-option learning
about temporally abstract actions".

Symbols: S states, A actions, Ω options, N runs side by side, one for each seed. ω is an option
here, not the parameters of a skill prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mbta_helpers.errors import require
from mbta_helpers.hierarchical.four_rooms import (
    FOUR_ROOMS,
    HALLWAYS,
    MAX_STEPS,
    Grid,
    Runs,
    World,
    choose,
    rooms,
)


class Option(NamedTuple):
    """ω = (I, π, β): where it may begin, what it does, and where it ends.

    initiation: (S,) bool. policy: (S, A), probabilities. termination: (S,), the probability to end
    on arrival in a state.
    """

    initiation: np.ndarray
    policy: np.ndarray
    termination: np.ndarray


@dataclass(frozen=True)
class Options:
    """Ω options as arrays.

    initiation: (Ω, S) bool. policy: (Ω, S, A). termination: (Ω, S).
    """

    initiation: np.ndarray
    policy: np.ndarray
    termination: np.ndarray

    def __post_init__(self):
        require(self.policy.ndim == 3, "Policies have the shape (options, states, actions).")
        require(len(self.policy) > 0, "There are no options: give at least one.")
        shape = self.policy.shape[:2]
        require(
            self.initiation.shape == shape == self.termination.shape,
            f"Initiation and termination must have the shape {shape} of the policies.",
        )
        require(
            bool((self.policy >= 0).all() and np.allclose(self.policy.sum(-1), 1)),
            "Each policy must give probabilities that add up to 1 in every state.",
        )
        require(
            bool(((self.termination >= 0) & (self.termination <= 1)).all()),
            "Terminations are probabilities.",
        )
        require(
            bool(self.initiation.any(0).all()),
            "In some states no option may begin. Add primitive options or widen an initiation set.",
        )

    def __len__(self) -> int:
        return len(self.policy)


def collect(options: Sequence[Option]) -> Options:
    """Options one by one as arrays; a UserError if there are none."""
    require(len(options) > 0, "There are no options: give at least one.")
    return Options(*(np.stack(parts) for parts in zip(*options, strict=True)))


def primitive_options(states: int, actions: int) -> list[Option]:
    """Each action as an option that begins anywhere and ends after a step."""
    everywhere = np.ones(states, bool)
    return [
        Option(everywhere, np.tile(row, (states, 1)), np.ones(states)) for row in np.eye(actions)
    ]


def hallway_options(grid: Grid = FOUR_ROOMS) -> list[Option]:
    """For each room and each of its two hallways, the option to leave the room there.

    It begins in the room or in its other hallway, goes by a shortest way, and ends outside the
    room.
    """
    states, actions = grid.next_state.shape
    hallways = np.array([grid.state_of(cell) for cell in HALLWAYS.values()])
    options = []
    for room in rooms(grid):
        doors = np.intersect1d(grid.next_state[room], hallways)
        for target in doors:
            begins = np.zeros(states, bool)
            begins[[*room, *doors]] = True
            begins[target] = False
            policy = np.eye(actions)[_ways(grid, begins, target)]
            ends = np.ones(states)
            ends[room] = 0.0
            options.append(Option(begins, policy, ends))
    return options


def _ways(grid: Grid, within: np.ndarray, target: int) -> np.ndarray:
    """The action that starts a shortest way to a target through some states, (S,) int."""
    distance = np.where(np.arange(len(within)) == target, 0, len(within))
    for _ in range(int(within.sum())):
        reach = distance[grid.next_state].min(1) + 1
        distance = np.where(within, np.minimum(distance, reach), distance)
    return distance[grid.next_state].argmin(1)


# -- models, and planning with them ---------------------------------------------------------------


@dataclass(frozen=True)
class Models:
    """What options lead to. reward: (Ω, S), R_ω(s). arrival: (Ω, S, S), F_ω(s, s').

    R_ω(s) = E[Σ_{k<K} γ^k r_{k+1}]; F_ω(s, s') = Σ_k γ^k P(K = k, s_K = s'): chances of the end,
    discounted by the steps that the option took.
    """

    reward: np.ndarray
    arrival: np.ndarray


def option_models(options: Options, world: World, gamma: float) -> Models:
    """The models by solving their Bellman equations exactly (9.6), (9.7).

    R = r_π + γ P_π C R and F = γ P_π B + γ P_π C F with B = diag β and C = diag(1 − β), both zero
    at the goal, where the episode ends.
    """
    require(0 <= gamma < 1, f"gamma lies in [0, 1), not {gamma}.")
    step = np.einsum("osa,sat->ost", options.policy, world.transitions)  # P_π, (Ω, S, S)
    reward = np.einsum("osa,sa->os", options.policy, world.rewards)  # r_π, (Ω, S)
    lives = np.arange(world.states) != world.goal
    ends = gamma * step * (options.termination * lives)[:, None]  # γ P_π B
    goes_on = gamma * step * ((1 - options.termination) * lives)[:, None]  # γ P_π C
    both = np.concatenate([reward[..., None], ends], -1)  # (Ω, S, 1 + S)
    solved = np.linalg.solve(np.eye(world.states) - goes_on, both)
    solved[:, world.goal] = 0.0  # nothing begins there
    return Models(solved[..., 0], solved[..., 1:])


def back_up(models: Models, initiation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Q(s, ω) = R_ω(s) + Σ_s' F_ω(s, s') V(s'), −∞ where ω may not begin; (Ω, S)."""
    return np.where(initiation, models.reward + models.arrival @ value, -np.inf)


def value_sweeps(models: Models, initiation: np.ndarray, sweeps: int) -> np.ndarray:
    """Value iteration over options from V = 0; the values after each sweep, (sweeps + 1, S)."""
    values = [np.zeros(models.reward.shape[1])]
    for _ in range(sweeps):
        values.append(back_up(models, initiation, values[-1]).max(0))
    return np.stack(values)


def solve(models: Models, initiation: np.ndarray, tolerance: float = 1e-12) -> np.ndarray:
    """The optimal values Q of the SMDP, (Ω, S): sweeps until none changes by more than that."""
    value, change = np.zeros(models.reward.shape[1]), np.inf
    while change > tolerance:
        q = back_up(models, initiation, value)
        value, change = q.max(0), np.abs(q.max(0) - value).max()
    return q


# -- learning -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QConfig:
    """Q-learning over options.

    rule: "smdp" updates an option when it has ended, "intra" at every step all options that would
    have taken the action. epsilon: of the options, one at random is chosen with this probability.
    """

    rule: str = "smdp"
    gamma: float = 0.99
    learning_rate: float = 0.25
    epsilon: float = 0.1
    episodes: int = 200
    max_steps: int = MAX_STEPS

    def __post_init__(self):
        require(self.rule in ("smdp", "intra"), f"rule is smdp or intra, not '{self.rule}'.")
        require(0 <= self.gamma < 1, f"gamma lies in [0, 1), not {self.gamma}.")
        require(0 < self.learning_rate <= 1, "learning_rate lies in (0, 1].")
        require(0 <= self.epsilon <= 1, "epsilon is a probability.")
        require(self.episodes >= 1, "episodes must be at least 1.")


@dataclass(frozen=True)
class QHistory:
    """steps: (N, episodes). q: (N, S, Ω), at the end; −∞ where an option may not begin.

    error: (N, episodes), after each episode, if exact values were given: root mean square of
    max_ω Q(s, ω) − V(s) over the states but the goal.
    """

    steps: np.ndarray
    q: np.ndarray
    error: np.ndarray | None


def smdp_target(
    reward: np.ndarray, discount: np.ndarray, terminated: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """R + γ^k (1 − terminated) U: reward and discount are those of all k steps; (N,) each."""
    return reward + discount * ~terminated * after


def utility(q_option: np.ndarray, ends: np.ndarray, best: np.ndarray) -> np.ndarray:
    """U(s', ω) = (1 − β_ω(s')) Q(s', ω) + β_ω(s') max_ω' Q(s', ω').

    Where β = 1 the option's own value, which is −∞ if it may not begin there, does not count.
    """
    return ends * best + (1 - ends) * np.where(ends < 1, q_option, 0.0)


def greedy(q: np.ndarray, epsilon: float) -> np.ndarray:
    """ε-greedy probabilities over the options that may begin; q: (N, Ω). Ties share."""
    best, possible = q == q.max(-1, keepdims=True), np.isfinite(q)
    share = best / best.sum(-1, keepdims=True)
    return (1 - epsilon) * share + epsilon * possible / possible.sum(-1, keepdims=True)


def check_fit(world: World, options: Options, config: QConfig) -> None:
    """Raise a UserError unless the options are the world's, and the rule can learn them."""
    require(
        options.policy.shape[1:] == world.next_state.shape,
        f"The options are for {options.policy.shape[1:]} states and actions, the world has "
        f"{world.next_state.shape}.",
    )
    require(
        config.rule == "smdp" or bool(np.isin(options.policy, (0, 1)).all()),
        "Intra-option learning needs deterministic policies: it asks which would have acted alike.",
    )
    may_stay = options.initiation | (options.termination == 1)  # (Ω, S)
    may_stay[:, world.goal] = True
    require(
        bool(may_stay.all()),
        "Where an option can go on it must be able to begin: elsewhere it has no value to learn "
        "from. Widen its initiation set, or let it end there with probability 1.",
    )


def train_q(
    world: World,
    options: Options,
    config: QConfig,
    seeds: Sequence[int],
    exact: np.ndarray | None = None,
) -> QHistory:
    """Learn the values of options, one run for each seed, from V = 0.

    With primitive options, either rule is Q-learning (Watkins 1989). exact: (S,), optimal values
    against which to measure the error.
    """
    check_fit(world, options, config)
    intra, rate = config.rule == "intra", config.learning_rate
    takes = options.policy.argmax(-1)  # (Ω, S), the action of a deterministic option
    begins, ends = options.initiation.T, options.termination.T  # (S, Ω) each
    others = np.delete(np.arange(world.states), world.goal)
    q = np.where(begins, np.zeros((len(seeds), 1, 1)), -np.inf)  # (N, S, Ω)
    error = None if exact is None else np.zeros((len(seeds), config.episodes))
    goals = np.full((len(seeds), config.episodes), world.goal)
    runs = Runs(world, seeds, goals, config.max_steps, draws=3)
    option, first = np.zeros(len(seeds), int), np.zeros(len(seeds), int)
    total, discount = np.zeros(len(seeds)), np.ones(len(seeds))
    begin = np.ones(len(seeds), bool)
    while runs.row.size:
        row, state, uniform = runs.row, runs.state, runs.uniform
        new = np.flatnonzero(begin)
        if new.size:
            first[new], total[new], discount[new] = state[new], 0.0, 1.0
            option[new] = choose(greedy(q[row[new], state[new]], config.epsilon), uniform[0, new])
        action = choose(options.policy[option, state], uniform[1])
        after, terminated, truncated = runs.step(action)
        best = q[row, after].max(-1)  # (N,)
        ended = terminated | (uniform[2] < ends[after, option])
        total, discount = total + discount * terminated, discount * config.gamma
        over = terminated | truncated
        begin = ended | over
        if intra:
            i, w = np.nonzero(begins[state] & (action[:, None] == takes[:, state].T))
            future = utility(q[row[i], after[i], w], ends[after[i], w], best[i])
            target = smdp_target(terminated[i], config.gamma, terminated[i], future)
            q[row[i], state[i], w] += rate * (target - q[row[i], state[i], w])
        else:
            i = np.flatnonzero(begin)
            # Out of steps, an option has not ended: its own value there is what is left.
            left = np.where(ended[i], best[i], q[row[i], after[i], option[i]])
            target = smdp_target(total[i], discount[i], terminated[i], left)
            q[row[i], first[i], option[i]] += rate * (target - q[row[i], first[i], option[i]])
        if error is not None and over.any():
            gap = q[row[over]].max(-1)[:, others] - exact[others]
            error[row[over], runs.episode[over]] = np.sqrt((gap**2).mean(-1))
        stays = runs.go_on(after, over)
        if stays is not None:
            kept = (option, first, total, discount, begin)
            option, first, total, discount, begin = (each[stays] for each in kept)
    return QHistory(runs.steps, q, error)
