"""This book's soft actor-critic and Stable-Baselines3's on Pendulum: returns and updates a second.

    pip install --group bench
    python scripts/sac_against_sb3.py [--seeds 0 1 2] [--steps 5000] [--out FILE]

Both have the same widths, rates, discount, batch, random first steps and one update for each step,
and run in turn on one thread. The return of a run is the mean of 20 greedy episodes, the same
starts for both. Speed is in updates for each second of processor time, and its ratio is the median
over pairs of runs that take turns on the same batches.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from mbta_helpers.checkpoints import write_text
from mbta_helpers.datasets import versions
from mbta_helpers.hierarchical.sac import SAC, Batch, ReplayBuffer, SACConfig

OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "sac_against_sb3.json"
CONFIG = SACConfig(
    hidden=64, gamma=0.97, tau=0.01, learning_rate=2e-3, batch_size=64, layer_norm=False
)
RANDOM_STEPS, EPISODES, ROUNDS, UPDATES = 500, 20, 9, 100


def train_ours(seed: int, steps: int) -> tuple[SAC, ReplayBuffer]:
    """A step, then an update; Pendulum's torque is twice the action."""
    environment, rng = gym.make("Pendulum-v1"), np.random.default_rng(seed)
    agent, replay = SAC(3, 1, CONFIG, seed), ReplayBuffer(steps, 3, 1)
    seen = environment.reset(seed=seed)[0]
    for taken in range(steps):
        action = agent.act(torch.from_numpy(seen)).numpy()
        if taken < RANDOM_STEPS:
            action = rng.uniform(-1, 1, 1).astype(np.float32)
        after, reward, terminated, truncated, _ = environment.step(2 * action)
        row = (seen, action, np.array(reward), after, np.array(terminated))
        replay.add(Batch(*(torch.as_tensor(x, dtype=torch.float32)[None] for x in row)))
        seen = environment.reset()[0] if terminated or truncated else after
        if taken >= RANDOM_STEPS:
            agent.update(replay.sample(CONFIG.batch_size, agent.generator))
    return agent, replay


def train_theirs(seed: int, steps: int):
    """Stable-Baselines3's agent with the same numbers."""
    from stable_baselines3 import SAC as TheirSAC

    agent = TheirSAC(
        "MlpPolicy",
        gym.make("Pendulum-v1"),
        learning_rate=CONFIG.learning_rate,
        buffer_size=steps,
        learning_starts=RANDOM_STEPS,
        batch_size=CONFIG.batch_size,
        tau=CONFIG.tau,
        gamma=CONFIG.gamma,
        policy_kwargs={"net_arch": [CONFIG.hidden, CONFIG.hidden]},
        seed=seed,
        device="cpu",
    )
    return agent.learn(steps)


def returns(act, seed: int) -> list[float]:
    """Of greedy episodes; act: observations (N, 3) to torques (N, 1)."""
    environments = gym.make_vec("Pendulum-v1", num_envs=EPISODES, vectorization_mode="sync")
    seen, total, over = environments.reset(seed=seed)[0], np.zeros(EPISODES), np.zeros(EPISODES)
    while not over.all():
        seen, reward, _, over, _ = environments.step(act(seen))
        total += reward
    return [round(float(value), 1) for value in total]


def speeds(agent: SAC, replay: ReplayBuffer, theirs) -> dict:
    """Updates a second, in turn, and the ratio ours / theirs."""

    def update_ours():
        for _ in range(UPDATES):
            agent.update(replay.sample(CONFIG.batch_size, agent.generator))

    def update_theirs():
        theirs.train(gradient_steps=UPDATES, batch_size=CONFIG.batch_size)

    seconds = []
    for _ in range(ROUNDS + 1):
        pair = []
        for function in (update_ours, update_theirs):
            started = time.process_time()
            function()
            pair.append(time.process_time() - started)
        seconds.append(pair)
    ours, others = zip(*seconds[1:], strict=True)  # the first round warms up
    return {
        "ours": round(UPDATES / statistics.median(ours)),
        "theirs": round(UPDATES / statistics.median(others)),
        "ratios": [round(b / a, 3) for a, b in zip(ours, others, strict=True)],
        "ratio": round(statistics.median(b / a for a, b in zip(ours, others, strict=True)), 3),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = []
    for seed in options.seeds:
        agent, replay = train_ours(seed, options.steps)
        theirs = train_theirs(seed, options.steps)
        run = {
            "seed": seed,
            "ours": returns(
                lambda seen, agent=agent: 2 * agent.act(torch.from_numpy(seen), True).numpy(), 1000
            ),
            "theirs": returns(
                lambda seen, theirs=theirs: theirs.predict(seen, deterministic=True)[0], 1000
            ),
        }
        runs.append(run)
        print({name: round(float(np.mean(value)), 1) for name, value in run.items()}, flush=True)
    result = {
        "command": shlex.join(["python", "scripts/sac_against_sb3.py", *arguments]),
        "steps": options.steps,
        "date": date.today().isoformat(),
        "versions": versions()
        | {"python": sys.version.split()[0], "stable-baselines3": version("stable-baselines3")},
        "speed": speeds(agent, replay, theirs),
        "runs": runs,
    }
    print(result["speed"])
    write_text(options.out, json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
