"""Live figures of Parts II and III: they compute what the package computes, and answer a hand.

The modules run in a real browser, see test_live_figures.py, which tests what they share.
"""

import base64
import math
from itertools import pairwise

import live_samples
import numpy as np
import pytest
import torch
from live_samples import ALT, FOUR_ROOMS, GOAL, MAZE, ROOMS, drifting, still
from safetensors.torch import load

from mbta_helpers import widgets
from mbta_helpers.errors import UserError
from mbta_helpers.hierarchical.diayn import roll_out_skills
from mbta_helpers.hierarchical.feudal_maze import FeudalAgents, FeudalConfig, Step, carried_out
from mbta_helpers.hierarchical.four_rooms import World
from mbta_helpers.hierarchical.options import Option, collect, hallway_options, option_models
from mbta_helpers.latent.dreamer_v2 import balanced_kl
from mbta_helpers.latent.imagination import lambda_return
from mbta_helpers.latent.mdn_rnn import MDNRNN, MDNConfig
from mbta_helpers.latent.rssm import CategoricalLatent
from mbta_helpers.latent.twohot import symexp, symmetric_mean, twohot
from mbta_helpers.widgets.live import packed

KINDS = live_samples.LATER
TIGHT = {"rtol": 0, "atol": 1e-6}

# -- what is computed: Part II ----------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 3, 7, "drifting"])
@pytest.mark.parametrize(("slip", "gamma", "early"), [(1 / 3, 0.99, 0.0), (0.1, 0.8, 0.2)])
def test_an_option_leads_where_its_model_says(compute, number, slip, gamma, early):
    option = drifting() if number == "drifting" else hallway_options()[number]
    ends = 1 - (1 - early) * (1 - option.termination)
    world = World(ROOMS.next_state, slip, ROOMS.goal)
    policies = collect([Option(np.ones(ROOMS.states, bool), option.policy, ends)])
    models = option_models(policies, world, gamma)
    almost = option_models(policies, world, 1 - 1e-9)  # without a discount: plain chances
    starts = np.flatnonzero(option.initiation)
    starts = starts[starts != ROOMS.goal][::9].tolist()
    found = compute(
        "options",
        """const { next } = m.gridOf(given.walls);
        return given.starts.map((start) => {
            const model = m.optionModel(next, given.option, { ...given.setting, start });
            return { arrival: [...model.arrival], reward: model.reward, ends: [...model.ends],
                     steps: model.steps, durations: model.durations, next };
        });""",
        walls=np.array(FOUR_ROOMS.walls, int).tolist(),
        option={"policy": option.policy.tolist(), "termination": option.termination.tolist()},
        setting={"goal": int(ROOMS.goal), "slip": slip, "gamma": gamma, "early": early},
        starts=starts,
    )
    for start, here in zip(starts, found, strict=True):
        assert np.array_equal(here["next"], FOUR_ROOMS.next_state)
        assert np.allclose(here["arrival"], models.arrival[0, start], **TIGHT)
        assert np.allclose(here["reward"], models.reward[0, start], **TIGHT)
        chances = almost.arrival[0, start].copy()
        chances[ROOMS.goal] = almost.reward[0, start]
        assert np.allclose(here["ends"], chances, **TIGHT)
        k = np.arange(1, len(here["durations"]) + 1)
        assert np.allclose(here["steps"], k @ np.array(here["durations"]), rtol=1e-9)
        # E[γ^K]: where the option ends, and the goal, reached after K steps, paid γ^(K − 1).
        total = models.arrival[0, start].sum() + gamma * models.reward[0, start]
        assert np.allclose(gamma**k @ np.array(here["durations"]), total, **TIGHT)


def test_options_arrive_as_they_are(compute):
    figure = live_samples.option_picture()
    found = compute(
        "options",
        "return m.optionsOf(given.names, m.readWeights(m.unpack(given.packed)));",
        names=figure.names,
        packed=figure.packed,
    )
    assert [option["name"] for option in found] == figure.names
    for option, here in zip([*hallway_options(), drifting()], found, strict=True):
        for field, values in option._asdict().items():
            assert np.allclose(here[field], values, rtol=0, atol=1e-7), field


def test_commands_follow_from_the_tables(compute):
    agents = live_samples.feudal_agents()
    figure = live_samples.feudal_picture()
    for level, order in ((0, 4), (1, 0), (2, 3)):
        command = np.full(MAZE.side**2, order)
        for areas, q in zip(agents.areas[level + 1 :], agents.q[level:], strict=True):
            command = q[1, areas, command].argmax(-1)
        found = compute(
            "feudal",
            """return given.cells.map((cell) => {
                const result = m.carryOut(given.tables, given.walls, given.goal, cell,
                                          given.level, given.order);
                const told = m.commandsAt(given.tables, cell, given.level, given.order);
                return { ...result, move: told.at(-1), obeyed: m.obeyed(result, given.order) };
            });""",
            tables=figure.tables,
            walls=figure.walls,
            goal=figure.goal,
            cells=np.stack(np.divmod(MAZE.cells, MAZE.side), 1).tolist(),
            level=level,
            order=order,
        )
        areas, steps, ends = MAZE.areas(level), MAZE.steps(), set()
        for cell, here in zip(MAZE.cells, found, strict=True):
            assert here["move"] == command[cell]
            path = [row * MAZE.side + column for row, column in here["path"]]
            assert path[0] == cell
            for before, after in pairwise(path):
                assert after == steps[before, command[before]]
            inside = areas[path[:-1]] == areas[cell]
            assert inside.all() and GOAL not in path[1:-1]
            last = {"goal": path[-1] == GOAL, "left": areas[path[-1]] != areas[cell]}
            assert last.get(here["end"], path[-1] in path[:-1])
            ends.add(here["end"])
            before, after = np.array(path[-2:])[:, None]
            crossed, hit = areas[before] != areas[after], after == GOAL
            step = Step(before, after, command[before], hit, crossed)
            assert here["obeyed"] == carried_out(np.array([order]), crossed, step)[0]
        assert "circles" in ends and len(ends) > 1


def test_areas_are_those_of_the_maze(compute):
    cells = np.stack(np.divmod(np.arange(MAZE.side**2), MAZE.side), 1).tolist()
    script = "return given.cells.map((cell) => m.areaOf(cell, given.level, given.depth));"
    for level in range(MAZE.depth + 1):
        found = compute("feudal", script, cells=cells, level=level, depth=MAZE.depth)
        assert found == MAZE.areas(level).tolist()


READ = "const tensors = m.readWeights(m.unpack(given.packed));"


def test_skills_of_the_square_go_where_the_policy_goes(compute):
    learner, figure = live_samples.discoverer(), live_samples.skill_map()
    starts = np.array([[0.0, 0.0], [0.7, -0.9], [-1.0, 0.4]])
    paths = roll_out_skills(learner, starts, greedy=True)
    found = compute(
        "diayn",
        READ
        + """return [...Array(8).keys()].map((skill) => given.starts.map((start) =>
            m.rollOut(tensors, given.world, start, skill)));""",
        packed=figure.packed,
        world=figure.world,
        starts=starts.tolist(),
    )
    assert np.abs(np.array(found) - paths).max() < 1e-4, "30 steps of float32 on one side"
    with torch.no_grad():
        q = learner.discriminator(learner.view(paths[:, :, 7])).exp()
    places = paths[:, :, 7].reshape(-1, 2).tolist()
    script = READ + "return given.places.map((place) => m.named(tensors, place));"
    here = compute("diayn", script, packed=figure.packed, places=places)
    assert np.allclose(here, q.flatten(0, 1), atol=1e-5)


def test_drawn_actions_of_the_square_are_the_policys(compute):
    learner, figure = live_samples.discoverer(), live_samples.skill_map()
    noise = torch.randn(1, 2, generator=torch.Generator().manual_seed(1))
    z = torch.eye(8)[4:5]
    with torch.no_grad():
        action, _ = learner.sac.actor.sample(learner.observation(np.array([[0.2, -0.5]]), z), noise)
    found = compute(
        "diayn",
        READ
        + """const draws = [...given.noise];
        return m.act(tensors, [0.2, -0.5], 4, 8, given.bounds, () => draws.shift());""",
        packed=figure.packed,
        noise=noise[0].tolist(),
        bounds=figure.world["log_std"],
    )
    assert np.allclose(found, action[0], atol=1e-5)


# -- what is computed: Part III ---------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("tau", [0.1, 1.0, 1.7])
def test_dreams_agree_for_the_same_draws(compute, tau):
    model, figure = live_samples.dreamer(), live_samples.dream_picture()
    actions = [1, 0, 2, 2, 1, 0]
    random, generator = (torch.Generator().manual_seed(2) for _ in range(2))
    uniforms, normals = [], []
    for _ in actions:  # in the order in which `sample` takes them
        uniforms += torch.rand(5, generator=random).tolist()
        normals += torch.randn(8, generator=random).tolist()
    z, memory, codes, ends = model.mean[:1], model.memory.begin(1), [], []
    for action in actions:
        memory = model.memory.remember(memory, z, torch.tensor([action]))
        z = model.memory.predict(memory[0]).sample(tau, generator)
        codes.append(z[0])
        ends.append(model.memory.end_logit(memory[0], z).sigmoid().item())
    found = compute(
        "dream",
        READ
        + """const draws = [m.drawsOf(given.uniforms), m.drawsOf(given.normals)];
        const { codes, ends } = m.dream(
            tensors, given.start, 5, given.actions, given.tau, ...draws);
        return { codes: codes.map((code) => [...code]), ends,
                 picture: [...m.layers(tensors, "decoder", codes.at(-1))] };""",
        packed=figure.packed,
        start=figure.start,
        actions=actions,
        tau=tau,
        uniforms=uniforms,
        normals=normals,
    )
    assert np.allclose(found["codes"][1:], torch.stack(codes), atol=1e-4)
    assert np.allclose(found["ends"], ends, atol=1e-4)
    assert np.allclose(found["picture"], model.vae.decode(z).flatten(), atol=1e-4)


@torch.no_grad()
def test_the_density_is_the_mixtures_and_tempers_its_parts(compute):
    model, figure = live_samples.dreamer(), live_samples.dream_picture()
    h = torch.randn(48, generator=torch.Generator().manual_seed(3))
    mixture = model.memory.predict(h)
    z = torch.linspace(-2, 2, 9)
    expected = {}
    for tau in (1.0, 0.4):
        share = (mixture.logits[0] / tau).softmax(-1)  # (K,)
        parts = torch.distributions.Normal(mixture.mean[2], tau**0.5 * mixture.log_std[2].exp())
        expected[tau] = (share * parts.log_prob(z[:, None]).exp()).sum(-1)
    found = compute(
        "dream",
        READ
        + """const mixture = m.predict(tensors, given.h, 8, 5);
        return given.taus.map((tau) => given.z.map((z) => m.density(mixture, 2, tau, z)));""",
        packed=figure.packed,
        h=h.tolist(),
        z=z.tolist(),
        taus=list(expected),
    )
    for here, there in zip(found, expected.values(), strict=True):
        assert np.allclose(here, there, rtol=1e-4)


def test_frames_are_those_that_were_given_to_the_last_bit_but_rounding(compute):
    figure, (truth, imagined) = live_samples.frames_picture(), live_samples.films()
    found = compute(
        "frames",
        """const all = m.picturesOf(m.unpack(given.pictures), 16);
        return { all, error: m.squaredError(all[2 * 25], all[3 * 25]) };""",
        pictures=figure.pictures,
    )
    films = np.stack([truth, imagined], 1).reshape(-1, 16)
    assert np.abs(np.array(found["all"]) - films).max() <= 0.5 / 255 + 1e-9
    error = np.square(np.subtract(*np.array(found["all"])[[50, 75]])).sum()
    assert math.isclose(found["error"], error)


@pytest.mark.parametrize("end", [0, 1, 3, 5])
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_lambda_returns_agree_and_are_means_of_step_returns(compute, lam, end):
    rng = np.random.default_rng(9)
    rewards, values, gamma = rng.normal(size=5), rng.normal(size=6), 0.9
    found = compute(
        "returns",
        """const { rewards, values, gamma, lam, end } = given;
        const discounts = m.discountsOf(5, gamma, end);
        return { discounts, returns: m.lambdaReturns(rewards, values, discounts, lam),
                 steps: m.stepReturns(rewards, values, discounts), weights: m.stepWeights(5, lam) };
        """,
        rewards=rewards.tolist(),
        values=values.tolist(),
        gamma=gamma,
        lam=lam,
        end=end,
    )
    discount = np.where(np.arange(1, 6) == end, 0.0, gamma)
    parts = (torch.from_numpy(part) for part in (rewards, values, discount))
    assert np.allclose(found["discounts"], discount)
    assert np.allclose(found["returns"], lambda_return(*parts, lam), **TIGHT)
    assert np.isclose(sum(found["weights"]), 1)
    assert np.isclose(np.dot(found["weights"], found["steps"]), found["returns"][0], **TIGHT)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 1.0])
def test_the_balanced_gradients_are_those_of_autograd(compute, alpha):
    generator = torch.Generator().manual_seed(4)
    both = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    evidence = torch.tensor([0.0, 1.5, 0.0, -0.5], dtype=torch.float64)
    latent = CategoricalLatent(1, 4)

    def gradients(q, p):
        q, p = q.clone().requires_grad_(), p.clone().requires_grad_()
        kl = balanced_kl(latent, q, p, alpha)
        loss = -(q.softmax(-1) * evidence).sum() + 2 * kl
        return kl.item(), *torch.autograd.grad(loss, (q, p))

    q, p = both
    kl, *first = gradients(q, p)
    for _ in range(15):
        _, to_q, to_p = gradients(q, p)
        q, p = q - 0.5 * to_q, p - 0.5 * to_p
    found = compute(
        "balance",
        """const { q, p, evidence, alpha } = given;
        const { kl, toPosterior, toPrior } = m.gradients(q, p, evidence, alpha, 2);
        const start = { posterior: q, prior: p };
        const after = m.descend(start, evidence, { alpha, weight: 2, rate: 0.5 }, 15);
        return { kl, toPosterior, toPrior, ...after,
                 share: m.softmax(m.withProbability(q, 2, 0.4)) };""",
        q=both[0].tolist(),
        p=both[1].tolist(),
        evidence=evidence.tolist(),
        alpha=alpha,
    )
    assert np.isclose(found["kl"], kl, **TIGHT)
    for name, expected in zip(("toPosterior", "toPrior"), first, strict=True):
        assert np.allclose(found[name], expected, **TIGHT)
    assert np.allclose(found["posterior"], q, **TIGHT)
    assert np.allclose(found["prior"], p, **TIGHT)
    rest = both[0].softmax(-1).numpy()[[0, 1, 3]]
    assert np.isclose(found["share"][2], 0.4)
    assert np.allclose(np.array(found["share"])[[0, 1, 3]], 0.6 * rest / rest.sum())


@pytest.mark.parametrize("space", ["values", "symlog"])
def test_codes_and_what_they_stand_for_agree(compute, space):
    even = torch.linspace(-8, 8, 17, dtype=torch.float64)
    bins = symexp(even) if space == "values" else even
    outcomes = torch.tensor([6.9, -2.3, 0.0, 9.0, -8.0], dtype=torch.float64)
    chances = torch.tensor([0.2, 0.3, 0.1, 0.3, 0.1], dtype=torch.float64)
    targets = symexp(outcomes) if space == "values" else outcomes
    code = (chances[:, None] * twohot(targets, bins)).sum(0)
    mean = symmetric_mean(code.log(), bins)
    found = compute(
        "twohot",
        """const even = m.evenBins(17, 8);
        const code = m.encode(even, given.outcomes, given.chances, given.space);
        return { even, code, stands: m.decode(even, code, given.space),
                 edited: m.withWeight(code, 3, 0.5), sure: m.withWeight([1, 0, 0], 0, 0.4) };""",
        outcomes=outcomes.tolist(),
        chances=chances.tolist(),
        space=space,
    )
    assert np.allclose(found["even"], even, **TIGHT)
    assert np.allclose(found["code"], code, **TIGHT)
    assert math.isclose(found["stands"], mean if space == "values" else symexp(mean), rel_tol=1e-9)
    others = np.delete(code.numpy(), 3)
    assert np.allclose(np.delete(found["edited"], 3), others / others.sum() / 2)
    assert np.allclose(found["sure"], [0.4, 0.3, 0.3])


# -- what is refused --------------------------------------------------------------------------


def test_figures_refuse_what_they_cannot_compute():
    hallway = {"one": hallway_options()[0]}
    with pytest.raises(UserError, match="no options"):
        widgets.OptionPicture(still(), ALT, FOUR_ROOMS, ROOMS, {}, (1, 1), 0.9)
    small = World(np.zeros((2, 4), int), 0.1, 0)
    with pytest.raises(UserError, match="the grid that the world is on"):
        widgets.OptionPicture(still(), ALT, FOUR_ROOMS, small, hallway, (1, 1), 0.9)
    flat = FeudalAgents(MAZE, FeudalConfig(levels=(4,)), 1, np.random.default_rng(0))
    with pytest.raises(UserError, match="each of the 4 levels"):
        widgets.FeudalPicture(still(), ALT, MAZE, flat, 0, GOAL, (2, 2))
    with pytest.raises(UserError, match="no free cell"):
        widgets.FeudalPicture(still(), ALT, MAZE, live_samples.feudal_agents(), 0, GOAL, (5, 4))
    for wrong in ({"level": 4}, {"order": 5}):
        with pytest.raises(UserError, match="not"):
            widgets.FeudalPicture(
                still(), ALT, MAZE, live_samples.feudal_agents(), 0, GOAL, (2, 2), **wrong
            )
    with pytest.raises(UserError, match="below 8"):
        widgets.SkillMap(still(), ALT, live_samples.discoverer(), skill=8)
    model = live_samples.dreamer()._replace(memory=MDNRNN(MDNConfig(groups=8)))
    with pytest.raises(UserError, match="groups is 1"):
        widgets.DreamPicture(still(), ALT, model, model.mean[0])
    truth, imagined = live_samples.films()
    with pytest.raises(UserError, match="one shape"):
        widgets.FramesPicture(still(), ALT, truth, imagined[:, 1:], 5)


def test_packed_tensors_are_read_again_by_others():
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor([0.5])}
    read = load(base64.b64decode(packed(tensors, torch.float16)))
    assert all(torch.equal(read[name].float(), tensors[name]) for name in tensors)
    assert {tensor.dtype for tensor in read.values()} == {torch.float16}


# -- what a reader can do ---------------------------------------------------------------------


def opened(show, name: str):
    tab = show(name)
    tab.wait_for_selector(".running .said:not(:empty)")
    return tab


def said(tab) -> str:
    return tab.locator(".said[aria-live]").first.text_content()


def drag(tab, place: tuple[float, float], by: tuple[float, float]) -> None:
    """With the mouse, from a place of the window."""
    tab.mouse.move(*place)
    tab.mouse.down()
    tab.mouse.move(place[0] + by[0], place[1] + by[1], steps=4)
    tab.mouse.up()


def middle(locator) -> tuple[float, float]:
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_options_answer_clicks_keys_and_sliders(show):
    tab = opened(show, "options")
    assert said(tab).startswith("from row 1, column 1:")
    tab.locator(".map").press("ArrowDown")
    assert said(tab).startswith("from row 2, column 1:")
    box = tab.locator(".map").bounding_box()
    spot = {"x": box["width"] * 4.5 / 13, "y": box["height"] * 3.5 / 13}
    tab.locator(".map").click(position=spot)
    assert said(tab).startswith("from row 3, column 4:")
    tab.locator(".map").click(position={"x": 5, "y": 5})
    assert said(tab).startswith("from row 3, column 4:"), "there is a wall"
    texts = [said(tab)]
    for name, value in (("slip ξ", "0"), ("γ", "0.9")):
        tab.get_by_role("slider", name=name).fill(value)
        texts.append(said(tab))
    tab.get_by_role("slider", name="end early").fill("1")
    assert "1.0 steps on average; F_ω sums to 0.900" in said(tab)
    tab.get_by_role("combobox").select_option("drifting")
    assert len({*texts, said(tab)}) == 4
    assert tab.locator(".ways").get_attribute("d").count("M") > 50


def test_an_option_may_not_begin_at_the_goal_and_keys_pass_it(show):
    tab = opened(show, "options")
    box = tab.locator(".map").bounding_box()
    spot = {"x": box["width"] * 9.5 / 13, "y": box["height"] * 6.5 / 13}
    tab.locator(".map").click(position=spot)
    assert said(tab).startswith("from row 6, column 9 (outside")
    tab.locator(".map").press("ArrowDown")
    assert said(tab).startswith("from row 8, column 9")


def test_commands_are_given_by_click_and_key(show):
    tab = opened(show, "feudal")
    texts = [said(tab)]
    tab.get_by_role("button", name="east").click()
    assert tab.get_by_role("button", name="east").get_attribute("aria-pressed") == "true"
    texts.append(tab.locator(".detail").text_content())
    assert texts[-1].startswith("8 × 8: east → 4 × 4: ")
    tab.get_by_role("button", name="4 × 4").press("Enter")
    assert tab.locator(".detail").text_content().startswith("4 × 4: east → 2 × 2: ")
    tab.get_by_role("button", name="16 × 16").click()
    assert tab.locator(".detail").text_content().startswith("16 × 16: search → 8 × 8: ")
    assert tab.get_by_role("button", name="search").get_attribute("aria-pressed") == "true"
    tab.locator(".map").press("ArrowRight")
    assert said(tab).startswith("row 2, column 3: ")
    box = tab.locator(".map").bounding_box()
    tab.locator(".map").click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.9})
    assert said(tab).startswith("row 14, column 14: ")
    tab.locator(".map").click(position={"x": box["width"] * 4.5 / 16, "y": box["height"] / 2})
    assert said(tab).startswith("row 14, column 14: "), "there is a wall"


def test_skills_of_the_square_are_chosen_and_begin_where_one_clicks(show):
    tab = opened(show, "diayn")
    assert said(tab).startswith("skill 2 after 5 steps")
    texts, ways = [], []
    for act in (
        lambda: tab.get_by_role("button", name="5", exact=True).click(),
        lambda: tab.locator(".map").press("ArrowUp"),
        lambda: tab.locator(".map").click(position={"x": 30, "y": 30}),
        lambda: tab.get_by_role("slider", name="after steps").fill("0"),
    ):
        act()
        texts.append(said(tab))
        ways.append(tab.locator(".walked").get_attribute("d"))
    assert len(set(texts)) == 4 and len(set(ways)) == 3
    assert texts[0].startswith("skill 5") and ", at (−0." in texts[-1]
    assert tab.locator(".ground .drawn").get_attribute("d").count("M") == 12
    assert tab.locator(".region").count() == 24**2


def painted(tab, number: int) -> list[int]:
    """The bytes of a canvas."""
    script = """(e) => [...e.getContext('2d').getImageData(0, 0, e.width, e.height).data]"""
    return tab.locator("canvas").nth(number).evaluate(script)


def test_dreams_go_on_by_key_and_change_with_the_temperature(show):
    tab = opened(show, "dream")
    assert said(tab).startswith("step 8, chance that it was the last 0.")
    first = painted(tab, 0)
    tab.get_by_role("slider", name="τ").fill("0.05")
    assert painted(tab, 0) != first
    tab.get_by_role("slider", name="τ").fill("1")
    assert painted(tab, 0) == first, "the same draws"
    tab.locator(".stage").press("ArrowLeft")
    left = painted(tab, 0), said(tab)
    assert left[1].startswith("step 9,")
    tab.get_by_role("button", name="Begin again").click()
    assert said(tab).startswith("step 0; ")
    tab.get_by_role("button", name="Stay for 10").click()
    assert said(tab).startswith("step 10,")
    strip = painted(tab, 2)
    tab.get_by_role("button", name="Other draws").press("Enter")
    assert painted(tab, 2) != strip and said(tab).startswith("step 10,")
    for _ in range(4):
        tab.get_by_role("button", name="Stay for 10").click()
    assert said(tab).startswith("step 40,"), "no dream is longer"


def test_frames_go_through_time_by_key_slider_and_button(show):
    tab = opened(show, "frames")
    assert said(tab).startswith("t = 0, seen")
    first = painted(tab, 0)
    tab.locator(".stage").press("ArrowRight")
    assert said(tab).startswith("t = 1, seen") and painted(tab, 0) != first
    tab.get_by_role("slider", name="t", exact=True).fill("9")
    assert said(tab).startswith("t = 9, 5 steps without a picture")
    clip = painted(tab, 1)
    tab.get_by_role("slider", name="clip").fill("2")
    assert painted(tab, 1) != clip
    grey = [np.array(painted(tab, n))[::4].astype(int) for n in range(3)]
    assert np.abs(np.abs(grey[0] - grey[1]) - grey[2]).max() <= 1
    tab.get_by_role("button", name="Play").click()
    tab.wait_for_function(
        "document.querySelector('.said[aria-live]').textContent.includes('t = 24')"
    )


def test_a_reward_is_dragged_and_an_end_cuts_the_return(show):
    tab = opened(show, "returns")
    before = said(tab)
    tab.get_by_role("slider", name="reward r0").press("ArrowUp")
    up = said(tab)
    number = lambda text: float(text.split(": ")[1].replace("−", "-"))  # noqa: E731
    assert math.isclose(number(up) - number(before), 0.1, abs_tol=0.0015)
    drag(tab, middle(tab.get_by_role("slider", name="value of s5")), (0, 60))
    down = said(tab)
    assert number(down) < number(up)
    tab.get_by_role("button", name="s₁").click()
    assert said(tab) == "λ-return of s₀: 0.100", "the reward of the only step"
    tab.get_by_role("button", name="no state").press("Enter")
    assert said(tab) == down
    tab.get_by_role("slider", name="λ").fill("0")
    assert tab.locator(".detail").text_content().count("0.00 ·") == 4
    tab.get_by_role("slider", name="γ").fill("0")
    assert said(tab) == "λ-return of s₀: 0.100"


def test_a_balance_moves_the_one_or_the_other(show):
    tab = opened(show, "balance")
    shares = lambda kind: [  # noqa: E731
        float(tab.get_by_role("slider", name=f"{kind} of class {c}").get_attribute("aria-valuenow"))
        for c in range(4)
    ]
    tab.get_by_role("button", name="Start again").click()
    assert shares("posterior q") == shares("prior p")
    alone = shares("prior p")
    tab.get_by_role("slider", name="balance α").fill("0")
    assert said(tab).endswith("0.000 to the prior")
    tab.get_by_role("slider", name="steps").fill("30")
    assert shares("prior p") == alone and shares("posterior q")[1] > alone[1]
    tab.get_by_role("slider", name="balance α").fill("1")
    assert shares("posterior q")[1] > 0.9 and shares("prior p")[1] > 0.5
    tab.get_by_role("button", name="One step").press("Enter")
    assert said(tab).startswith("after 31 steps")
    handle = tab.get_by_role("slider", name="prior p of class 3")
    handle.press("ArrowUp")
    assert said(tab).startswith("after 0 steps"), "what is set by hand is a new start"
    share = shares("prior p")[3]
    drag(tab, middle(handle), (0, -40))
    assert shares("prior p")[3] > share + 0.1
    assert math.isclose(sum(shares("prior p")), 1, abs_tol=1e-9)


def test_a_number_is_coded_and_its_weights_are_edited(show):
    tab = opened(show, "twohot")
    assert said(tab) == "mean of the outcomes 495.6; decoded between values: 495.6"
    tab.get_by_role("button", name="in symlog space").click()
    assert said(tab).endswith("decoded in symlog space: 30.50")
    tab.get_by_role("button", name="between values").press("Enter")
    tab.get_by_role("slider", name="symlog y", exact=True).press("ArrowRight")
    assert said(tab).startswith("mean of the outcomes 547.8; decoded between values: 547.8")
    tab.get_by_role("slider", name="chance of y").fill("1")
    assert "mean of the outcomes 1096" in said(tab)
    drag(tab, middle(tab.get_by_role("slider", name="symlog y", exact=True)), (-250, 0))
    assert "mean of the outcomes" in said(tab) and "1096" not in said(tab)
    tab.locator(".bins").press("ArrowRight")
    assert "Bin 10 of 17" in tab.locator(".detail").text_content()
    tab.locator(".bins").press("ArrowUp")
    assert said(tab).startswith("by hand: ")
    grip = tab.locator(".grip").nth(12)
    x, y = middle(grip)
    drag(tab, (x, y), (0, -20))
    detail = tab.locator(".detail").text_content()
    assert "Bin 13 of 17" in detail and "weight 0." in detail
    tab.get_by_role("button", name="Encode y and y′ again").click()
    assert said(tab).startswith("mean of the outcomes")
    tab.get_by_role("button", name="65 bins").click()
    assert tab.locator(".bar").count() == 65


@pytest.mark.parametrize("name", ["diayn", "dream"])
def test_damaged_weights_bring_the_picture_back(show, name):
    def cut(tab):
        def route(route):
            body = route.fetch().text().replace('"packed":"', '"packed":"AAAA', 1)
            route.fulfill(body=body, content_type="text/html; charset=utf-8")

        tab.route("**/*.html", route)

    tab = show(name, before=cut)
    tab.wait_for_selector(".mbta-note")
    assert "damaged" in tab.locator(".mbta-note").text_content()
    assert tab.get_by_alt_text(ALT).is_visible() and tab.errors == []
