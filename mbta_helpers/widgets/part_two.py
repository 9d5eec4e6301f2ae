"""Live figures of Part II: options, commands of a feudal maze, and discovered skills."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from mbta_helpers.errors import require
from mbta_helpers.hierarchical.diayn import DIAYN
from mbta_helpers.hierarchical.feudal_maze import COMMANDS, SEARCH, FeudalAgents, GridMaze
from mbta_helpers.hierarchical.four_rooms import Cell, Grid, World
from mbta_helpers.hierarchical.options import Option
from mbta_helpers.hierarchical.playgrounds import STRIDE, SquareWorld
from mbta_helpers.hierarchical.sac import LOG_STD
from mbta_helpers.widgets.live import LiveFigure, packed


class OptionPicture(LiveFigure):
    """What an option leads to from a cell: its model (9.4), computed exactly, step by step.

    walls: rows of 0 and 1. names: of the options. packed: their initiation (Ω, S), policy
    (Ω, S, A) and termination (Ω, S). start, goal: states. slip: ξ of (9.1). early: a chance to end
    after any step, besides β.
    """

    module = "options"
    walls = traitlets.List().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    packed = traitlets.Unicode().tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    start = traitlets.Int().tag(sync=True)
    goal = traitlets.Int().tag(sync=True)
    slip = traitlets.Float().tag(sync=True)
    gamma = traitlets.Float().tag(sync=True)
    early = traitlets.Float(0.0).tag(sync=True)

    def __init__(
        self,
        still: Figure,
        alt: str,
        grid: Grid,
        world: World,
        options: Mapping[str, Option],
        start: Cell,
        gamma: float,
    ):
        require(len(options) > 0, "There are no options: give at least one.")
        require(
            world.next_state.shape == grid.next_state.shape,
            f"The world has {world.next_state.shape} states and actions, the grid "
            f"{grid.next_state.shape}: give the grid that the world is on.",
        )
        tensors = {
            field: torch.from_numpy(np.stack(parts))
            for field, parts in zip(
                Option._fields, zip(*options.values(), strict=True), strict=True
            )
        }
        super().__init__(
            still,
            alt,
            walls=np.array(grid.walls, int).tolist(),
            names=list(options),
            packed=packed(tensors, torch.float32),
            start=grid.state_of(start),
            goal=int(world.goal),
            slip=world.slip,
            gamma=gamma,
        )


class FeudalPicture(LiveFigure):
    """The commands of all levels in a cell of the feudal maze, and where the moves lead.

    walls: rows of 0 and 1. tables: for each level from 1 on, a text of digits, the greedy choice
    for each area and each command from above. goal, cell: [row, column]. level: that of the area
    under the command `order`; the whole maze, level 0, is always searched.
    """

    module = "feudal"
    walls = traitlets.List().tag(sync=True)
    tables = traitlets.List().tag(sync=True)
    goal = traitlets.List().tag(sync=True)
    cell = traitlets.List().tag(sync=True)
    level = traitlets.Int(1).tag(sync=True)
    order = traitlets.Int(SEARCH).tag(sync=True)

    def __init__(
        self,
        still: Figure,
        alt: str,
        maze: GridMaze,
        agents: FeudalAgents,
        seed: int,
        goal: int,
        cell: tuple[int, int],
        level: int = 1,
        order: int = SEARCH,
    ):
        """agents: with a table for each level from 1 to the cells. seed: whose tables."""
        require(
            len(agents.q) == maze.depth,
            f"A table for each of the {maze.depth} levels is needed, not {len(agents.q)}.",
        )
        require(0 <= level < maze.depth, f"level lies from 0 to {maze.depth - 1}, not at {level}.")
        require(0 <= order < COMMANDS, f"order is a command from 0 to 4, not {order}.")
        maze.number(*cell)  # a UserError if it is a wall
        super().__init__(
            still,
            alt,
            walls=(~maze.free).astype(int).tolist(),
            tables=["".join(map(str, q[seed].argmax(-1).ravel())) for q in agents.q],
            goal=[int(part) for part in divmod(goal, maze.side)],
            cell=list(cell),
            level=level,
            order=order,
        )


class SkillMap(LiveFigure):
    """Where a skill of DIAYN leads in the square, and which skill the discriminator names.

    packed: policy and discriminator. world: steps of an episode, stride, number of skills and the
    bounds of log σ. skill: the chosen one. start: (x, y). t: the step whose q(z|s) is drawn.
    """

    module = "diayn"
    packed = traitlets.Unicode().tag(sync=True)
    world = traitlets.Dict().tag(sync=True)
    skill = traitlets.Int(0).tag(sync=True)
    start = traitlets.List([0.0, 0.0]).tag(sync=True)
    t = traitlets.Int(5).tag(sync=True)

    def __init__(self, still: Figure, alt: str, learner: DIAYN, skill: int = 0):
        config = learner.config
        require(
            isinstance(learner.world, SquareWorld),
            "In the browser a point moves in the square; these skills are of another world.",
        )
        require(0 <= skill < config.skills, f"skill lies below {config.skills}, not {skill}.")
        networks = {"actor": learner.sac.actor, "discriminator": learner.discriminator}
        tensors = {
            name.replace("layers.", ""): tensor
            for kind, network in networks.items()
            for name, tensor in ((f"{kind}.{key}", t) for key, t in network.state_dict().items())
        }
        super().__init__(
            still,
            alt,
            packed=packed(tensors, torch.float32),
            world={
                "steps": config.episode,
                "stride": STRIDE,
                "skills": config.skills,
                "log_std": list(LOG_STD),
            },
            skill=skill,
        )
