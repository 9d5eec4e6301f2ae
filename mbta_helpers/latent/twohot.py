"""Regression by classification: a number as weights on two neighbouring bins.

Hafner et al. (2025), "Mastering Diverse Control Tasks through World Models", equations 8 to 10; the
idea is that of C51 (Bellemare et al. 2017) and of Schrittwieser et al. (2020). Bins are at
±symexp(u) with u in even steps: fine near 0, wide far off. The numbers are not squashed: the mean
of the encoding is the number.

Symbols: K bins, F numbers in the features that a head sees.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mbta_helpers.errors import require


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| − 1), the inverse of symlog."""
    return x.sign() * x.abs().expm1()


def symexp_bins(count: int = 255, extent: float = 20.0) -> Tensor:
    """symexp of `count` even steps in [−extent, extent], exactly symmetric; (K,)."""
    require(count >= 3 and count % 2 == 1, f"The number of bins is odd and at least 3: {count}.")
    half = symexp(torch.linspace(0, extent, count // 2 + 1))
    return torch.cat([-half[1:].flip(0), half])


def two_bins(x: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The bin at or below each number, but the last, and the weight of the next one; (...) each.

    Numbers beyond the ends count as the ends. bins: (K,), rising.
    """
    low = (torch.searchsorted(bins, x.contiguous(), right=True) - 1).clamp(0, len(bins) - 2)
    weight = (x - bins[low]) / (bins[low + 1] - bins[low])
    return low, weight.clamp(0, 1)


def twohot(x: Tensor, bins: Tensor) -> Tensor:
    """Weights on bins that have x as their mean, (...) to (..., K)."""
    low, weight = two_bins(x, bins)
    code = x.new_zeros(*x.shape, len(bins))
    code.scatter_(-1, low[..., None], 1 - weight[..., None])
    return code.scatter_(-1, low[..., None] + 1, weight[..., None])


def twohot_loss(logits: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy −Σ_k twohot(x)_k log p_k; logits: (..., K), x: (...)."""
    low, weight = two_bins(x, bins)
    both = logits.gather(-1, torch.stack([low, low + 1], -1))  # (..., 2)
    return logits.logsumexp(-1) - (1 - weight) * both[..., 0] - weight * both[..., 1]


def symmetric_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Σ_k p_k b_k as Σ_{k>0} (p_k − p_{−k}) b_k: exactly 0 where mirrored bins weigh the same.

    logits: (..., K). bins: (K,), symmetric, with 0 in the middle.
    """
    p, half = logits.softmax(-1), len(bins) // 2
    return (p[..., half + 1 :] - p[..., :half].flip(-1)) @ bins[half + 1 :]


class TwoHotHead(nn.Module):
    """Predicts a number as a distribution over bins; its last layer starts at 0, so the mean too.

    forward: logits, (..., F) to (..., K). mean: of the logits, (...). loss: cross-entropy against
    the two-hot target, (...).
    """

    def __init__(
        self,
        make_mlp: Callable[..., nn.Sequential],
        *sizes: int,
        layers: int,
        extent: float = 20.0,
    ):
        """make_mlp: from (F, hidden, outputs, layers) to a network. sizes: F and hidden.

        extent: symlog of the last bin.
        """
        super().__init__()
        self.register_buffer("bins", symexp_bins(extent=extent))
        self.network = make_mlp(*sizes, len(self.bins), layers)
        nn.init.zeros_(self.network[-1].weight)
        nn.init.zeros_(self.network[-1].bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.network(features)

    def mean(self, output: Tensor) -> Tensor:
        return symmetric_mean(output, self.bins)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return twohot_loss(output, target, self.bins)


class GaussianHead(nn.Module):
    """The heads of DreamerV2: the mean of a Gaussian with variance 1; loss: half the squared error.

    forward: (..., F) to (..., 1). mean and loss: (...).
    """

    def __init__(self, make_mlp: Callable[..., nn.Sequential], *sizes: int, layers: int):
        super().__init__()
        self.network = make_mlp(*sizes, 1, layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.network(features)

    def mean(self, output: Tensor) -> Tensor:
        return output.squeeze(-1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.squeeze(-1) - target).square() / 2
