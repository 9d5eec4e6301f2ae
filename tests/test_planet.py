"""PlaNet: planning on a model that is known, overshooting by brute force, and small runs."""

import json
from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import SyncVectorEnv
from samples import load_script

from mbta_helpers.errors import UserError
from mbta_helpers.latent import planet
from mbta_helpers.latent.acting import Driver, RandomAgent
from mbta_helpers.latent.replay import SequenceReplay, Sequences
from mbta_helpers.latent.rssm import GaussianLatent, State, stack
from mbta_helpers.latent.world_model import WorldModel, WorldModelConfig
from mbta_helpers.planning import CEMConfig

SIZES = {"deterministic": 6, "hidden": 7, "embedding": 5, "layers": 1}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def model_of(**values):
    return WorldModel((3,), 1, WorldModelConfig(**(SIZES | values)))


def batch_of(sequences=3, steps=7, actions=1):
    draw = generator()
    is_first = torch.zeros(sequences, steps)
    is_first[1, 4] = 1
    return Sequences(
        torch.randn(sequences, steps, 3, generator=draw),
        torch.rand(sequences, steps, actions, generator=draw) * 2 - 1,
        torch.randn(sequences, steps, generator=draw),
        is_first,
        torch.zeros(sequences, steps),
    )


class Known:
    """A model whose reward is −|a_t − target_t|², the target differing by step and by problem.

    h of a state: the problem's number and the steps that have been made; z: the last action.
    """

    action_dim = 2

    def __init__(self, targets):
        self.targets = targets  # (P, H, A)
        self.rssm = SimpleNamespace(imagine=self.imagine)

    def imagine(self, state, action, generator):
        states = []
        for each in action.unbind(1):
            state = State(state.h + torch.tensor([0.0, 1.0]), each, each)
            states.append(state)
        return stack(states)

    def predict_reward(self, features):
        problem, step = features[..., 0].long(), features[..., 1].long() - 1
        return -(features[..., 2:] - self.targets[problem, step]).square().sum(-1)

    def states(self):
        count = len(self.targets)
        h = torch.stack([torch.arange(float(count)), torch.zeros(count)], 1)
        return State(h, torch.zeros(count, 2), torch.zeros(count, 2))


@pytest.fixture
def known():
    return Known(torch.rand(3, 5, 2, generator=generator(1)) * 1.8 - 0.9)


def sharp(**values):
    search = CEMConfig(candidates=400, iterations=12, elites=40, momentum=0.0, min_std=0.0)
    return planet.PlanetConfig(horizon=5, cem=search, **values)


# -- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"horizon": 0},
        {"batch": 0},
        {"random": 0},
        {"updates": 0},
        {"capacity": 0},
        {"length": 1},
        {"learning_rate": 0},
        {"gradient_norm": 0},
        {"noise": -0.1},
        {"overshooting": -1},
        {"distance": 1, "overshooting": 1.0},
        {"distance": 20, "overshooting": 1.0},
    ],
)
def test_a_wrong_configuration_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        planet.PlanetConfig(**values)


# -- planning ---------------------------------------------------------------------------------


def test_the_plan_has_its_own_optimum_in_each_step_and_problem(known):
    """A search that mixes up steps, problems or candidates finds something else."""
    search = planet.Planet(known, sharp()).plan(known.states(), generator())
    assert search.mean.shape == (3, 5, 2)
    assert torch.allclose(search.mean, known.targets, atol=0.03)


def test_imagined_return_is_the_sum_of_each_candidates_own_rewards(known):
    actions = torch.rand(3, 4, 5, 2, generator=generator(2)) * 3 - 1.5
    values = planet.imagined_return(known, known.states(), actions, generator())
    error = actions.clamp(-1, 1) - known.targets[:, None]
    assert torch.allclose(values, -error.square().sum((-2, -1)), atol=1e-5)


def test_the_first_action_of_the_mean_is_taken(known):
    agent = planet.Planet(known, sharp())
    plan = agent.plan(known.states(), generator(3))
    action = agent.act(known.states(), generator(3), explore=False)
    assert torch.equal(action, plan.mean[:, 0].clamp(-1, 1))
    assert not torch.equal(action, plan.best[:, 0].clamp(-1, 1))


def test_actions_are_cut_off():
    far = Known(torch.full((60, 5, 2), 3.0))
    quick = replace(sharp(), cem=CEMConfig(candidates=40, iterations=3, elites=4))
    for explore in (False, True):
        action = planet.Planet(far, quick).act(far.states(), generator(), explore)
        assert action.abs().max() <= 1 and action.mean() > 0.5


def test_exploration_adds_noise_of_the_given_width(known):
    states = State(*(part[:1].expand(600, -1) for part in known.states()))
    quick = replace(sharp(noise=0.3), cem=CEMConfig(candidates=40, iterations=3, elites=4))
    agent = planet.Planet(Known(torch.zeros(1, 5, 2)), quick)
    plain, noisy = (agent.act(states, generator(), explore) for explore in (False, True))
    assert abs((noisy - plain).std().item() - 0.3) < 0.02


def test_the_model_is_not_trained_by_planning():
    model = model_of()
    planet.Planet(model, planet.PlanetConfig(horizon=3)).act(model.rssm.start(2), generator(), True)
    assert all(parameter.grad is None for parameter in model.parameters())


# -- latent overshooting ----------------------------------------------------------------------


def without_noise(model):
    """Draws replaced by modes, so that two ways of computing agree."""

    class Mode(GaussianLatent):
        def sample(self, parameters, generator):
            return self.mode(parameters)

    model.rssm.latent = Mode(model.latent.size)
    return model


@pytest.mark.parametrize("distance", [2, 3, 5])
def test_overshooting_is_the_mean_over_starts_of_the_divergence_ahead(distance):
    model, batch = without_noise(model_of(free_nats=0.5)), batch_of()
    states, _ = model.observe(batch, generator())
    ours = planet.latent_overshooting(model, states, batch, distance, generator())
    total = 0.0
    for d in range(2, distance + 1):
        found = []
        for row in range(3):
            for t in range(d, 7):
                if batch.is_first[row, t - d + 1 : t + 1].any():
                    continue
                state = State(*(part[row : row + 1, t - d] for part in states))
                for k in range(t - d + 1, t + 1):
                    state = model.rssm.imagine_step(state, batch.action[row : row + 1, k], None)
                posterior = states.parameters[row : row + 1, t]
                found.append(model.latent.kl(posterior, state.parameters).clamp_min(0.5).item())
        total += np.mean(found)
    assert np.isclose(ours.item(), total / distance, rtol=1e-4)


def test_overshooting_holds_the_posterior_that_it_aims_at_fixed():
    """No gradient to the posterior of the target; some to the priors on the way."""
    model, batch = model_of(free_nats=0.0), batch_of()
    states, _ = model.observe(batch, generator())
    parameters = states.parameters.detach().requires_grad_()
    held = State(states.h.detach(), states.z.detach(), parameters)
    planet.latent_overshooting(model, held, batch, 4, generator()).backward()
    assert parameters.grad is None or parameters.grad.abs().sum() == 0
    assert model.rssm.prior[0].weight.grad.abs().sum() > 0
    assert model.rssm.posterior[0].weight.grad is None


def test_overshooting_is_zero_where_the_model_is_certain_to_agree():
    """With a prior that ignores its input, and the same posterior, all divergences vanish."""
    model, batch = model_of(free_nats=0.0), batch_of()
    states, _ = model.observe(batch, generator())
    with torch.no_grad():
        for network in (model.rssm.prior, model.rssm.posterior):
            network[-1].weight.zero_()
            network[-1].bias.fill_(0.3)
    states, _ = model.observe(batch, generator())
    assert planet.latent_overshooting(model, states, batch, 4, generator()) < 1e-6


# -- learning ---------------------------------------------------------------------------------


def test_updates_lower_the_loss_and_overshooting_enters_it():
    batch, losses, weights = batch_of(8), [], []
    for overshooting in (0.0, 1e-9, 1.0):
        config = planet.PlanetConfig(
            WorldModelConfig(**SIZES), overshooting=overshooting, distance=3
        )
        learner, draw = planet.Learner(model_of(), config), generator()
        terms = [learner.update(batch, draw) for _ in range(80)]
        losses.append([each["observation"] + each["reward"] for each in terms])
        weights.append(learner.model.rssm.prior[0].weight.detach())
        assert np.mean(losses[-1][-10:]) < 0.8 * losses[-1][0]
    assert not torch.allclose(*weights[1:])  # of the same draws


def test_the_gradient_is_clipped():
    config = planet.PlanetConfig(WorldModelConfig(**SIZES), gradient_norm=1e-3)
    learner = planet.Learner(model_of(), config)
    learner.update(batch_of(), generator())
    norm = sum(p.grad.square().sum() for p in learner.model.parameters()).sqrt()
    assert norm <= 1.01e-3


class Paid(gym.Env):
    """Gives its action as reward and shows the sum so far, for four steps."""

    observation_space = Box(-99, 99, (3,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.total = 0, 0.0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.count, self.total = self.count + 1, self.total + float(action[0])
        seen = np.full(3, self.total, np.float32)
        return seen, float(action[0]), False, self.count == 4, {}


def test_collecting_stores_whole_episodes_and_returns_what_they_paid():
    model = model_of()
    driver, replay = Driver(SyncVectorEnv([Paid, Paid]), model, 0), SequenceReplay(100, 2, (3,), 1)
    for episode in range(3):
        returns = planet.collect_episodes(driver, RandomAgent(model), replay)
        assert len(replay) == 5 * (episode + 1)
        last = replay.columns.observation[len(replay) - 1, :, 0]
        assert np.allclose(returns, last, atol=1e-6)
        assert replay.columns.is_first[5 * episode].all()


def test_a_wanderer_holds_its_actions():
    model = model_of()
    agent, draw, state = planet.Wanderer(model, hold=3), generator(), model.rssm.start(4)
    actions = torch.stack([agent.act(state, draw, True) for _ in range(9)])  # (9, 4, 1)
    changed = (actions[1:] != actions[:-1]).all(1).flatten()
    assert changed.tolist() == [False, False, True, False, False, True, False, False]
    assert actions.abs().max() <= 1


def test_training_is_the_same_for_the_same_seed():
    search = CEMConfig(candidates=10, iterations=2, elites=3)
    config = planet.PlanetConfig(
        WorldModelConfig(**SIZES), search, 3, batch=4, length=5, distance=2, updates=3
    )
    histories = []
    for seed in (1, 1, 2):
        seen = []
        model = model_of()
        agent, history = planet.train(
            SyncVectorEnv([Paid, Paid]),
            model,
            config,
            2,
            seed,
            lambda number, agent, history, seen=seen: seen.append((number, len(history.returns))),
        )
        assert seen == [(0, 3), (1, 4)] and agent.model is model
        assert len(history.returns) == 4 and len(history.terms) == 6
        histories.append(np.stack(history.returns))
    assert np.array_equal(histories[0], histories[1])
    assert not np.array_equal(histories[0], histories[2])


# -- looking ahead ----------------------------------------------------------------------------


def test_open_loop_sees_the_first_rows_and_no_more():
    model, batch = model_of(), batch_of()
    batch = batch._replace(is_first=torch.zeros(3, 7))
    seen, rewards = planet.open_loop(model, batch, 3, generator())
    assert seen.shape == (3, 7, 3) and rewards.shape == (3, 7)
    changed = batch._replace(observation=batch.observation.clone())
    changed.observation[:, 3:] += 5
    other, _ = planet.open_loop(model, changed, 3, generator())
    assert torch.equal(seen, other)
    changed.observation[:, 2] += 5
    other, _ = planet.open_loop(model, changed, 3, generator())
    assert torch.equal(seen[:, :2], other[:, :2]) and not torch.equal(seen[:, 3:], other[:, 3:])


def test_open_loop_takes_each_action_at_its_row():
    model, batch = without_noise(model_of()), batch_of()
    batch = batch._replace(is_first=torch.zeros(3, 7))
    plain, _ = planet.open_loop(model, batch, 3, generator())
    for t in range(1, 7):
        moved = batch._replace(action=batch.action.clone())
        moved.action[:, t] *= -1
        other, _ = planet.open_loop(model, moved, 3, generator())
        assert torch.allclose(plain[:, :t], other[:, :t], atol=1e-6)
        assert not torch.allclose(plain[:, t], other[:, t], atol=1e-6)


@pytest.mark.parametrize("seen", [0, 7])
def test_open_loop_needs_rows_to_see_and_to_imagine(seen):
    with pytest.raises(UserError, match="seen"):
        planet.open_loop(model_of(), batch_of(), seen, generator())


# -- the script of the shipped runs -----------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    return load_script("planet")


def test_the_script_writes_each_run_once(script, tmp_path, monkeypatch):
    asked, out = [], tmp_path / "planet.json"

    def fake(seed):
        asked.append(seed)
        yield {"errors": [0.5 + seed]}

    monkeypatch.setattr(script, "overshooting", fake)
    for seeds in (["0", "1"], ["1", "2"]):
        command = ["--only", "overshooting", "--out", str(out), "--seeds", *seeds]
        assert script.main(command) == 0
    assert asked == [0, 1, 2]
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [run["errors"] for run in written["runs"]] == [[0.5], [1.5], [2.5]]
    assert {"command", "configs", "threads", "date", "versions"} <= written["provenance"].keys()


def test_the_script_finds_the_brightest_pixel(script):
    pictures = torch.rand(4, 5, 3, 7, generator=generator()) * 0.5
    pictures[:, :, 2, 5] = 1.0
    assert torch.equal(script.spot(pictures), torch.tensor([2.0, 5.0]).expand(4, 5, 2))
