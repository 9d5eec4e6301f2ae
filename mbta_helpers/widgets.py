"""Widgets: figures that a reader's hand changes, in a live kernel."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets
from matplotlib.figure import Figure

from mbta_helpers.plots import png


class Figurine(ipywidgets.VBox):
    """Controls above a picture that is drawn anew when one of them moves.

    The picture is there from the start, with its text, so that it also shows where no kernel runs.
    """

    def __init__(self, draw: Callable[..., Figure], alt: str, **controls: ipywidgets.Widget):
        """draw: called with the value of each control by its name. alt: what the picture shows."""
        self.draw = draw
        self.controls = controls
        self.picture = ipywidgets.Image(format="png")
        self.picture.add_class("mbta-picture")
        self.note = ipywidgets.HTML(f"<small>{alt}</small>")
        self.redraw()
        for control in controls.values():
            control.observe(self.redraw, names="value")
        super().__init__([*controls.values(), self.picture, self.note])

    def redraw(self, _change: object = None) -> None:
        """Draw the picture from the controls' values."""
        values = {name: control.value for name, control in self.controls.items()}
        self.picture.value = png(self.draw(**values))

    def __repr__(self) -> str:
        return f"Figurine({', '.join(self.controls)})"


def slider(low: float, high: float, value: float, step: float, label: str) -> ipywidgets.Widget:
    """A slider that acts when it is let go; integers where all numbers are."""
    whole = all(isinstance(number, int) for number in (low, high, value, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(
        value=value, min=low, max=high, step=step, description=label, continuous_update=False
    )
