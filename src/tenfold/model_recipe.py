"""The metadata of a model file: which layers are factorised and how. Read as if by an enemy: every value is checked before its use."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.files import Header
from tenfold.fold import Axis, Fold
from tenfold.layers import all_layers
from tenfold.layers.base import FactorizedLayer
from tenfold.network import Network

FORMAT_VERSION = "1"
STATEMENT_LIMIT = 10_000  # characters
FACTOR_LIMIT = 32  # the search for a contraction order grows quickly with the number of factors
PADDED_LIMIT = 64  # values of the padded weight for each value of the weight


@dataclass(frozen=True)
class LayerRecipe:
    """One factorised layer: its class, its network and its fold."""

    kind: type[FactorizedLayer]
    network: Network
    fold: Fold


@dataclass(frozen=True)
class ModelRecipe:
    """The factorised layers by name, further names of layers and of tensors, and the recurrent layers whose maps are layers."""

    layers: dict[str, LayerRecipe]
    modules: dict[str, str]
    aliases: dict[str, str]
    recurrent: tuple[str, ...]


def factor_name(layer: str, number: int) -> str:
    """The name of a factor in the file: ``"<layer>.factorized.factors.0"``."""
    return f"{layer}.factorized.factors.{number}" if layer else f"factorized.factors.{number}"


def read_recipe(header: Header) -> ModelRecipe:
    """What a file says of its layers; the shapes of all factors are those of its tensors.

    Raises:
        ValueError: the file was not written by `save`, or by a newer version, or says something impossible.
    """
    version = header.metadata.get("tenfold", "")
    if not (version.isascii() and version.isdigit() and len(version) < 9 and {"layers", "modules", "aliases"} <= header.metadata.keys()):
        raise ValueError(
            f"{header.path} is not a tenfold file (its metadata are {sorted(header.metadata)[:8]}); one written by tenfold.save is needed: "
            "save the model with tenfold.save, or load plain weights with load_state_dict"
        )
    if version != FORMAT_VERSION:
        raise ValueError(f"{header.path} has format version {int(version)}; this tenfold reads version {FORMAT_VERSION}: update tenfold")
    aliases = _names(header, "aliases", header.tensors)
    entries = _object(header, "layers")
    layers = {name: _layer(header, aliases, name, entry) for name, entry in entries.items()}
    recurrent = _object(header, "recurrent") if "recurrent" in header.metadata else {}
    return ModelRecipe(layers, _names(header, "modules", layers), aliases, tuple(recurrent))


def check_recipe(network: Network, fold: Fold, where: str) -> None:
    """Raises ValueError where a network or a fold is outside of what a file may hold."""
    if len(network.factors) > FACTOR_LIMIT or len(network.statement) > STATEMENT_LIMIT:
        raise ValueError(
            f"{where} has {len(network.factors)} factors in a statement of {len(network.statement):,} characters; "
            f"a file may hold {FACTOR_LIMIT} and {STATEMENT_LIMIT:,}: use fewer modes"
        )
    padded, values = math.prod(fold.sizes.values()), math.prod(fold.shape)
    if padded > PADDED_LIMIT * values:
        raise ValueError(
            f"{where} pads a weight of {values:,} values to {padded:,}; a file may hold {PADDED_LIMIT} times as many: choose other modes"
        )


def _object(header: Header, key: str) -> dict[str, Any]:
    try:
        value = json.loads(header.metadata[key])
    except (ValueError, RecursionError) as error:
        raise _wrong(header, f"its metadata {key!r} are not readable as JSON ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise _wrong(header, f"its metadata {key!r} are a {type(value).__name__}, not an object")
    return value


def _names(header: Header, key: str, targets: Mapping[str, Any]) -> dict[str, str]:
    """A mapping from further names to names of `targets`."""
    value = _object(header, key)
    for name, target in value.items():
        if not isinstance(target, str) or target not in targets or name in targets:
            raise _wrong(header, f"its {key!r} map {name!r} to {str(target)[:100]!r}, but map new names to known ones")
    return value


def _layer(header: Header, aliases: Mapping[str, str], name: str, entry: Any) -> LayerRecipe:
    where = f"layer {name[:200]!r}"
    if not isinstance(entry, dict) or set(entry) != {"layer", "statement", "sizes", "axes"}:
        raise _wrong(header, f"{where} is not described by layer, statement, sizes and axes")
    kind, statement, sizes = entry["layer"], entry["statement"], entry["sizes"]
    if not isinstance(kind, str) or kind not in all_layers():
        raise _wrong(header, f"{where} is a {str(kind)[:100]!r}, and the layers are {', '.join(sorted(all_layers()))}")
    if not isinstance(statement, str) or len(statement) > STATEMENT_LIMIT or sum(map(statement.count, ",+")) >= FACTOR_LIMIT:
        raise _wrong(header, f"{where} has no statement of at most {STATEMENT_LIMIT:,} characters and {FACTOR_LIMIT} factors")
    if not isinstance(sizes, dict) or not all(_is_size(size) for size in sizes.values()):
        raise _wrong(header, f"{where} has sizes that are no whole numbers above 0")
    try:
        network = Network.parse(statement, sizes)
        fold = _fold(entry["axes"])
        if network.sizes != sizes or network.modes != fold.modes or {mode: sizes[mode] for mode in network.modes} != fold.sizes:
            raise ValueError(f"its statement {statement[:200]!r}, its sizes and its axes do not belong together")
        check_recipe(network, fold, "it")
    except ValueError as error:
        raise _wrong(header, f"{where}: {error}") from error
    dtypes = set()
    for number, shape in enumerate(network.shapes):
        factor = factor_name(name, number)
        found = header.tensors.get(aliases.get(factor, factor))
        if found is None or found.shape != shape:
            raise _wrong(header, f"{where} needs {factor!r} of shape {shape} and has {'none' if found is None else found.shape}")
        dtypes.add(found.dtype)
    if len(dtypes) > 1 or not all(dtype.is_floating_point for dtype in dtypes):
        raise _wrong(header, f"{where} has factors of the dtypes {sorted(map(str, dtypes))}, and needs one real floating-point dtype")
    return LayerRecipe(all_layers()[kind], network, fold)


def _fold(axes: Any) -> Fold:
    if not isinstance(axes, list) or not 0 < len(axes) <= 8:
        raise ValueError("it has no list of axes")
    made = []
    for axis in axes:
        if not isinstance(axis, list) or len(axis) != 4:
            raise ValueError("an axis is not a list of role, size, modes and groups")
        role, size, modes, groups = axis
        if not isinstance(role, str) or role not in ("o", "i", "k") or not isinstance(modes, list) or len(modes) > STATEMENT_LIMIT:
            raise ValueError("an axis has a role other than o, i or k, or no list of modes")
        if not all(map(_is_size, (size, groups, *modes))):
            raise ValueError("an axis has sizes that are no whole numbers above 0")
        made.append(Axis(role, size, tuple(modes), groups))
    if sum(axis.groups > 1 for axis in made) > 1:
        raise ValueError("more than one axis has groups")
    return Fold(tuple(made))


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 63


def _wrong(header: Header, problem: str) -> ValueError:
    return ValueError(f"{header.path} is damaged or made by hand: {problem}; a file of tenfold.save is needed: save the model again")
