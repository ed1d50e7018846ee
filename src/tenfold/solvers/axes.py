"""Axes of batched tensors: in an order given by names of indices, or of size 1 so that two tensors multiply."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from tenfold.network import Network


def ordered(tensor: Tensor, have: Sequence[str], wanted: Iterable[str]) -> Tensor:
    """(batch, *wanted) from (batch, *have), a view."""
    have = list(have)
    return tensor.permute(0, *(have.index(i) + 1 for i in wanted))


def shaped(tensor: Tensor, network: Network, have: Sequence[str], wanted: Iterable[str]) -> Tensor:
    """(batch, *wanted), contiguous, from a tensor whose axes behind the batch hold the indices `have` in this order, merged in any way."""
    return ordered(tensor.reshape(len(tensor), *(network.sizes[i] for i in have)), have, wanted).contiguous()


def per_tensor(values: Tensor, like: Tensor) -> Tensor:
    """(batch, 1, ..) from values (batch,): what multiplies each tensor of a batch `like` by its own value."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
