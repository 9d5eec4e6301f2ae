"""Soft Option-Critic: its equations by hand and by enumeration, one option against SAC, resets."""

import itertools
import json
import math
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from samples import load_script, random_steps, seeded
from torch.distributions import Categorical as Choice
from torch.distributions import Independent, MixtureSameFamily, Normal

from mbta_helpers.errors import UserError
from mbta_helpers.hierarchical import soft_option_critic
from mbta_helpers.hierarchical.sac import SAC, Batch, SACConfig
from mbta_helpers.hierarchical.soft_option_critic import (
    SoftOptionCritic,
    SoftOptionCriticConfig,
    arrival_value,
    evaluate_options,
    hard_value,
    information,
    option_policy,
    soft_value,
    train_soft_option_critic,
)


def agent(seed: int = 0, **values) -> SoftOptionCritic:
    return SoftOptionCritic(3, 2, SoftOptionCriticConfig(hidden=16, **values), seed)


def biased(network, *values):
    """Make a network's outputs constant."""
    with torch.no_grad():
        network[-1].weight.zero_()
        network[-1].bias.copy_(torch.tensor(values))


class Walk(gym.Env):
    """A line: the state is (place, step), the action moves it, both ends are walls.

    An episode ends after `limit` steps, or, if `wall` is set, where |place| reaches it.
    """

    def __init__(self, limit=5, wall=math.inf, action_space=None, observation_space=None):
        self.observation_space = observation_space or Box(-1e3, 1e3, (2,))
        self.action_space = action_space or Box(-3.0, 1.0, (1,))
        self.limit, self.wall, self.actions = limit, wall, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.count = 100.0, 0
        return np.array([self.place, 0], np.float32), {}

    def step(self, action):
        self.actions.append(float(action[0]))
        self.place, self.count = self.place + float(action[0]), self.count + 1
        seen = np.array([self.place, self.count], np.float32)
        over = self.count >= self.limit
        return seen, 1.0, abs(self.place - 100) >= self.wall, over, {}


def walks(count=2, mode=gym.vector.AutoresetMode.NEXT_STEP, **values):
    return gym.vector.SyncVectorEnv([lambda: Walk(**values)] * count, autoreset_mode=mode)


# -- configuration and spaces -----------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"options": 0},
        {"option_temperature": 0.0},
        {"deliberation_cost": -0.1},
        {"diversity": -1.0},
        {"baseline": "max"},
        {"gamma": 1.0},
    ],
)
def test_a_wrong_configuration_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        SoftOptionCriticConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"action_space": Discrete(3)}, "bounded Box.*Discrete"),
        ({"action_space": Box(-np.inf, np.inf, (1,))}, "bounded Box"),
        ({"action_space": Box(-1, 1, (2, 2))}, "one axis"),
        ({"observation_space": Box(0, 1, (2, 2))}, "a vector"),
        ({"mode": gym.vector.AutoresetMode.SAME_STEP}, "next step"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(values, message):
    environments = walks(**values)
    with pytest.raises(UserError, match=message):
        train_soft_option_critic(environments, environments, SoftOptionCriticConfig(), 10, 0)


def test_a_training_without_an_evaluation_is_refused():
    with pytest.raises(UserError, match="evaluate_every"):
        train_soft_option_critic(walks(), walks(), SoftOptionCriticConfig(), 10, 0)


# -- the equations ----------------------------------------------------------------------------


def test_the_soft_value_is_the_largest_over_all_policies():
    """By enumeration: E[Q] + α H(p) for p on a fine grid of the simplex, and at softmax(Q / α)."""
    q, alpha = torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64), 0.7
    grid = [p for p in itertools.product(np.arange(1, 200) / 200, repeat=2) if sum(p) < 1]
    p = torch.tensor([(*pair, 1 - sum(pair)) for pair in grid], dtype=torch.float64)
    objective = (p * q).sum(-1) - alpha * (p * p.log()).sum(-1)
    v = soft_value(q, alpha).item()
    assert objective.max().item() == pytest.approx(v, abs=1e-4)
    assert objective.max().item() <= v
    policy = option_policy(q, alpha)
    assert torch.allclose(p[objective.argmax()], policy, atol=0.01)
    assert v == pytest.approx(((policy * q).sum() - alpha * (policy * policy.log()).sum()).item())


def test_the_soft_advantage_is_never_positive_and_is_a_log_probability():
    q = torch.randn(500, 4, generator=seeded()) * 3
    advantage = q - soft_value(q, 0.5)
    assert (advantage <= 1e-5).all()
    assert torch.allclose(advantage, 0.5 * option_policy(q, 0.5).log(), atol=1e-4)
    best = advantage.max(-1).values
    assert (best + 0.5 * math.log(4) >= -1e-5).all(), "with η = α log Ω the best option goes on"
    hard = q - hard_value(q, 0.5)
    assert (hard.max(-1).values >= 0).all() and (hard.min(-1).values <= 0).all()


def test_hard_value_by_hand():
    q = torch.tensor([0.0, math.log(3.0)])
    assert option_policy(q, 1.0).tolist() == pytest.approx([0.25, 0.75])
    assert hard_value(q, 1.0).item() == pytest.approx(0.75 * math.log(3.0))
    assert soft_value(q, 1.0).item() == pytest.approx(math.log(4.0))


def test_arrival_value_by_hand():
    q, v, beta = torch.tensor([[4.0, 1.0]]), torch.tensor([[5.0]]), torch.tensor([[0.25, 1.0]])
    assert arrival_value(q, v, beta, 0.4).tolist() == [pytest.approx([0.75 * 4 + 0.25 * 4.6, 4.6])]


def test_information_equals_torch_distributions():
    g = seeded(3)
    mean, log_std, noise = (torch.randn(6, 3, 2, generator=g) for _ in range(3))
    action = mean + log_std.exp() * noise
    for option in range(3):
        parts = Independent(Normal(mean, log_std.exp()), 1)
        mixture = MixtureSameFamily(Choice(torch.ones(6, 3)), parts)
        own = Independent(Normal(mean[:, option], log_std[:, option].exp()), 1)
        expected = own.log_prob(action[:, option]) - mixture.log_prob(action[:, option])
        told = information(mean, log_std, noise)[:, option]
        assert torch.allclose(told, expected, atol=1e-4)


def test_information_of_equal_and_of_distant_options():
    noise = torch.randn(200, 3, 1, generator=seeded())
    same = torch.zeros(200, 3, 1)
    assert information(same, same, noise).abs().max() < 1e-6
    far = same + torch.tensor([-50.0, 0.0, 50.0])[:, None]
    assert torch.allclose(information(far, same, noise), torch.full((200, 3), math.log(3.0)))


# -- the agent --------------------------------------------------------------------------------


def test_pairs_are_each_state_beside_each_option():
    rows = agent().pairs(torch.arange(6.0).view(2, 3))
    assert rows.tolist() == [
        [0, 1, 2, 1, 0, 0],
        [0, 1, 2, 0, 1, 0],
        [0, 1, 2, 0, 0, 1],
        [3, 4, 5, 1, 0, 0],
        [3, 4, 5, 0, 1, 0],
        [3, 4, 5, 0, 0, 1],
    ]


def test_the_price_is_of_entropy_and_of_information():
    learner = agent(temperature=0.3, diversity=0.7)
    pairs, noise = (
        learner.pairs(random_steps().observation),
        torch.randn(24, 2, generator=seeded(1)),
    )
    action, log_density, price = learner.sample(pairs, noise)
    expected_action, expected_density = learner.actor.sample(pairs, noise)
    assert torch.equal(action, expected_action) and torch.equal(log_density, expected_density)
    parts = (x.view(8, 3, 2) for x in (*learner.actor(pairs), noise))
    told = information(*parts).flatten()
    assert torch.allclose(price, 0.3 * log_density - 0.7 * told, atol=1e-6)


def test_target_by_hand_for_every_option():
    """Written as a loop over transitions and options, at s' and with the option in force."""
    learner, batch = agent(gamma=0.9, deliberation_cost=0.4, option_temperature=0.5), random_steps()
    q = torch.randn(8, 3, generator=seeded(2))
    target = learner.critic_target(batch, q)
    beta = learner.termination(batch.next_observation).sigmoid()
    assert target.shape == (8, 3)
    for row, option in itertools.product(range(8), range(3)):
        v = 0.5 * math.log(sum(math.exp(value / 0.5) for value in q[row].tolist()))
        b = beta[row, option].item()
        u = (1 - b) * q[row, option].item() + b * (v - 0.4)
        future = 0.9 * u if batch.terminated[row] == 0 else 0.0
        assert target[row, option].item() == pytest.approx(
            batch.reward[row].item() + future, abs=1e-5
        )


@pytest.mark.parametrize("baseline", ["soft", "hard"])
def test_termination_gradient_by_hand(baseline):
    learner, batch = agent(baseline=baseline, deliberation_cost=0.2), random_steps()
    q = torch.randn(8, 3, generator=seeded(2))
    value = soft_value if baseline == "soft" else hard_value
    bracket = q - value(q, 0.5) + 0.2
    logits = learner.termination(batch.next_observation)
    slope = logits.sigmoid() * (1 - logits.sigmoid()) * bracket / 24
    slope[batch.terminated == 1] = 0.0  # nothing follows: nothing to go on with
    learner.termination_loss(batch, q).backward()
    bias = learner.termination[-1].bias.grad
    assert torch.allclose(bias, slope.sum(0), atol=1e-6)
    assert learner.termination[-1].bias.grad.abs().max() > 1e-3


def test_losses_of_the_actor_and_of_the_option_value_by_hand():
    learner, batch = agent(temperature=0.3), random_steps()
    with torch.no_grad():
        learner.targets.biases[-1].add_(torch.tensor([0.7, -0.4])[:, None, None])
    pairs, noise = learner.pairs(batch.observation), torch.randn(24, 2, generator=seeded(1))
    action, _, price = learner.sample(pairs, noise)
    loss, _ = learner.actor_loss(pairs, noise)
    one, two = learner.critics(pairs, action)
    assert torch.allclose(loss, (price - torch.minimum(one, two)).mean(), atol=1e-6)

    learner.generator.manual_seed(5)
    loss = learner.option_value_loss(batch.observation, pairs)
    action, _, price = learner.sample(pairs, torch.randn(24, 2, generator=seeded(5)))
    one, two = learner.targets(pairs, action)
    wanted = (torch.minimum(one, two) - price).view(8, 3)
    errors = learner.option_values(batch.observation) - wanted
    assert torch.allclose(loss, 0.5 * errors.square().mean(), atol=1e-6)
    loss.backward()
    assert all(p.grad is None for p in (*learner.actor.parameters(), *learner.targets.parameters()))


def test_an_update_moves_everything_and_the_targets_by_their_share():
    learner = agent(tau=0.1)
    parts = ("actor", "critics", "targets", "option_values", "termination")
    before = {name: [p.clone() for p in getattr(learner, name).parameters()] for name in parts}
    learner.update(random_steps())
    for name, old in before.items():
        new = list(getattr(learner, name).parameters())
        assert not all(map(torch.equal, old, new)), name
    triples = zip(
        before["targets"], learner.critics.parameters(), learner.targets.parameters(), strict=True
    )
    for old, critic, target in triples:
        assert torch.allclose(target, 0.9 * old + 0.1 * critic, atol=1e-6)


def test_an_update_teaches_every_option():
    """Critics learn r + γ (1 − terminated) U of each option, from one batch that names none."""
    learner = agent(learning_rate=5e-3, tau=1e-6, gamma=0.5)
    with torch.no_grad():  # options of very different and fixed values at s'
        learner.option_values[-1].bias.copy_(torch.tensor([-6.0, 0.0, 6.0]))
        learner.option_values[0].weight.mul_(20)
    biased(learner.termination, -30.0, -30.0, -30.0)
    batch = random_steps(16)
    q = learner.option_values(batch.next_observation).detach()
    learner.option_optimiser.param_groups[0]["lr"] = 0.0
    for _ in range(600):
        learner.update(batch)
    action = batch.action.repeat_interleave(3, 0)
    learnt = learner.critics(learner.pairs(batch.observation), action).mean(0).view(16, 3)
    wanted = batch.reward[:, None] + 0.5 * (1 - batch.terminated[:, None]) * q
    assert (learnt - wanted).abs().mean() < 0.3
    assert (wanted[::2, 2] - wanted[::2, 0]).min() > 1


def test_one_option_without_cost_is_soft_actor_critic():
    """U is Q_Ω then, whatever β is; and Q_Ω's target is SAC's value of s'."""
    values = {"hidden": 16, "gamma": 0.9, "temperature": 0.3, "layer_norm": False}
    ours = SoftOptionCritic(3, 2, SoftOptionCriticConfig(options=1, deliberation_cost=0, **values))
    theirs = SAC(4, 2, SACConfig(**values))
    for name in ("actor", "critics", "targets"):
        getattr(theirs, name).load_state_dict(getattr(ours, name).state_dict())
    batch = random_steps()
    after = ours.pairs(batch.next_observation)
    ours.generator.manual_seed(5)
    theirs.generator.manual_seed(5)
    action, _, price = ours.sample(after, ours._noise(after))
    q = ours.targets(after, action).amin(0) - price
    expected = theirs.critic_target(batch._replace(next_observation=after))
    assert torch.allclose(ours.critic_target(batch, q[:, None])[:, 0], expected, atol=1e-6)


def test_terminations_follow_the_sign_of_their_bracket():
    """Two options of equal value: with η < α log 2 both end, with η > α log 2 both go on."""
    batch = random_steps(64)._replace(terminated=torch.zeros(64))
    q = torch.zeros(64, 2)
    for cost, ends in ((0.0, True), (0.3, True), (0.4, False)):
        learner = agent(options=2, deliberation_cost=cost, learning_rate=1e-2)
        for _ in range(200):
            loss = learner.termination_loss(batch, q)
            soft_option_critic.descend(learner.option_optimiser, loss)
        beta = learner.termination(batch.next_observation).sigmoid()
        assert ((beta > 0.5) == ends).all(), cost


# -- acting -----------------------------------------------------------------------------------


def test_endings_are_drawn_for_the_option_in_force():
    learner = agent()
    biased(learner.termination, -30.0, 0.0, 30.0)
    option = torch.arange(3).repeat(2000)
    ended = learner.ends(torch.zeros(6000, 3), option)
    assert ended.dtype == torch.bool and ended.shape == (6000,)
    shares = [ended[option == each].float().mean().item() for each in range(3)]
    assert shares == pytest.approx([0.0, 0.5, 1.0], abs=0.05)


def test_options_are_drawn_from_their_softmax():
    learner = agent(option_temperature=0.5)
    biased(learner.option_values, 0.0, 0.5 * math.log(2.0), 0.5 * math.log(5.0))
    drawn = learner.choose(torch.zeros(8000, 3)).bincount(minlength=3) / 8000
    assert drawn.tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.02)
    assert (learner.choose(torch.zeros(5, 3), greedy=True) == 2).all()


def test_the_option_in_force_acts():
    learner, observation = agent(), random_steps().observation
    every = learner.act(learner.pairs(observation), greedy=True).view(8, 3, 2)
    option = torch.arange(8) % 3
    expected = every[torch.arange(8), option]
    assert torch.allclose(learner.act_with(observation, option, greedy=True), expected, atol=1e-6)


def test_what_is_told_is_between_nothing_and_all():
    learner, observation = agent(), torch.randn(400, 3, generator=seeded())
    assert 0 <= learner.told(observation) < math.log(3)
    with torch.no_grad():  # the one-hot ω alone decides on the action
        learner.actor.layers[0].weight[:, :3] = 0
        learner.actor.layers[0].weight[:, 3:] *= 300
    assert learner.told(observation) > 0.9 * math.log(3)


# -- training ---------------------------------------------------------------------------------


def stored(monkeypatch, **values):
    """Train a little on walks; the transitions that were stored, and agent and history."""
    seen = []

    class Remembering(soft_option_critic.ReplayBuffer):
        def add(self, batch):
            seen.append(batch)
            super().add(batch)

    monkeypatch.setattr(soft_option_critic, "ReplayBuffer", Remembering)
    config = SoftOptionCriticConfig(hidden=16, batch_size=8, options=2)
    steps = values.pop("steps", 60)
    trained = train_soft_option_critic(
        walks(2, **values), walks(3, **values), config, steps, 0, warm_up=40, evaluate_every=30
    )
    return Batch(*(torch.cat(column) for column in zip(*seen, strict=True))), *trained


def test_a_reset_is_no_transition_and_running_out_of_time_is_no_end(monkeypatch):
    batch, _, _ = stored(monkeypatch, limit=5)
    assert len(batch.reward) == 50, "one step of six only resets"
    moved = batch.next_observation[:, 0] - batch.observation[:, 0]
    assert torch.equal(batch.next_observation[:, 1], batch.observation[:, 1] + 1)
    stretched = 2 * batch.action[:, 0] - 1  # [−1, 1] to [−3, 1]
    assert torch.allclose(moved, stretched, atol=1e-4)
    assert (batch.terminated == 0).all() and (batch.reward == 1).all()


def test_options_end_and_begin_at_the_state_that_is_reached(monkeypatch):
    """Asked about s' whether to end, and with which option to go on; the reset state too."""
    asked, chosen = [], []

    class Asked(SoftOptionCritic):
        def ends(self, observation, option):
            asked.append(observation)
            return super().ends(observation, option)

        def choose(self, observation, greedy=False):
            chosen.append(observation)
            return super().choose(observation, greedy)

    monkeypatch.setattr(soft_option_critic, "SoftOptionCritic", Asked)
    config = SoftOptionCriticConfig(hidden=16, batch_size=8)
    train_soft_option_critic(walks(limit=3), walks(limit=3), config, 16, 0, 100, 16)
    places = [row[:, 1].tolist() for row in asked[:8]]  # what follows is the evaluation
    assert places == [[count, count] for count in (1, 2, 3, 0, 1, 2, 3, 0)]
    assert [row[:, 1].tolist() for row in chosen[:9]] == [[0, 0], *places]


def test_the_end_is_stored_as_the_end(monkeypatch):
    batch, _, _ = stored(monkeypatch, limit=50, wall=2.0)
    reached = (batch.next_observation[:, 0] - 100).abs() >= 2.0
    assert torch.equal(batch.terminated == 1, reached) and reached.any()


def test_history_and_episodes_have_their_shapes(monkeypatch):
    _, learner, history = stored(monkeypatch, limit=5)
    assert history.steps.tolist() == [30, 60]
    assert history.returns.tolist() == [[5.0] * 3] * 2
    assert history.durations.shape == history.told.shape == (2,)
    assert learner.updates == 20
    biased(learner.termination, 30.0, 30.0)
    short = evaluate_options(learner, walks(3, limit=5), 0)
    assert short.duration == 1.0 and short.begun.all()
    biased(learner.termination, -30.0, -30.0)
    long = evaluate_options(learner, walks(3, limit=5), 0)
    assert long.duration == 5.0 and long.begun[0].all() and not long.begun[1:].any()
    assert long.observation.shape == (5, 3, 2) and long.visited.shape == (15, 2)


def test_an_episode_that_ends_early_counts_no_further():
    learner = SoftOptionCritic(2, 1, SoftOptionCriticConfig(hidden=16))
    with torch.no_grad():
        learner.actor.layers[-1].weight.zero_()
        learner.actor.layers[-1].bias[:] = torch.tensor([30.0, 0.0])  # action 1 always
    mixed = gym.vector.SyncVectorEnv([lambda: Walk(9, 3.0), lambda: Walk(6)])
    episodes = evaluate_options(learner, mixed, 0)
    assert episodes.returns.tolist() == [3.0, 6.0]
    assert episodes.alive.sum(0).tolist() == [3, 6]
    assert len(episodes.visited) == 9


def test_same_seed_same_run_and_nothing_global_is_touched():
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    config = SoftOptionCriticConfig(hidden=16, batch_size=8)
    runs = []
    for seed in (1, 1, 2):
        learner, _ = train_soft_option_critic(walks(), walks(), config, 30, seed, 10, 30)
        runs.append(learner.act_with(torch.zeros(3, 2), torch.arange(3), greedy=True))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.rand(1), expected)


# -- the shipped results and their scripts ----------------------------------------------------

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "mbta_helpers" / "parameters"


def test_the_script_writes_each_run_once(tmp_path, capsys):
    script = load_script("soft_option_critic")
    few = ["--only", "main", "alike", "--steps", "1000", "--out", str(tmp_path / "runs.json")]
    script.train = lambda variant, seed, steps: {"variant": variant, "seed": seed, "steps": steps}
    assert script.main([*few, "--seeds", "7"]) == 0
    assert script.main([*few, "--seeds", "7", "8"]) == 0
    runs = json.loads((tmp_path / "runs.json").read_text("utf-8"))["runs"]
    made = sorted((run["variant"], run["seed"]) for run in runs)
    assert made == [("alike", 7), ("alike", 8), ("main", 7), ("main", 8)]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_scripts_row_is_the_history():
    row = load_script("soft_option_critic").train("alike", 3, 500)
    assert row["steps"] == [500] and len(row["returns"][0]) == 10
    assert len(row["durations"]) == len(row["told"]) == 1


def test_the_comparison_writes_both(tmp_path, monkeypatch, capsys):
    """With a stub in place of Stable-Baselines3, which the tests do not install."""

    class Theirs:
        updates = 0

        def predict(self, observation, deterministic):
            return np.zeros((len(observation), 1), np.float32), None

        def train(self, gradient_steps, batch_size):
            self.updates += gradient_steps

    script, theirs = load_script("sac_against_sb3"), Theirs()
    monkeypatch.setattr(script, "train_theirs", lambda seed, steps: theirs)
    monkeypatch.setattr(script, "version", lambda name: "0")
    monkeypatch.setattr(script, "RANDOM_STEPS", 50)
    monkeypatch.setattr(script, "UPDATES", 2)
    monkeypatch.setattr(script, "EPISODES", 3)
    out = tmp_path / "both.json"
    assert script.main(["--seeds", "3", "--steps", "60", "--out", str(out)]) == 0
    found = json.loads(out.read_text("utf-8"))
    assert len(found["speed"]["ratios"]) == script.ROUNDS and theirs.updates == 20
    (run,) = found["runs"]
    assert all(len(run[name]) == 3 and max(run[name]) < 0 for name in ("ours", "theirs"))
    assert "ratio" in capsys.readouterr().out


def test_what_is_shipped_is_what_the_chapter_says():
    found = json.loads((SHIPPED / "soft_option_critic.json").read_text("utf-8"))
    runs = [run for run in found["runs"] if run["variant"] == "main"]
    assert sorted(run["seed"] for run in runs) == [0, 1, 2, 3, 4]
    assert np.mean([run["returns"][-3:] for run in runs]) >= -200
    assert np.mean([run["durations"][-3:] for run in runs]) > 3


def test_neighbouring_seeds_share_no_start(monkeypatch):
    """Environment i of a vector takes the seed that is given, plus i."""
    given = []
    tests = gym.make_vec("Pendulum-v1", num_envs=10, vectorization_mode="sync")
    environments = gym.make_vec("Pendulum-v1", num_envs=4, vectorization_mode="sync")
    for made in (environments, tests):
        reset, count = made.reset, made.num_envs

        def noted(seed, reset=reset, count=count):
            given.extend(range(seed, seed + count))
            return reset(seed=seed)

        monkeypatch.setattr(made, "reset", noted)
    small = SoftOptionCriticConfig(hidden=8, batch_size=4)
    for seed in (0, 1):
        train_soft_option_critic(environments, tests, small, 8, seed, evaluate_every=4)
    assert len(given) == 2 * (4 + 2 * 10) == len(set(given))
