"""EmbeddingBag: torch.nn.EmbeddingBag with a factorised table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import contract
from tenfold.format import Format
from tenfold.layers.base import Workload, check_format
from tenfold.layers.embedding import EmbeddingLayer, check_ids, has_values
from tenfold.weight import FactorizedWeight


class EmbeddingBag(EmbeddingLayer):
    """Sums, means or maxima of bags of rows of a table that is never built; the arguments are torch.nn.EmbeddingBag's.

    Offsets, empty bags and weights mean what they mean to torch. Of many ids every different row is computed once and added to its bags,
    and no table of rows is made, but for maxima and for weights that are trained; few ids, or a traced layer, go through torch's own bag
    operation on one row for each id.

    Args:
        padding_idx: ids that are left out of their bag.
        max_norm, scale_grad_by_freq, sparse: act on single rows of a dense table; accepted at their defaults only.
        format: a format with a rank, e.g. `tenfold.TTM(rank=16)`.
        in_modes, out_modes: sizes that the rows and the columns are split into; their products may exceed them (padding).

    Raises:
        ValueError: the rank or the modes do not fit, or an option that needs a dense table.
    """

    dense_type = nn.EmbeddingBag
    option_names = (
        "num_embeddings", "embedding_dim", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse", "include_last_offset",
        "padding_idx",
    )  # fmt: skip

    mode: str
    include_last_offset: bool

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        format: Format,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        torch_layer: Any = nn.EmbeddingBag
        options = torch_layer(
            num_embeddings, embedding_dim, max_norm, norm_type, scale_grad_by_freq, mode, sparse,
            include_last_offset=include_last_offset, padding_idx=padding_idx, device="meta", dtype=dtype,
        )  # fmt: skip
        check_format(type(self).__name__, format)
        fold = format.fold(self.fold_of(options, self.modes_of(format), in_modes, out_modes))
        self._build(options, FactorizedWeight(format.network(fold), fold, device=device, dtype=dtype))
        self.reset_parameters()

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(bags, embedding_dim) from ids (bags, length), or from ids (n) and the offsets (bags) at which bags start."""
        check_ids(input, self.num_embeddings, RuntimeError)
        self.check_bags(input, offsets, per_sample_weights)
        if self.include_last_offset:
            input, per_sample_weights = before_last(input, offsets, per_sample_weights)
        if contract.is_reusing(self.factorized.network, input, self.factorized.factors[0]):
            return self._reused(input, offsets, per_sample_weights)
        rows = self.factorized.rows(input.reshape(-1))
        # the looked-up rows are a table of their own; its rows at `padding_idx` are made neutral, not left out by torch, because
        # torch.export cannot do that with a table whose size depends on the input
        mode, is_padding = self.mode, None if self.padding_idx is None else input.reshape(-1, 1) == self.padding_idx
        if is_padding is not None:
            if mode == "mean":  # a sum in which one more column counts the rows
                mode, rows = "sum", F.pad(rows, (0, 1), value=1.0)
            rows = rows.masked_fill(is_padding, -math.inf if mode == "max" else 0.0)
        places = torch.arange(input.numel(), device=input.device, dtype=input.dtype).reshape(input.shape)
        options: Any = {"per_sample_weights": per_sample_weights, "include_last_offset": self.include_last_offset}
        bags = bags_of_table(places, rows, offsets, mode=mode, **options)
        if is_padding is not None and mode == "max":
            bags = bags.masked_fill(bags == -math.inf, 0.0)
        return bags if mode == self.mode else bags[:, :-1] / bags[:, -1:].clamp_min(1.0)

    def _reused(self, input: Tensor, offsets: Tensor | None, weights: Tensor | None) -> Tensor:
        """The same where every different row is computed once; rows are added to their bags without a table of them all."""
        options: Any = {"per_sample_weights": weights, "include_last_offset": self.include_last_offset}
        if self.mode == "max" or (weights is not None and weights.requires_grad):
            different, places = torch.unique(input, return_inverse=True)
            at = None if self.padding_idx is None else int(torch.searchsorted(different, self.padding_idx))
            is_there = at is not None and at < len(different) and int(different[at]) == self.padding_idx
            rows = self.factorized.rows(different)
            return F.embedding_bag(places, rows, offsets, mode=self.mode, padding_idx=at if is_there else None, **options)
        bags = Bags.of(input, offsets, weights, padding_idx=self.padding_idx, include_last_offset=self.include_last_offset)
        return bags.reduced(self.factorized.bags(bags.ids, bags.numbers, bags.n_bags, bags.weights), self.mode)

    def check_bags(self, input: Tensor, offsets: Tensor | None, weights: Tensor | None) -> None:
        """Raises what torch raises for bags that do not fit together, or ValueError."""
        dtype = self.factorized.factors[0].dtype
        check_bags(input, offsets, weights, mode=self.mode, dtype=dtype, include_last_offset=self.include_last_offset)

    @classmethod
    def workload(cls, dense: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> Workload:
        return Workload(math.ceil(math.prod(inputs) / max(1, outputs[0])), 0, is_lookup=True)


@dataclass(frozen=True)
class Bags:
    """The ids that count: those of padding are left out, and those after the last offset.

    ids, numbers: (n), and the bag of each.
    weights: (n) that the rows are multiplied by; None: all are 1.
    n_bags: also those that are empty.
    """

    ids: Tensor
    numbers: Tensor
    weights: Tensor | None
    n_bags: int

    @classmethod
    def of(
        cls,
        input: Tensor,
        offsets: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        padding_idx: int | None = None,
        include_last_offset: bool = False,
    ) -> "Bags":
        """The bags of (bags, length), or of (n) with offsets; `check_bags` comes first."""
        if offsets is None:
            n_bags, lengths = input.shape
            numbers = torch.arange(n_bags, device=input.device).repeat_interleave(lengths)
        else:
            ends = offsets if include_last_offset else torch.cat([offsets, offsets.new_tensor([input.numel()])])
            n_bags = len(ends) - 1
            numbers = torch.arange(n_bags, device=input.device).repeat_interleave(ends.diff())
        ids, weights = input.reshape(-1)[: len(numbers)], None if weights is None else weights.reshape(-1)[: len(numbers)]
        bags = cls(ids, numbers, weights, n_bags)
        return bags if padding_idx is None else bags.where(ids != padding_idx)

    def where(self, is_taken: Tensor) -> "Bags":
        """As many bags, with some of the ids."""
        weights = None if self.weights is None else self.weights[is_taken]
        return replace(self, ids=self.ids[is_taken], numbers=self.numbers[is_taken], weights=weights)

    def added(self, rows: Tensor, sums: Tensor | None = None) -> Tensor:
        """(n_bags, dim): the rows (n, dim) of the ids, weighted, added up in their bags, or to the sums given."""
        weighted = rows if self.weights is None else rows * self.weights[:, None]
        return (rows.new_zeros(self.n_bags, rows.shape[1]) if sums is None else sums).index_add(0, self.numbers, weighted)

    def reduced(self, sums: Tensor, mode: str) -> Tensor:
        """(n_bags, dim): the sums themselves, or for "mean" those over the numbers of ids; an empty bag stays zero."""
        if mode != "mean":
            return sums
        return sums / torch.bincount(self.numbers, minlength=self.n_bags).clamp_min(1)[:, None]


def bags_of_table(input: Tensor, table: Tensor, offsets: Tensor | None, *, include_last_offset: bool, **options: Any) -> Tensor:
    """Torch's bags, also of ids (bags, 0), which torch itself refuses."""
    if offsets is None and not input.shape[1]:
        input, offsets = input.reshape(-1), input.new_zeros(len(input) + include_last_offset)
        options["per_sample_weights"] = None
    return F.embedding_bag(input, table, offsets, include_last_offset=include_last_offset, **options)


def before_last(input: Tensor, offsets: Tensor | None, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The ids before the last offset, and their weights: torch would add the gradients of later ones beyond its memory."""
    if offsets is None or not has_values(offsets) or (last := int(offsets[-1])) == len(input):
        return input, weights
    return input[:last], None if weights is None else weights[:last]


def check_bags(
    input: Tensor, offsets: Tensor | None, weights: Tensor | None, *, mode: str, dtype: torch.dtype, include_last_offset: bool = False
) -> None:
    """Raises what torch raises for bags that do not fit together, and ValueError where torch would read beyond the ids.

    Args:
        dtype: of the table, which weights need to have.
    """
    if (offsets is None) == (input.dim() == 1) or input.dim() not in (1, 2):
        given = "without" if offsets is None else "with"
        raise ValueError(
            f"the ids have the shape {tuple(input.shape)} {given} offsets; give ids (bags, length), or ids (n) and offsets (bags)"
        )
    check_weights(weights, mode)
    if weights is not None and weights.shape != input.shape:
        raise ValueError(
            f"per_sample_weights have the shape {tuple(weights.shape)}, the ids {tuple(input.shape)}; each id needs a weight: give as many"
        )
    if weights is not None and weights.dtype != dtype:
        raise RuntimeError(f"per_sample_weights have the dtype {weights.dtype}; the table has {dtype}, and needs the same: convert them")
    if offsets is not None:
        _check_offsets(offsets, input.numel(), include_last_offset)


def _check_offsets(offsets: Tensor, n_ids: int, include_last_offset: bool) -> None:
    if not isinstance(offsets, Tensor):
        raise TypeError(f"the offsets are a {type(offsets).__name__}; bags need a tensor of them: convert it with torch.as_tensor")
    if offsets.dim() != 1:
        raise ValueError(f"the offsets have the shape {tuple(offsets.shape)}; bags need a vector (bags) of them: give their starts alone")
    if offsets.dtype not in (torch.int64, torch.int32):
        raise RuntimeError(f"the offsets have the dtype {offsets.dtype}; bags need torch.int64 or torch.int32: convert them")
    if not has_values(offsets):
        return
    if not len(offsets):
        if n_ids or include_last_offset:
            error = RuntimeError if include_last_offset else ValueError
            raise error(f"{n_ids} ids were given with no offsets; the first bag needs one, at 0: give the places at which bags start")
        return
    first, last = offsets[0].item(), offsets[-1].item()
    if first != 0:
        raise RuntimeError(f"the first offset is {first}; the first bag needs to start at 0: give the places at which bags start")
    if len(offsets) > 1 and offsets.diff().min().item() < 0:
        raise ValueError("an offset is smaller than the one before it; bags follow each other: sort the ids by their bags")
    if last > n_ids:
        raise RuntimeError(f"the last offset is {last}, but there are {n_ids} ids; offsets may be 0 to {n_ids}: give all ids")


def check_weights(weights: Tensor | None, mode: str) -> None:
    """Raises NotImplementedError, as torch does, where ids have weights but are not summed."""
    if weights is not None and mode != "sum":
        raise NotImplementedError(f"per_sample_weights were given to bags of mode {mode!r}; they need mode='sum': leave them out")


def check_no_bags(name: str, offsets: Tensor | None, weights: Tensor | None) -> None:
    """Raises TypeError, as a call of torch's Embedding does, where a table that has no bags gets what belongs to bags."""
    given = [one for one, value in (("offsets", offsets), ("per_sample_weights", weights)) if value is not None]
    if given:
        raise TypeError(f"{name} got {' and '.join(given)}, but gives a row for each id; only bags take them: leave them out, or use bags")
