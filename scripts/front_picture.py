"""Draw the front page's picture: a plan of skills in PointMaze Large and the path that was walked.

    python scripts/front_picture.py [--checkpoint DIR] [--out FILE]

The task is the longest of the maze, between the middles of two free cells.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mbta_helpers import plots, presets
from mbta_helpers.evaluation import PlanningAgent, evaluate
from mbta_helpers.mazes import Maze, Tasks, get_maze
from mbta_helpers.planning import Planner
from mbta_helpers.training import load_model

OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "solved-maze.png"
PRESET = "pointmaze-large"
SEED = 6


def longest_task(maze: Maze) -> Tasks:
    """From one to the other of the two free cells that are farthest apart."""
    steps = {goal: maze.distances(goal) for goal in maze.cells}
    pairs = [(start, goal) for start in maze.cells for goal in maze.cells]
    start, goal = max(pairs, key=lambda pair: steps[pair[1]][pair[0]])
    return Tasks(maze.centre(start)[None], maze.centre(goal)[None])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="default: as shipped")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = (
        load_model(arguments.checkpoint) if arguments.checkpoint else presets.load_shipped(PRESET)
    )
    preset = presets.get_preset(PRESET)
    maze = get_maze(preset.maze)
    task = longest_task(maze)
    planner = Planner(trained.model, preset.planner, trained.config.window_length)
    state = torch.tensor([[*task.starts[0], 0.0, 0.0]], dtype=torch.float32)
    goal = torch.from_numpy(task.goals).float()
    plan = planner.plan(state, goal, torch.Generator().manual_seed(SEED))
    agent = PlanningAgent(planner, torch.Generator().manual_seed(SEED))
    outcome = evaluate(agent, maze, task)
    if not outcome.success[0]:
        raise SystemExit(f"The task was not solved ({outcome.causes[0]}); nothing was written.")
    path = plan.path[0].numpy()
    nearest = int(((path[1:, :2] - task.goals[0]) ** 2).sum(1).argmin()) + 1
    figure = plots.plan_figure(maze, path[: nearest + 1], outcome.paths[0], task.goals[0])
    plots.save_figure(figure, arguments.out)
    print(f"{arguments.out.name}: {nearest} skills planned, {outcome.steps[0]} steps walked")


if __name__ == "__main__":
    main()
