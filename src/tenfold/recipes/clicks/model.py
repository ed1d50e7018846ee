"""DLRM: numbers and categories -> the logit of a click, with each embedding table dense, factorised, hashed or left out.

Source: Naumov et al. 2019, arXiv 1906.00091: a bottom MLP for the numbers, one embedding for each category, the dot products of all
pairs of these vectors, and a top MLP. Start values are theirs; those of factorised tables have the standard deviation
sqrt(2 / (rows + columns)).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import tenfold.nn
from tenfold.data.criteo import KAGGLE_ROWS
from tenfold.format import Format
from tenfold.layers.embedding import Embedding
from tenfold.weight import FactorizedWeight

BOTTOM, DIM, TOP = (512, 256, 256), 128, (512, 256)  # of the reference models on Criteo Kaggle
KAGGLE_MODES: dict[int, tuple[int, int, int]] = {
    2: (200, 220, 250), 3: (125, 130, 136), 11: (200, 200, 209), 15: (166, 175, 188), 20: (200, 200, 200),
}  # fmt: skip
"""Modes of the rows of the five largest tables of Criteo Kaggle, by number, as published."""
MIXER = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed number


@dataclass(frozen=True)
class TableSpec:
    """One embedding table.

    rows: ids that it takes.
    format, in_modes, out_modes: of a factorised one; None: dense.
    hashed: rows that all ids share by hashing; None: a row for each id.
    is_removed: the model does without it.
    """

    rows: int
    format: Format | None = None
    in_modes: tuple[int, ...] | None = None
    out_modes: tuple[int, ...] | None = None
    hashed: int | None = None
    is_removed: bool = False

    def layer(self, dim: int, *, is_sparse: bool) -> nn.Module | None:
        """The embedding of width `dim`; None where it is removed.

        Args:
            is_sparse: dense tables get sparse gradients.
        """
        if self.is_removed:
            return None
        if self.format is not None:
            made = tenfold.nn.Embedding(self.rows, dim, format=self.format, in_modes=self.in_modes, out_modes=self.out_modes)
            made.factorized.init_normal_(math.sqrt(2 / (self.rows + dim)))
            return made
        dense = nn.Embedding(self.rows if self.hashed is None else self.hashed, dim, sparse=is_sparse)
        nn.init.uniform_(dense.weight, -math.sqrt(1 / dense.num_embeddings), math.sqrt(1 / dense.num_embeddings))
        return dense if self.hashed is None else HashedEmbedding(dense)


class HashedEmbedding(nn.Module):
    """An embedding whose ids share rows by chance: the control of equal size."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        """(*ids, dim)."""
        mixed = (ids + 1) * MIXER
        mixed = mixed ^ ((mixed >> 31) & 0x1FFFFFFFF)
        return self.table((mixed * MIXER >> 20) % self.table.num_embeddings)


class DLRM(nn.Module):
    """`forward(numbers, ids)` gives logits (n).

    Args:
        tables: one for each column of `ids`.
        n_numbers: columns of `numbers`; may be 0, and then there is no bottom MLP.
        dim: width of the embeddings.
        bottom, top: widths of the hidden layers; the bottom MLP ends in `dim`, the top one in the logit.
        is_sparse: gradients of dense tables are sparse; then they need an optimiser such as SparseAdam.

    Raises:
        ValueError: there is nothing to compute from.
    """

    def __init__(
        self,
        tables: Sequence[TableSpec],
        n_numbers: int,
        *,
        dim: int = DIM,
        bottom: Sequence[int] = BOTTOM,
        top: Sequence[int] = TOP,
        is_sparse: bool = True,
    ) -> None:
        super().__init__()
        layers = [table.layer(dim, is_sparse=is_sparse) for table in tables]
        self.kept = [number for number, layer in enumerate(layers) if layer is not None]
        n_vectors = len(self.kept) + (n_numbers > 0)
        if not n_vectors:
            raise ValueError(
                f"DLRM got {len(tables)} tables, of which none is kept, and no numbers; it needs one of them at least: keep a table"
            )
        self.n_numbers, self.dim = n_numbers, dim
        self.bottom = _mlp((n_numbers, *bottom, dim), is_last_linear=False) if n_numbers else None
        self.tables = nn.ModuleDict({str(number): layer for number, layer in enumerate(layers) if layer is not None})
        n_pairs = n_vectors * (n_vectors - 1) // 2
        self.top = _mlp((n_pairs + (dim if n_numbers else 0), *top, 1), is_last_linear=True)
        lower = torch.tensor(list(itertools.combinations(range(n_vectors), 2)), dtype=torch.int64).reshape(-1, 2)
        self.register_buffer("pairs", lower[:, 0] * n_vectors + lower[:, 1], persistent=False)
        self.pairs: Tensor

    def forward(self, numbers: Tensor, ids: Tensor) -> Tensor:
        """(n) from numbers (n, n_numbers) and ids (n, tables)."""
        vectors = [self.tables[str(number)](ids[:, number]) for number in self.kept]
        if self.bottom is not None:
            vectors.insert(0, self.bottom(numbers))
        stacked = torch.stack(vectors, 1)
        products = (stacked @ stacked.mT).flatten(1).index_select(1, self.pairs)
        inputs = products if self.bottom is None else torch.cat((vectors[0], products), 1)
        return self.top(inputs).squeeze(1)

    def factorized(self) -> dict[int, FactorizedWeight]:
        """The weights of the factorised tables by number."""
        return {number: one.factorized for number in self.kept if isinstance(one := self.tables[str(number)], Embedding)}


def _mlp(widths: Sequence[int], *, is_last_linear: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        nn.init.normal_(linear.weight, 0.0, math.sqrt(2 / (n_in + n_out)))
        nn.init.normal_(linear.bias, 0.0, math.sqrt(1 / n_out))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]) if is_last_linear else nn.Sequential(*layers)


def largest(rows: Sequence[int], count: int) -> tuple[int, ...]:
    """The numbers of the tables with the most rows, in order."""
    return tuple(sorted(sorted(range(len(rows)), key=lambda number: -rows[number])[:count]))


def with_tables(tables: Sequence[TableSpec], numbers: Sequence[int], **changes: object) -> list[TableSpec]:
    """The tables with some fields of some of them changed."""
    return [replace(table, **changes) if number in numbers else table for number, table in enumerate(tables)]  # type: ignore[arg-type]


def kaggle_tables(format: Format, out_modes: Sequence[int] | None = None) -> list[TableSpec]:
    """The 26 tables of Criteo Kaggle with the five largest in a format: 4,248,739,968 weights of these if dense, at width 128.

    Args:
        out_modes: of the width; left out, as the format splits it: (4, 4, 8) for TTM, (128,) for CP, TT and Tucker as published.
    """
    split = None if out_modes is None else tuple(out_modes)
    return [
        TableSpec(rows, format, KAGGLE_MODES[number], split) if number in KAGGLE_MODES else TableSpec(rows)
        for number, rows in enumerate(KAGGLE_ROWS)
    ]
