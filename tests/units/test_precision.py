"""Which precision a training settles on, what is refused, and what is said where bfloat16 would be slow."""

import warnings

import pytest
import torch

from tenfold import precision
from tenfold.precision import settled

CPU = torch.device("cpu")


@pytest.mark.parametrize(("is_native", "found"), [(True, "bfloat16"), (False, "float32")])
def test_auto_asks_the_device(monkeypatch: pytest.MonkeyPatch, is_native: bool, found: str) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: is_native)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settled("auto", CPU) == found
        assert settled("float32", CPU) == "float32"


def test_emulated_products_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match=r"'bfloat16', which this cpu has no instructions for: .* take precision='float32', or 'auto'"):
        assert settled("bfloat16", CPU) == "bfloat16"


def test_this_machine_is_asked() -> None:
    assert precision.has_bfloat16(CPU) in (True, False)
    assert not precision.has_bfloat16(torch.device("meta"))


def test_precisions_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"precision is 'int8'; it needs one of auto, float32, bfloat16, float16: choose one of these"):
        settled("int8", CPU)
    with pytest.raises(
        ValueError, match=r"'float16' for a model on the CPU; float16 needs a GPU: take precision='bfloat16', or move the model"
    ):
        settled("float16", CPU)
