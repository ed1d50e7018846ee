"""Embedding: torch.nn.Embedding with a factorised table."""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter
from typing_extensions import Self

from tenfold import contract
from tenfold.contract.steps import RowsPlan
from tenfold.decompose import SWEEPS
from tenfold.fold import Fold, make_fold
from tenfold.format import Format
from tenfold.layers.base import FactorizedLayer, Workload, check_format
from tenfold.weight import FactorizedWeight


class EmbeddingLayer(FactorizedLayer, abc.ABC):
    """What lookups share: a table (num_embeddings, embedding_dim) whose rows are the input axis of the fold.

    The row at `padding_idx` is zero and gets no gradient, whatever the factors hold: other rows share them, so it cannot be stored
    on its own. An Embedding whose row there is not zero (torch zeroes it at the start, and never trains it) loses that row, with a
    warning; bags leave it out in torch too.
    """

    option_names: ClassVar[tuple[str, ...]]
    bias = None

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None

    def _build(self, options: nn.Module, factorized: FactorizedWeight) -> None:
        """`options` is a torch layer, which may be on "meta": it has checked the arguments."""
        if reason := self.unsupported(options):
            raise ValueError(f"{type(self).__name__} got {reason}; leave the option out, or keep the torch layer")
        self.factorized = factorized
        for name in self.option_names:
            setattr(self, name, getattr(options, name))

    def reset_parameters(self) -> None:
        """Start values with the standard deviation of torch's, which is 1."""
        self.factorized.init_normal_(1.0)

    @property
    def weight(self) -> Tensor:
        """The dense table, rebuilt on demand (kept between calls in eval without gradients); read-only. Its padding row is zero."""
        if self.padding_idx is None:
            return self.factorized.dense()
        return self.factorized.kept("table", self._masked)

    def _masked(self) -> Tensor:
        table = self.factorized.dense()
        return table.index_fill(0, torch.tensor([self.padding_idx], device=table.device), 0.0)

    @classmethod
    def unsupported(cls, dense: nn.Module) -> str:
        layer: Any = dense
        if layer.max_norm is not None:
            return f"max_norm={layer.max_norm}, which rescales single rows of the table in place; factors are shared by many rows"
        if layer.scale_grad_by_freq:
            return "scale_grad_by_freq=True, which rescales gradients of single rows; factors are shared by many rows"
        if layer.sparse:
            return "sparse=True, which asks for sparse gradients; those of factors are dense, because many rows share them"
        return ""

    @classmethod
    def fold_of(cls, dense: nn.Module, n_modes: int, in_modes: Sequence[int] | None = None, out_modes: Sequence[int] | None = None) -> Fold:
        layer: Any = dense
        return make_fold([("i", layer.num_embeddings), ("o", layer.embedding_dim)], n_modes, in_modes=in_modes, out_modes=out_modes)

    @classmethod
    def around(cls, dense: nn.Module, factorized: FactorizedWeight) -> Self:
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._build(dense, factorized)
        return layer

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        *,
        format: Format,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
        sweeps: int = SWEEPS,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """The factorised layer closest to a table (num_embeddings, embedding_dim); `options` are those of torch's method."""
        torch_layer: Any = cls.dense_type
        dense = torch_layer.from_pretrained(embeddings, freeze=freeze, **options)
        layer = cls.from_dense(dense, format, in_modes=in_modes, out_modes=out_modes, sweeps=sweeps, seed=seed)
        return layer.requires_grad_(not freeze)

    def to_dense(self) -> nn.Module:
        like = self.factorized.factors[0]
        options = {name: getattr(self, name) for name in self.option_names}
        dense: Any = self.dense_type(**options, device=like.device, dtype=like.dtype)
        with torch.no_grad():
            dense.weight.copy_(self.weight)
        return dense.train(self.training)

    def plan(self, batch: int = 16) -> RowsPlan:
        """How rows are looked up; `print` it. It does not depend on the number of ids."""
        return self.factorized.plan_rows()

    def reuse(self, ids: Tensor) -> contract.Reuse:
        """What a batch of ids (*) has in common: different ids and different prefixes for each id; `print` it."""
        return contract.reuse_of(self.factorized.network.terms[0], ids.reshape(-1))

    @property
    def kept_bytes(self) -> int:
        """Memory of what is kept between calls in eval, such as a table of all prefixes, beside the parameters."""
        made = tree_iter([one for _, one in self.factorized._prepared.values()])
        return sum(one.numel() * one.element_size() for one in made if isinstance(one, Tensor))


class Embedding(EmbeddingLayer):
    """Rows of a table (num_embeddings, embedding_dim) that is never built; the arguments are torch.nn.Embedding's.

    Args:
        padding_idx: the row of this id is zero and gets no gradient.
        max_norm, scale_grad_by_freq, sparse: act on single rows of a dense table; accepted at their defaults only.
        format: a format with a rank, e.g. `tenfold.TTM(rank=16)`.
        in_modes, out_modes: sizes that the rows and the columns are split into; their products may exceed them (padding).

    Raises:
        ValueError: the rank or the modes do not fit, or an option that needs a dense table.
    """

    dense_type = nn.Embedding
    option_names = ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        format: Format,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        options = nn.Embedding(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, device="meta", dtype=dtype
        )
        check_format(type(self).__name__, format)
        fold = format.fold(self.fold_of(options, self.modes_of(format), in_modes, out_modes))
        self._build(options, FactorizedWeight(format.network(fold), fold, device=device, dtype=dtype))
        self.reset_parameters()

    @classmethod
    def lost(cls, dense: nn.Module) -> str:
        layer: Any = dense
        if layer.padding_idx is None or not bool(layer.weight[layer.padding_idx].any()):
            return ""
        return (
            f"has a row of padding_idx={layer.padding_idx} that is not zero; a factorised table has zeros there, which changes what "
            "padding gives: set padding_idx to None first, which keeps the row, or set the row to zero"
        )

    def forward(self, input: Tensor) -> Tensor:
        """(*, embedding_dim) from ids (*)."""
        check_ids(input, self.num_embeddings, IndexError)
        rows = self.factorized.rows(input)
        if self.padding_idx is None:
            return rows
        return rows.masked_fill((input == self.padding_idx)[..., None], 0.0)

    @classmethod
    def workload(cls, dense: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> Workload:
        return Workload(math.prod(inputs[1:]), 0, is_lookup=True)


def check_ids(ids: Tensor, n_rows: int, error: type[Exception]) -> None:
    """Raises what the torch layer raises for ids that are no whole numbers or stand for no row, and TypeError for no tensor.

    Where values are not looked at the gather itself refuses an id, as in torch, unless padding of the table has a row for it.
    """
    if not isinstance(ids, Tensor):
        raise TypeError(f"a lookup got a {type(ids).__name__}; it needs a tensor of ids: convert it with torch.as_tensor")
    if ids.dtype not in (torch.int64, torch.int32):
        raise RuntimeError(f"the ids have the dtype {ids.dtype}; a lookup needs torch.int64 or torch.int32: convert them")
    if has_values(ids) and (stray := stray_id(ids, n_rows)) is not None:
        raise error(f"the input has the id {stray}, but the table has {n_rows} rows; ids must be 0 to {n_rows - 1}: check the vocabulary")


def stray_id(ids: Tensor, n_rows: int) -> int | None:
    """An id that stands for none of the rows, None where there is none."""
    low, high = (int(one) for one in ids.aminmax()) if ids.numel() else (0, -1)
    return low if low < 0 else high if high >= n_rows else None


def has_values(one: Tensor) -> bool:
    """Whether the values of a tensor are looked at: on the CPU, outside of tracing; elsewhere that would stop the device or the graph."""
    is_traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or torch._C._is_tracing()
    return not is_traced and one.device.type == "cpu"
