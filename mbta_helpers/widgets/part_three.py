"""Live figures of Part III: dreams, imagined frames, λ-returns, balanced divergences, two-hot."""

from __future__ import annotations

import base64

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from mbta_helpers.errors import require
from mbta_helpers.latent.vision_memory import VisionAndMemory
from mbta_helpers.widgets.live import LiveFigure, packed


class DreamPicture(LiveFigure):
    """A dream of chapter 14's memory, step by step, in which the reader moves the player.

    packed: memory and decoder. start: the first code, (Z,). actions: taken so far, 0, 1, 2 for
    left, stay, right. tau: the temperature. seed: of the draws, which stay the same as tau changes.
    """

    module = "dream"
    packed = traitlets.Unicode().tag(sync=True)
    start = traitlets.List().tag(sync=True)
    actions = traitlets.List([1] * 8).tag(sync=True)
    tau = traitlets.Float(1.0).tag(sync=True)
    seed = traitlets.Int(1).tag(sync=True)

    def __init__(self, still: Figure, alt: str, model: VisionAndMemory, start: torch.Tensor):
        """start: a code, (Z,)."""
        config = model.memory.config
        require(
            config.groups == 1 and config.actions == 3,
            "In the browser a dream has three actions, and one choice of a part for the whole "
            f"code: groups is 1, not {config.groups}, and actions 3, not {config.actions}.",
        )
        decoder = model.vae.decoder.state_dict()
        tensors = model.memory.state_dict() | {f"decoder.{k}": t for k, t in decoder.items()}
        super().__init__(
            still, alt, packed=packed(tensors, torch.float16), start=start.double().tolist()
        )


class FramesPicture(LiveFigure):
    """Imagined frames beside the true ones, at a moment that the reader chooses.

    pictures: bytes in base64, (clips, 2, T, side, side), the truth before the model. seen: how
    many the model has seen. clip, t: what is shown.
    """

    module = "frames"
    pictures = traitlets.Unicode().tag(sync=True)
    side = traitlets.Int().tag(sync=True)
    steps = traitlets.Int().tag(sync=True)
    seen = traitlets.Int().tag(sync=True)
    clip = traitlets.Int(0).tag(sync=True)
    t = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        still: Figure,
        alt: str,
        truth: np.ndarray,
        imagined: np.ndarray,
        seen: int,
        t: int = 0,
    ):
        """truth, imagined: (clips, T, side, side) in [0, 1]."""
        require(
            truth.shape == imagined.shape and truth.ndim == 4,
            f"Both films have one shape (clips, T, side, side), not {truth.shape} and "
            f"{imagined.shape}.",
        )
        films = np.stack([truth, imagined], 1)
        content = (255 * films.clip(0, 1)).round().astype(np.uint8).tobytes()
        _, steps, side, _ = truth.shape
        super().__init__(
            still,
            alt,
            pictures=base64.b64encode(content).decode(),
            side=side,
            steps=steps,
            seen=seen,
            t=t,
        )


class ReturnsPicture(LiveFigure):
    """λ-returns (16.5) of a short imagined trajectory, which the reader changes.

    rewards: (H,). values: (H + 1,), of s_0 … s_H. end: the step that ends the episode, 0 for none.
    lam, gamma: λ and γ.
    """

    module = "returns"
    rewards = traitlets.List([0.0, 0.0, 1.0, 0.0, 0.5]).tag(sync=True)
    values = traitlets.List([0.5, 0.8, 1.0, 0.2, 1.5, 2.0]).tag(sync=True)
    end = traitlets.Int(0).tag(sync=True)
    lam = traitlets.Float(0.9).tag(sync=True)
    gamma = traitlets.Float(0.9).tag(sync=True)


class BalancePicture(LiveFigure):
    """Posterior and prior over a few classes descend the balanced divergence (17.6) together.

    posterior, prior: logits, (C,), before the steps. evidence: log-likelihood of the class
    `picture`, 0 for the others. alpha: α. weight: of the divergence. rate: of the descent.
    """

    module = "balance"
    posterior = traitlets.List([1.5, 0.0, 0.0, 0.0]).tag(sync=True)
    prior = traitlets.List([1.5, 0.0, 0.0, 0.0]).tag(sync=True)
    evidence = traitlets.Float(1.5).tag(sync=True)
    picture = traitlets.Int(1).tag(sync=True)
    alpha = traitlets.Float(0.8).tag(sync=True)
    weight = traitlets.Float(2.0).tag(sync=True)
    rate = traitlets.Float(0.5).tag(sync=True)
    steps = traitlets.Int(20).tag(sync=True)


class TwoHotPicture(LiveFigure):
    """Two outcomes as weights on bins (18.4), and the number that the weights stand for.

    outcomes: symlog y and symlog y′. chance: of y. count: of bins, odd. extent: symlog of the last
    one. space: "values" if a number is split between the values of two bins, "symlog" if between
    their symlog. edited: weights set by hand, (count,), or nothing.
    """

    module = "twohot"
    outcomes = traitlets.List([6.9, 0.0]).tag(sync=True)
    chance = traitlets.Float(0.5).tag(sync=True)
    count = traitlets.Int(17).tag(sync=True)
    extent = traitlets.Int(8).tag(sync=True)
    space = traitlets.Enum(["values", "symlog"], "values").tag(sync=True)
    edited = traitlets.List().tag(sync=True)
