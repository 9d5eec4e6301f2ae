"""Presets: for each maze how to train and plan, and the parameters that are shipped for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mbta_helpers.errors import UserError, unknown
from mbta_helpers.planning import CEMConfig, PlannerConfig
from mbta_helpers.training import MODEL, TrainedModel, TrainingConfig, load_model

PARAMETERS = Path(__file__).parent / "parameters"


@dataclass(frozen=True)
class Preset:
    """A maze, how to train on its data, and how to plan in it."""

    maze: str
    training: TrainingConfig
    planner: PlannerConfig


# Sizes and weights were chosen on Large (training seeds 0 and 1, task seeds 77 to 79), the data's
# starts and turns on Medium (training seeds 0 to 2, task seeds 81 and 2027), H on both (task seeds
# 78 on Large, 81 and 2027 on Medium).
POINTMAZE = TrainingConfig(
    window_length=30, skill_dim=4, wavelengths=(1.0, 2.0, 4.0), beta=1.0, settle_noise=0.02
)
PLANNER = PlannerConfig(
    replan_every=15, epsilon_penalty=0.02, support_penalty=3.0, time_penalty=0.05,
    cem=CEMConfig(candidates=320, iterations=5, elites=32),
)  # fmt: skip

# Chosen on Medium: training seed 0, task seeds 501, 503 (in the simulator), 777 (in imagination).
ANTMAZE = TrainingConfig(
    window_length=30, skill_dim=8, hidden=384, wavelengths=(4.0, 8.0, 16.0), own_frame=True,
    updates=8000, learning_rate=1e-3, beta=0.2, settle_updates=10_000, settle_noise=0.1,
    settle_actions=2048, stride=2, precision="bfloat16",
)  # fmt: skip
# The penalties are small beside the squares of distances up to 35 map units, and have to be: they
# add up over the skills of a plan, and a plan that is dearer than standing still is never made.
ANT_PLANNER = replace(
    PLANNER, replan_every=10, cost="arrival", epsilon_penalty=0.1, support_penalty=1.0,
    time_penalty=0.1, least_move=0.1, precision="bfloat16",
    cem=CEMConfig(candidates=200, iterations=8, elites=20),
)  # fmt: skip

PRESETS = {
    "pointmaze-umaze": Preset("pointmaze-umaze", POINTMAZE, replace(PLANNER, plan_length=8)),
    "pointmaze-medium": Preset("pointmaze-medium", POINTMAZE, replace(PLANNER, plan_length=14)),
    "pointmaze-large": Preset("pointmaze-large", POINTMAZE, replace(PLANNER, plan_length=20)),
    "antmaze-umaze": Preset("antmaze-umaze", ANTMAZE, replace(ANT_PLANNER, plan_length=12)),
    "antmaze-medium": Preset("antmaze-medium", ANTMAZE, replace(ANT_PLANNER, plan_length=18)),
    "antmaze-large": Preset("antmaze-large", ANTMAZE, replace(ANT_PLANNER, plan_length=28)),
    # Freed et al. (2023), appendix: for the full-size ant, far slower than what PointMaze needs.
    "paper": Preset(
        "pointmaze-medium",
        TrainingConfig(
            window_length=40,
            skill_dim=256,
            hidden=256,
            model_hidden=256,
            gru_hidden=256,
            gru_layers=4,
            method="em",
            updates=100_000,
            batch_size=100,
            learning_rate=5e-5,
            schedule="constant",
            beta=1.0,
            settle_updates=0,
        ),
        PlannerConfig(
            plan_length=10,
            replan_every=15,
            warm_start=False,
            cem=CEMConfig(candidates=100, iterations=100, elites=50, momentum=0.0),
        ),
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of that name; a UserError names the nearest ones if there is none."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]


def shipped() -> list[str]:
    """The presets whose parameters are in the package."""
    return sorted(name for name in PRESETS if (PARAMETERS / name / MODEL).exists())


def load_shipped(name: str) -> TrainedModel:
    """The parameters that the package ships for a preset."""
    get_preset(name)
    if name not in shipped():
        raise UserError(
            f"No parameters are shipped for '{name}' (only for {', '.join(shipped()) or 'none'}). "
            f"Train with --preset {name}, then name the folder with --checkpoint."
        )
    return load_model(PARAMETERS / name)
