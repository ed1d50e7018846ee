"""What hypothesis draws: folds, ranks, and for any layer a dense twin with every option of its constructor, with inputs.

A layer is drawn from the signature of its torch twin. A parameter that is not known here fails the suite: nothing is left out.
"""

import inspect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn

from conformance.subjects import LAYERS, SUBJECTS, Subject, merged, takes
from tenfold.fold import Axis, Fold
from tenfold.format import Format
from tenfold.layers.base import FactorizedLayer

Draw = Callable[[st.SearchStrategy[Any]], Any]
OUT_SIZES = ("out_features", "out_channels", "embedding_dim")
IN_SIZES = ("in_features", "in_channels", "num_embeddings")
LEFT_ALONE = ("max_norm", "norm_type", "scale_grad_by_freq", "sparse", "_weight", "_freeze", "device", "dtype")


def mode_counts(format: Format, has_kernel: bool) -> list[int]:
    """In how many output modes and as many input modes a weight can be split for a format; empty where any number will do."""
    kernel = (Axis("k", 2, (2,)),) if has_kernel else ()
    found = [n for n in range(1, 5) if takes(format, Fold((Axis("o", 2**n, (2,) * n), Axis("i", 2**n, (2,) * n), *kernel)))]
    return [] if len(found) > 1 else found


@st.composite
def folds(draw: Draw, format: Format, max_modes: int = 3, max_groups: int = 3, padded: bool = True, largest: int = 4) -> Fold:
    """Folds of linear maps, tables, convolutions and transposed ones, in modes of a number that the format takes."""
    roles = draw(st.sampled_from(["oi", "io", "oik", "iok", "oikk", "iokk", "oikkk"]))
    groups = draw(st.integers(1, max_groups)) if "k" in roles else 1
    fewest, most = [*mode_counts(format, "k" in roles) * 2, 1, max_modes][:2]
    axes = []
    for position, role in enumerate(roles):
        if role == "k":
            axes.append(Axis("k", size := draw(st.integers(1, 3)), (size,)))
            continue
        modes = tuple(draw(st.lists(st.integers(1, largest), min_size=fewest, max_size=most)))
        least = max(1, math.prod(modes) * 2 // 3) if padded else math.prod(modes)
        split = groups if position == 0 else 1
        axes.append(Axis(role, split * draw(st.integers(least, math.prod(modes))), modes, split))
    return Fold(tuple(axes))


@st.composite
def ranks(draw: Draw, subject: Subject, fold: Fold, most: int = 3) -> Any:
    """A tuple with one rank each, one int for all, or a fraction."""
    widest = subject.format.widest(fold)
    useful = subject.format.free_ranks(widest).values()
    largest = [min(most, size) for size in useful]
    kind = draw(st.sampled_from(["each", "each", "one", "fraction"]))
    if kind == "one":
        return draw(st.integers(1, min(max(largest), subject.format.largest_rank(widest))))
    if kind == "fraction" and max(useful) <= most:
        return draw(st.sampled_from([0.25, 0.5, 1.0]))
    return tuple(draw(st.integers(1, size)) for size in largest)


@dataclass(frozen=True)
class WeightCase:
    """A fold and a rank for one format."""

    subject: Subject
    fold: Fold
    rank: Any


@st.composite
def weights(draw: Draw, subject: Subject, most_values: int = 600, **options: Any) -> WeightCase:
    """A fold that the format can take, and a rank."""
    small = folds(subject.format, **options).filter(lambda one: math.prod(one.shape) <= most_values)
    fold = draw(small.map(lambda one: merged(one, subject.format)))
    return WeightCase(subject, fold, draw(ranks(subject, fold)))


# -- layers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerCase:
    """A dense layer of a drawn shape with drawn options, the factorised layer that stands for it, and inputs."""

    subject: Subject
    kind: type[FactorizedLayer]
    arguments: dict[str, Any]
    dense: nn.Module
    fold: Fold
    rank: Any
    inputs: tuple[Any, ...]

    def layer(self) -> Any:
        """The layer in training mode."""
        return self.subject.layer(self.kind, self.dense, self.fold, self.rank)

    @property
    def modes(self) -> dict[str, tuple[int, ...]]:
        """The modes as a user gives them."""
        return {"in_modes": self.fold.axis("i").modes, "out_modes": self.fold.axis("o").modes}


def parameters_of(kind: type[FactorizedLayer]) -> list[str]:
    """The names of the torch layer's constructor arguments."""
    return list(inspect.signature(kind.dense_type.__init__).parameters)[1:]


@st.composite
def layer_cases(draw: Draw, subject: Subject, kind: type[FactorizedLayer]) -> LayerCase:
    """A case for one format and one layer."""
    n_modes = draw(st.integers(1, 2))
    split = st.lists(st.integers(1, 4), min_size=1, max_size=n_modes).map(tuple)
    in_modes, out_modes = draw(split), draw(split)
    arguments = draw(_arguments(kind, in_modes, out_modes))
    dense = kind.dense_type(**arguments, dtype=torch.float64)
    fold = merged(kind.fold_of(dense, 1, in_modes, out_modes), subject.format)
    return LayerCase(subject, kind, arguments, dense, fold, draw(ranks(subject, fold)), draw(_inputs(kind, dense)))


@st.composite
def _arguments(draw: Draw, kind: type[FactorizedLayer], in_modes: tuple[int, ...], out_modes: tuple[int, ...]) -> dict[str, Any]:
    names = parameters_of(kind)
    known = {*IN_SIZES, *OUT_SIZES, *LEFT_ALONE, *_OPTIONS, "groups"}
    assert set(names) <= known, f"{kind.__name__} has the arguments {sorted(set(names) - known)}, which are not drawn; add them to cases.py"
    chosen: dict[str, Any] = {}
    groups = draw(st.sampled_from([1, 1, 2, 3])) if "groups" in names else 1
    if groups > 1 and draw(st.booleans()):
        in_modes = tuple(1 for _ in in_modes)  # depthwise
    sizes = [draw(st.integers(max(1, math.prod(modes) * 2 // 3), math.prod(modes))) for modes in (in_modes, out_modes)]
    n_spatial = _n_spatial(kind)
    for name in names:
        if name in IN_SIZES:
            chosen[name] = sizes[0] * groups
        elif name in OUT_SIZES:
            chosen[name] = sizes[1] * groups
        elif name == "groups":
            chosen[name] = groups
        elif name in _OPTIONS:
            chosen[name] = draw(_OPTIONS[name](n_spatial, chosen, kind))
    return _possible(chosen, kind)


def _n_spatial(kind: type[FactorizedLayer]) -> int:
    if "kernel_size" not in parameters_of(kind):
        return 0
    return kind.dense_type(1, 1, 1, device="meta").weight.dim() - 2  # type: ignore[operator, union-attr]


def _each(low: int, high: int) -> Callable[..., st.SearchStrategy[Any]]:
    return lambda n, chosen, kind: st.one_of(st.integers(low, high), st.tuples(*[st.integers(low, high)] * n))


def _padding(n: int, chosen: dict[str, Any], kind: type[FactorizedLayer]) -> st.SearchStrategy[Any]:
    numbers = st.tuples(*[st.integers(0, 1 if n == 3 else 2)] * n)
    if "output_padding" in parameters_of(kind):
        return st.tuples(*[st.integers(0, 1)] * n)
    return st.one_of(numbers, st.sampled_from(["valid", "same"]))


_OPTIONS: dict[str, Callable[..., st.SearchStrategy[Any]]] = {
    "bias": lambda n, chosen, kind: st.booleans(),
    "kernel_size": lambda n, chosen, kind: st.tuples(*[st.integers(1, 2 if n == 3 else 3)] * n),
    "stride": _each(1, 2),
    "dilation": _each(1, 2),
    "padding": _padding,
    "output_padding": lambda n, chosen, kind: st.tuples(*[st.integers(0, 1)] * n),
    "padding_mode": lambda n, chosen, kind: st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
    "padding_idx": lambda n, chosen, kind: st.one_of(st.none(), st.integers(0, chosen["num_embeddings"] - 1)),
    "mode": lambda n, chosen, kind: st.sampled_from(["sum", "mean", "max"]),
    "include_last_offset": lambda n, chosen, kind: st.booleans(),
}


def _possible(chosen: dict[str, Any], kind: type[FactorizedLayer]) -> dict[str, Any]:
    """The drawn arguments, changed where torch allows no such combination."""
    if chosen.get("padding") == "same":
        chosen["stride"] = 1
    if "output_padding" in chosen:
        chosen["padding_mode"] = "zeros"
        n = len(chosen["output_padding"])
        room = [max(stride, dilation) for stride, dilation in zip(_all(chosen["stride"], n), _all(chosen["dilation"], n), strict=True)]
        chosen["output_padding"] = tuple(min(extra, limit - 1) for extra, limit in zip(chosen["output_padding"], room, strict=True))
    return chosen


def _all(value: Any, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else value


@st.composite
def _inputs(draw: Draw, kind: type[FactorizedLayer], dense: Any) -> tuple[Any, ...]:
    torch.manual_seed(draw(st.integers(0, 1000)))
    if "num_embeddings" in parameters_of(kind):
        return draw(_lookups(kind, dense))
    if (n_spatial := _n_spatial(kind)) == 0:
        shape = (*draw(st.sampled_from([(), (3,), (2, 3), (0,)])), dense.in_features)
    else:
        low, high = (4, 5) if n_spatial == 3 else (5, 7)
        places = draw(st.tuples(*[st.integers(low, high)] * n_spatial))
        shape = (*draw(st.sampled_from([(), (1,), (3,)])), dense.in_channels, *places)
    return (torch.randn(shape, dtype=torch.float64),)


@st.composite
def _lookups(draw: Draw, kind: type[FactorizedLayer], dense: Any) -> tuple[Any, ...]:
    dtype = draw(st.sampled_from([torch.int64, torch.int32]))
    if "offsets" not in inspect.signature(dense.forward).parameters:
        shape = draw(st.sampled_from([(), (5,), (2, 3), (0,)]))
        return (_ids(dense, shape, dtype),)
    weights = draw(st.booleans()) and dense.mode == "sum"
    if draw(st.booleans()):
        ids, offsets = _ids(dense, (3, 4), dtype), None
    else:
        starts = [0, *sorted(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))]  # equal starts are empty bags
        last = [6] if dense.include_last_offset else []  # torch's own gradients are wrong where ids come after the last offset
        ids, offsets = _ids(dense, (6,), dtype), torch.tensor([*starts, *last], dtype=dtype)
    return (ids, offsets, torch.randn(ids.shape, dtype=torch.float64)) if weights else (ids, offsets)


def _ids(dense: Any, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    ids = torch.randint(0, dense.num_embeddings, shape, dtype=dtype)
    if dense.padding_idx is not None and ids.numel() > 1:
        ids.view(-1)[1] = dense.padding_idx
    return ids


def in_turn(*, verbs: bool) -> list[tuple[Subject, type[FactorizedLayer]]]:
    """Every format with one layer, or with one layer of each verb: the next of them in turn, so that every layer meets several formats.

    With HYPOTHESIS_PROFILE=deep every format with every layer. For what depends on the layer and on the statement, but hardly on both.
    """
    if not settings().derandomize:
        return list(itertools.product(SUBJECTS, LAYERS))
    groups: dict[str, list[type[FactorizedLayer]]] = {}
    for kind in LAYERS:
        names = parameters_of(kind)
        verb = "rows" if "num_embeddings" in names else "convolve" if "kernel_size" in names else "apply"
        groups.setdefault(verb if verbs else "all", []).append(kind)
    return [(subject, group[number % len(group)]) for number, subject in enumerate(SUBJECTS) for group in groups.values()]


def plain_case(subject: Subject, kind: type[FactorizedLayer], rank: Any = 2, dtype: torch.dtype = torch.float64) -> LayerCase:
    """One case without hypothesis: grouped where that is possible, a padding row where there is one, and a batch of 6."""
    names = parameters_of(kind)
    groups = 2 if "groups" in names else 1
    arguments: dict[str, Any] = {name: 12 * groups for name in names if name in IN_SIZES}
    arguments |= {name: 8 * groups for name in names if name in OUT_SIZES}
    options = {"kernel_size": 2, "stride": 2, "groups": groups, "padding_idx": 1}
    arguments |= {name: value for name, value in options.items() if name in names}
    dense: Any = kind.dense_type(**arguments, dtype=dtype)
    fold = merged(kind.fold_of(dense, 1, (4, 3), (2, 4)), subject.format)
    if "num_embeddings" in names:
        inputs = torch.arange(24).reshape(6, 4) % 12
    else:
        inputs = torch.randn(6, 12 * groups, *(4 + n for n in range(_n_spatial(kind))), dtype=dtype)
    return LayerCase(subject, kind, arguments, dense, fold, rank, (inputs,))
