"""Which weights of a model have ranks, and which rows a table among them has."""

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tenfold.embeddings.sharded_embedding import ShardedEmbedding
from tenfold.layers.embedding import EmbeddingLayer, stray_id
from tenfold.weight import FactorizedWeight
from tenfold.wrappers import clean_name, unwrapped


def factorized_weights(model: nn.Module, layers: str | Sequence[str] | None = None) -> dict[str, FactorizedWeight]:
    """The factorised weights of a model by the names of their layers; "model" where the model is one such layer itself.

    Args:
        layers: names or patterns such as "encoder.*"; all factorised layers where it is left out.

    Raises:
        TypeError: the model is no module.
        ValueError: a name stands for a dense layer or for none, or there is no factorised layer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a {type(model).__name__} was given; a torch.nn.Module with factorised layers is needed: give the model")
    model = unwrapped(model)
    found = {_layer_name(name): one for name, one in model.named_modules() if isinstance(one, FactorizedWeight)}
    if not found:
        raise ValueError(
            f"this {type(model).__name__} has no factorised layer, only dense ones; ranks are decided where there are some: use layers of "
            "tenfold.nn, tenfold.factorize or tenfold.compress first"
        )
    if layers is None:
        return found
    chosen: dict[str, FactorizedWeight] = {}
    modules = {_layer_name(name): type(one).__name__ for name, one in model.named_modules()}
    for pattern in [layers] if isinstance(layers, str) else layers:
        hits = [name for name in found if fnmatch.fnmatchcase(name, pattern)]
        if not hits and pattern in modules:
            raise ValueError(
                f"{pattern!r} is a dense {modules[pattern]}, which has no ranks; a factorised layer is needed, as {', '.join(found)}: "
                "leave it out, or factorise it first"
            )
        if not hits:
            raise ValueError(f"{pattern!r} matches no layer; the factorised ones are {', '.join(found)}: correct it")
        chosen.update({name: found[name] for name in hits})
    if not chosen:
        raise ValueError(f"no layer was named; the factorised ones are {', '.join(found)}: name some, or leave layers out to mean all")
    return chosen


def check_whole(model: nn.Module, weights: Mapping[str, FactorizedWeight]) -> None:
    """Raises ValueError where a weight is the part of a table that this process has: ranks are decided on whole weights."""
    parts = {id(one.factorized): one.world for one in model.modules() if isinstance(one, ShardedEmbedding) and one.world > 1}
    for name, weight in weights.items():
        if (world := parts.get(id(weight))) is not None:
            raise ValueError(
                f"layer {name!r} is a ShardedEmbedding, of which this process has one part of {world}; a rank method needs whole weights, "
                "equal in all processes: find the ranks before the table is sharded, or those of unsharded(), or name other layers"
            )


def check_untied(model: nn.Module, weights: Mapping[str, FactorizedWeight]) -> None:
    """Raises ValueError where a factor is also a parameter of another place of the model, and not with its whole weight."""
    places = Counter(id(p) for one in model.modules() for _, p in one.named_parameters(recurse=False, remove_duplicate=False))
    for name, weight in weights.items():
        if any(places[id(factor)] > 1 for factor in weight.factors.parameters()):
            raise ValueError(
                f"layer {name!r} shares a factor with another place of the model; a rank method gives every layer new factors, which ends "
                "that: share whole layers, give the layer a factor of its own, or leave the layer out"
            )


def padding_row(model: nn.Module, weight: FactorizedWeight) -> int | None:
    """The row of a table that counts as zero whatever the factors hold; None for other weights, or where there is none."""
    tables = (one for one in model.modules() if isinstance(one, EmbeddingLayer | ShardedEmbedding) and one.factorized is weight)
    return next((one.padding_idx for one in tables), None)


def check_rows(method: str, name: str, n_rows: int, ids: Tensor) -> None:
    """Raises IndexError where an id is none of a table's rows, TypeError where the ids are no whole numbers."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{method} got ids of the dtype {ids.dtype}; torch.int64 or torch.int32 is needed: convert them")
    if (stray := stray_id(ids, n_rows)) is not None:
        raise IndexError(
            f"{method} got the id {stray}, but layer {name!r} has {n_rows} rows; ids must be 0 to {n_rows - 1}: check the vocabulary"
        )


def _layer_name(name: str) -> str:
    return clean_name(name.removesuffix("factorized").removesuffix(".")) or "model"
