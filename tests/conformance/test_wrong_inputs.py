"""Conformance, item 10: a wrong input raises the type that the dense layer raises, and a wrong size is named with the right one."""

from typing import Any

import pytest
import torch

from conformance.cases import parameters_of, plain_case
from conformance.subjects import LAYERS, SUBJECTS, Subject
from tenfold.formats import TTM
from tenfold.layers.base import FactorizedLayer

EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
EVERYWHERE = pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)


def wrong_inputs(kind: type[FactorizedLayer], x: torch.Tensor) -> dict[str, tuple[tuple[Any, ...], tuple[str, ...]]]:
    """Arguments and the numbers that the message must hold."""
    if "num_embeddings" in parameters_of(kind):
        return _wrong_ids(kind, x)
    axis = 1
    found = {
        "too wide": ((torch.cat([x, x[:, :1]], axis),), (str(x.shape[axis] + 1), str(x.shape[axis]))),
        "too narrow": ((x[:, 1:],), (str(x.shape[axis] - 1), str(x.shape[axis]))),
        "whole numbers": ((x.long(),), ("int64", "float64")),
        "single precision": ((x.float(),), ("float32", "float64")),
        "no axis": ((torch.tensor(1.0, dtype=x.dtype),), ()),
        "no tensor": (([1.0, 2.0],), ()),
    }
    if x.dim() > 2:
        found["an axis too few"] = ((x[0, 0],), ())
        found["an axis too many"] = ((x[None],), ())
    return found


def _wrong_ids(kind: type[FactorizedLayer], ids: torch.Tensor) -> dict[str, tuple[tuple[Any, ...], tuple[str, ...]]]:
    large, negative = ids.clone(), ids.clone()
    large[1, 2], negative[2, 1] = 12, -1
    found: dict[str, tuple[tuple[Any, ...], tuple[str, ...]]] = {
        "id too large": ((large,), ("12", "11")),
        "id negative": ((negative,), ("-1", "11")),
        "fractions": ((ids.double(),), ("float64",)),
        "bytes": ((ids.to(torch.uint8),), ("uint8",)),
    }
    if kind.dense_type is torch.nn.EmbeddingBag:
        flat, starts = ids.reshape(-1), torch.tensor([0, 5])
        weights = torch.ones(ids.shape, dtype=torch.float64)
        found |= {
            "no offsets": ((flat,), ()),
            "offsets of rows": ((ids, starts), ()),
            "offsets of two axes": ((flat, starts[None]), ()),
            "first offset": ((flat, starts + 1), ()),
            "offset too large": ((flat, starts + torch.tensor([0, 90])), ()),
            "three axes": ((ids[None],), ()),
            "weights of a mean": ((ids, None, weights), ()),
        }
    return found


@EVERY
@EVERYWHERE
def test_wrong_inputs(subject: Subject, kind: type[FactorizedLayer]) -> None:
    case = plain_case(subject, kind)
    layer = case.layer()
    dense = layer.to_dense()
    for name, (arguments, numbers) in wrong_inputs(kind, case.inputs[0]).items():
        with pytest.raises(Exception) as theirs:
            dense(*arguments)
        with pytest.raises(Exception) as ours:
            layer(*arguments)
        assert type(ours.value) is type(theirs.value), f"{name}: {ours.value!r} instead of {theirs.value!r}"
        missing = [number for number in numbers if number not in str(ours.value)]
        assert not missing, f"{name}: {ours.value} does not name {missing}"


@EVERYWHERE
def test_wrong_arguments(kind: type[FactorizedLayer]) -> None:
    """A constructor refuses what torch's refuses, with the same type."""
    case = plain_case(SUBJECTS[0], kind)
    n_refused = 0
    for name, value in WRONG_ARGUMENTS:
        arguments = {**case.arguments, name: value}
        try:
            kind.dense_type(**arguments)
        except Exception as error:
            n_refused += 1
            with pytest.raises(type(error)):
                kind(**arguments, format=SUBJECTS[0].ranked(2))  # type: ignore[call-arg]
    assert n_refused


@EVERYWHERE
@pytest.mark.parametrize("format", [None, "ttm:rank=2", TTM], ids=str)
def test_formats_that_are_none(kind: type[FactorizedLayer], format: Any) -> None:
    case = plain_case(SUBJECTS[0], kind)
    with pytest.raises(TypeError, match=f"{kind.__name__} got the format .*; an object of a format is needed: give for instance"):
        kind(**case.arguments, format=format)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=f"{kind.__name__}.from_dense got the format"):
        kind.from_dense(case.dense, format)


WRONG_ARGUMENTS = [
    ("padding_mode", "mirror"),
    ("groups", 5),
    ("groups", 0),
    ("padding", "middle"),
    ("padding_idx", 99),
    ("padding_idx", -99),
    ("a name that no layer has", 1),
]


@EVERYWHERE
def test_from_dense_of_another_layer(kind: type[FactorizedLayer]) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}.from_dense got a Identity; it needs a torch.nn.{kind.__name__}"):
        kind.from_dense(torch.nn.Identity(), SUBJECTS[0].ranked(2))


@EVERYWHERE
def test_modes_that_do_not_fit(kind: type[FactorizedLayer]) -> None:
    case = plain_case(SUBJECTS[0], kind)
    with pytest.raises(ValueError, match=r"the modes \(3, 3\) of the i axis have the product 9, which does not fit its size 12"):
        kind(**case.arguments, format=SUBJECTS[0].ranked(2), in_modes=(3, 3), out_modes=(2, 4))  # type: ignore[call-arg]
