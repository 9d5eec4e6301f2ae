"""Small data and small networks that several tests build."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import minari
import numpy as np
import torch
from minari.data_collector import EpisodeBuffer
from torch import Tensor

from mbta_helpers.datasets import Transitions
from mbta_helpers.hierarchical.sac import Batch
from mbta_helpers.networks import NetworkConfig, SkillModel
from mbta_helpers.training import TrainingConfig
from mbta_helpers.windows import WindowBatch

STATE, ACTION, SKILL = 4, 2, 3
SCRIPTS = Path(__file__).parents[1] / "scripts"


def load_script(name: str) -> ModuleType:
    """scripts/NAME.py as a module; anew, so that a test may change its constants."""
    spec = importlib.util.spec_from_file_location(f"scripts.{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def numbered_transitions(lengths: list[int], state_dim: int = STATE) -> Transitions:
    """Episodes in which no two states and no two actions are alike, so that a mix-up shows."""
    lengths = np.array(lengths)
    rng = np.random.default_rng(int(lengths.sum()))
    return Transitions(
        states=rng.standard_normal((int(lengths.sum()) + len(lengths), state_dim), np.float32),
        actions=rng.standard_normal((int(lengths.sum()), ACTION), np.float32),
        lengths=lengths,
        goals=rng.standard_normal((len(lengths), 2)),
    )


def small_model(seed: int = 0, dtype: torch.dtype = torch.float64, **sizes) -> SkillModel:
    """Networks with random parameters and a normaliser that is not the identity."""
    dimensions = {"state_dim": STATE, "action_dim": ACTION, "skill_dim": SKILL}
    widths = {"hidden": 12, "model_hidden": 10, "gru_hidden": 7}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SkillModel(NetworkConfig(**(dimensions | widths | sizes))).to(dtype)
        for buffer in model.normaliser.buffers():
            buffer.uniform_(0.5, 2.0)
    return model


def random_batch(
    size: int = 5, steps: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64
) -> WindowBatch:
    """Windows of noise."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn((size, steps + 1, STATE), generator=generator, dtype=dtype)
    return WindowBatch(states, torch.randn((size, steps, ACTION), generator=generator, dtype=dtype))


def random_noise(size: int = 5, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """The ε of a training sample."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((size, SKILL), generator=generator, dtype=dtype)


def tiny_config(**changes) -> TrainingConfig:
    """A run of a second."""
    settings = {
        "window_length": 5,
        "skill_dim": SKILL,
        "hidden": 16,
        "model_hidden": 16,
        "gru_hidden": 8,
        "updates": 24,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "beta": 0.3,
        "settle_updates": 16,
        "settle_batch": 32,
        "held_out": 0.2,
    }
    return TrainingConfig(**(settings | changes))


def store_episodes(dataset_id: str, episodes: list[dict]) -> None:
    """A Minari dataset of those observations and actions, whatever they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            dataset_id,
            [
                EpisodeBuffer(
                    id=number,
                    observations=episode["observations"],
                    actions=episode["actions"],
                    rewards=np.zeros(len(episode["actions"])),
                    terminations=np.zeros(len(episode["actions"]), bool),
                    truncations=np.arange(len(episode["actions"])) == len(episode["actions"]) - 1,
                    infos={},
                )
                for number, episode in enumerate(episodes)
            ],
            observation_space=_space(episodes[0]["observations"]),
            action_space=_space(episodes[0]["actions"]),
        )


def _space(values: np.ndarray | dict) -> gym.Space:
    if isinstance(values, dict):
        return gym.spaces.Dict({name: _space(value) for name, value in values.items()})
    if values.dtype == np.int64:
        return gym.spaces.Discrete(3)
    return gym.spaces.Box(-np.inf, np.inf, values.shape[1:], values.dtype)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_steps(count: int = 8, seed: int = 0) -> Batch:
    """Transitions with three numbers in a state and two in an action; every other one ends."""
    g = seeded(seed)
    return Batch(
        torch.randn(count, 3, generator=g),
        2 * torch.rand(count, 2, generator=g) - 1,
        torch.randn(count, generator=g),
        torch.randn(count, 3, generator=g),
        (torch.arange(count) % 2).float(),
    )
