"""Live figures: what they compute is what the package computes, and they answer a reader's hand.

The modules run in a real browser. Draws are passed in, so that both sides search alike.
"""

import base64
import json
import math
from dataclasses import asdict, replace

import browser
import live_samples
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from live_samples import ALT, still
from safetensors.torch import load
from torch.distributions import Normal, kl_divergence

import execute
import live_figures
from mbta_helpers import plots, widgets
from mbta_helpers.errors import UserError
from mbta_helpers.mazes import Maze, get_maze, random_position
from mbta_helpers.networks import SkillModel
from mbta_helpers.planning import CEMConfig, Planner, PlannerConfig, cem
from mbta_helpers.presets import get_preset, load_shipped
from mbta_helpers.rollouts import roll_out, run_skills
from mbta_helpers.widgets import bundle, live

LINE = {"steps": 10, "gain": 0.1, "action_std": 0.3, "prior_mean": 0.2, "prior_std": 0.8}
OFFSETS = np.random.default_rng(0).normal(0.1, 0.3, LINE["steps"])  # a_t − b


def bound_picture() -> widgets.BoundPicture:
    sums = {"first": OFFSETS.sum(), "second": (OFFSETS**2).sum()}
    return widgets.BoundPicture(still(), ALT, example={**LINE, **sums})


def explorer(state=(-1.5, 0.5, 0.0, 0.0)) -> widgets.SkillExplorer:
    return widgets.SkillExplorer(still(), ALT, [*state], [0, 2], [1.0, 0.0, 0.0, 0.0])


def rounded(maze: str) -> SkillModel:
    """The shipped networks with weights of float16, as they are sent."""
    model = load_shipped(maze).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


# -- what is sent -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", bundle.figures())
def test_a_bundle_is_one_module_that_imports_nothing(name):
    text = bundle.module(name)
    assert "import " not in text.replace("imports", "")
    assert text.count("export default") == 1
    assert len(text) < 60_000


def test_figures_are_all_the_modules_with_something_to_render():
    kinds = {kind.module for kind in live.LiveFigure.__subclasses__()}
    assert set(bundle.figures()) == kinds == set(KINDS)


@pytest.mark.parametrize("maze", bundle.MAZES)
def test_weights_are_those_of_the_shipped_networks_at_half_the_bits(maze):
    sent = bundle.half_weights(maze)
    model = load_shipped(maze).model
    own = model.stored_tensors()
    tensors = load(sent)
    for name, tensor in tensors.items():
        exact = name.startswith("normaliser")
        assert torch.equal(tensor, own[name] if exact else own[name].half())
    left_out = {name for name in own.keys() - tensors.keys() if not name.startswith("posterior")}
    assert all(".std_head." in name for name in left_out)
    parts = {name.split(".")[0] for name in left_out}
    assert parts == ({"policy"} if maze in bundle.EXPLORED else {"policy", "world_model"})
    assert len(base64.b64encode(sent)) < 450_000, "two of them fit on a page"


def test_what_is_committed_is_a_picture_with_its_module_and_state():
    figure = bound_picture()
    data, metadata = figure._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == plots.png(still())
    assert data["text/plain"] == ALT == metadata["image/png"]["alt"]
    sent = metadata["image/png"]["live"]
    assert sent["module"] == "bound"
    assert sent["state"] == {"mean": -0.6, "std": 0.9, "beta": 1.0, "example": figure.example}
    assert repr(figure) == f"BoundPicture({ALT!r})"
    with pytest.raises(UserError, match="what it shows"):
        widgets.SearchPicture(still(), "too short")


def test_weights_stay_out_of_the_committed_state():
    for figure in (explorer(), widgets.PlanInBrowser(still(), ALT)):
        state = figure._repr_mimebundle_()[1]["image/png"]["live"]["state"]
        assert set(state["weights"].values()) == {None}
        assert len(json.dumps(state)) < 10_000
        assert all(len(weights) > 250_000 for weights in figure.weights.values())


def test_an_executed_notebook_keeps_the_picture_and_drops_the_view():
    import nbformat

    data, metadata = bound_picture()._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("f", outputs=[output])])
    execute.settle(notebook)
    kept = notebook.cells[0].outputs[0]
    assert set(kept.data) == {"image/png", "text/plain"}
    assert list(live_figures.live_outputs(notebook).values()) == [kept.metadata["image/png"].live]


@pytest.mark.parametrize(
    "change",
    [{"cost": "final"}, {"variance_penalty": 1.0}, {"least_move": 0.1}, {"warm_start": False}],
)
def test_a_planner_that_the_browser_does_not_know_is_refused(change):
    with pytest.raises(UserError, match="In the browser"):
        live.planner_state(replace(PlannerConfig(), **change), 30)


def test_only_mazes_with_weights_are_shown():
    with pytest.raises(UserError, match="not for pointmaze-umaze"):
        widgets.PlanInBrowser(still(), ALT, maze="pointmaze-umaze")
    with pytest.raises(UserError, match="not for pointmaze-large"):
        widgets.SkillExplorer(still(), ALT, [0.0] * 4, [0], [0.0] * 4, maze="pointmaze-large")


# -- what is computed -------------------------------------------------------------------------


NETWORKS = """
    const bytes = Uint8Array.from(atob(given.weights), (letter) => letter.charCodeAt(0));
    const tensors = m.readWeights(new DataView(bytes.buffer));
    const networks = new m.SkillModel(tensors, given.config, given.rows, new m.Arena(given.plain));
"""


def sent(maze: str) -> dict:
    """What the networks of a maze need in the browser."""
    weights = base64.b64encode(bundle.half_weights(maze)).decode()
    return {"weights": weights, "config": live.network_state(load_shipped(maze).model.config)}


@pytest.mark.parametrize("plain", [False, True], ids=["four at a time", "plain"])
@torch.no_grad()
def test_networks_agree(compute, plain):
    model, rows = rounded("pointmaze-medium"), 6
    generator = torch.Generator().manual_seed(0)
    states, skills = (
        torch.randn(rows, 4, generator=generator),
        torch.randn(rows, 4, generator=generator),
    )
    found = compute(
        "plan",
        NETWORKS
        + """
        const [states, skills] = [given.states, given.skills].map((x) => Float32Array.from(x));
        const prior = networks.prior(states, given.rows);
        const end = networks.outcome(states, skills, given.rows, true);
        return { prior: [...prior.loc], width: [...prior.scale], end: [...end.loc],
                 spread: [...end.scale], known: [...networks.support(states, given.rows)],
                 act: [...networks.act(states, skills, given.rows)] };""",
        states=states.flatten().tolist(),
        skills=skills.flatten().tolist(),
        rows=rows,
        plain=plain,
        **sent("pointmaze-medium"),
    )
    prior, end = model.prior(states), model.world_model(states, skills)
    expected = {
        "prior": prior.loc,
        "width": prior.scale,
        "end": end.loc,
        "spread": end.scale,
        "known": model.support(states),
        "act": model.policy.act(states, skills),
    }
    for name, tensor in expected.items():
        assert torch.allclose(torch.tensor(found[name]), tensor.flatten(), atol=1e-4), name


def draws(config: PlannerConfig, seed: int, plans: int) -> np.ndarray:
    """The normal draws of so many plans in a row, in the order in which `cem` takes them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, config.cem.candidates, config.plan_length, 4)
    every = [torch.randn(shape, generator=generator) for _ in range(plans * config.cem.iterations)]
    return torch.stack(every).numpy()


@pytest.mark.parametrize("name", bundle.MAZES)
def test_plans_agree_for_the_same_draws(compute, name):
    """The first plan, and a second one that takes it up again from elsewhere."""
    maze, trained, config = get_maze(name), load_shipped(name), get_preset(name).planner
    planner = Planner(rounded(name), config, trained.config.window_length)
    task = [*maze.centre((1, 1)), *maze.centre(maze.far_corner)]
    starts = torch.tensor([[task[0], task[1], 0, 0], [task[0], task[1] - 0.6, 0.3, -2.0]]).float()
    goal = torch.tensor([task[2:]]).float()
    generator = torch.Generator().manual_seed(3)
    first = planner.plan(starts[:1], goal, generator)
    second = planner.plan(starts[1:], goal, generator, first.search)
    noise = draws(config, seed=3, plans=2).astype("<f4").tobytes()
    found = compute(
        "plan",
        NETWORKS
        + """
        const noise = Uint8Array.from(atob(given.noise), (letter) => letter.charCodeAt(0));
        const normal = m.drawsOf(new Float32Array(noise.buffer));
        let last = null;
        return given.starts.map((start) => {
            const state = Float32Array.from(start);
            const steps = m.planSteps(networks, given.planner, state, given.goal, normal, last);
            for (const search of steps) last = search;
            return { plan: last.plan, skill: [...last.skill], cost: last.cost };
        });""",
        noise=base64.b64encode(noise).decode(),
        starts=starts.tolist(),
        goal=task[2:],
        planner=live.planner_state(config, trained.config.window_length),
        rows=config.cem.candidates,
        plain=False,
        **sent(name),
    )
    for plan, here in zip((first, second), found, strict=True):
        assert np.abs(np.array(here["plan"]) - plan.path[0, :, :2].numpy()).max() < 1e-3
        assert np.abs(np.array(here["skill"]) - plan.skills[0, 0].numpy()).max() < 1e-3
        assert abs(here["cost"] - plan.cost.item()) < 1e-3


@pytest.mark.parametrize("name", bundle.MAZES)
def test_point_moves_as_in_mujoco(compute, name):
    """Free flight, clipped velocities, walls met head-on, along them, in corners and at seams."""
    maze, rng, steps = get_maze(name), np.random.default_rng(0), 100
    states = np.stack([[*random_position(maze, rng), *rng.uniform(-6, 6, 2)] for _ in range(60)])
    actions = np.repeat(rng.uniform(-1.3, 1.3, (60, steps // 10, 2)), 10, axis=1).astype("f4")
    path = roll_out(
        maze, torch.tensor(states).float(), lambda s, t: torch.tensor(actions[:, t]), steps
    ).numpy()
    found = compute(
        "plan",
        """return given.states.map((state, n) => {
            const path = [state];
            for (const action of given.actions[n]) {
                path.push(m.stepPoint(given.walls, path[path.length - 1], action));
            }
            return path; });""",
        states=path[:, 0].tolist(),
        actions=actions.tolist(),
        walls=np.array(maze.walls, int).tolist(),
    )
    errors = np.abs(np.array(found) - path)[..., :2].max((1, 2))
    touched = ~maze.is_free(path[..., :2], clearance=0.104).all(1)
    assert touched.mean() > 0.5
    assert np.median(errors) < 1e-5 and np.quantile(errors, 0.9) < 1e-3 and errors.max() < 0.05


def test_search_agrees_for_the_same_draws(compute):
    wells = torch.tensor(widgets.WELLS)
    config = CEMConfig(candidates=40, iterations=7, elites=6, momentum=0.3, min_std=0.05)

    def cost(points):
        x, y, a, b, depth = wells.unbind(1)
        p, q = points[..., :1], points[..., 1:]
        return (depth + a * (p - x) ** 2 + b * (q - y) ** 2).amin(-1)

    start = torch.tensor([[0.5, -0.2]])
    search = cem(cost, start, torch.ones_like(start), config, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    noise = torch.stack([torch.randn(1, 40, 2, generator=generator) for _ in range(7)])
    found = compute(
        "search",
        """const normal = m.drawsOf(given.noise);
        const seen = m.searches(given.wells, given.config, given.start, 7, normal);
        const { mean, std, best, cost } = seen[7];
        return [...mean, ...std, ...best, cost];""",
        wells=widgets.WELLS,
        config=asdict(config),
        start=start[0].tolist(),
        noise=noise.flatten().tolist(),
    )
    expected = [*search.mean[0], *search.std[0], *search.best[0], search.cost[0]]
    assert np.allclose(found, [float(value) for value in expected], atol=1e-4)


def test_own_draws_are_standard_normal(compute):
    values = compute("plan", "return Array.from({ length: 20000 }, m.normals(7));")
    assert abs(np.mean(values)) < 0.03 and abs(np.std(values) - 1) < 0.02
    assert abs(np.mean(np.abs(values) < 1) - math.erf(0.5**0.5)) < 0.015


def test_terms_of_the_bound_are_those_of_the_closed_form(compute):
    found = compute(
        "bound",
        "return m.boundTerms(given.example, -0.4, 0.7);",
        example=bound_picture().example,
    )
    q, prior = Normal(-0.4, 0.7), Normal(LINE["prior_mean"], LINE["prior_std"])
    z = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    a = torch.tensor(OFFSETS)[:, None]
    likelihood = Normal(LINE["gain"] * z, LINE["action_std"]).log_prob(a).sum(0)
    joint = prior.log_prob(z) + likelihood
    evidence = torch.trapezoid(joint.exp(), z).log()
    posterior = (joint - evidence).exp()
    mean = torch.trapezoid(posterior * z, z)
    std = torch.trapezoid(posterior * (z - mean) ** 2, z).sqrt()
    action = torch.trapezoid(q.log_prob(z).exp() * likelihood, z)
    expected = (action, kl_divergence(q, prior), evidence, mean, std)
    here = (found["action"], found["kl"], found["evidence"], *found["posterior"].values())
    assert np.allclose(here, [float(value) for value in expected], atol=1e-5)


@torch.no_grad()
def test_skills_lead_where_the_package_says(compute):
    name = "pointmaze-medium"
    maze, model = get_maze(name), rounded(name)
    state = torch.tensor([[*maze.centre((3, 2)), 0.5, -1.0]]).float()
    epsilon = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
    found = compute(
        "skills",
        NETWORKS
        + """
        const lead = m.outcomes(networks, given.state, Float32Array.from(given.epsilon));
        const skill = lead.skills.slice(0, 4);
        const passed = m.carryOut(networks, given.walls, given.state, skill, 30);
        return { loc: [...lead.loc], scale: [...lead.scale], passed };""",
        state=state[0].tolist(),
        epsilon=epsilon.flatten().tolist(),
        walls=np.array(maze.walls, int).tolist(),
        rows=5,
        plain=False,
        **sent(name),
    )
    prior = model.prior(state)
    z = prior.loc + prior.scale * epsilon
    end = model.world_model(state.expand(5, -1), z)
    assert np.allclose(found["loc"], end.loc.flatten(), atol=1e-4)
    assert np.allclose(found["scale"], end.scale.flatten(), atol=1e-4)
    walked = run_skills(model, maze, state, z[:1], 30)[0]
    assert np.abs(np.array(found["passed"]) - walked.numpy())[:, :2].max() < 1e-3


@pytest.mark.parametrize("length", [0, 4, 5000, 300_000])
def test_weights_that_are_cut_short_are_refused(compute, length):
    weights = bundle.half_weights("pointmaze-medium")[:length]
    text = compute(
        "plan",
        NETWORKS.replace("const networks", "return 'read'; const networks")
        .replace("const tensors", "try { m.readWeights(new DataView(bytes.buffer)) }"
                 " catch (error) { return error.message } const tensors"),
        weights=base64.b64encode(weights).decode(), config={}, rows=1, plain=False,
    )  # fmt: skip
    assert "damaged" in text


# -- what a reader can do ---------------------------------------------------------------------

KINDS = {
    "bound": bound_picture,
    "skills": explorer,
    "search": lambda: widgets.SearchPicture(still(), ALT),
    "plan": lambda: widgets.PlanInBrowser(still(), ALT),
    **live_samples.LATER,
}


def said(tab) -> str:
    return tab.locator(".said").first.text_content()


@pytest.mark.parametrize("file", [False, True], ids=["http", "file"])
@pytest.mark.parametrize("name", KINDS)
def test_a_figure_starts_in_the_place_of_its_picture(show, name, file):
    tab = show(name, file)
    tab.wait_for_selector(".mbta-figure.running .mbta-live .said:not(:empty)")
    assert not tab.locator(".mbta-figure > img").is_visible()
    assert tab.errors == []


@pytest.mark.parametrize("name", KINDS)
def test_a_figure_fits_a_phone_and_can_be_told_by_its_labels(show, name):
    tab = show(name, viewport={"width": 390, "height": 800})
    tab.wait_for_selector(".mbta-figure.running .said:not(:empty)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    small = tab.evaluate(
        """() => [...document.querySelectorAll('.mbta-live :is(button, input, text, p)')]
        .filter(e => e.getClientRects().length)
        .filter(e => parseFloat(getComputedStyle(e).fontSize) < 11).length"""
    )
    assert small == 0
    for control in tab.locator(".mbta-live :is(input, svg)").all():
        named = control.get_attribute("aria-label") or control.evaluate("e => e.labels?.length")
        assert named


def contrast(colour: str, ground: tuple[int, int, int]) -> float:
    """The contrast of WCAG between an "rgb(...)" and a ground."""

    def luminance(values):
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    values = [int(v) / 255 for v in colour[4:-1].split(",")]
    one, two = sorted((luminance(values), luminance([v / 255 for v in ground])))
    return (two + 0.05) / (one + 0.05)


@pytest.mark.parametrize(("theme", "ground"), [("light", (255,) * 3), ("dark", (18,) * 3)])
def test_lines_stand_out_from_the_ground_in_both_themes(show, theme, ground):
    tab = show("plan")
    tab.wait_for_selector(".mbta-figure.running")
    tab.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    for part, least in (("walked", 3), ("elites", 2.5), ("walls", 2.5)):
        style = "e => getComputedStyle(e)[e.matches('.walls') ? 'fill' : 'stroke']"
        assert contrast(tab.locator(f".{part}").evaluate(style), ground) > least, part


def test_bound_follows_sliders_by_key_and_the_curve_by_hand(show):
    tab = show("bound")
    tab.wait_for_selector(".running")
    before, curve = said(tab), tab.locator(".curve.q").first.get_attribute("d")
    tab.get_by_role("slider", name="mean of q").focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("output").first.text_content() == "−0.65"
    assert said(tab) != before and tab.locator(".curve.q").first.get_attribute("d") != curve
    after = said(tab)
    box = tab.locator(".handle").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 60, y - 20, steps=4)
    tab.mouse.up()
    mean, std = (
        float(text.replace("−", "-")) for text in tab.locator("output").all_inner_texts()[:2]
    )
    assert mean > -0.3 and std < 0.9 and said(tab) != after


def test_bound_touches_the_evidence_at_the_posterior_alone(show):
    """The gap that the figure names is zero only where q is the posterior."""
    tab = show("bound")
    tab.wait_for_selector(".running")
    precision = LINE["prior_std"] ** -2 + LINE["steps"] * (LINE["gain"] / LINE["action_std"]) ** 2
    pull = LINE["prior_mean"] / LINE["prior_std"] ** 2
    pull += LINE["gain"] * OFFSETS.sum() / LINE["action_std"] ** 2
    for name, value in (("mean of q", pull / precision), ("std of q", precision**-0.5)):
        tab.get_by_role("slider", name=name).fill(str(round(value * 20) / 20))
    assert said(tab).endswith("true posterior 0.00")
    tab.get_by_role("slider", name="std of q").fill("2")
    assert not said(tab).endswith("true posterior 0.00")


def test_search_steps_by_button_and_starts_where_one_clicks(show):
    tab = show("search")
    tab.wait_for_selector(".running")
    first = said(tab)
    tab.get_by_role("button", name="Next iteration").click()
    assert said(tab).startswith("iteration 2:") and said(tab) != first
    before = tab.locator(".chosen").get_attribute("d")
    tab.get_by_role("slider", name="elites").fill("30")
    assert len(tab.locator(".chosen").get_attribute("d")) > 2 * len(before)
    spread = said(tab)
    tab.get_by_role("slider", name="momentum").fill("0.8")
    assert said(tab) != spread
    tab.locator(".ground").click(position={"x": 20, "y": 20})
    assert said(tab).startswith("iteration 0: mean (−2.") and "lowest" not in said(tab)
    clicked = said(tab)
    tab.locator(".ground").press("ArrowRight")
    assert said(tab).startswith("iteration 0:") and said(tab) != clicked
    tab.get_by_role("button", name="Other draws").click()
    tab.get_by_role("button", name="Next iteration").press("Enter")
    assert said(tab).startswith("iteration 1:")


def test_skills_answer_sliders_keys_and_clicks(show):
    tab = show("skills")
    tab.wait_for_selector(".said:not(:empty)")
    texts = [said(tab)]
    tab.get_by_role("slider", name="ε, dimension 0").fill("-2")
    texts.append(said(tab))
    tab.get_by_role("slider", name="v_x").fill("2")
    texts.append(said(tab))
    tab.locator(".map").focus()
    tab.keyboard.press("ArrowDown")
    texts.append(said(tab))
    box = tab.locator(".map").bounding_box()
    left = {"x": box["width"] * (0.5 - 1 / 3.2), "y": box["height"] / 2}  # one cell, which is free
    tab.locator(".map").click(position=left)
    texts.append(said(tab))
    assert len(set(texts)) == len(texts)
    assert tab.locator(".ends").get_attribute("d").count("M") == 60
    tab.locator(".map").click(position=left)
    assert said(tab) == texts[-1], "there is a wall now"


def arrives(tab) -> str:
    """Wait until the ball has arrived; what the figure says then."""
    tab.wait_for_function(
        "/Reached|Given up/.test(document.querySelector('.said').textContent)", timeout=120_000
    )
    return said(tab)


def cell_position(tab, maze: Maze, cell) -> dict:
    """Where the middle of a cell is on the figure's map, in pixels from its corner."""
    box, (rows, columns) = tab.locator(".map").bounding_box(), maze.shape
    return {
        "x": box["width"] * (cell[1] + 0.5) / columns,
        "y": box["height"] * (cell[0] + 0.5) / rows,
    }


@pytest.mark.slow
def test_a_click_plans_and_the_ball_walks_there(show):
    tab, maze = show("plan"), get_maze("pointmaze-medium")
    tab.wait_for_selector(".running")
    tab.get_by_role("button", name="Set start").click()
    tab.locator(".map").click(position=cell_position(tab, maze, (4, 2)))
    assert said(tab) == "Now choose a goal."
    tab.locator(".map").click(position=cell_position(tab, maze, (6, 3)))
    assert arrives(tab).startswith("Reached")
    assert tab.locator(".plan").get_attribute("d") and tab.locator(".candidates").get_attribute("d")
    assert float(tab.locator(".mbta-live").get_attribute("data-plan-seconds")) < 5


@pytest.mark.parametrize("maze", ["Medium", "Large"])
def test_the_first_plan_is_quick(show, maze):
    """In time of the processor, loading and drawing included: 0.26 to 0.64 s were measured.

    The bound is twice what a reader is promised, for machines that have much else to do.
    """

    def seconds() -> float:
        tab = show("plan")
        session = tab.context.new_cdp_session(tab)
        session.send("Performance.enable")
        tab.wait_for_selector(".running")
        tab.get_by_role("button", name=maze).click()
        spent = []
        for _ in range(2):
            metrics = session.send("Performance.getMetrics")["metrics"]
            spent.append(next(m["value"] for m in metrics if m["name"] == "ThreadTime"))
            if len(spent) == 1:
                tab.get_by_role("button", name="Plan and walk").click()
                tab.wait_for_selector("[data-plan-seconds]")
        return spent[1] - spent[0]

    assert min(seconds() for _ in range(3)) < 1.0


@pytest.mark.slow
def test_a_push_makes_a_new_plan(show):
    tab, maze = show("plan"), get_maze("pointmaze-medium")
    tab.wait_for_selector(".running")
    tab.locator(".map").click(position=cell_position(tab, maze, (6, 6)))
    tab.wait_for_function("Number(document.querySelector('.mbta-live').dataset.steps) > 20")
    tab.get_by_role("button", name="Push").click()
    tab.locator(".map").click(position=cell_position(tab, maze, (1, 1)))
    assert said(tab).startswith("Pushed")
    assert arrives(tab).startswith("Reached")


@pytest.mark.slow
def test_a_plan_by_keys_alone_in_the_other_maze(show):
    tab = show("plan")
    tab.wait_for_selector(".running")
    tab.get_by_role("button", name="Large").press("Enter")
    assert tab.locator(".map").get_attribute("viewBox") == "0 0 480 360"
    tab.get_by_role("button", name="Set start").press("Enter")
    tab.locator(".map").focus()
    for key in ("ArrowUp", "ArrowUp"):  # from the goal in the corner
        tab.keyboard.press(key)
    assert said(tab).startswith("row 5, column 10")
    tab.keyboard.press("Enter")
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        tab.keyboard.press(key)
    assert "plan" in arrives(tab)


def test_a_wall_is_no_goal_and_a_walk_can_be_stopped(show):
    tab, maze = show("plan"), get_maze("pointmaze-medium")
    tab.wait_for_selector(".running")
    tab.locator(".map").click(position=cell_position(tab, maze, (0, 0)))
    assert "wall" in said(tab)
    tab.get_by_role("button", name="Plan and walk").click()
    tab.get_by_role("button", name="Stop").click()
    assert said(tab) == "Stopped."
    tab.get_by_role("button", name="Back to the start").click()
    assert tab.locator(".walked").get_attribute("d") == ""


# -- broken on purpose ------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_without_scripts_the_picture_and_its_text_stand(show, name):
    tab = show(name, java_script_enabled=False)
    assert tab.get_by_alt_text(ALT).is_visible() and tab.get_by_text("Some text.").is_visible()


def cut(tab) -> None:
    """Weights arrive cut short."""

    def route(route):
        text = "mbtaLive.give('pointmaze-medium', 'QUJDREVGR0g=');"
        route.fulfill(body=text, content_type="text/javascript")

    tab.route("**/pointmaze-medium.js", route)


def flip(tab) -> None:
    """One letter of the weights is another one: only a sum over all of them can tell."""

    def route(route):
        body = route.fetch().body().decode()
        place = len(body) // 2
        other = "B" if body[place] == "A" else "A"
        body = body[:place] + other + body[place + 1 :]
        route.fulfill(body=body, content_type="text/javascript")

    tab.route("**/pointmaze-medium.js", route)


def lose(tab) -> None:
    """Modules and weights do not arrive."""
    tab.route("**/live/*.js", lambda route: route.abort())


def refuse_storage(tab) -> None:
    """The browser keeps nothing for the page."""
    refusal = "{ get() { throw new DOMException('refused', 'SecurityError') } }"
    for name in ("localStorage", "sessionStorage", "indexedDB"):
        tab.add_init_script(f"Object.defineProperty(window, '{name}', {refusal})")


@pytest.mark.parametrize("fault", [cut, flip, lose])
def test_a_figure_that_cannot_compute_gives_way_to_its_picture(show, fault):
    tab = show("skills", before=fault)
    tab.wait_for_selector(".mbta-note")
    assert "still picture" in tab.locator(".mbta-note").text_content()
    assert tab.get_by_alt_text(ALT).is_visible() and tab.errors == []
    assert tab.locator(".mbta-live").count() == 0


def test_weights_that_fail_at_the_first_plan_bring_the_picture_back(show):
    tab = show("plan", before=cut)
    tab.wait_for_selector(".running")
    tab.get_by_role("button", name="Plan and walk").click()
    tab.wait_for_selector(".mbta-note")
    assert "damaged" in tab.locator(".mbta-note").text_content()
    assert tab.get_by_alt_text(ALT).is_visible()


@pytest.mark.parametrize("name", KINDS)
def test_storage_is_not_needed(show, name):
    tab = show(name, before=refuse_storage)
    tab.wait_for_selector(".running .said:not(:empty)")
    assert tab.errors == []


def test_a_file_is_loaded_once_however_many_figures_ask_for_it(show, stage):
    folder, _ = stage
    text = (folder / "skills.html").read_text(encoding="utf-8")
    begin = text.index('<div class="mbta-figure"')
    end = text.index("</div>", begin) + len("</div>")
    (folder / "twice.html").write_text(text[:end] + text[begin:], encoding="utf-8")
    asked = []
    tab = show("twice", before=lambda tab: tab.on("request", lambda r: asked.append(r.url)))
    tab.wait_for_function("document.querySelectorAll('.said:not(:empty)').length === 2")
    assert len(asked) == len(set(asked))


# -- the built book ---------------------------------------------------------------------------

CHAPTERS = {
    "book/index": ["plan"],
    "notebooks/02_elbo": ["bound"],
    "notebooks/05_seeing_skills": ["skills"],
    "notebooks/06_planning": ["search", "plan"],
    "notebooks/09_options": ["options"],
    "notebooks/10_option_critic": ["options"],
    "notebooks/12_feudal": ["feudal"],
    "notebooks/13_diayn": ["diayn"],
    "notebooks/14_world_models": ["dream"],
    "notebooks/15_planet": ["frames"],
    "notebooks/16_dreamer": ["returns"],
    "notebooks/17_dreamer_v2": ["balance"],
    "notebooks/18_dreamer_v3": ["twohot"],
}


def start_figures(tab) -> None:
    """Scroll to each figure of a page, and wait until it has said something."""
    for figure in tab.locator(".mbta-figure").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".said[aria-live]:not(:empty)").first.wait_for()


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_figures_of_a_page_start(reader, page):
    tab = reader.open(page)
    figures = tab.locator(".mbta-figure").all()
    assert [figure.get_attribute("data-module") for figure in figures] == CHAPTERS[page]
    start_figures(tab)
    assert reader.complaints == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", CHAPTERS)
def test_running_figures_are_accessible(reader, page, theme):
    tab = reader.open(page, theme=theme)
    start_figures(tab)
    assert browser.violations(tab) == []


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_page_with_figures_stays_light(built, page):
    """HTML, pictures, modules and weights together; MathJax and the theme serve all pages."""
    path = built / f"{page}.html"
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    files = [path]
    for image in soup.select("article img"):
        if not image["src"].startswith("data:"):
            files.append((path.parent / image["src"]).resolve())
    names = {figure["data-module"] for figure in soup.select(".mbta-figure")}
    for state in soup.select(".mbta-figure script"):
        names |= set(json.loads(state.string).get("weights", {}))
    files += [built / "_static" / "live" / f"{name}.js" for name in names]
    assert sum(file.stat().st_size for file in set(files)) < 1_500_000


# -- the built book, broken on purpose --------------------------------------------------------


@pytest.fixture
def unlucky(reader):
    """Another reader of the same book, for whom a test breaks something."""
    other = browser.Reader(reader.browser, reader.address)
    yield other
    for tab, _ in other.tabs.values():
        tab.context.close()


def reads(tab) -> bool:
    """Whether a page has its title and its text, and shows all pictures that stand still."""
    pictures = tab.locator("article .mbta-figure > img")
    return (
        tab.locator("article h1").first.is_visible()
        and len(tab.locator("article").inner_text()) > 2000
        and all(picture.is_visible() for picture in pictures.all())
    )


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_page_reads_without_scripts(unlucky, page):
    tab = unlucky.open(page, scripts=False)
    assert reads(tab) and tab.locator(".mbta-live").count() == 0
    for picture in tab.locator("article .mbta-figure > img").all():
        assert len(picture.get_attribute("alt").split()) >= 4
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_page_reads_where_nothing_can_be_stored(unlucky, page):
    tab, _ = unlucky.tab("light", browser.DESK, True)
    refuse_storage(tab)
    tab = unlucky.open(page)
    start_figures(tab)
    assert tab.locator("article h1").first.is_visible()
    assert tab.evaluate(UNTYPESET) == 0


UNTYPESET = """() => [...document.querySelectorAll('.math')]
    .filter(math => !math.querySelector('mjx-container')).length"""


@pytest.mark.parametrize("page", ["notebooks/05_seeing_skills", "notebooks/06_planning"])
def test_a_page_reads_with_damaged_weights(unlucky, page):
    """The figure that needs them gives way, the others start, and no script stumbles."""
    tab, _ = unlucky.tab("light", browser.DESK, True)
    flip(tab)
    tab = unlucky.open(page)
    for figure in tab.locator(".mbta-figure").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".said:not(:empty), .mbta-note").first.wait_for()
    if page.endswith("planning"):
        tab.get_by_role("button", name="Plan and walk").click()
        assert said(tab).startswith("iteration"), "the search needs no weights"
    tab.wait_for_selector(".mbta-note")
    assert "damaged" in tab.locator(".mbta-note").text_content()
    assert unlucky.complaints == []


@pytest.mark.parametrize("page", ["notebooks/13_diayn", "notebooks/14_world_models"])
def test_a_page_reads_with_damaged_weights_of_its_own(unlucky, page):
    tab, _ = unlucky.tab("light", browser.DESK, True)

    def route(route):
        body = route.fetch().body().decode()
        assert body.count('"packed":"') == 1
        route.fulfill(body=body.replace('"packed":"', '"packed":"AAAA'), content_type="text/html")

    tab.route(f"**/{page}.html", route)
    tab = unlucky.open(page)
    tab.locator(".mbta-figure").scroll_into_view_if_needed()
    tab.wait_for_selector(".mbta-note")
    assert "damaged" in tab.locator(".mbta-note").text_content()
    assert reads(tab) and unlucky.complaints == []
