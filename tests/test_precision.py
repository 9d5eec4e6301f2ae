"""bfloat16 is used where the hardware multiplies it, and nowhere else."""

import pytest
import torch

from mbta_helpers import precision
from mbta_helpers.precision import autocast, multiplies_bfloat16

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget():
    """What was found out about this machine is not kept from test to test."""
    multiplies_bfloat16.cache_clear()
    yield
    multiplies_bfloat16.cache_clear()


def say(monkeypatch, **able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_that_has_it(monkeypatch, name):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    say(monkeypatch, avx2=True, **{name: True})
    assert multiplies_bfloat16("cpu")


def test_a_processor_without_it(monkeypatch):
    say(monkeypatch, avx2=True, avx512_f=True, avx512_bf16=False, amx_bf16=False)
    assert not multiplies_bfloat16("cpu")


def test_without_the_library_that_uses_it(monkeypatch):
    say(monkeypatch, avx512_bf16=True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not multiplies_bfloat16("cpu")


def test_a_pytorch_that_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not multiplies_bfloat16("cpu")


@pytest.mark.parametrize("answer", [True, False])
def test_a_gpu_that_only_imitates_it_does_not_count(monkeypatch, answer):
    def supported(including_emulation=True):
        return including_emulation or answer

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert multiplies_bfloat16("cuda") == answer


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("asked", precision.PRECISIONS)
def test_products_are_low_where_asked_and_able(monkeypatch, asked, has):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda kind: has)
    square = torch.eye(2)
    with autocast(CPU, asked):
        product = square @ square
    low = asked == "bfloat16" and has
    assert product.dtype == (torch.bfloat16 if low else torch.float32)
    assert (square @ square).dtype == torch.float32
