"""An embedding whose rows have few values that are not zero, each row at places of its own."""

from typing import Any

import torch
from torch import Tensor, nn

BITS = 8


class SparseRows(nn.Module):
    """A table that stores the values on its support, and one bit for each column of each row.

    Args:
        table: (rows, width).
        support: (rows, width), true where a value is stored.

    >>> table = torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 2.0]])
    >>> rows = SparseRows(table, table != 0)
    >>> rows.values.numel(), rows(torch.tensor([1])).tolist()
    (3, [[1.0, 0.0, 2.0]])
    """

    bits: Tensor
    starts: Tensor

    def __init__(self, table: Tensor, support: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.shape
        self.values = nn.Parameter(table.detach()[support].clone())
        self.register_buffer("bits", _packed(support))
        self.register_buffer("starts", torch.zeros(len(table), dtype=torch.int64), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module._find_starts())
        self._find_starts()

    def forward(self, ids: Tensor) -> Tensor:
        """(*, width) from ids (*)."""
        support = self._support(self.bits[ids])
        places = self.starts[ids][..., None] + support.cumsum(-1) - 1
        return self.values[places.clamp(0, max(0, len(self.values) - 1))] * support

    @property
    def weight(self) -> Tensor:
        """The table (rows, width), made from what is stored."""
        return self(torch.arange(self.num_embeddings, device=self.bits.device))

    def _support(self, bits: Tensor) -> Tensor:
        """(*, width) from (*, bytes)."""
        each = bits[..., None] >> torch.arange(BITS, dtype=torch.uint8, device=bits.device) & 1
        return each.flatten(-2)[..., : self.embedding_dim].bool()

    def _find_starts(self) -> None:
        counts = self._support(self.bits).sum(1)
        self.starts = counts.cumsum(0) - counts

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        if (given := state_dict.get(f"{prefix}values")) is not None:  # as many as the support of the file has
            self.values = nn.Parameter(torch.empty_like(given, device=self.values.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _packed(support: Tensor) -> Tensor:
    """(rows, bytes) from (rows, width)."""
    rows, width = support.shape
    padded = support.new_zeros(rows, -(-width // BITS), BITS)
    padded.flatten(1)[:, :width] = support
    return (padded.to(torch.int64) << torch.arange(BITS, device=support.device)).sum(-1).to(torch.uint8)
