"""Recommenders: factorisation machines and NCF's MLP, with tables that are dense, factorised, hashed, narrow or left out.

Source: Rendle 2010, doi:10.1109/ICDM.2010.127 (factorisation machines; with the fields user and item, matrix factorisation with biases);
He et al. 2017, arXiv 1708.05031, section 3.3 (the MLP).
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tenfold.data.feature_rows import FieldGroup
from tenfold.files import read_tensors
from tenfold.format import Format
from tenfold.layers.embedding import Embedding
from tenfold.recipes.clicks.model import HashedEmbedding
from tenfold.recipes.recommenders.sparse_rows import SparseRows

START_STD = 0.05  # of an entry of a table

Kind = Literal["dense", "factorized", "hashed", "linear", "removed"]


@dataclass(frozen=True)
class FeatureTable:
    """The one table of a factorisation machine: for each feature its linear weight and its vector.

    kind: "linear" keeps the linear weights only; "removed" keeps nothing, which leaves a constant.
    dim: size of the vectors.
    format: of factorised tables, one for each group of fields.
    ranks: for some groups by name their ranks, in place of the format's; none: the group has no table.
    rows: of a hashed table.
    """

    kind: Kind
    dim: int = 32
    format: Format | None = None
    ranks: tuple[tuple[str, tuple[int, ...]], ...] = ()
    rows: int = 0

    def layer(self, n_features: int, groups: Sequence[FieldGroup]) -> nn.Module | None:
        """The table (n_features, 1 + dim), with fresh values from torch's generator; None where it is removed."""
        width = 1 if self.kind == "linear" else 1 + self.dim
        if self.kind == "removed":
            return None
        if self.kind == "factorized":
            assert self.format is not None
            return GroupTables([self._group(one, width) for one in groups], groups, width)
        dense = nn.Embedding(self.rows if self.kind == "hashed" else n_features, width)
        nn.init.normal_(dense.weight, std=START_STD)
        return HashedEmbedding(dense) if self.kind == "hashed" else dense

    def _group(self, group: FieldGroup, width: int) -> Embedding | None:
        assert self.format is not None
        ranks = dict(self.ranks)
        if group.name in ranks and not all(ranks[group.name]):
            return None
        format: Any = self.format if group.name not in ranks else replace(self.format, rank=ranks[group.name])  # pyright: ignore
        made = Embedding(group.size, width, format=format)
        made.factorized.init_normal_(START_STD)
        return made


class GroupTables(nn.Module):
    """A table for each group of fields; `forward(ids)` gives (n, fields, width) from ids (n, fields). A group without one has zeros."""

    def __init__(self, tables: Sequence[nn.Module | None], groups: Sequence[FieldGroup], width: int) -> None:
        super().__init__()
        self.groups, self.width = tuple(groups), width
        self.tables = nn.ModuleDict({g.name: table for g, table in zip(groups, tables, strict=True) if table is not None})

    def forward(self, ids: Tensor) -> Tensor:
        rows = []
        for group in self.groups:
            mine = ids[:, group.first : group.last]
            if group.name in self.tables:
                rows.append(self.tables[group.name](mine - group.start))
            else:
                rows.append(torch.zeros(*mine.shape, self.width, device=ids.device))
        return torch.cat(rows, 1)


class FactorizationMachine(nn.Module):
    """y = constant + sum_f w_f + sum_{f < g} <v_f, v_g> over the features f of a row; `forward(ids)` gives (n) from ids (n, fields).

    Args:
        table: gives (*ids, 1 + dim), the weight w first; None: the constant is all there is.
        constant: start value.
    """

    def __init__(self, table: nn.Module | None, *, constant: float = 0.0) -> None:
        super().__init__()
        self.table = table
        self.constant = nn.Parameter(torch.tensor(constant))

    def rows(self, ids: Tensor) -> Tensor:
        """(n, fields, 1 + dim), empty where there is no table."""
        if self.table is None:
            return ids.new_zeros(*ids.shape, 0, dtype=self.constant.dtype)
        return self.table(ids)

    def combine(self, rows: Tensor) -> Tensor:
        """(n) from what `rows` gives."""
        if not rows.shape[-1]:
            return self.constant.expand(len(rows))
        vectors = rows[..., 1:]
        pairs = (vectors.sum(1).square() - vectors.square().sum(1)).sum(-1) / 2
        return self.constant + rows[..., 0].sum(1) + pairs

    def forward(self, ids: Tensor) -> Tensor:
        return self.combine(self.rows(ids))

    def table_numel(self) -> int:
        """Stored values of the table or tables."""
        return 0 if self.table is None else sum(p.numel() for p in self.table.parameters())


class NcfMlp(nn.Module):
    """The logit of a user liking an item: two embeddings, one after the other, through linear layers with ReLU.

    Args:
        dims: widths of the two embeddings.
        widths: of the layers behind them.
    """

    def __init__(self, n_users: int, n_items: int, dims: tuple[int, int], widths: Sequence[int]) -> None:
        super().__init__()
        self.user: nn.Embedding | SparseRows = nn.Embedding(n_users, dims[0])
        self.item: nn.Embedding | SparseRows = nn.Embedding(n_items, dims[1])
        sizes = (sum(dims), *widths)
        self.fc = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(sizes[-1], 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """(*) from numbers of users and items, whose shapes are broadcast together."""
        first: Any = self.fc[0]
        of_user, of_item = first.weight.split((self.user.embedding_dim, self.item.embedding_dim), dim=1)
        return self.behind(self.user(users) @ of_user.mT + self.item(items) @ of_item.mT + first.bias)

    def behind(self, hidden: Tensor) -> Tensor:
        """(*) from what the first layer gives, (*, width), before its ReLU."""
        for layer in self.fc[1:]:
            hidden = layer(hidden.relu())
        return self.out(hidden.relu()).squeeze(-1)

    def tables(self) -> list[Tensor]:
        """Stored values of both embeddings."""
        return [*self.user.parameters(), *self.item.parameters()]

    def supports(self) -> list[Tensor]:
        """What else is stored of embeddings with sparse rows: which columns their values are in."""
        return [held for one in (self.user, self.item) if isinstance(one, SparseRows) for held in (one.places, one.counts)]

    def table_numel(self) -> int:
        """How many values both embeddings store."""
        return sum(one.numel() for one in self.tables())


def read_ncf_mlp(path: str | os.PathLike[str]) -> NcfMlp:
    """A trained network from a safetensors file with user.weight, item.weight, fc.N.weight, fc.N.bias, out.weight and out.bias, in eval.

    Raises:
        ValueError: the file is damaged, or holds another network.
    """
    tensors = read_tensors(path)
    n_layers = sum(name.startswith("fc.") and name.endswith(".weight") for name in tensors)
    wanted = ["user.weight", "item.weight", "out.weight", "out.bias"]
    wanted += [f"fc.{number}.{part}" for number in range(max(1, n_layers)) for part in ("weight", "bias")]
    if set(wanted) != set(tensors):
        raise ValueError(
            f"the file {path} holds {', '.join(sorted(tensors)[:6])}, ..; the tensors of an NCF-MLP are needed, which are "
            f"{', '.join(sorted(wanted))}: give another file"
        )
    users, items = tensors["user.weight"], tensors["item.weight"]
    widths = [tensors[f"fc.{number}.weight"].shape[0] for number in range(n_layers)]
    model = NcfMlp(len(users), len(items), (users.shape[1], items.shape[1]), widths)
    model.load_state_dict(tensors)
    return model.eval()
