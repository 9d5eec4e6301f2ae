"""Updates of soft actor-critic against Stable-Baselines3's, as the script of chapter 11 does it."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "sac_against_sb3.py"


def test_updates_a_second(report):
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    steps = script.RANDOM_STEPS + 100
    speed = script.speeds(*script.train_ours(0, steps), script.train_theirs(0, steps))
    report(
        f"soft actor-critic, {script.CONFIG.hidden} wide, batch {script.CONFIG.batch_size}: "
        f"{speed['ours']} updates a second, Stable-Baselines3 {speed['theirs']}; "
        f"ratio {speed['ratio']}"
    )
    assert speed["ratio"] >= 1
