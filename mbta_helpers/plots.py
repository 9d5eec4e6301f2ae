"""Plots: what a reader looks at, in one palette that colour-blind readers can tell apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from mbta_helpers.checkpoints import replacing
from mbta_helpers.errors import UserError
from mbta_helpers.mazes import Maze

# Okabe and Ito (2008).
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW, BLACK)
WALL = "#9a9a9a"

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
    "figure.facecolor": "white",
    "legend.frameon": False,
    "svg.hashsalt": "mbta",
}


def new_figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.0, 4.0), **options
) -> tuple[Figure, np.ndarray]:
    """A figure outside pyplot's registry, and its axes, (rows, columns) always."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same for the same figure."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Show a figure in a notebook, with a text that says what it shows (no trained numbers)."""
    _display(png(figure), alt)


def show_picture(path: Path, alt: str) -> None:
    """Show a PNG file in a notebook, as `show` does a figure."""
    _display(Path(path).read_bytes(), alt)


def _display(picture: bytes, alt: str) -> None:
    from IPython.display import display

    data = {"image/png": picture, "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})


def figure_kind(path: Path) -> str:
    """The kind of file that a figure is written as, from the suffix; a UserError if unknown."""
    kind = Path(path).suffix.lstrip(".").lower() or "png"
    kinds = ("png", "pdf", "svg")
    if kind not in kinds:
        raise UserError(f"A figure is written as {', '.join(kinds)}, not '{kind}'.")
    return kind


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all; the kind follows the file's suffix."""
    kind = figure_kind(path)
    with replacing(Path(path)) as partial, matplotlib.rc_context(STYLE):
        figure.savefig(partial, format=kind)


def draw_maze(axes: Axes, maze: Maze) -> None:
    """The walls of a maze, in map units."""
    extent = maze.extent
    shades = matplotlib.colors.ListedColormap(["white", WALL])
    axes.imshow(np.array(maze.walls), cmap=shades, vmin=0, vmax=1, extent=extent, zorder=0)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


def draw_path(axes: Axes, path: np.ndarray, color: str, label: str | None = None, **style) -> None:
    """A path over the map; path: (n, 2 or more)."""
    axes.plot(path[:, 0], path[:, 1], color=color, label=label, **style)


def draw_ends(axes: Axes, start: Sequence[float] | None, goal: Sequence[float] | None) -> None:
    """A dot at the start and a star at the goal."""
    if start is not None:
        axes.plot(start[0], start[1], "o", color=BLACK, ms=7, zorder=5)
    if goal is not None:
        axes.plot(goal[0], goal[1], "*", color=RED, ms=15, mec="white", zorder=5)


def draw_ellipse(
    axes: Axes, centre: np.ndarray, std: np.ndarray, color: str, deviations: float = 2.0
) -> None:
    """An ellipse of that many standard deviations; centre, std: (2,)."""
    width, height = 2 * deviations * np.asarray(std)
    axes.add_patch(Ellipse(centre, width, height, fill=False, ec=color, lw=1.0, alpha=0.8))


def plan_figure(maze: Maze, plan: np.ndarray, walked: np.ndarray, goal: np.ndarray) -> Figure:
    """A first plan and the path that was walked; plan: (L + 1, S), walked: (n, 2)."""
    figure, axes = new_figure(size=(7.0, 7.0 * maze.shape[0] / maze.shape[1] + 0.4))
    draw_maze(axes[0, 0], maze)
    draw_path(axes[0, 0], walked, BLUE, "walked", lw=2.5)
    draw_path(axes[0, 0], plan, ORANGE, "first plan, as imagined", marker="o", ms=4, lw=1.2)
    draw_ends(axes[0, 0], walked[0], goal)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def draw_interval(
    axes: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str | None = None
) -> None:
    """Mean over seeds with a band from the lowest to the highest; values: (seeds, n)."""
    axes.plot(x, values.mean(0), color=color, label=label)
    axes.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.25, lw=0)


def draw_cells(axes: Axes, picture: np.ndarray, low: float, high: float) -> None:
    """Cells of a grid as colours from low to high, walls grey; picture: (rows, columns) or NaN."""
    shades = matplotlib.colormaps["viridis"].with_extremes(bad=WALL)
    axes.imshow(picture, cmap=shades, vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


def draw_learning(
    axes: Axes, values: np.ndarray, color: str, label: str, width: int = 10, first: int = 0
) -> None:
    """Mean over seeds with its 95 % interval, in bins of episodes; values: (seeds, episodes)."""
    seeds, episodes = values.shape
    bins = values[:, : episodes // width * width].reshape(seeds, -1, width).mean(-1)
    x = first + width * (np.arange(bins.shape[1]) + 0.5)
    half = 1.96 * bins.std(0, ddof=1) / np.sqrt(seeds)
    axes.plot(x, bins.mean(0), color=color, label=label)
    axes.fill_between(x, bins.mean(0) - half, bins.mean(0) + half, color=color, alpha=0.25, lw=0)
