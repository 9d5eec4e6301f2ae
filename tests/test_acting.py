"""Driving environments: each row holds what led to it, and an episode is counted once."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from mbta_helpers.errors import UserError
from mbta_helpers.latent.acting import Driver, RandomAgent, evaluate
from mbta_helpers.latent.replay import SequenceReplay
from mbta_helpers.latent.rssm import State
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig

LENGTHS = (3, 5)


class Witness(gym.Env):
    """Shows its last action, the steps of the episode and the episode's number; 9s at a start.

    The reward is 100 times the action and the step; the episode ends after `length` steps.
    """

    observation_space = Box(-99, 99, (3,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, length, terminates):
        self.length, self.terminates, self.episode = length, terminates, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.episode = 0, self.episode + 1
        return np.array([9.0, 0.0, self.episode], np.float32), {}

    def step(self, action):
        self.count += 1
        over = self.count == self.length
        seen = np.array([action[0], self.count, self.episode], np.float32)
        reward = 100 * float(action[0]) + self.count
        return seen, reward, over and self.terminates, over and not self.terminates, {}


def witnesses(terminates=True, lengths=LENGTHS, **options):
    makers = [lambda n=n: Witness(n, terminates) for n in lengths]
    return SyncVectorEnv(makers, **options)


def small_model():
    return WorldModel((3,), 1, WorldModelConfig(deterministic=6, hidden=6, embedding=6, layers=1))


@pytest.mark.parametrize("terminates", [True, False])
@pytest.mark.parametrize("capacity", [60, 17])
def test_a_row_holds_the_action_that_led_to_its_observation(terminates, capacity):
    """Through Driver, a buffer that wraps, and windows that hold the end and start of episodes."""
    model = small_model()
    driver = Driver(witnesses(terminates), model, 0)
    replay = SequenceReplay(capacity, 2, (3,), 1)
    driver.collect(RandomAgent(model), replay, 25)
    driver.collect(RandomAgent(model), replay, 25)  # goes on where it stopped
    batch = replay.sample(400, 12, torch.Generator().manual_seed(0))
    action, count, episode = batch.observation.unbind(-1)  # (B, T) each
    first = batch.is_first.bool()
    assert first.any() and (~first).any()
    assert torch.equal(first, count == 0)
    assert torch.equal(action[~first], batch.action[..., 0][~first])
    assert (action[first] == 9).all() and (batch.action[first] == 0).all()
    assert torch.allclose(batch.reward[~first], 100 * action[~first] + count[~first])
    assert (batch.reward[first] == 0).all()
    inside = ~first[:, 1:]
    assert (count.diff(dim=1)[inside] == 1).all() and (episode.diff(dim=1)[inside] == 0).all()
    assert (episode.diff(dim=1)[~inside] == 1).all()
    last = torch.zeros_like(first)  # rows before a start
    last[:, :-1] = first[:, 1:]
    ends = batch.is_terminal.bool()
    assert (ends[last] == terminates).all() and not ends[:, :-1][~last[:, :-1]].any()


def test_every_observation_is_stored():
    """The first and the last of each episode too: an episode of n steps has n + 1 rows."""
    model = small_model()
    driver = Driver(witnesses(), model, 0)
    rows = [driver.step(RandomAgent(model), explore=True) for _ in range(24)]
    count = torch.stack([row.observation[:, 1] for row in rows], 1).int().tolist()
    assert count == [[0, 1, 2, 3] * 6, [0, 1, 2, 3, 4, 5] * 4]


def test_the_drivers_state_is_that_of_a_fresh_filter_after_a_start():
    """What an episode has seen does not reach the next one."""
    model = small_model()
    driver, agent = Driver(witnesses(lengths=(3, 3)), model, 0), Recorder(model)
    for _ in range(6):
        driver.step(agent, explore=False)
    assert torch.allclose(agent.states[0].h, agent.states[4].h, atol=1e-6)
    assert not torch.allclose(agent.states[1].h, agent.states[2].h, atol=1e-6)


def test_the_agent_sees_the_filtered_state_and_the_noise_of_exploration_is_asked_for():
    model = small_model()
    driver, agent = Driver(witnesses(), model, 5), Recorder(model)
    rows = [driver.step(agent, explore=True) for _ in range(8)]
    draw, state = torch.Generator().manual_seed(5), model.rssm.start(2)
    for row, seen in zip(rows, agent.states, strict=True):
        embedding = model.embed(row.observation)
        state, _ = model.rssm.observe_step(state, row.action, row.is_first, embedding, draw)
        assert torch.equal(state.h, seen.h) and torch.equal(state.z, seen.z)
    assert agent.explored == [True] * 8
    evaluate(agent, witnesses(), 0)
    assert not any(agent.explored[8:])


class Recorder:
    """Constant actions, and a memory of the states that it was shown."""

    def __init__(self, model, action=0.5):
        self.model, self.action, self.states, self.explored = model, action, [], []

    def act(self, state, generator, explore):
        self.states.append(State(*(part.clone() for part in state)))
        self.explored.append(explore)
        return torch.full((len(state.h), 1), self.action)


@pytest.mark.parametrize("terminates", [True, False])
def test_evaluate_counts_exactly_one_episode(terminates):
    """Each environment stops counting at its own end, while longer ones go on."""
    agent = Recorder(small_model())
    returns = evaluate(agent, witnesses(terminates, lengths=(1, 3, 5)), 0)
    assert returns.tolist() == [n * 50 + n * (n + 1) / 2 for n in (1, 3, 5)]
    assert len(agent.states) == 5


def test_random_actions_fill_the_interval():
    model = small_model()
    state = model.rssm.start(4000)
    actions = RandomAgent(model).act(state, torch.Generator().manual_seed(0), True)
    assert actions.shape == (4000, 1) and abs(actions.mean()) < 0.05
    assert -1 <= actions.min() < -0.99 and 0.99 < actions.max() <= 1


def test_another_autoreset_is_refused():
    environments = witnesses(autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(UserError, match="autoreset"):
        Driver(environments, small_model(), 0)
