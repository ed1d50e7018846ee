"""SharedRows: tables in which many ids share stored rows; the controls that a factorised table has to be compared with at equal size."""

import abc
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.layers.embedding import check_ids
from tenfold.layers.embedding_bag import Bags, check_bags, check_no_bags

Mode = Literal["sum", "mean"]


class SharedRows(nn.Module, abc.ABC):
    """What these tables have in common: ids as torch's Embedding takes them, or with a `mode` as EmbeddingBag does.

    Args:
        num_embeddings, embedding_dim: of the table that this one stands for.
        padding_idx: the row of this id is zero; it is left out of bags. As in torch, a negative one counts from the last row.
        mode: "sum" or "mean" of bags; None gives a row for each id.

    Raises:
        ValueError: the mode has another name, or padding_idx is none of the rows.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, mode: Mode | None) -> None:
        super().__init__()
        if mode not in (None, "sum", "mean"):
            raise ValueError(
                f"{type(self).__name__} got mode={mode!r}; it is 'sum' or 'mean' of bags, or None for rows: choose one of them"
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"{type(self).__name__} got padding_idx={padding_idx} for a table of {num_embeddings} rows; it is from {-num_embeddings} "
                f"to {num_embeddings - 1}: give the id of a row"
            )
        self.num_embeddings, self.embedding_dim, self.mode = num_embeddings, embedding_dim, mode
        self.padding_idx = padding_idx + num_embeddings if padding_idx is not None and padding_idx < 0 else padding_idx

    @abc.abstractmethod
    def rows(self, ids: Tensor) -> Tensor:
        """(*ids, embedding_dim): the rows of ids that have been checked."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(*, embedding_dim) from ids (*); with a mode (bags, embedding_dim) from ids (bags, length), or from ids (n) and offsets."""
        if self.mode is None:
            check_no_bags(type(self).__name__, offsets, per_sample_weights)
            check_ids(input, self.num_embeddings, IndexError)
            found = self.rows(input)
            return found if self.padding_idx is None else found.masked_fill((input == self.padding_idx)[..., None], 0.0)
        check_ids(input, self.num_embeddings, RuntimeError)
        check_bags(input, offsets, per_sample_weights, mode=self.mode, dtype=next(self.parameters()).dtype)
        bags = Bags.of(input, offsets, per_sample_weights, padding_idx=self.padding_idx)
        return bags.reduced(bags.added(self.rows(bags.ids)), self.mode)

    def extra_repr(self) -> str:
        """The table that this stands for, and what is stored."""
        stored = sum(p.numel() for p in self.parameters())
        ratio = self.num_embeddings * self.embedding_dim / stored
        return f"{self.num_embeddings}, {self.embedding_dim}, stored={stored:,}, ratio={ratio:.4g}"


class HashEmbedding(SharedRows):
    """The hashing trick: `rows` stored rows, and each id has the one that a hash of it gives. Ids that collide cannot be told apart.

    Args:
        rows: stored rows; for a size in values, that over embedding_dim.
        hash: "modulo" is id mod rows: neighbours are told apart; "multiply" spreads ids as if at random, whatever order they have.
        seed: of the multiplier.

    Raises:
        ValueError: there is no row, or the hash has another name.

    Source: Weinberger et al. 2009, arXiv 0902.2206, here without signs.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        rows: int,
        padding_idx: int | None = None,
        *,
        mode: Mode | None = None,
        hash: Literal["modulo", "multiply"] = "modulo",
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, mode)
        if rows < 1 or hash not in ("modulo", "multiply"):
            raise ValueError(
                f"HashEmbedding got rows={rows} and hash={hash!r}; it needs a row at least, and 'modulo' or 'multiply': give both so"
            )
        self.hash = hash
        self.multiplier = (0x9E3779B97F4A7C15 * (2 * seed + 1)) % (1 << 64) - (
            1 << 63
        ) | 1  # odd, so that no two ids collide before the cut
        self.weight = nn.Parameter(torch.empty(rows, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start values as torch's."""
        nn.init.normal_(self.weight)

    def places(self, ids: Tensor) -> Tensor:
        """The stored row of each id."""
        ids = ids.to(torch.int64)
        if self.hash == "multiply":
            ids = ids * self.multiplier  # products wrap around
            ids = (ids ^ (ids >> 32 & 0xFFFFFFFF)) * self.multiplier >> 32 & 0x7FFFFFFF  # these bits depend on all bits of the id
        return ids % len(self.weight)

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding(self.places(ids), self.weight)


class QuotientRemainderEmbedding(SharedRows):
    """Two small tables, for id // m and id mod m, whose rows are multiplied, added or put side by side: different ids have different rows.

    Args:
        m: stored rows for the remainder; there are ceil(num_embeddings / m) for the quotient.
        operation: how the two rows become one; "mult" did best in the paper.

    Raises:
        ValueError: m is below 1, the operation has another name, or an odd dimension is to be put together from two halves.

    Source: Shi et al. 2020 (KDD), arXiv 1909.02107.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        m: int,
        padding_idx: int | None = None,
        *,
        mode: Mode | None = None,
        operation: Literal["mult", "add", "concat"] = "mult",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, mode)
        if m < 1 or operation not in ("mult", "add", "concat") or (operation == "concat" and embedding_dim % 2):
            raise ValueError(
                f"QuotientRemainderEmbedding got m={m}, operation={operation!r} and {embedding_dim} columns; it needs m of at least 1, and "
                "'mult', 'add' or, for an even number of columns, 'concat': change what does not fit"
            )
        self.m, self.operation = m, operation
        width = embedding_dim // 2 if operation == "concat" else embedding_dim
        self.quotient = nn.Parameter(torch.empty(-(-num_embeddings // m), width, device=device, dtype=dtype))
        self.remainder = nn.Parameter(torch.empty(m, width, device=device, dtype=dtype))
        self.reset_parameters()

    @staticmethod
    def m_for(num_embeddings: int, embedding_dim: int, n_values: int) -> int:
        """The largest m with which both tables together have at most so many values ("mult" and "add").

        Raises:
            ValueError: even the smallest tables, with m of about the root of num_embeddings, are larger.
        """
        rows = n_values // embedding_dim
        root = rows * rows - 4 * num_embeddings
        m = (rows + math.isqrt(root)) // 2 if root >= 0 else math.isqrt(num_embeddings)
        while m > 1 and m + -(-num_embeddings // m) > rows and (m - 1) ** 2 >= num_embeddings:
            m -= 1
        if m + -(-num_embeddings // m) > rows:
            smallest = math.isqrt(num_embeddings)
            needed = (smallest + -(-num_embeddings // smallest)) * embedding_dim
            raise ValueError(
                f"quotient and remainder are to have {n_values} values together; {num_embeddings} ids need about {needed} at least: "
                "allow more, or use HashEmbedding"
            )
        return m

    def reset_parameters(self) -> None:
        """Start values with the standard deviation of torch's, which is 1."""
        for table in (self.quotient, self.remainder):
            nn.init.normal_(table, 0.0, math.sqrt(0.5) if self.operation == "add" else 1.0)

    def rows(self, ids: Tensor) -> Tensor:
        ids = ids.to(torch.int64)
        quotient = F.embedding(torch.div(ids, self.m, rounding_mode="floor"), self.quotient)
        remainder = F.embedding(ids % self.m, self.remainder)
        if self.operation == "concat":
            return torch.cat([quotient, remainder], -1)
        return quotient * remainder if self.operation == "mult" else quotient + remainder
