"""Which layers of a model a plan may change, and which formats each of them may get."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.formats import CP, SVD, Tucker, format_text, parse_format
from tenfold.network import Network
from tenfold.ranks.folds import other_folds
from tenfold.survey import Found

Formats: TypeAlias = Format | str | Mapping[Any, Format | str | None]
Filter: TypeAlias = str | type[nn.Module] | Iterable[str | type[nn.Module]] | Callable[[nn.Module, str], bool] | None

AUTO: tuple[Format, ...] = (CP(), Tucker(), SVD())


@dataclass(frozen=True)
class Choice:
    """A format that a layer may get, and its modes where they are given with it."""

    format: Format
    in_modes: tuple[int, ...] | None = None
    out_modes: tuple[int, ...] | None = None

    def fold(self, layer: Found) -> Fold:
        """The fold of a layer. Raises ValueError naming the layer where the modes or the rank do not fit it."""
        assert layer.layer is not None
        try:
            fold = self.format.fold(layer.layer.fold_of(layer.module, layer.layer.modes_of(self.format), self.in_modes, self.out_modes))
            _ = self.format.widest(fold) if self.format.rank is None else self.format.network(fold)
        except ValueError as error:
            raise ValueError(f"layer {layer.name!r} with {format_text(self.format, self.in_modes, self.out_modes)}: {error}") from error
        return fold

    def folds(self, layer: Found) -> list[Fold]:
        """The fold of a layer, then those that a plan may choose instead where neither modes nor ranks are given."""
        fold = self.fold(layer)
        is_open = self.format.rank is None and self.in_modes is None and self.out_modes is None
        return [fold, *(other_folds(layer, self.format, fold) if is_open else [])]

    def network(self, layer: Found) -> tuple[Fold, Network]:
        """The fold and the network of a layer. Raises ValueError naming the layer where there is no rank or something does not fit."""
        if self.format.rank is None:
            name = type(self.format).__name__
            raise ValueError(
                f"layer {layer.name!r} gets {name}() without a rank; one is needed: give {name}(rank=8), or make a plan with a budget"
            )
        fold = self.fold(layer)
        return fold, self.format.network(fold)


def select(found: Sequence[Found], format: Formats, filter: Filter = None) -> tuple[dict[str, tuple[Choice, ...]], dict[str, str]]:
    """What each layer that can be factorised may become, by name, and why each of the others stays dense.

    In a mapping a full name counts before patterns and types, and of these the first that matches.

    Raises:
        ValueError: a name or pattern matches nothing, a name stands for a layer that cannot be factorised, or no layer is left.
    """
    chosen = _choices(found, format)
    keep = _filter(found, filter)
    reasons = {}
    for one in found:
        if one.layer is None:
            reasons[one.name] = one.reason
        elif not keep(one):
            reasons[one.name] = "left out by the filter"
        elif not chosen.get(one.name):
            reasons[one.name] = "no format is given for it"
    if len(reasons) == len(found):
        why = "; ".join(f"{one.name}: {reasons[one.name]}" for one in found[:3]) or "it holds no weight with two or more axes"
        raise ValueError(
            f"the model has no layer that can be factorised here ({why}); it needs at least one Linear, convolution or embedding: "
            "widen the filter or the formats, or give another model"
        )
    return {name: choices for name, choices in chosen.items() if name not in reasons}, reasons


def _choices(found: Sequence[Found], format: Formats) -> dict[str, tuple[Choice, ...]]:
    if not isinstance(format, Mapping):
        return {one.name: _as_choices(format) for one in found if one.layer}
    result: dict[str, tuple[Choice, ...]] = {}
    names = {name for one in found for name in one.names}
    owners = {name for one in found for name in one.owner_names}
    for key, value in sorted(format.items(), key=lambda item: 0 if item[0] in names else 1 if item[0] in owners else 2):
        hits = _hits(key, found)
        if blocked := [one for one in hits if not one.layer and key in one.names and _as_choices(value)]:
            raise ValueError(f"{key!r} asks for a format, but {blocked[0].reason}; take it out of the mapping")
        for one in hits:
            result.setdefault(one.name, _as_choices(value))
    return result


def _as_choices(value: Format | str | None) -> tuple[Choice, ...]:
    """What a value stands for; nothing where it leaves a layer dense."""
    if isinstance(value, Format):
        return (Choice(value),)
    if value is None or value == "dense":
        return ()
    if value == "auto":
        return tuple(map(Choice, AUTO))
    if not isinstance(value, str):
        raise TypeError(
            f"{value!r} is no format; a Format such as CP(rank=8), its text, 'auto', 'dense' or None is needed: give one of them"
        )
    format, modes = parse_format(value)
    return (Choice(format, modes.get("in_modes"), modes.get("out_modes")),)


def _filter(found: Sequence[Found], filter: Filter) -> Callable[[Found], bool]:
    if filter is None:
        return lambda one: True
    if callable(filter) and not isinstance(filter, type):
        return lambda one: filter(one.module, one.name)
    kept = {one.name for pattern in ([filter] if isinstance(filter, str | type) else filter) for one in _hits(pattern, found)}
    return lambda one: one.name in kept


def _hits(key: Any, found: Sequence[Found]) -> list[Found]:
    """The layers that a name, a pattern or a type stands for. Raises ValueError where there are none."""
    if not isinstance(key, str | type):
        raise TypeError(f"{key!r} names no layer; a name, a pattern such as 'layer1.*' or a layer type is needed: give one of them")
    if isinstance(key, type):
        hits = [one for one in found if one.is_a(key)]
    else:
        hits = [one for one in found if any(name == key or fnmatch.fnmatchcase(name, key) for name in (*one.names, *one.owner_names))]
    if not hits:
        kinds = f"{key.__name__}" if isinstance(key, type) else repr(key)
        raise ValueError(
            f"{kinds} matches no layer; the layers are {', '.join(one.name or 'the model itself' for one in found)}: correct it"
        )
    return hits
