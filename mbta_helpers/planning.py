"""Planning: sequences of skills by the cross-entropy method (CEM), batched over problems.

A plan is ε_1 … ε_L. From the current state, z_l = μ_ω(s) + σ_ω(s) ε_l and s becomes the mean of
p_ψ(·|s, z_l); the cost is read off the states passed. ε is whitened, so that the search starts
from N(0, I): skills that the data shows from each state (Freed et al. 2023, section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mbta_helpers.errors import require
from mbta_helpers.networks import SkillModel
from mbta_helpers.precision import PRECISIONS, autocast


@dataclass(frozen=True)
class CEMConfig:
    """The cross-entropy method.

    momentum: weight of the old mean and std in an update.
    min_std: the search distribution never gets narrower than this.
    """

    candidates: int = 512
    iterations: int = 6
    elites: int = 50
    momentum: float = 0.1
    min_std: float = 0.05

    def __post_init__(self):
        require(self.candidates >= 2, f"K must be at least 2 candidates, not {self.candidates}.")
        require(
            2 <= self.elites <= self.candidates,
            f"elites must lie between 2 and the {self.candidates} candidates, not {self.elites}.",
        )
        require(self.iterations >= 1, f"iterations must be at least 1, not {self.iterations}.")
        require(0 <= self.momentum < 1, f"momentum must lie in [0, 1), but is {self.momentum:g}.")
        require(self.min_std >= 0, f"min_std must not be negative, but is {self.min_std:g}.")


@dataclass(frozen=True)
class SearchState:
    """A search distribution for each of P problems, and the best candidate seen.

    mean, std, best: (P, *D). cost: (P,), of the best.
    """

    mean: Tensor
    std: Tensor
    best: Tensor
    cost: Tensor

    def select(self, rows: Tensor) -> SearchState:
        """The searches of some of the problems; rows: (P,) bool, or indices."""
        return SearchState(self.mean[rows], self.std[rows], self.best[rows], self.cost[rows])


def cem(
    cost: Callable[[Tensor], Tensor],
    mean: Tensor,
    std: Tensor,
    config: CEMConfig,
    generator: torch.Generator,
    watch: Callable[[Tensor, Tensor], None] | None = None,
) -> SearchState:
    """Minimise P costs at once by the cross-entropy method (Rubinstein 1999; de Boer et al. 2005).

    cost: (P, K, *D) to (P, K). mean, std: (P, *D), the first search distribution.
    generator: all draws come from it. watch: called each iteration with candidates and costs.
    The first candidate of each iteration is the best so far (at first, the mean).
    """
    problems, shape = mean.shape[0], mean.shape[1:]
    best, lowest = mean, mean.new_full((problems,), torch.inf)
    rows = torch.arange(problems, device=mean.device)
    for _ in range(config.iterations):
        noise = torch.randn(
            (problems, config.candidates, *shape), generator=generator, device=generator.device
        )
        candidates = mean[:, None] + std[:, None] * noise.to(mean)  # (P, K, *D)
        candidates[:, 0] = best
        costs = cost(candidates)  # (P, K)
        chosen = costs.topk(config.elites, dim=1, largest=False)
        if watch is not None:
            watch(candidates, costs)
        best, lowest = candidates[rows, chosen.indices[:, 0]], chosen.values[:, 0]
        elites = candidates[rows[:, None], chosen.indices]  # (P, elites, *D)
        mean = config.momentum * mean + (1 - config.momentum) * elites.mean(1)
        spread = elites.std(1).clamp_min(config.min_std)
        std = config.momentum * std + (1 - config.momentum) * spread
    return SearchState(mean, std, best, lowest)


@dataclass(frozen=True)
class PlannerConfig:
    """How to plan with skills.

    plan_length: L skills. replan_every: H steps of a skill are carried out before the next plan.
    cost: squared distance to the goal, read where it is smallest along the plan ("min") or at the
    plan's end ("final"). To it come the penalties of all skills up to there (or of all, where a
    cost function of one's own is given). "arrival" is "min" without the support penalty of the
    state where the distance is read: who names a goal says that one can be there.
    epsilon_penalty: times the mean of ε² over its dimensions, which keeps skills inside the prior.
    variance_penalty: times the variance of p_ψ's map position, which avoids the uncertain.
    support_penalty: times −log σ(c(s)) of the state reached, which avoids states unlike the data.
    time_penalty: a constant for each skill, which prefers the sooner of two ways.
    warm_std: the search begins at this std where the last plan is taken up again; 1 without.
    least_move: where H steps moved the body by less, in map units, the next skill is drawn from the
    prior: the world model was wrong about a skill that does nothing, and a new plan from the same
    state would choose it again.
    precision: of the networks' products. "bfloat16" makes a plan of large networks quicker, and is
    used on devices that multiply it themselves; others compute in float32.
    """

    plan_length: int = 16
    replan_every: int = 20
    cost: str = "min"
    epsilon_penalty: float = 0.0
    variance_penalty: float = 0.0
    support_penalty: float = 0.0
    time_penalty: float = 0.0
    warm_start: bool = True
    warm_std: float = 1.0
    least_move: float = 0.0
    precision: str = "float32"
    cem: CEMConfig = CEMConfig()

    def __post_init__(self):
        require(self.plan_length >= 1, f"L must be at least 1 skill, not {self.plan_length}.")
        require(self.replan_every >= 1, f"H must be at least 1 step, not {self.replan_every}.")
        kinds = ("min", "arrival", "final")
        require(self.cost in kinds, f"cost is min, arrival or final, not '{self.cost}'.")
        require(
            self.precision in PRECISIONS,
            f"precision is float32 or bfloat16, not '{self.precision}'.",
        )
        penalties = ("epsilon_penalty", "variance_penalty", "support_penalty", "time_penalty")
        for name in (*penalties, "least_move", "warm_std"):
            require(getattr(self, name) >= 0, f"{name} must not be negative.")


@dataclass(frozen=True)
class Imagined:
    """Roll-outs of the world model.

    path: (P, K, L + 1, S), the current state first. skills: (P, K, L, Z).
    variance: (P, K, L), of p_ψ's map position, averaged over x and y; None unless asked for.
    """

    path: Tensor
    skills: Tensor
    variance: Tensor | None


def imagine(
    model: SkillModel, state: Tensor, epsilon: Tensor, with_variance: bool = False
) -> Imagined:
    """Roll out the world model's mean; state: (P, S), epsilon: (P, K, L, Z)."""
    current = state[:, None]  # (P, 1, S): all candidates start here, so one prior is enough
    path, skills, variance = [current.expand(-1, epsilon.shape[1], -1)], [], []
    for whitened in epsilon.unbind(2):  # (P, K, Z)
        prior = model.prior(current)
        z = prior.loc + prior.scale * whitened  # (P, K, Z)
        current = path[-1]  # (P, K, S)
        if with_variance:
            outcome = model.world_model(current, z)
            current = outcome.loc  # (P, K, S)
            variance.append(outcome.scale[..., :2].square().mean(-1))
        else:
            current = model.world_model.mean(current, z)  # (P, K, S)
        path.append(current)
        skills.append(z)
    return Imagined(
        torch.stack(path, 2), torch.stack(skills, 2), torch.stack(variance, 2) if variance else None
    )


def squared_distance(path: Tensor, goal: Tensor) -> Tensor:
    """Squared distance of each state after a skill to the goal, in map units.

    path: (P, K, L + 1, S); goal: (P, 2). Returns (P, K, L).
    """
    return (path[:, :, 1:, :2] - goal[:, None, None]).square().sum(-1)


@dataclass(frozen=True)
class Plan:
    """The best plan of each problem.

    path: (P, L + 1, S) as imagined. skills, epsilon: (P, L, Z). cost: (P,).
    search: the final search distribution, for the next warm start.
    """

    path: Tensor
    skills: Tensor
    epsilon: Tensor
    cost: Tensor
    search: SearchState


CostFunction = Callable[[Tensor, Tensor], Tensor]


class Planner:
    """Plans skills towards goals, for P problems at once."""

    def __init__(
        self,
        model: SkillModel,
        config: PlannerConfig,
        window_length: int,
        cost: CostFunction | None = None,
    ):
        """window_length: the T that the model was trained with; H must not be greater.

        cost: a function of path (P, K, L + 1, S) and goal (P, 2) that replaces config.cost.
        """
        require(
            config.replan_every <= window_length,
            f"H = {config.replan_every} must not exceed the {window_length} steps of a skill.",
        )
        self.model = model
        self.config = config
        self.window_length = window_length
        self.cost = cost

    def evaluate(self, state: Tensor, goal: Tensor, epsilon: Tensor) -> Tensor:
        """Costs of candidates; state: (P, S), goal: (P, 2), epsilon: (P, K, L, Z) to (P, K)."""
        config = self.config
        imagined = imagine(self.model, state, epsilon, config.variance_penalty > 0)
        risk = torch.full_like(epsilon[..., 0], config.time_penalty)  # (P, K, L)
        if config.epsilon_penalty > 0:
            risk = risk + config.epsilon_penalty * epsilon.square().mean(-1)
        if imagined.variance is not None:
            risk = risk + config.variance_penalty * imagined.variance
        surprise = torch.zeros_like(risk)
        if config.support_penalty > 0:
            known = self.model.support(imagined.path[:, :, 1:])  # (P, K, L)
            surprise = -config.support_penalty * logsigmoid(known)
        risk = risk + surprise
        if self.cost is not None:
            return self.cost(imagined.path, goal) + risk.sum(-1)
        total = squared_distance(imagined.path, goal) + risk.cumsum(-1)  # (P, K, L)
        if config.cost == "arrival":
            total = total - surprise
        return total[..., -1] if config.cost == "final" else total.amin(-1)

    def first_search(self, problems: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean 0 and std 1 of ε for each problem: the prior; (P, L, Z) each."""
        shape = (problems, self.config.plan_length, self.model.config.skill_dim)
        return like.new_zeros(shape), like.new_ones(shape)

    def shift(self, search: SearchState) -> tuple[Tensor, Tensor]:
        """The last search moved on by what was carried out, H of T steps of the first skill.

        A fraction H/T moves each ε towards its successor; the plan's end is filled from the prior.
        """
        fraction = self.config.replan_every / self.window_length
        after = torch.cat([search.best[:, 1:], torch.zeros_like(search.best[:, :1])], 1)
        mean = (1 - fraction) * search.best + fraction * after
        return mean, torch.full_like(mean, self.config.warm_std)

    @torch.no_grad()
    def plan(
        self,
        state: Tensor,
        goal: Tensor,
        generator: torch.Generator,
        last: SearchState | None = None,
        watch: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Plan:
        """Plan from states to goals; state: (P, S), goal: (P, 2), in map units.

        last: the search of the last plan for the same problems, taken up again if config says so.
        """
        if last is not None and self.config.warm_start:
            mean, std = self.shift(last)
        else:
            mean, std = self.first_search(len(state), state)
        with autocast(state.device, self.config.precision):
            search = cem(
                lambda epsilon: self.evaluate(state, goal, epsilon),
                mean,
                std,
                self.config.cem,
                generator,
                watch,
            )
            imagined = imagine(self.model, state, search.best[:, None])
        return Plan(imagined.path[:, 0], imagined.skills[:, 0], search.best, search.cost, search)
