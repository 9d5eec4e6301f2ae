"""The command line as torchrun starts it in the tests: a tiny preset, and faults on demand.

MBTA_SIGNAL and MBTA_FAIL are RANK:UPDATE: there, that process alone gets Ctrl-C or breaks down.
"""

import os
import signal
import sys

from samples import tiny_config

from mbta_helpers import datasets, presets, training
from mbta_helpers.__main__ import main

HERE = os.environ["RANK"]


def at(name: str, update: int) -> bool:
    """Whether the fault of that name happens here and now."""
    return os.environ.get(name) == f"{HERE}:{update}"


class Faulty(training.Trainer):
    """A Trainer that is stopped or broken in the middle of an update."""

    def _descend(self, *given):
        super()._descend(*given)
        if at("MBTA_SIGNAL", self.update):
            signal.raise_signal(signal.SIGINT)
        if at("MBTA_FAIL", self.update):
            raise RuntimeError("broken down")


def collect(maze, progress):
    """A small dataset in place of the default one."""
    print(f"collected by {HERE}", file=sys.stderr)
    return datasets_collect(maze, 1500, progress=progress)


datasets_collect, datasets.collect = datasets.collect, collect
training.Trainer = Faulty
planner = presets.PRESETS["pointmaze-umaze"].planner
presets.PRESETS["pointmaze-umaze"] = presets.Preset(
    "pointmaze-umaze", tiny_config(settle_actions=24), planner
)

if __name__ == "__main__":
    sys.exit(main())
