"""Figurines and flipbooks: figures that Python draws anew, or one of several that are there."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from html import escape

import ipywidgets
from matplotlib.figure import Figure

from mbta_helpers.errors import require
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


class Flipbook:
    """Pictures of which the reader chooses one, without a kernel and without a script.

    Each picture has a radio button, and a style shows the picture whose button is on. Where a
    viewer drops the style, all pictures are there, one below the other.
    """

    def __init__(self, pages: Mapping[str, tuple[Figure, str]]):
        """pages: by the label of the button, a figure and a text that says what it shows."""
        require(len(pages) >= 1, "A flipbook has at least one page.")
        self.pages = {label: (png(figure), alt) for label, (figure, alt) in pages.items()}

    def _repr_html_(self) -> str:
        content = b"".join(picture for picture, _ in self.pages.values())
        name = "flipbook-" + hashlib.sha256(content).hexdigest()[:12]
        style, buttons, pictures = [], [], []
        for number, (label, (picture, alt)) in enumerate(self.pages.items()):
            button = f"{name}-{number}"
            style.append(f"#{button}:checked~.{button}{{display:block}}")
            checked = " checked" if number == 0 else ""
            buttons.append(
                f'<input type="radio" name="{name}" id="{button}"{checked}>'
                f'<label for="{button}"> {escape(label)} </label>'
            )
            data = base64.b64encode(picture).decode()
            pictures.append(
                f'<img class="{button}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
            )
        hidden = f".{name}>img{{display:none;background:white}}"
        return (
            f"<style>{hidden}{''.join(style)}</style>"
            f'<div class="{name}">{"".join(buttons)}{"".join(pictures)}</div>'
        )

    def __repr__(self) -> str:
        return f"Flipbook({', '.join(self.pages)})"
