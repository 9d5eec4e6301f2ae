"""Choose the settings of chapter 10 on seeds that the chapter does not show.

    python scripts/four_rooms_grid.py [--seeds 12] [--out book/four_rooms_grid.jsonl]

Every agent has the same experiment: 1000 episodes to a door of Four Rooms, then 150 after the goal
has moved. An agent's settings are those with the fewest steps in all 1150 episodes, on average over
seeds 1000, 1001, …; a line of JSON for each setting. One core, about ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path

from mbta_helpers.checkpoints import write_text
from mbta_helpers.hierarchical.four_rooms import FOUR_ROOMS, FourRooms, mean_interval, rooms
from mbta_helpers.hierarchical.option_critic import (
    OptionCriticConfig,
    SarsaConfig,
    moving_goals,
    train_option_critic,
    train_sarsa,
)

OUT = Path(__file__).parents[1] / "book" / "four_rooms_grid.jsonl"
EPISODES, MOVED_AT, FIRST_SEED = 1150, 1000, 1000


def settings() -> list[SarsaConfig | OptionCriticConfig]:
    """SARSA: rate and temperature. Option-Critic: options, rate of the critic, rate of the rest."""
    found = [
        SarsaConfig(learning_rate=rate, temperature=temperature)
        for rate, temperature in itertools.product((0.25, 0.5, 0.75), (0.01, 0.03, 0.1))
    ]
    for options, critic, rest in itertools.product((1, 4, 8), (0.5, 1.0), (3.0, 10.0)):
        rates = {"critic_rate": critic, "actor_rate": rest, "termination_rate": rest}
        found.append(OptionCriticConfig(options=options, **rates))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=12, help="how many")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)
    world = FourRooms().world
    seeds = range(FIRST_SEED, FIRST_SEED + chosen.seeds)
    room = max(rooms(), key=lambda states: FOUR_ROOMS.cells[states[-1]])  # the lower right
    goals = moving_goals(seeds, EPISODES, MOVED_AT, world.goal, room)
    lines = []
    for config in settings():
        if isinstance(config, SarsaConfig):
            steps = train_sarsa(world, config, seeds, goals)
        else:
            steps = train_option_critic(world, config, seeds, goals).steps
        parts = {"all": steps, "before": steps[:, :MOVED_AT], "after": steps[:, MOVED_AT:]}
        line = {"agent": type(config).__name__.removesuffix("Config")} | asdict(config)
        for name, part in parts.items():
            line[name] = [round(float(x)) for x in mean_interval(part.sum(1))]
        lines.append(json.dumps(line))
        print(lines[-1], flush=True)
        write_text(chosen.out, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
