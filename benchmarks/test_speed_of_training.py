"""One pass against two steps of EM, on batches of PointMaze's and of AntMaze's size."""

from statistics import median

import numpy as np
import pytest

from mbta_helpers.datasets import Transitions
from mbta_helpers.training import Trainer, TrainingConfig

SIZES = {
    "PointMaze": (
        (4, 2),
        {"window_length": 30, "skill_dim": 8, "batch_size": 64},
        20,
    ),
    "AntMaze": (
        (29, 8),
        {
            "window_length": 40,
            "skill_dim": 256,
            "hidden": 256,
            "model_hidden": 256,
            "gru_hidden": 128,
            "batch_size": 100,
        },
        4,
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_one_pass_against_two_steps(name, take_turns, ratio, report):
    (states, actions), settings, updates = SIZES[name]
    rng = np.random.default_rng(0)
    data = Transitions(
        rng.standard_normal((20 * 201, states), np.float32),
        rng.standard_normal((20 * 200, actions), np.float32),
        np.full(20, 200),
        np.zeros((20, 2)),
    )

    def run(method):
        trainer = Trainer(TrainingConfig(method=method, updates=10**6, **settings), data)

        def several():
            for _ in range(updates):
                trainer.step()

        return several

    two, one = take_turns(run("em"), run("one-pass"), rounds=9)
    times = ratio(two, one)
    report(
        f"training, {name}: one pass {1e3 * median(one) / updates:.1f} ms an update, two steps "
        f"{1e3 * median(two) / updates:.1f} ms: {times:.2f} times as long"
    )
    assert times >= 1.2
