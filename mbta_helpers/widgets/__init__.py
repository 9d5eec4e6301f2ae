"""Widgets: figures that a reader's hand changes, in a live kernel or on a page without one.

figurines: controls above a picture that Python draws, which needs a kernel. live: figures that
compute in the browser, the same in JupyterLab, in Colab and on the page of the book; those of the
later parts are in part_two and part_three.
"""

from mbta_helpers.widgets.figurines import Figurine, Flipbook, slider
from mbta_helpers.widgets.live import (
    WELLS,
    BoundPicture,
    LiveFigure,
    PlanInBrowser,
    SearchPicture,
    SkillExplorer,
)
from mbta_helpers.widgets.part_three import (
    BalancePicture,
    DreamPicture,
    FramesPicture,
    ReturnsPicture,
    TwoHotPicture,
)
from mbta_helpers.widgets.part_two import FeudalPicture, OptionPicture, SkillMap

__all__ = [
    "WELLS",
    "BalancePicture",
    "BoundPicture",
    "DreamPicture",
    "FeudalPicture",
    "Figurine",
    "Flipbook",
    "FramesPicture",
    "LiveFigure",
    "OptionPicture",
    "PlanInBrowser",
    "ReturnsPicture",
    "SearchPicture",
    "SkillExplorer",
    "SkillMap",
    "TwoHotPicture",
    "slider",
]
