"""100 episodes of the ant in AntMaze Medium: planning in one batch, stepping on two threads."""

import os
import time

import pytest
import torch

from mbta_helpers import evaluation, mazes, planning, presets

MINUTES = 6.0
THREADS = 2


def busy() -> bool:
    """Whether other work leaves less than the two processors that are measured."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) - THREADS + 0.5


@pytest.mark.skipif(busy(), reason="wall time on two threads: the machine is busy")
def test_an_evaluation_of_100_ants(report):
    preset = presets.get_preset("antmaze-medium")
    trained = presets.load_shipped("antmaze-medium")
    maze = mazes.get_maze(preset.maze)
    planner = planning.Planner(trained.model, preset.planner, trained.config.window_length)
    agent = evaluation.PlanningAgent(planner, torch.Generator().manual_seed(0))
    torch.set_num_threads(THREADS)
    try:
        begin = time.perf_counter()
        result = evaluation.evaluate(agent, maze, mazes.sample_tasks(maze, 100, seed=0))
        minutes = (time.perf_counter() - begin) / 60
    finally:
        torch.set_num_threads(1)
    steps = sum(len(path) - 1 for path in result.paths)
    report(
        f"100 ants: {minutes:.1f} minutes wall on {THREADS} threads, {steps} steps, "
        f"{len(result.decision_ms)} decisions; {result.success.sum()} arrived"
    )
    assert minutes <= MINUTES
