"""Make the film strip of chapter 7: an ant that crosses AntMaze Medium from corner to corner.

    MUJOCO_GL=osmesa python scripts/ant_film.py [--checkpoint DIR] [--seed N] [--out FILE]

The first task of that seed is run with the planner of the preset. The strip has eight pictures,
equally far apart in time, and is written only if the ant arrives: the book's is of seed 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mbta_helpers import plots, presets
from mbta_helpers.errors import UserError
from mbta_helpers.evaluation import PlanningAgent, evaluate
from mbta_helpers.film import render
from mbta_helpers.mazes import corner_tasks, get_maze
from mbta_helpers.planning import Planner
from mbta_helpers.training import load_model

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "mbta_helpers" / "pictures" / "ant-film.png"
PRESET = "antmaze-medium"
ROWS, COLUMNS = 2, 4
STEP_SECONDS = 0.05


class Filmed:
    """An agent whose states are kept."""

    def __init__(self, agent: PlanningAgent):
        self.agent = agent
        self.replan_every = agent.replan_every
        self.states: list[np.ndarray] = []

    def decide(self, state: Tensor, goal: Tensor, running: np.ndarray) -> Tensor:
        return self.agent.decide(state, goal, running)

    def act(self, state: Tensor, goal: Tensor, decision: Tensor, step: int) -> Tensor:
        self.states.append(state[0].numpy().copy())
        return self.agent.act(state, goal, decision, step)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="default: as shipped")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    trained = (
        load_model(arguments.checkpoint) if arguments.checkpoint else presets.load_shipped(PRESET)
    )
    preset = presets.get_preset(PRESET)
    maze = get_maze(preset.maze)
    task = corner_tasks(maze, 1, arguments.seed)
    planner = Planner(trained.model, preset.planner, trained.config.window_length)
    agent = Filmed(PlanningAgent(planner, torch.Generator().manual_seed(arguments.seed)))
    outcome = evaluate(agent, maze, task, seed=arguments.seed)
    if not outcome.success[0]:
        raise SystemExit(f"The ant did not arrive ({outcome.causes[0]}); nothing was written.")
    steps = np.linspace(0, len(agent.states) - 1, ROWS * COLUMNS).round().astype(int)
    try:
        pictures = render(maze, np.stack(agent.states)[steps], task.goals[0])
    except UserError as error:
        raise SystemExit(str(error)) from None
    figure, axes = plots.new_figure(ROWS, COLUMNS, (8.0, 3.4))
    for axis, picture, step in zip(axes.flat, pictures, steps, strict=True):
        axis.imshow(picture)
        axis.set_title(f"{STEP_SECONDS * step:.1f} s", fontsize=9)
        axis.axis("off")
    plots.save_figure(figure, arguments.out)
    print(f"{arguments.out.name}: seed {arguments.seed}, {outcome.steps[0]} steps")


if __name__ == "__main__":
    main()
