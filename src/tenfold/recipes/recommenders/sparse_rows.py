"""An embedding whose rows have few values that are not zero, each row at places of its own."""

from typing import Any

import torch
from torch import Tensor, nn

WIDEST = 256  # a place is one byte


class SparseRows(nn.Module):
    """A table that stores the values on its support, a byte for the place of each, and a byte for each row: how many it has.

    Args:
        table: (rows, width).
        support: (rows, width), true where a value is stored.

    Raises:
        ValueError: the table is too wide, or a row has too many values, for a byte.

    >>> table = torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 2.0]])
    >>> rows = SparseRows(table, table != 0)
    >>> rows.values.numel(), rows(torch.tensor([1])).tolist()
    (3, [[1.0, 0.0, 2.0]])
    """

    places: Tensor
    counts: Tensor
    starts: Tensor

    def __init__(self, table: Tensor, support: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.shape
        counts = support.sum(1)
        if self.embedding_dim > WIDEST or int(counts.max()) >= WIDEST:
            raise ValueError(
                f"a table of width {self.embedding_dim} with up to {int(counts.max())} values in a row was given; at most {WIDEST} "
                f"columns and {WIDEST - 1} values are stored with a byte for each place: use a narrower table"
            )
        self.values = nn.Parameter(table.detach()[support].clone())
        self.register_buffer("places", support.nonzero()[:, 1].to(torch.uint8))
        self.register_buffer("counts", counts.to(torch.uint8))
        self.register_buffer("starts", torch.zeros(len(table), dtype=torch.int64), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module._find_starts())
        self._find_starts()

    def forward(self, ids: Tensor) -> Tensor:
        """(*, width) from ids (*)."""
        rows = self.values.new_zeros(*ids.shape, self.embedding_dim)
        if not len(self.values):
            return rows
        each = torch.arange(self.most, device=ids.device)
        at = (self.starts[ids][..., None] + each).clamp_max(len(self.values) - 1)
        values = self.values[at] * (each < self.counts[ids][..., None])
        return rows.scatter_add(-1, self.places[at].long(), values)

    @property
    def weight(self) -> Tensor:
        """The table (rows, width), made from what is stored."""
        return self(torch.arange(self.num_embeddings, device=self.counts.device))

    def _find_starts(self) -> None:
        counts = self.counts.long()
        self.starts, self.most = counts.cumsum(0) - counts, int(counts.max())

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in ("values", "places"):  # as many as the support of the file has
            if (given := state_dict.get(f"{prefix}{name}")) is not None:
                empty = torch.empty_like(given, device=self.values.device)
                setattr(self, name, nn.Parameter(empty) if name == "values" else empty)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
