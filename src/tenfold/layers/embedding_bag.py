"""EmbeddingBag: torch.nn.EmbeddingBag with a factorised table."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import contract
from tenfold.format import Format
from tenfold.layers.base import Workload
from tenfold.layers.embedding import EmbeddingLayer
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
        fold = format.fold(self.fold_of(options, self.modes_of(format), in_modes, out_modes))
        self._build(options, FactorizedWeight(format.network(fold), fold, device=device, dtype=dtype))
        self.reset_parameters()

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(bags, embedding_dim) from ids (bags, length), or from ids (n) and the offsets (bags) at which bags start."""
        self._check_ids(input, RuntimeError)
        if per_sample_weights is not None and self.mode != "sum":
            raise NotImplementedError(f"per_sample_weights were given to bags of mode {self.mode!r}; they need mode='sum': leave them out")
        if contract.is_reusing(input, self.factorized.factors[0]):
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
        bags = F.embedding_bag(
            places, rows, offsets, mode=mode, per_sample_weights=per_sample_weights, include_last_offset=self.include_last_offset
        )
        if is_padding is not None and mode == "max":
            bags = bags.masked_fill(bags == -math.inf, 0.0)
        return bags if mode == self.mode else bags[:, :-1] / bags[:, -1:].clamp_min(1.0)

    def _reused(self, input: Tensor, offsets: Tensor | None, weights: Tensor | None) -> Tensor:
        """The same where every different row is computed once; rows are added to their bags without a table of them all."""
        self.check_bags(input, offsets, weights)
        options: Any = {"per_sample_weights": weights, "include_last_offset": self.include_last_offset}
        if self.mode == "max" or (weights is not None and weights.requires_grad):
            different, places = torch.unique(input, return_inverse=True)
            at = None if self.padding_idx is None else int(torch.searchsorted(different, self.padding_idx))
            is_there = at is not None and at < len(different) and int(different[at]) == self.padding_idx
            rows = self.factorized.rows(different)
            return F.embedding_bag(places, rows, offsets, mode=self.mode, padding_idx=at if is_there else None, **options)
        ids, (bags, n_bags) = input.reshape(-1), bag_numbers(input, offsets, self.include_last_offset)
        ids = ids[: len(bags)]
        weights = None if weights is None else weights.reshape(-1)[: len(bags)]
        if self.padding_idx is not None:
            is_taken = ids != self.padding_idx
            ids, bags, weights = ids[is_taken], bags[is_taken], None if weights is None else weights[is_taken]
        sums = self.factorized.bags(ids, bags, n_bags, weights)
        return sums / torch.bincount(bags, minlength=n_bags).clamp_min(1)[:, None] if self.mode == "mean" else sums

    def check_bags(self, input: Tensor, offsets: Tensor | None, weights: Tensor | None) -> None:
        """Raises what torch raises for bags that do not fit together, by running torch on a table of one value."""
        options: Any = {"per_sample_weights": weights, "include_last_offset": self.include_last_offset}
        F.embedding_bag(torch.zeros_like(input), self.factorized.factors[0].new_zeros(1, 1), offsets, mode=self.mode, **options)

    @classmethod
    def workload(cls, dense: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> Workload:
        return Workload(math.ceil(math.prod(inputs) / max(1, outputs[0])), 0, is_lookup=True)


def bag_numbers(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[Tensor, int]:
    """The bag of each id of (bags, length), or of (n) with offsets, and the number of bags.

    Raises:
        ValueError: ids of one axis come without offsets, or others with them.
    """
    if (offsets is None) == (input.dim() == 1) or input.dim() not in (1, 2):
        given = "without" if offsets is None else "with"
        raise ValueError(
            f"the ids have the shape {tuple(input.shape)} {given} offsets; give ids (bags, length), or ids (n) and offsets (bags)"
        )
    if offsets is None:
        return torch.arange(input.shape[0], device=input.device).repeat_interleave(input.shape[1]), input.shape[0]
    ends = offsets if include_last_offset else torch.cat([offsets, offsets.new_tensor([input.numel()])])
    n_bags = len(ends) - 1
    return torch.arange(n_bags, device=input.device).repeat_interleave(ends.diff()), n_bags
