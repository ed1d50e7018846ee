"""Conformance, item 11: what lies in formats/ and layers/ is found, has a reference, and a wrong format fails items 1 to 6."""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tenfold.formats
import tenfold.layers
import tenfold.nn
from broken_format import Broken, BrokenWeight
from conformance.cases import layer_cases, parameters_of, weights
from conformance.checks import (
    check_dense,
    check_layer,
    check_numel,
    check_solver,
    check_start,
    check_truncation,
    for_all,
)
from conformance.subjects import LAYERS, SUBJECTS, Subject
from tenfold.fold import Axis, Fold
from tenfold.formats.cp import CP
from tenfold.layers.conv import Conv1d, Conv2d
from tenfold.layers.conv_transpose import ConvTranspose1d
from tenfold.layers.embedding import Embedding
from tenfold.layers.embedding_bag import EmbeddingBag
from tenfold.layers.linear import Linear

BROKEN = Subject("broken", Broken(), "cp", weight_type=BrokenWeight)
KERNEL = Fold((Axis("o", 6, (6,)), Axis("i", 5, (5,)), Axis("k", 3, (3,))))


def files_of(package: Any) -> list[str]:
    """The names of all modules in the folder of a package."""
    return sorted(path.stem for path in Path(package.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", files_of(tenfold.formats))
def test_every_format_file_is_discovered_and_has_a_reference(name: str) -> None:
    module = importlib.import_module(f"tenfold.formats.{name}")
    mine = [one for one in SUBJECTS if type(one.format).__module__ == module.__name__]
    assert mine, f"formats/{name}.py has no Format that all_formats() finds"
    for subject in mine:
        assert {"entry", "numel"} <= set(vars(subject.reference))
        assert {"cuts", "blocks", "PLANTED_ERROR"} & set(vars(subject.reference)), (
            "say what its solver promises: a bound or planted recovery"
        )
        assert dataclasses.is_dataclass(subject.format) and type(subject.format).__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in files_of(tenfold.layers) if name != "base"])
def test_every_layer_file_is_discovered(name: str) -> None:
    module = importlib.import_module(f"tenfold.layers.{name}")
    mine = [kind for kind in LAYERS if kind.__module__ == module.__name__]
    assert mine, f"layers/{name}.py has no layer that all_layers() finds"
    for kind in mine:
        assert getattr(tenfold.nn, kind.__name__) is kind
        assert kind.__name__ == kind.dense_type.__name__, "a layer is called as torch.nn calls it"
        assert parameters_of(kind)


def test_unknown_layer_of_nn() -> None:
    with pytest.raises(AttributeError, match=r"has no layer 'Bilinear'; it has Conv1d"):
        _ = tenfold.nn.Bilinear


CHECKS: dict[str, Callable[[Subject], None]] = {
    "1 dense": lambda subject: for_all(weights(subject, max_modes=2), check_dense, shrink=False),
    "2 apply": lambda subject: for_all(layer_cases(subject, Linear), check_layer, shrink=False),
    "2 rows": lambda subject: for_all(layer_cases(subject, Embedding), check_layer, shrink=False),
    "2 rows in bags": lambda subject: for_all(layer_cases(subject, EmbeddingBag), check_layer, shrink=False),
    "2 convolve": lambda subject: for_all(layer_cases(subject, Conv2d), check_layer, shrink=False),
    "2 convolve transposed": lambda subject: for_all(layer_cases(subject, ConvTranspose1d), check_layer, shrink=False),
    "3 numel": lambda subject: for_all(weights(subject), check_numel, shrink=False),
    "4 start": check_start,
    "5 solver": lambda subject: check_solver(subject, KERNEL),
    "6 truncation": lambda subject: for_all(weights(subject), check_truncation, shrink=False),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_broken_format_is_rejected(name: str) -> None:
    right = dataclasses.replace(BROKEN, name="right", format=CP(), weight_type=SUBJECTS[0].weight_type)
    CHECKS[name](right)  # the check is not one that nothing passes
    with pytest.raises(AssertionError):
        CHECKS[name](BROKEN)


def test_a_format_that_rises_is_rejected() -> None:
    """The quasi-optimal branch of item 5: the broken solver under a reference that promises a bound."""
    for golden in ("svd", "tt"):
        with pytest.raises(AssertionError):
            check_solver(dataclasses.replace(BROKEN, golden=golden, format=_BrokenChain()), KERNEL)


@dataclasses.dataclass(frozen=True)
class _BrokenChain(Broken):
    """The broken solver for the right statement of a chain of two."""

    def factors(self, fold: Fold) -> list[tuple[str, ...]]:
        return [(*fold.role("o"), "r1"), ("r1", *fold.role("k"), *fold.role("i"))]


def test_a_layer_with_unknown_arguments_is_rejected() -> None:
    class Strange(Conv1d.dense_type):  # type: ignore[misc, valid-type]
        def __init__(self, in_channels: int, out_channels: int, kernel_size: int, twist: int = 0) -> None:
            super().__init__(in_channels, out_channels, kernel_size)

    class Layer(Conv1d):
        dense_type = Strange

    with pytest.raises(AssertionError, match=r"Layer has the arguments \['twist'\], which are not drawn"):
        for_all(layer_cases(SUBJECTS[0], Layer), lambda case: None, shrink=False)
