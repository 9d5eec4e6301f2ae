"""Live figures: they compute in the reader's browser, with a kernel or without one.

Each is an anywidget: JupyterLab and Colab show it when its cell has run. What is committed in a
notebook is its still picture; its text, its module and its state stand in the picture's metadata.
The page that is built from the notebook starts the same module with that state
(book/_tools/live_figures.py); where no script runs, the picture stays.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from safetensors.torch import save

from mbta_helpers.errors import require
from mbta_helpers.mazes import get_maze
from mbta_helpers.networks import NetworkConfig
from mbta_helpers.planning import PlannerConfig
from mbta_helpers.plots import png
from mbta_helpers.presets import get_preset, load_shipped
from mbta_helpers.widgets import bundle


class LiveFigure(anywidget.AnyWidget):
    """A figure whose JavaScript is `<module>.js` in this folder; its state is its own traits."""

    module = ""
    _css = bundle.style()

    def __init_subclass__(cls, **options):
        if "module" in cls.__dict__:  # not where traitlets derives a class for one object
            cls._esm = bundle.module(cls.module)
        super().__init_subclass__(**options)

    def __init__(self, still: Figure, alt: str, **state):
        """still: what is seen where nothing computes. alt: what it shows, in words."""
        require(len(alt.split()) >= 4, "A figure needs a text that says what it shows.")
        super().__init__(**state)
        self.still = png(still)
        self.alt = alt

    def page_state(self) -> dict:
        """The state as JSON: what the page starts from."""
        own = set(self.trait_names(sync=True)) - set(LiveFigure.class_trait_names(sync=True))
        state = {name: getattr(self, name) for name in sorted(own) if name[0] != "_"}
        if "weights" in state:  # the page has them in files of their own, named after the maze
            state["weights"] = dict.fromkeys(state["weights"])
        return state

    def _repr_mimebundle_(self, **options):
        data, _ = super()._repr_mimebundle_(**options)
        data["text/plain"] = self.alt
        data["image/png"] = base64.b64encode(self.still).decode()
        live = {"module": self.module, "state": self.page_state()}
        return data, {"image/png": {"alt": self.alt, "live": live}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.alt!r})"


def packed(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> str:
    """Tensors as a safetensors file in base64, which weights.js reads."""
    content = {name: tensor.detach().to(dtype).contiguous() for name, tensor in tensors.items()}
    return base64.b64encode(save(content)).decode()


class BoundPicture(LiveFigure):
    """The terms of (2.6) for a Gaussian q, on the line of chapter 2.

    example: steps T, gain w, action_std σ_a, first = Σ (a_t − b), second = Σ (a_t − b)² of one
    window, and the prior's prior_mean and prior_std. mean, std: of q. beta: weight of the KL.
    """

    module = "bound"
    example = traitlets.Dict().tag(sync=True)
    mean = traitlets.Float(-0.6).tag(sync=True)
    std = traitlets.Float(0.9).tag(sync=True)
    beta = traitlets.Float(1.0).tag(sync=True)


def planner_state(config: PlannerConfig, window_length: int) -> dict:
    """A planner's configuration as planner.js reads it; a UserError if it asks for more."""
    plain = PlannerConfig(
        plan_length=config.plan_length,
        replan_every=config.replan_every,
        epsilon_penalty=config.epsilon_penalty,
        support_penalty=config.support_penalty,
        time_penalty=config.time_penalty,
        warm_std=config.warm_std,
        cem=config.cem,
    )
    require(
        config == plain,
        "In the browser a plan's cost is its minimum, without a penalty for variance, in float32 "
        "and with a warm start. Use PlannerConfig's defaults for cost, variance_penalty, "
        "least_move, precision and warm_start.",
    )
    return {**asdict(config), "window_length": window_length}


def network_state(config: NetworkConfig) -> dict:
    """What networks.js has to know besides the weights."""
    return {name: getattr(config, name) for name in ("wavelengths", "min_std", "max_std")}


def maze_state(name: str) -> dict:
    """A maze with its shipped networks and its planner, as plan.js and skills.js read them.

    start and goal: of the task between the corners, the longest one.
    """
    maze, trained = get_maze(name), load_shipped(name)
    return {
        "label": name.removeprefix("pointmaze-").capitalize(),
        "walls": np.array(maze.walls, int).tolist(),
        "start": maze.centre((1, 1)).tolist(),
        "goal": maze.centre(maze.far_corner).tolist(),
        "max_steps": maze.max_steps,
        "networks": network_state(trained.model.config),
        "planner": planner_state(get_preset(name).planner, trained.config.window_length),
    }


class PlanInBrowser(LiveFigure):
    """Plans from a start to a goal and walks, with the shipped networks, in PointMaze.

    mazes: what `maze_state` gives, by name. maze: the one that is shown. weights: `half_weights`,
    by name. candidates: of the search, a tenth of them elites. seed: of the normal draws.
    """

    module = "plan"
    candidates = traitlets.Int().tag(sync=True)
    mazes = traitlets.Dict().tag(sync=True)
    maze = traitlets.Unicode().tag(sync=True)
    weights = traitlets.Dict().tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)

    def __init__(self, still: Figure, alt: str, maze: str = bundle.MAZES[0]):
        names = bundle.MAZES
        require(maze in names, f"There are weights for {', '.join(names)}, not for {maze}.")
        super().__init__(
            still,
            alt,
            maze=maze,
            candidates=get_preset(maze).planner.cem.candidates,
            mazes={name: maze_state(name) for name in names},
            weights={name: bundle.half_weights(name) for name in names},
        )


# Of two bowls: x, y, a, b, depth. The wide one is nearer to the origin, the other is deeper.
WELLS = [[1.7, 1.3, 1.0, 1.5, 0.0], [-1.2, -0.9, 0.6, 0.6, 0.5]]


class SearchPicture(LiveFigure):
    """The cross-entropy method on a landscape of two numbers, the lowest of several bowls.

    wells: (x, y, a, b, depth) each, for depth + a (p − x)² + b (q − y)². start: the first mean,
    with std 1. iterations: carried out so far. elites and momentum can be changed; min_std not.
    """

    module = "search"
    wells = traitlets.List(WELLS).tag(sync=True)
    start = traitlets.List([0.0, 0.0]).tag(sync=True)
    candidates = traitlets.Int(60).tag(sync=True)
    elites = traitlets.Int(10).tag(sync=True)
    momentum = traitlets.Float(0.1).tag(sync=True)
    min_std = traitlets.Float(0.05).tag(sync=True)
    iterations = traitlets.Int(1).tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)


class SkillExplorer(LiveFigure):
    """Where skills lead from a state of a PointMaze, by the shipped networks, and one carried out.

    maze: what `maze_state` gives. state: (x, y, v_x, v_y). dims: the dimensions of ε that have a
    slider. epsilon: of the skill that is carried out, (Z,). seed: of the sampled skills.
    """

    module = "skills"
    maze = traitlets.Dict().tag(sync=True)
    state = traitlets.List().tag(sync=True)
    dims = traitlets.List().tag(sync=True)
    epsilon = traitlets.List().tag(sync=True)
    weights = traitlets.Dict().tag(sync=True)
    seed = traitlets.Int(1).tag(sync=True)

    def __init__(
        self,
        still: Figure,
        alt: str,
        state: list[float],
        dims: list[int],
        epsilon: list[float],
        maze: str = bundle.EXPLORED[0],
    ):
        names = bundle.EXPLORED
        require(maze in names, f"There are ellipses for {', '.join(names)}, not for {maze}.")
        super().__init__(
            still,
            alt,
            maze={"name": maze, **maze_state(maze)},
            state=state,
            dims=dims,
            epsilon=epsilon,
            weights={maze: bundle.half_weights(maze)},
        )
