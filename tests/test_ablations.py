"""The table of ablations, how it is pooled, and the script that fills it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import load_script

from mbta_helpers import ablations, presets
from mbta_helpers.evaluation import wilson_interval
from mbta_helpers.mazes import get_maze

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def ablate():
    return load_script("ablate")


def cell(
    variant="base",
    seed=21,
    successes=30,
    episodes=40,
    maze="pointmaze-large",
    share=0.5,
    recipe="0",
):
    return {"maze": maze, "share": share, "variant": variant, "seed": seed, "recipe": recipe,
            "successes": successes, "episodes": episodes}  # fmt: skip


def test_one_seed_has_wilsons_interval():
    row = ablations.pooled([cell()])["base"]
    assert (row.low, row.high) == wilson_interval(30, 40)
    assert row.rate == 0.75 and row.seeds == (21,)


def test_seeds_that_differ_have_students_interval():
    """0.5, 0.7 and 0.9: mean 0.7, standard deviation 0.2, t = 4.303 with two degrees."""
    low, high = ablations.pooled_interval([20, 28, 36], [40, 40, 40])
    assert low == pytest.approx(0.7 - 4.303 * 0.2 / 3**0.5, abs=1e-4)
    assert high == 1.0


def test_seeds_that_agree_keep_wilsons_interval():
    assert ablations.pooled_interval([40, 40, 40], [40, 40, 40]) == wilson_interval(120, 120)


def test_difference_of_one_seed_has_newcombes_interval():
    """Newcombe 1998, Statistics in Medicine 17, table II: 9 of 10 against 3, and 0 against 0."""
    low, high = ablations.difference_interval([9], [3], [10])
    assert (low, high) == pytest.approx((0.1705, 0.8090), abs=1e-4)
    low, high = ablations.difference_interval([0], [0], [10])
    assert (low, high) == pytest.approx((-0.2775, 0.2775), abs=1e-4)


def test_difference_of_seeds_is_taken_seed_by_seed():
    """Two seeds far apart, the variant two tasks behind in each: what they share does not count."""
    low, high = ablations.difference_interval([900, 100], [950, 150], [1000, 1000])
    assert -0.1 < low < -0.05 < high < 0
    low, high = ablations.difference_interval([10, 18], [18, 10], [20, 20])
    assert (low, high) == (-1.0, 1.0)


def test_pooled_rows_keep_the_asked_order_and_leave_out_what_is_missing():
    cells = [cell("b", 22, 10), cell("a"), cell("b", 21, 20)]
    rows = ablations.pooled(cells, ["a", "none", "b"])
    assert list(rows) == ["a", "b"]
    assert rows["b"].seeds == (21, 22) and rows["b"].rates == (0.5, 0.25)


def test_no_table_is_no_cells(tmp_path):
    assert ablations.read_cells("pointmaze-large", tmp_path / "none.json") == []


def test_shipped_cells_are_whole():
    for maze in ("pointmaze-large", "antmaze-medium"):
        cells = ablations.read_cells(maze)
        keys = [(row["share"], row["seed"], row["variant"]) for row in cells]
        assert len(keys) == len(set(keys))
        for row in cells:
            assert row["successes"] + sum(row["failures"].values()) == row["episodes"]
            assert row["ci95"] == [
                round(bound, 4) for bound in wilson_interval(row["successes"], row["episodes"])
            ]
            assert row["H"] <= row["T"]


@pytest.mark.parametrize("name", ["pointmaze-large", "antmaze-medium"])
def test_plans_keep_their_length_in_steps(ablate, name):
    maze, preset = get_maze(name), presets.get_preset(name)
    steps = preset.planner.plan_length * preset.training.window_length
    for length in (10, 20, 40):
        chosen = ablate.settings(ablate.VARIANTS[f"T {length}"], maze, 1.0)
        assert chosen.training.window_length == length
        assert chosen.planner.replan_every <= length
        plan = chosen.planner.plan_length
        assert abs(plan * length - steps) < length or plan == ablate.LONGEST_PLAN


def test_each_variant_changes_something(ablate):
    for name in ("pointmaze-large", "antmaze-medium"):
        maze = get_maze(name)
        names = ablate.wanted(maze, 1.0)
        recipes = {ablate.recipe(ablate.settings(ablate.VARIANTS[v], maze, 1.0), 40) for v in names}
        assert len(recipes) == len(names) and names[0] == ablations.BASE
        assert {"joint", "absolute", "final cost", "data 1/8"} <= set(names)


def test_share_shortens_all_variants_alike(ablate):
    maze = get_maze("antmaze-medium")
    for variant in ablate.VARIANTS.values():
        chosen = ablate.settings(variant, maze, 0.25).training
        base = presets.get_preset("antmaze-medium").training
        assert chosen.updates == round(base.updates / 4)
        assert chosen.settle_updates == round(base.settle_updates / 4)


def test_planner_variants_share_the_bases_model(ablate):
    maze = get_maze("pointmaze-large")
    folders = {
        name: ablate.run_folder(maze, ablate.settings(ablate.VARIANTS[name], maze, 1.0), 21)
        for name in ("base", "final cost", "joint", "beta 3", "data 1/2")
    }
    assert folders["base"] == folders["final cost"]
    assert len(set(folders.values())) == 4


def test_data_is_cut_at_episodes(ablate, played):
    part = ablate.first_steps(played, 1000)
    count = len(part.lengths)
    assert part.lengths.sum() <= 1000 < part.lengths.sum() + played.lengths[count]
    assert len(part.states) == part.lengths.sum() + count
    assert np.array_equal(part.states, played.states[: len(part.states)])


def test_cells_are_added_resumed_and_replaced(ablate, tmp_path):
    path, wanted = tmp_path / "table.json", {"base": "0", "joint": "0"}
    assert ablate.missing(path, wanted, "pointmaze-large", [21, 22]) == [
        (21, "base"), (21, "joint"), (22, "base"), (22, "joint"),
    ]  # fmt: skip
    ablate.add(path, cell())
    ablate.add(path, cell(maze="antmaze-medium"))
    assert ablate.missing(path, wanted, "pointmaze-large", [21]) == [(21, "joint")]
    assert ablate.missing(path, wanted | {"base": "1"}, "pointmaze-large", [21])[0] == (21, "base")
    ablate.add(path, cell(share=0.25, recipe="2"))
    ablate.add(path, cell(successes=31))
    table = json.loads(path.read_text())
    assert len(table["cells"]) == 3 and len(table["runs"]) == 1
    assert table["cells"][-1]["successes"] == 31
    longer, shorter = ablations.studies(ablations.read_cells("pointmaze-large", path)).items()
    assert longer == (0.5, [table["cells"][-1]]) and shorter == (0.25, [table["cells"][1]])


def test_a_nat_costs_as_much_a_step(ablate):
    for name in ("pointmaze-large", "antmaze-medium"):
        maze, preset = get_maze(name), presets.get_preset(name).training
        chosen = ablate.settings(ablate.VARIANTS["T 10, beta/3"], maze, 1.0).training
        assert chosen.window_length < preset.window_length
        assert chosen.beta / chosen.window_length == pytest.approx(
            preset.beta / preset.window_length
        )


def test_a_step_of_a_plan_costs_as_much(ablate):
    for name in ("pointmaze-large", "antmaze-medium"):
        maze, base = get_maze(name), presets.get_preset(name).planner
        chosen, short = (
            ablate.settings(ablate.VARIANTS[variant], maze, 1.0)
            for variant in ("T 10, penalties/3", "T 10")
        )
        for field in ("epsilon_penalty", "support_penalty", "time_penalty"):
            assert getattr(chosen.planner, field) == pytest.approx(getattr(base, field) / 3)
            assert getattr(short.planner, field) == getattr(base, field)
        assert chosen.training == short.training  # so that the model is the same


def test_a_recipe_tells_settings_apart(ablate):
    maze = get_maze("pointmaze-large")
    base = ablate.settings(ablate.VARIANTS["base"], maze, 1.0)
    other = replace(base, planner=replace(base.planner, time_penalty=0.06))
    assert ablate.recipe(base, 40) != ablate.recipe(other, 40)
    assert ablate.recipe(base, 40) != ablate.recipe(base, 41)
