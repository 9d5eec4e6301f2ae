"""Precision of the networks' products: bfloat16 where the hardware multiplies it."""

from __future__ import annotations

import functools

import torch

PRECISIONS = ("float32", "bfloat16")


@functools.cache
def multiplies_bfloat16(kind: str) -> bool:
    """Whether a kind of device, "cpu" or "cuda", multiplies bfloat16 itself.

    PyTorch imitates it elsewhere: on a processor with AVX2 alone a plan of the ant took eight
    times as long so as in float32, and an update of its training twelve times.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available():
        return False
    able = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of PyTorch lack it
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def used(device: torch.device, precision: str) -> str:
    """The precision of products where this one is asked for: float32 for an imitated bfloat16."""
    low = precision == "bfloat16" and multiplies_bfloat16(device.type)
    return "bfloat16" if low else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context for products in the precision that is used where this one is asked for."""
    low = used(device, precision) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)
