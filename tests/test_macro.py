"""The world model of the maze's pictures: its loss by hand, its filter in three ways."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mbta_helpers.datasets import Transitions
from mbta_helpers.latent.macro import (
    MacroConfig,
    MacroModel,
    filter_play,
    sequences,
    train_model,
)
from mbta_helpers.latent.maze_pictures import MOVE, draw_pair, shown, sight
from mbta_helpers.latent.rssm import GaussianLatent
from mbta_helpers.mazes import get_maze, random_position
from mbta_helpers.windows import Windows

MAZE = get_maze("pointmaze-medium")


class Sure(GaussianLatent):
    """Draws the mean, so that two runs can be compared."""

    def sample(self, parameters, generator):
        return self.mode(parameters)


CONFIG = MacroConfig(
    latent=Sure(3), deterministic=8, hidden=12, embedding=6, batch=4, length=6, updates=3
)


def some_play(lengths=(7, 9, 6), seed=0):
    """Positions anywhere, actions of noise."""
    rng, lengths = np.random.default_rng(seed), np.array(lengths)
    count = lengths.sum() + len(lengths)
    places = np.stack([random_position(MAZE, rng) for _ in range(count)])
    states = np.concatenate([places, np.zeros_like(places)], 1)
    actions = rng.uniform(-1, 1, (lengths.sum(), 2))
    return shown(
        Transitions(
            states.astype(np.float32),
            actions.astype(np.float32),
            lengths,
            np.zeros((len(lengths), 2)),
        )
    )


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_row_holds_the_action_that_led_to_its_picture():
    play, model = some_play((5,)), MacroModel(MAZE, replace(CONFIG, length=6, batch=1), 0)
    batch = sequences(model, Windows(play, 5), draw())
    assert torch.equal(batch.action[0, 0], torch.zeros(2))
    assert np.array_equal(batch.action[0, 1:], play.actions)
    assert np.array_equal(batch.observation[0], draw_pair(MAZE, play.states))
    assert batch.is_first[0].tolist() == [1, 0, 0, 0, 0, 0]


def test_the_loss_is_that_of_its_distributions():
    """(19.1): Gaussians with σ² = 1 / scale of pixels and of what is seen, up to constants."""
    model = MacroModel(MAZE, replace(CONFIG, pixel_scale=4.0, sight_scale=25.0), 0)
    windows = Windows(some_play(), 5)
    batch, rows = sequences(model, windows, draw()), windows.sample(4, draw()).states
    parts = model.loss(batch, draw(1))
    truth = torch.cat([rows[..., :2], MOVE * (rows[..., :2] - rows[..., 2:])], -1)
    embedding = model.encoder(sight(MAZE, batch.observation))
    states, priors = model.rssm.observe(embedding, batch.action, batch.is_first, draw(1))
    pixels, drawn = Normal(model.picture(states.features), 0.5), batch.observation[:, :, 0]
    error = (pixels.log_prob(pixels.mean) - pixels.log_prob(drawn)).sum((-2, -1))
    assert torch.allclose(parts["pixels"], error.mean(), rtol=1e-4)
    seen = Normal(model.sight(states.features), 0.2)
    error = (seen.log_prob(seen.mean) - seen.log_prob(truth)).sum(-1)
    assert torch.allclose(parts["sight"], error.mean(), rtol=0.01)
    q, p = (Normal(*CONFIG.latent.moments(each)) for each in (states.parameters, priors))
    assert torch.allclose(parts["kl"], kl_divergence(q, p).sum(-1).mean(), rtol=1e-4)


def test_drawing_does_not_shape_the_states():
    """Only the decoder gets a gradient from the pixels."""
    model = MacroModel(MAZE, CONFIG, 0)
    model.loss(sequences(model, Windows(some_play(), 5), draw()), draw(1))["pixels"].backward()
    touched = {
        name.split(".")[0] for name, part in model.named_parameters() if part.grad is not None
    }
    assert touched == {"decoder"}


def test_filtering_side_by_side_is_filtering_alone_and_is_the_models_own():
    """All episodes at once, each by itself, and `RSSM.observe` give the same states."""
    model, play = MacroModel(MAZE, CONFIG, 0), some_play()
    together = filter_play(model, play).features
    rows = zip(play.state_starts, play.action_starts, play.lengths, strict=True)
    for state, action, length in rows:
        states = play.states[state : state + length + 1]
        actions = play.actions[action : action + length]
        alone = Transitions(states, actions, np.array([length]), np.zeros((1, 2)))
        assert torch.allclose(filter_play(model, alone).features,
                              together[state : state + length + 1], atol=1e-6)  # fmt: skip
        led = torch.cat([torch.zeros(1, 2), torch.from_numpy(actions)])[None]
        is_first = torch.zeros(1, length + 1)
        embedding = model.encoder(sight(MAZE, torch.from_numpy(draw_pair(MAZE, states))))[None]
        with torch.no_grad():
            own, _ = model.rssm.observe(embedding, led, is_first, draw())
        assert torch.allclose(own.features[0], together[state : state + length + 1], atol=1e-6)


def test_training_finds_the_place():
    play = some_play((30,) * 20)
    config = replace(CONFIG, hidden=32, embedding=16, latent=GaussianLatent(3), batch=16,
                     updates=300)  # fmt: skip
    model = MacroModel(MAZE, config, 0)
    history = train_model(model, play, 0)
    assert set(history[0]) == {"pixels", "sight", "kl"} and len(history) == 300
    assert history[-1]["sight"] < 0.3 * history[0]["sight"]
    again = MacroModel(MAZE, config, 0)
    assert train_model(again, play, 0)[-1] == pytest.approx(history[-1])
