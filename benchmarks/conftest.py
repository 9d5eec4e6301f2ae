"""Measuring side by side: runs take turns, medians are compared, and the machine is described.

Times are processor time of one thread, so that what else runs on the machine counts little. Where
two threads are measured, they are wall time, and a busy machine is no place to measure them.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
LINES: list[str] = []


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def pytest_report_header() -> list[str]:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        f"machine: {processor()}, {os.cpu_count()} processors, load {load}; one thread "
        "is used unless said otherwise",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, torch "
        f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), numpy {np.__version__}",
    ]


def pytest_terminal_summary(terminalreporter) -> None:
    if LINES:
        terminalreporter.section("measured (medians of runs that take turns)")
        for line in LINES:
            terminalreporter.write_line(line)


@pytest.fixture
def report() -> Callable[[str], None]:
    """Put a line into the summary."""
    return LINES.append


@pytest.fixture
def take_turns() -> Callable[..., list[list[float]]]:
    """Run functions in turn; the seconds of each, a list for each function."""

    def measure(
        *functions: Callable[[], object],
        rounds: int = 7,
        warm_up: int = 1,
        clock: Callable[[], float] = time.process_time,
    ):
        for _ in range(warm_up):
            for function in functions:
                function()
        seconds: list[list[float]] = [[] for _ in functions]
        for _ in range(rounds):
            for function, own in zip(functions, seconds, strict=True):
                begin = clock()
                function()
                own.append(clock() - begin)
        return seconds

    return measure


@pytest.fixture
def ratio() -> Callable[[list[float], list[float]], float]:
    """The median of the quotients of neighbouring runs."""
    return lambda one, two: statistics.median(a / b for a, b in zip(one, two, strict=True))
