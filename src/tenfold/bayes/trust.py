"""Trust: a prior's gradient that is never much larger than the data's, slice by slice.

The penalty of a slice has no lower bound at zero: where it is stronger than the data it switches everything off, needed or not. With a cap
a slice shrinks at most as fast as the data let it, relative to how much they ask of it; slices that the data do not touch still vanish.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network


def capped(network: Network, total: Sequence[Tensor], prior: Sequence[Tensor], trust: float) -> list[Tensor]:
    """The gradients of all factors with the prior's part scaled down where it exceeds `trust` times the data's in a rank slice.

    A slice is all entries of a rank's index, in every factor that carries it. An entry of several slices takes the smallest scale of
    them, so that the bound holds for each slice.

    Args:
        total: gradients of the factors, the prior's among them.
        prior: the prior's gradients alone.
    """
    data = [one - part for one, part in zip(total, prior, strict=True)]
    scales = [torch.ones_like(one) for one in total]
    for rank in network.ranks:
        ours, theirs = (sum(_squares(one[number], axis) for number, axis in network.carriers(rank)) for one in (prior, data))
        scale = (trust * (theirs / ours.clamp_min(1e-300)).sqrt()).clamp_max(1.0)  # pyright: ignore
        for number, axis in network.carriers(rank):
            shape = [1] * total[number].dim()
            shape[axis] = -1
            scales[number] = torch.minimum(scales[number], scale.reshape(shape).to(scales[number]))
    return [one + scale * part for one, scale, part in zip(data, scales, prior, strict=True)]


def _squares(tensor: Tensor, axis: int) -> Tensor:
    return tensor.double().square().movedim(axis, 0).flatten(1).sum(1)
