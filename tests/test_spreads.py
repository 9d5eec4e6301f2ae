"""The spreads of trained numbers over seeds, on which the intervals in the chapters rest."""

import json

import pytest
from samples import load_script

spreads = load_script("spreads")
FOUND = json.loads(spreads.OUT.read_text("utf-8"))


@pytest.mark.parametrize("number", spreads.CHAPTERS)
def test_a_spread_is_of_the_chapter_as_it_is_and_no_assertion_failed(number):
    path = spreads.chapter_path(number)
    made = FOUND[path.stem]
    again = f"python scripts/spreads.py {number}"
    assert made["code"] == spreads.code_digest(path), f"The chapter has changed. Run: {again}"
    assert len(made["seeds"]) >= 3 and made["spread"] == spreads.spread(made["runs"])
    assert not any(run["failed"] for run in made["runs"].values())
