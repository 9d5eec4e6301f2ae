"""V, M and C of chapter 14 and their game: by hand, against torch.distributions, by replay."""

import copy
import dataclasses
import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from samples import load_script
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from mbta_helpers.errors import UserError
from mbta_helpers.latent import controller, stones
from mbta_helpers.latent.controller import (
    EvolutionConfig,
    act,
    evolve,
    play_in_dream,
    play_in_reality,
)
from mbta_helpers.latent.mdn_rnn import MDNRNN, Episodes, MDNConfig, Mixture, train_mdn_rnn
from mbta_helpers.latent.stones import ENV_ID, FALL, FOOT, MAX_STEPS, SIDE, Stones
from mbta_helpers.latent.vae import VAE, VAEConfig, initialise, train_vae
from mbta_helpers.latent.vision_memory import (
    VisionAndMemoryConfig,
    encode,
    record_play,
    train_world_model,
    with_untrained_memory,
)

SMALL = VisionAndMemoryConfig(
    episodes=40,
    steps=12,
    vae=VAEConfig(hidden=16, updates=20),
    memory=MDNConfig(hidden=8, updates=5),
)


@pytest.fixture(scope="module")
def small():
    return train_world_model(SMALL, seed=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- the game ---------------------------------------------------------------------------------


def test_gymnasium_accepts_the_game():
    env = gym.make(ENV_ID)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    assert env.step(1)[1] == 1.0 and env.spec.max_episode_steps == MAX_STEPS


def test_one_game_is_a_row_of_many():
    env = gym.make(ENV_ID)
    picture, _ = env.reset(seed=5)
    games = Stones(1, np.random.Generator(np.random.PCG64(5)))
    assert np.array_equal(picture, games.pictures()[0])
    for action in (0, 0, 2, 1, 2, 2):
        picture, _, terminated, _, _ = env.step(action)
        assert bool(games.step(np.array([action]))[0]) == terminated
        assert np.array_equal(picture, games.pictures()[0])


def test_who_stands_still_is_hit_by_the_first_stone_and_who_leaves_is_not():
    for action, expected in ((1, True), (0, False)):
        games = Stones(300, np.random.default_rng(0))
        games.player[:] = 12
        age, hit = np.zeros(300, int), np.zeros(300, bool)  # age: steps since the first throw
        for _ in range(60):
            struck = games.step(np.where(age > 0, action, 1))
            hit |= struck & (age <= SIDE / FALL)
            age += (age > 0) | games.falling
        assert (age > SIDE / FALL).all() and (hit == expected).all()


def test_one_picture_does_not_tell_where_a_stone_will_land():
    games = Stones(2, np.random.default_rng(0))
    games.player[:], games.falling[:] = 5, True
    games.place[:], games.drift[:] = (3.0, 7.5), (-0.5, 0.5)
    first = games.pictures()
    assert np.array_equal(first[0], first[1])
    games.step(np.array([1, 1]))
    second = games.pictures()
    assert np.abs(second[0] - second[1]).max() > 0.3


def test_a_stone_is_seen_where_it_is():
    games = Stones(1, np.random.default_rng(0))
    games.player[:], games.falling[:], games.place[:] = 12, True, (4, 7)
    picture = games.pictures()[0]
    assert picture.shape == (SIDE, SIDE) and picture.max() <= 1
    assert picture[4, 7] == 1 and picture[FOOT, 12] == 1 and picture[7, 4] < 1e-2
    games.falling[:] = False
    assert games.pictures()[0, 4, 7] < 1e-6


def test_stones_are_aimed_at_the_player_of_the_throw():
    games = Stones(2000, np.random.default_rng(1))
    games.step(np.ones(2000, int))
    new = games.falling
    lands = games.place[new, 1] + games.drift[new] * FOOT / FALL
    assert new.mean() == pytest.approx(stones.THROW, abs=0.05)
    assert np.abs(lands - games.player[new]).max() <= 1 + 1e-9


# -- V ----------------------------------------------------------------------------------------


def test_the_loss_of_v_is_the_elbo_with_sums_over_pixels():
    vae = VAE(VAEConfig(hidden=16, tolerance=0.0, noise=0.3))
    pictures, noise = torch.rand(5, SIDE, SIDE), torch.randn(5, 8)
    q = vae.encode(pictures)
    seen = Normal(vae.decode(q.loc + q.scale * noise), 0.3).log_prob(pictures).sum((1, 2))
    elbo = seen - kl_divergence(q, Normal(0.0, 1.0)).sum(-1)
    constant = SIDE**2 * (math.log(0.3) + 0.5 * math.log(2 * math.pi))
    assert torch.allclose(vae.loss(pictures, noise), -elbo.mean() - constant, rtol=1e-5)


def test_nats_below_the_tolerance_are_free():
    pictures, noise = torch.rand(3, SIDE, SIDE), torch.zeros(3, 8)
    strict = VAE(VAEConfig(hidden=16, tolerance=0.0))
    free = VAE(VAEConfig(hidden=16, tolerance=50.0))
    free.load_state_dict(strict.state_dict())
    kl = kl_divergence(strict.encode(pictures), Normal(0.0, 1.0)).sum(-1).mean()
    difference = free.loss(pictures, noise) - strict.loss(pictures, noise)
    assert torch.allclose(difference, 50.0 * 8 - kl, rtol=1e-3)
    free.zero_grad()
    free.loss(pictures, noise).backward()
    head = free.encoder[-1].bias.grad[8:]  # log-scales: only the KL reaches them at zero noise
    assert head.abs().max() == 0


def test_v_learns_to_see():
    rng = np.random.default_rng(0)
    pictures = record_play(100, 20, rng).pictures
    config = VAEConfig(hidden=32, updates=300)
    vae = train_vae(pictures, config, generator())
    with torch.no_grad():
        error = (vae.decode(vae.encode(pictures).loc) - pictures).square().sum((1, 2)).mean()
    blank = (pictures - pictures.mean(0)).square().sum((1, 2)).mean()
    assert error < 0.7 * blank


# -- M: the mixture ---------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_density_of_a_mixture_is_that_of_torch(groups):
    logits, mean, log_std = torch.randn(4, groups, 3), torch.randn(4, 6, 3), torch.randn(4, 6, 3)
    z = torch.randn(4, 6)
    size, expected = 6 // groups, torch.zeros(4)
    for group in range(groups):
        part = slice(group * size, (group + 1) * size)
        parts = Normal(mean[:, part].transpose(1, 2), log_std[:, part].transpose(1, 2).exp())
        choice = Categorical(logits=logits[:, group])
        expected += MixtureSameFamily(choice, Independent(parts, 1)).log_prob(z[:, part])
    assert torch.allclose(Mixture(logits, mean, log_std).log_prob(z), expected, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_temperature_scales_weights_and_noise(temperature):
    """Parts far apart: how often each is drawn, and how far its draws spread."""
    logits, n = torch.tensor([0.0, 1.0]), 40_000
    mean, std = torch.tensor([-50.0, 50.0]), torch.tensor([0.5, 2.0])
    mixture = Mixture(*(x.expand(n, 1, 2) for x in (logits, mean, std.log())))
    drawn = mixture.sample(temperature, generator())[:, 0]
    second = drawn > 0
    wanted = (logits / temperature).softmax(0)[1].item()
    assert second.float().mean().item() == pytest.approx(wanted, abs=0.01)
    for chosen, scale in ((~second, 0.5), (second, 2.0)):
        assert drawn[chosen].std().item() == pytest.approx(scale * temperature**0.5, rel=0.05)


def test_dimensions_of_a_group_choose_together():
    mean = torch.tensor([-50.0, 50.0]).expand(500, 4, 2)
    for groups, together in ((1, True), (4, False)):
        logits = torch.zeros(500, groups, 2)
        drawn = Mixture(logits, mean, torch.zeros(500, 4, 2)).sample(1.0, generator()) > 0
        assert bool((drawn == drawn[:, :1]).all()) == together
    with pytest.raises(UserError, match="divide"):
        MDNConfig(latents=8, groups=3)


# -- M: what it is trained on -----------------------------------------------------------------


def counted_episodes(std=0.0):
    """Two episodes whose codes count the steps, and whose actions are told by their number."""
    lengths = (4, 2)
    return Episodes(
        [torch.arange(n + 1.0)[:, None].repeat(1, 8) for n in lengths],
        [torch.full((n + 1, 8), std) for n in lengths],
        [torch.eye(3)[torch.arange(n) % 3] for n in lengths],
        [torch.tensor([0.0] * (n - 1) + [1.0]) for n in lengths],
    )


def test_inputs_and_targets_are_a_step_apart():
    inputs, targets, ends = (
        torch.nn.utils.rnn.pad_packed_sequence(each, batch_first=True, padding_value=-1)[0]
        for each in counted_episodes().batch([1, 0], generator())
    )
    assert inputs[1, :, 0].tolist() == [0, 1, 2, 3] and targets[1, :, 0].tolist() == [1, 2, 3, 4]
    assert inputs[1, :, 8:].argmax(-1).tolist() == [0, 1, 2, 0]
    assert ends[1].tolist() == [0, 0, 0, 1] and ends[0].tolist() == [0, 1, -1, -1]


def test_codes_are_drawn_anew_for_each_batch():
    episodes, random = counted_episodes(std=0.5), generator()
    first, second = (episodes.batch([0] * 400, random) for _ in range(2))
    assert (first[1].data != second[1].data).all()
    noise = first[1].data - counted_episodes().batch([0] * 400, random)[1].data
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    assert torch.equal(first[0].data[400:800, :8], first[1].data[:400])  # z_1 is one draw


def test_each_episode_begins_with_an_empty_memory():
    """The loss of a batch is the mean of its episodes' alone, in any order."""
    model = MDNRNN(MDNConfig(hidden=8))
    episodes = counted_episodes()
    alone = [model.loss(*episodes.batch([i], generator())) for i in (0, 1)]
    together = model.loss(*episodes.batch([1, 0], generator()))
    assert torch.allclose(together, (4 * alone[0] + 2 * alone[1]) / 6, atol=1e-5)


def test_the_loss_of_m_is_minus_the_likelihood_of_code_and_end():
    """Step by step, as dreams are dreamt."""
    model, episodes = MDNRNN(MDNConfig(hidden=8)), counted_episodes(std=0.3)
    loss = model.loss(*episodes.batch([0], generator(3)))
    inputs, targets, ends = (each.data for each in episodes.batch([0], generator(3)))
    memory, likelihood = model.begin(1), 0.0
    for x, z, end in zip(inputs, targets, ends, strict=True):
        memory = model.remember(memory, x[None, :8], x[8:].argmax()[None])
        chance = model.end_logit(memory[0], z[None]).sigmoid()[0]
        likelihood += model.predict(memory[0]).log_prob(z[None])[0]
        likelihood += (chance if end else 1 - chance).log()
    assert torch.allclose(loss, -likelihood / 4, rtol=1e-4)


def test_m_learns_a_jump_that_no_single_gaussian_could():
    """The next code is all −1 or all 1, by the toss of a coin."""
    random, steps = np.random.default_rng(0), 6
    jumps = [
        torch.tensor(random.choice([-1.0, 1.0], (steps + 1, 1))).float().repeat(1, 2)
        for _ in range(200)
    ]
    episodes = Episodes(
        jumps,
        [torch.full((steps + 1, 2), 0.05)] * 200,
        [torch.eye(3)[torch.zeros(steps, dtype=torch.long)]] * 200,
        [torch.zeros(steps)] * 200,
    )
    config = MDNConfig(latents=2, hidden=8, components=3, updates=200, learning_rate=2e-2)
    model = train_mdn_rnn(episodes, config, generator())
    with torch.no_grad():
        start = torch.ones(2000, 2), torch.zeros(2000, dtype=torch.long)
        h, _ = model.remember(model.begin(2000), *start)
        z = model.predict(h).sample(1.0, generator())
    assert ((z.abs() - 1).abs() < 0.4).float().mean() > 0.9
    assert (z[:, 0] * z[:, 1] > 0).float().mean() > 0.95
    assert 0.3 < (z[:, 0] > 0).float().mean() < 0.7


# -- C ----------------------------------------------------------------------------------------


def test_a_rule_is_linear_and_has_a_dead_zone():
    rules = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.5]])
    z = torch.tensor([[0.5, 0.0], [0.1, 0.0], [0.0, -1.0], [0.0, -0.5]])
    h = torch.tensor([[0.0], [-1.0], [0.0], [9.0]])
    assert act(rules, z, h).tolist() == [2, 0, 0, 1]


def spied(monkeypatch, play):
    """What C saw and did in each step: z, h, action."""
    seen = []

    def spy(rules, z, h):
        seen.append((z.clone(), h.clone(), act(rules, z, h)))
        return seen[-1][2]

    monkeypatch.setattr(controller, "act", spy)
    play()
    return seen


@pytest.mark.parametrize("world", ["reality", "dream"])
def test_c_sees_a_memory_of_all_that_was_before_and_nothing_else(small, monkeypatch, world):
    """h_0 = 0, and h_t is what the recurrent network makes of z_0 … z_{t−1}, a_0 … a_{t−1}."""
    model, _ = small
    rules = torch.randn(3, model.rule_size, generator=generator(4))

    def play():
        if world == "reality":
            play_in_reality(model, rules, 4, np.random.default_rng(0))
        else:
            play_in_dream(model, rules, 4, 1.0, generator())

    seen = spied(monkeypatch, play)
    z, h, action = (torch.stack(part) for part in zip(*seen, strict=True))
    assert len(seen) >= 3 and len(action.unique()) > 1
    with torch.no_grad():
        inputs = torch.cat([z, torch.eye(3)[action]], -1)
        expected = model.memory.lstm(inputs)[0]
    assert (h[0] == 0).all() and torch.allclose(h[1:], expected[:-1], atol=1e-5)


def test_steps_in_reality_are_those_until_the_first_hit(small):
    model, _ = small
    steps = play_in_reality(model, torch.zeros(1, model.rule_size), 50, np.random.default_rng(7))
    games = Stones(50, np.random.default_rng(7))
    hits = np.array([games.step(np.ones(50, int)) for _ in range(MAX_STEPS)])
    expected = np.where(hits.any(0), hits.argmax(0) + 1, MAX_STEPS)
    assert np.array_equal(steps[0], expected) and len(set(expected)) > 3


def fated(model, logit):
    """The model with a memory that gives this logit to every end."""
    memory = copy.deepcopy(model.memory)
    memory.end = torch.nn.Linear(8 + 8, 1)
    torch.nn.init.zeros_(memory.end.weight)
    torch.nn.init.constant_(memory.end.bias, logit)
    return model._replace(memory=memory)


@pytest.mark.parametrize(("logit", "expected"), [(40.0, 1), (-40.0, MAX_STEPS)])
def test_a_dream_ends_where_the_memory_says_so(small, logit, expected):
    model = fated(small[0], logit)
    steps = play_in_dream(model, torch.zeros(2, model.rule_size), 3, 1.0, generator())
    assert steps.shape == (2, 3) and (steps == expected).all()


def test_ends_of_dreams_are_drawn_with_their_chance(small):
    model = fated(small[0], math.log(1 / 9))
    steps = play_in_dream(model, torch.zeros(1, model.rule_size), 4000, 1.0, generator())
    assert steps.mean() == pytest.approx(10, rel=0.05)  # 1 / 0.1


def test_evolution_climbs():
    """The return is highest, 100, at a rule that is far from the first one."""
    best = torch.linspace(-1, 1, 6)

    def play(rules, episodes):
        value = 100 - (rules - best).square().sum(-1, keepdim=True)
        return value.expand(-1, episodes).double().numpy()

    config = EvolutionConfig(generations=60, population=10, episodes=2)
    rule, returns = evolve(play, 6, config, seed=0)
    assert rule.shape == (1, 6) and (rule[0] - best).abs().max() < 0.1
    assert returns[-1] > returns[0]
    again, _ = evolve(play, 6, config, seed=0)
    assert torch.equal(rule, again)


# -- the parts together -----------------------------------------------------------------------


def test_recordings_end_with_the_hit():
    recording = record_play(200, 30, np.random.default_rng(0))
    assert len(recording.pictures) == sum(len(a) + 1 for a in recording.action)
    for action, hit in zip(recording.action, recording.hit, strict=True):
        assert len(action) == len(hit) <= 30 and hit[:-1].sum() == 0
        assert len(action) == 30 or hit[-1] == 1


def test_codes_belong_to_their_pictures(small):
    model, _ = small
    recording = record_play(5, 30, np.random.default_rng(0))
    episodes, at = encode(model.vae, recording), 0
    for mean, action, recorded in zip(
        episodes.mean, episodes.action, recording.action, strict=True
    ):
        pictures = recording.pictures[at : at + len(recorded) + 1]
        assert torch.allclose(mean, model.vae.encode(pictures).loc, atol=1e-6)
        assert torch.equal(action.argmax(-1), recorded)
        at += len(pictures)


def test_a_seed_gives_the_same_world_model_again(small):
    model, _ = small
    again, _ = train_world_model(SMALL, seed=1)
    for one, other in zip(model.memory.parameters(), again.memory.parameters(), strict=True):
        assert torch.equal(one, other)
    other = with_untrained_memory(model, seed=2)
    assert other.vae is model.vae and other.memory is not model.memory
    fresh = MDNRNN(SMALL.memory)
    initialise(fresh, generator(2))
    assert torch.equal(fresh.head.weight, other.memory.head.weight)


def test_settings_that_make_no_sense_are_refused():
    for config, values in (
        (VAEConfig, {"noise": 0.0}),
        (VAEConfig, {"tolerance": -1.0}),
        (MDNConfig, {"components": 0}),
        (EvolutionConfig, {"population": 3}),
        (EvolutionConfig, {"step_size": 0.0}),
    ):
        with pytest.raises(UserError):
            config(**values)
    with pytest.raises(UserError, match="At least one game"):
        Stones(0, np.random.default_rng(0))


# -- the shipped runs -------------------------------------------------------------------------


def test_the_script_writes_what_the_chapter_reads(tmp_path, monkeypatch):
    script = load_script("world_models")
    monkeypatch.setattr(script, "CONFIG", SMALL)
    monkeypatch.setattr(
        script, "SEARCH", dataclasses.replace(script.SEARCH, generations=1, population=4)
    )
    monkeypatch.setattr(script, "TEMPERATURES", (0.1, 1.0))
    monkeypatch.setattr(script, "EPISODES", 3)
    out = tmp_path / "runs.json"
    for _ in range(2):  # what is there is not made again
        assert script.main(["--seeds", "3", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [run["seed"] for run in found["runs"]] == [3]
    run = found["runs"][0]
    assert [row["temperature"] for row in run["dreams"]] == [0.1, 1.0]
    assert set(run["reality"]) == {"no memory", "trained memory", "untrained memory"}
    assert found["provenance"]["command"].startswith("python scripts/world_models.py")
