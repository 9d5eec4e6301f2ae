"""Deciding with one world model: what is watched, what plans cost, what the actor may change."""

import copy

import numpy as np
import pytest
import torch

from mbta_helpers.datasets import Transitions
from mbta_helpers.evaluation import evaluate
from mbta_helpers.latent import maze_agents
from mbta_helpers.latent.dreamer import DreamerConfig
from mbta_helpers.latent.macro import MacroConfig, MacroModel, filter_play
from mbta_helpers.latent.maze_pictures import HELD, shown
from mbta_helpers.latent.rssm import GaussianLatent, State
from mbta_helpers.mazes import get_maze, sample_tasks
from mbta_helpers.networks import NetworkConfig, SkillModel
from mbta_helpers.planning import CEMConfig, PlannerConfig

MAZE = get_maze("pointmaze-medium")
CONFIG = MacroConfig(latent=GaussianLatent(3), deterministic=8, hidden=12, embedding=6)
FEATURES = 11


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def some_states(count, seed=0):
    h, z = torch.randn(count, 8, generator=draw(seed)), torch.randn(count, 3, generator=draw(9))
    return State(h, z, torch.zeros(count, 6))


def small_skills():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SkillModel(NetworkConfig(4 + FEATURES, 2, skill_dim=3, hidden=8, model_hidden=8,
                                        gru_hidden=4))  # fmt: skip


class Notes(maze_agents.Watcher):
    """Acts by a rule of its decision, and notes what it was asked with."""

    def __init__(self, model, every):
        super().__init__(model, every)
        self.noted = []

    def choose(self, now, goal, running):
        return (1.0 + torch.from_numpy(running)[:, None]) / 10

    def control(self, now, decision, number):
        self.noted.append((decision[:, 0].mul(10).sub(1).round().long().tolist(), number, now))
        return torch.cat([decision, -decision], 1) * (1 + number) / 10


@pytest.mark.parametrize("every", [1, 3])
def test_what_is_watched_is_what_filtering_gives(every):
    """Episodes end at different times; each state of the rest is that of `filter_play`."""
    model = MacroModel(MAZE, CONFIG, 0)
    agent, rng = Notes(model, every), np.random.default_rng(0)
    steps, ends = 4 * every * HELD, np.array([10**6, every * HELD + 2, 2 * every * HELD])
    states = rng.uniform(-3, 3, (3, steps + 1, 4)).astype(np.float32)
    running, actions = np.arange(3), np.zeros((3, steps, 2), np.float32)
    for step in range(steps):
        now, goal = torch.from_numpy(states[running, step]), torch.zeros(len(running), 2)
        if step % agent.replan_every == 0:
            decision = agent.decide(now, goal, running)
        acted = agent.act(now, goal, decision, step % agent.replan_every)
        actions[running, step] = acted.numpy()
        stays = ends[running] > step + 1
        decision, running = decision[torch.from_numpy(stays)], running[stays]
    assert np.array_equal(actions[0, ::HELD], actions[0, HELD - 1 :: HELD])  # held
    for episode, end in enumerate(np.minimum(ends, steps)):
        count = -(-end // HELD) - 1  # held actions before the last state that was watched
        play = Transitions(
            states[episode, : end : HELD][: count + 1], actions[episode, ::HELD][:count],
            np.array([count]), np.zeros((1, 2)),
        )  # fmt: skip
        expected = filter_play(model, shown(play)).features
        seen = [now.features[rows.index(episode)] for rows, _, now in agent.noted
                if episode in rows]  # fmt: skip
        assert torch.allclose(torch.stack(seen), expected, atol=1e-5)
    assert [number for _, number, _ in agent.noted] == list(range(every)) * 4


class Straight:
    """A world that moves by the action; the place is h."""

    def imagine(self, start, actions, generator):
        places = start.h[:, None] + actions.cumsum(1)
        return State(places, places[..., :0], places[..., :0])


class StraightModel:
    rssm, config = Straight(), None

    def place(self, features):
        return features


def test_a_plan_costs_the_distances_on_its_way():
    agent = maze_agents.Plans(StraightModel(), draw(), every=2, horizon=3)
    now = State(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.zeros(2, 0), torch.zeros(2, 0))
    goal = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    actions = torch.zeros(2, 4, 3, 2)
    actions[0, 1, :, 0] = torch.tensor([1.0, 1.0, 1.0])
    actions[0, 2, :, 0] = 5.0  # cut off at 1
    actions[1, 3, 0] = torch.tensor([-0.6, 0.8])
    cost = agent.cost(now, goal, actions)
    assert torch.allclose(cost[0], torch.tensor([9.0, 3.0, 3.0, 9.0]))
    assert torch.allclose(cost[1], torch.tensor([0.0, 0.0, 0.0, 3.0]))


def test_plans_carry_out_the_first_actions_of_the_searchs_mean():
    agent = maze_agents.Plans(StraightModel(), draw(), every=2, horizon=4)
    now = State(torch.zeros(2, 2), torch.zeros(2, 0), torch.zeros(2, 0))
    goal = torch.tensor([[5.0, 0.0], [0.0, -5.0]])
    decision = agent.choose(now, goal, np.arange(2))
    for number in range(2):
        action = agent.control(now, decision, number)
        assert action.abs().max() <= 1
        assert action[0, 0] > 0.8 and action[1, 1] < -0.8


def test_a_dream_keeps_its_goal_and_follows_the_model():
    model = MacroModel(MAZE, CONFIG, 0)
    dream, goals = maze_agents.GoalDream(model), torch.randn(5, 2, generator=draw(1))
    action = torch.randn(5, 2, generator=draw(2))
    state = dream.with_goal(some_states(5), goals)
    after = dream.imagine_step(state, action, draw(3))
    plain = model.rssm.imagine_step(some_states(5), action, draw(3))
    own, goal = dream.split(after.features)
    assert torch.equal(goal, goals) and torch.allclose(own, plain.features)


def test_a_dream_pays_for_nearness_and_shows_both_places():
    model = MacroModel(MAZE, CONFIG, 0)
    dream = maze_agents.GoalDream(model)
    states, place = some_states(4), model.place(some_states(4).features)
    at_goal = dream.with_goal(states, place).features
    assert torch.allclose(dream.predict_reward(at_goal), torch.ones(4))
    away = dream.with_goal(states, place + torch.tensor([3.0, -4.0])).features
    assert torch.allclose(dream.predict_reward(away), torch.exp(torch.full((4,), -5.0)), rtol=1e-3)
    view = dream.view(away)
    assert torch.equal(view[:, :FEATURES], states.features)
    way = view[:, FEATURES + 2 : FEATURES + 4]
    assert torch.allclose(way, torch.tensor([3.0, -4.0]).expand(4, 2), atol=1e-5)
    first, last = view[:, FEATURES + 4 :].chunk(2, 1)
    assert torch.allclose(first, maze_agents.waves(place))
    assert torch.allclose(last, maze_agents.waves(place + torch.tensor([3.0, -4.0])), atol=1e-4)


def test_learning_in_dreams_leaves_the_world_model_alone():
    model = MacroModel(MAZE, CONFIG, 0)
    before = copy.deepcopy(model.state_dict())
    config = DreamerConfig(starts=8, horizon=3)
    learnt = maze_agents.GoalActorCritic(model, config, 0)
    actor = copy.deepcopy(learnt.actor.state_dict())
    for _ in range(2):
        losses = learnt.update(some_states(20), torch.zeros(20, 2))
    assert all(np.isfinite(value) for value in losses.values())
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert all(part.grad is None for part in model.parameters())
    assert any(not torch.equal(part, actor[n]) for n, part in learnt.actor.state_dict().items())


def test_an_actor_learns_to_go_to_its_goal_in_a_world_without_walls():
    """The place is h, an action moves it: after some updates the median action points there."""

    class Free(torch.nn.Module):
        config = MacroConfig(latent=GaussianLatent(1), deterministic=2, hidden=32)

        def __init__(self):
            super().__init__()
            self.rssm = self

        def place(self, features):
            return features[..., :2]

        def imagine_step(self, state, action, generator):
            return state._replace(h=state.h + 0.3 * action)

    config = DreamerConfig(starts=64, horizon=8, actor_rate=3e-3, critic_rate=3e-3)
    learnt = maze_agents.GoalActorCritic(Free(), config, 0)
    places = 2 * torch.randn(200, 2, generator=draw(4))
    states = State(places, torch.zeros(200, 1), torch.zeros(200, 2))
    for _ in range(150):
        learnt.update(states, places)
    now = State(torch.zeros(4, 2), torch.zeros(4, 1), torch.zeros(4, 2))
    goals = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    action = learnt.actor.mode(learnt.dream.with_goal(now, goals).features)
    assert (torch.nn.functional.cosine_similarity(action, goals) > 0.8).all()


def test_skills_see_the_place_first_and_the_state_last():
    model, states = MacroModel(MAZE, CONFIG, 0), some_states(6)
    rows = maze_agents.latent_rows(model, states)
    assert torch.equal(rows[:, :2], model.place(states.features))
    assert torch.equal(rows[:, :4], model.sight(states.features))
    assert torch.equal(rows[:, 4:], states.features)


@pytest.mark.parametrize("kind", ["plans", "dreams", "skills"])
def test_each_way_to_decide_runs_in_the_simulator(kind):
    model = MacroModel(MAZE, CONFIG, 0)
    few = CEMConfig(candidates=6, iterations=2, elites=2)
    agent = {
        "plans": lambda: maze_agents.Plans(model, draw(), horizon=4, search=few),
        "dreams": lambda: maze_agents.Dreams(
            model, maze_agents.GoalActorCritic(model, DreamerConfig(), 0)
        ),
        "skills": lambda: maze_agents.Skills(
            model, small_skills(), draw(), PlannerConfig(plan_length=2, replan_every=3, cem=few)
        ),
    }[kind]()
    result = evaluate(agent, MAZE, sample_tasks(MAZE, 3, 5), max_steps=40)
    assert len(result.success) == 3 and max(len(path) for path in result.paths) == 41
    assert agent.replan_every == HELD * (1 if kind == "dreams" else 3)
