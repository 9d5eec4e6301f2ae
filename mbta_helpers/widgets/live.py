"""Live figures: they compute in the reader's browser, with a kernel or without one.

Each is an anywidget: JupyterLab and Colab show it when its cell has run. What is committed in a
notebook is its still picture; its text, its module and its state stand in the picture's metadata.
The page that is built from the notebook starts the same module with that state
(book/_tools/live_figures.py); where no script runs, the picture stays.
"""

from __future__ import annotations

import base64

import anywidget
import traitlets
from matplotlib.figure import Figure

from mbta_helpers.errors import require
from mbta_helpers.plots import png
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
        return {name: getattr(self, name) for name in sorted(own) if name[0] != "_"}

    def _repr_mimebundle_(self, **options):
        data, _ = super()._repr_mimebundle_(**options)
        data["text/plain"] = self.alt
        data["image/png"] = base64.b64encode(self.still).decode()
        live = {"module": self.module, "state": self.page_state()}
        return data, {"image/png": {"alt": self.alt, "live": live}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.alt!r})"


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
