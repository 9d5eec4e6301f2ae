"""The tests of the mathematics catch small mistakes: each is made in a copy of the package."""

import json
import subprocess
import sys
from pathlib import Path

import browser
import pytest
from mutations import MUTATIONS, TESTS, named_tests, occurrences


@pytest.fixture(scope="module")
def outcomes():
    """What pytest said about the unchanged package and about every mutation, by name."""
    command = [sys.executable, TESTS / "mutations.py"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return {line["name"]: line for line in map(json.loads, run.stdout.splitlines())}


def test_there_are_enough_and_each_has_its_name():
    assert len(MUTATIONS) >= 25
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert {mutation.file for mutation in MUTATIONS} >= {
        f"{module}.py"
        for module in ("objectives", "windows", "networks", "planning", "training", "evaluation")
    }


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_applies(mutation):
    assert occurrences(mutation) == 1, f"{mutation.file} should have it once: {mutation.old!r}"
    assert mutation.old != mutation.new


@pytest.mark.parametrize("test", named_tests(MUTATIONS))
def test_named_test_exists(test):
    file, _, name = test.partition("::")
    assert f"def {name}(" in Path(TESTS / f"test_{file}.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_unchanged_package_passes(outcomes):
    assert outcomes["unchanged"]["exit"] == 0, outcomes["unchanged"]["output"]


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_is_caught(mutation, outcomes):
    if mutation.file.endswith(".js"):
        browser.find_browser()  # without one its tests are skipped
    outcome = outcomes[mutation.name]
    assert outcome["exit"] == 1, outcome["output"]
    missed = set(mutation.tests) - set(outcome["failed"])
    assert not missed, f"these pass in spite of it: {', '.join(sorted(missed))}"
