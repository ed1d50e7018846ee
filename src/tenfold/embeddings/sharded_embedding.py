"""ShardedEmbedding: a factorised table spread over the processes of torch.distributed by its first digit."""

import math
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.fold import Axis, Fold
from tenfold.layers.embedding import Embedding, EmbeddingLayer, check_ids
from tenfold.layers.embedding_bag import EmbeddingBag, bags_of_table, before_last, check_bags, check_no_bags
from tenfold.weight import FactorizedWeight


class ShardedEmbedding(nn.Module):
    """A part of a factorised Embedding or EmbeddingBag: the factors that carry the first digit are cut along it, the others are copies.

    Each process asks the owners for the different rows of its own batch, and gets only these: ids go out, rows come back, and their
    gradients go the same way. All processes have to call `forward` and `backward` the same number of times, also with no ids.

    Gradients are those of the mean over the processes of their losses, as DistributedDataParallel's are. Keep the parameters out of it:
    those that are cut differ between processes; the copies get equal gradients here, and stay equal under equal optimisers.

    Args:
        layer: the whole layer, with the same values in every process; it is not changed, and need not be kept.
        group: the processes; left out, all of them.

    Raises:
        TypeError: the layer is no factorised table.
        ValueError: there are more processes than values of the first digit.
    """

    def __init__(self, layer: EmbeddingLayer, group: dist.ProcessGroup | None = None) -> None:
        super().__init__()
        if not isinstance(layer, (Embedding, EmbeddingBag)):
            raise TypeError(
                f"ShardedEmbedding got a {type(layer).__name__}; it needs a tenfold.nn.Embedding or EmbeddingBag: factorise the table first"
            )
        self.group, self.rank, self.world = group, dist.get_rank(group), dist.get_world_size(group)
        weight, axis = layer.factorized, layer.factorized.fold.axis("i")
        if self.world > axis.modes[0]:
            raise ValueError(
                f"the table's first digit has {axis.modes[0]} values, but there are {self.world} processes; each needs one at least: give "
                "in_modes that begin with a larger one"
            )
        self.bounds = [number * axis.modes[0] // self.world for number in range(self.world + 1)]
        self.whole = weight.fold
        self.mode: str | None = layer.mode if isinstance(layer, EmbeddingBag) else None
        self.padding_idx, self.num_embeddings, self.embedding_dim = layer.padding_idx, layer.num_embeddings, layer.embedding_dim
        self.include_last_offset = isinstance(layer, EmbeddingBag) and layer.include_last_offset
        start, stop = self.bounds[self.rank], self.bounds[self.rank + 1]
        part = Fold(tuple(_cut(one, stop - start) if one.role == "i" else one for one in weight.fold.axes))
        factors = [
            factor.detach().narrow(indices.index("i1"), start, stop - start) if "i1" in indices else factor.detach()
            for factor, indices in zip(weight.factors, weight.network.factors, strict=True)
        ]
        network = weight.network.resized({"i1": stop - start})
        self.factorized = _frozen_as(weight, FactorizedWeight(network, part, [factor.clone() for factor in factors]))

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(*, embedding_dim) from ids (*), or (bags, embedding_dim): what the whole layer gives for the ids of this process."""
        check_ids(input, self.num_embeddings, IndexError if self.mode is None else RuntimeError)
        dtype, options = self.factorized.factors[0].dtype, {"include_last_offset": self.include_last_offset}
        if self.mode is None:
            check_no_bags("ShardedEmbedding", offsets, per_sample_weights)
        else:
            check_bags(input, offsets, per_sample_weights, mode=self.mode, dtype=dtype, **options)
        if self.include_last_offset:
            input, per_sample_weights = before_last(input, offsets, per_sample_weights)
        different, places = torch.unique(input.to(torch.int64), return_inverse=True)
        rows = self._fetch(different)
        if self.padding_idx is not None:
            rows = rows.masked_fill((different == self.padding_idx)[:, None], 0.0)
        if self.mode is None:
            return F.embedding(places, rows)
        at = (different == self.padding_idx).nonzero().flatten().tolist() if self.padding_idx is not None else []
        padding: Any = at[0] if at else None
        if not len(rows):
            rows = torch.cat([rows, rows.new_zeros(1, self.embedding_dim)])  # torch takes no table without rows
        return bags_of_table(places, rows, offsets, mode=self.mode, per_sample_weights=per_sample_weights, padding_idx=padding, **options)

    def _fetch(self, ids: Tensor) -> Tensor:
        """(ids, embedding_dim): rows of different ids in increasing order, from the processes that hold them."""
        after = self._after()
        limits = torch.tensor([bound * after for bound in self.bounds[1:-1]], dtype=torch.int64, device=ids.device)
        asked = torch.bincount(torch.bucketize(ids, limits, right=True), minlength=self.world)
        given = torch.empty_like(asked)
        dist.all_to_all_single(given, asked, group=self.group)
        to, by = asked.tolist(), given.tolist()
        wanted = ids.new_empty(sum(by))
        dist.all_to_all_single(wanted, ids, by, to, group=self.group)
        weight = self.factorized
        copies = [k for k, indices in enumerate(weight.network.factors) if "i1" not in indices]
        factors = list(weight.factors)
        for number, one in zip(copies, _Summed.apply(self.group, *(factors[k] for k in copies)), strict=True) if copies else ():
            factors[number] = one
        rows = _rows_with(weight, factors, wanted - self.bounds[self.rank] * after)
        return _Exchanged.apply(rows.contiguous(), by, to, self.group, self.world)  # pyright: ignore[reportReturnType]

    def _after(self) -> int:
        """Rows for each value of the first digit."""
        return math.prod(self.whole.axis("i").modes[1:])

    @torch.no_grad()
    def unsharded(self) -> FactorizedWeight:
        """The weight of the whole table, put together in every process: to save it, or to go on without processes."""
        factors = []
        for factor, indices in zip(self.factorized.factors, self.factorized.network.factors, strict=True):
            if "i1" not in indices:
                factors.append(factor.detach().clone())
                continue
            moved = factor.detach().movedim(indices.index("i1"), 0).contiguous()
            sizes = [stop - start for start, stop in zip(self.bounds[:-1], self.bounds[1:], strict=True)]
            parts = []
            for source, size in enumerate(sizes):  # one process after the other: parts have different sizes
                part = moved.clone() if source == self.rank else moved.new_empty(size, *moved.shape[1:])
                dist.broadcast(part, group=self.group, group_src=source)
                parts.append(part)
            factors.append(torch.cat(parts).movedim(0, indices.index("i1")))
        return _frozen_as(self.factorized, FactorizedWeight(self.factorized.network.resized({"i1": self.bounds[-1]}), self.whole, factors))

    def extra_repr(self) -> str:
        """Which part of the table this is."""
        start, stop = self.bounds[self.rank], self.bounds[self.rank + 1]
        return f"{self.num_embeddings}, {self.embedding_dim}, first digits {start} to {stop - 1} of {self.bounds[-1]}, process {self.rank}"


def _cut(axis: Axis, first: int) -> Axis:
    """The row axis with another size of its first mode, padding rows included."""
    return Axis(axis.role, first * math.prod(axis.modes[1:]), (first, *axis.modes[1:]))


def _frozen_as(other: FactorizedWeight, weight: FactorizedWeight) -> FactorizedWeight:
    """The weight, each factor trained where that of another one is."""
    for mine, factor in zip(weight.factors, other.factors, strict=True):
        mine.requires_grad_(factor.requires_grad)
    return weight


def _rows_with(weight: FactorizedWeight, factors: list[Tensor], ids: Tensor) -> Tensor:
    """Rows of a weight with other tensors in the place of its factors."""
    return torch.func.functional_call(_Rows(weight), {f"weight.factors.{k}": one for k, one in enumerate(factors)}, (ids,))


class _Rows(nn.Module):
    def __init__(self, weight: FactorizedWeight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.rows(ids)


class _Exchanged(torch.autograd.Function):
    """Rows sent to those who asked for them; backward, their gradients go back, divided by the number of processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, by: list[int], to: list[int], group: Any, world: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.by, ctx.to, ctx.group, ctx.world = by, to, group, world
        found = rows.new_empty(sum(to), rows.shape[1])
        dist.all_to_all_single(found, rows, to, by, group=group)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, flow: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = flow.new_empty(sum(ctx.by), flow.shape[1])
        dist.all_to_all_single(found, (flow / ctx.world).contiguous(), ctx.by, ctx.to, group=ctx.group)
        return found, None, None, None, None


class _Summed(torch.autograd.Function):
    """The same tensors; backward, their gradients are summed over the processes."""

    @staticmethod
    def forward(ctx: Any, group: Any, *tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.group = group
        ctx.set_materialize_grads(True)
        return tuple(one.view_as(one) for one in tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *flows: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = [flow.clone(memory_format=torch.contiguous_format) for flow in flows]
        for one in found:
            dist.all_reduce(one, group=ctx.group)
        return (None, *found)
