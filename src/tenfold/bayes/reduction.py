"""Reduction: a weight with smaller ranks, as data: new factors, and the linear maps on their axes that led to them.

The maps carry along what belongs to the factors: gradients and their running means, second moments, variances of entries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tenfold.network import Network


@dataclass(frozen=True)
class AxisMap:
    """A matrix for one axis of one factor, one matrix for each value of the `batch` axes.

    value: (*batch, old, new): the factor times it is the new factor.
    gradient: (*batch, old, new): the same for a gradient, by the chain rule; equal to `value` where that is orthogonal.
    """

    factor: int
    axis: int
    value: Tensor
    gradient: Tensor
    batch: tuple[int, ...] = ()

    def apply(self, tensor: Tensor, matrix: Tensor) -> Tensor:
        """A tensor shaped like the factor, multiplied along the axis."""
        rest = [axis for axis in range(tensor.dim()) if axis != self.axis and axis not in self.batch]
        order = [*self.batch, *rest, self.axis]
        moved = tensor.permute(order)
        n_batch = len(self.batch)
        result = moved.reshape(*moved.shape[:n_batch], -1, moved.shape[-1]) @ matrix.to(tensor)
        result = result.reshape(*moved.shape[:-1], matrix.shape[-1])
        return result.permute([order.index(axis) for axis in range(tensor.dim())])


@dataclass(frozen=True)
class Reduction:
    """New sizes of ranks, the new factors, and the maps from the old ones.

    error: the relative change of the dense weight in Frobenius norm, or in that of the inputs where it is weighted.
    is_removed: nothing is left of the weight: it is zero, with ranks of 1.
    """

    sizes: Mapping[str, int]
    factors: Sequence[Tensor]
    maps: Sequence[AxisMap] = field(default_factory=tuple)
    error: float = 0.0
    is_removed: bool = False

    def values(self, number: int, tensor: Tensor) -> Tensor:
        """What the maps make of a tensor that transforms as factor `number` does."""
        return self._map(number, tensor, [one.value for one in self.maps])

    def gradients(self, number: int, tensor: Tensor) -> Tensor:
        """What the maps make of a gradient of a factor, or of a running mean of gradients."""
        return self._map(number, tensor, [one.gradient for one in self.maps])

    def squared_gradients(self, number: int, tensor: Tensor) -> Tensor:
        """The same for running means of squared gradients; entries are taken to be uncorrelated."""
        return self._map(number, tensor, [one.gradient.square() for one in self.maps])

    def gradient_sizes(self, number: int, tensor: Tensor) -> Tensor:
        """The same for bounds of absolute gradients: bounds of the new ones."""
        return self._map(number, tensor, [one.gradient.abs() for one in self.maps])

    def variances(self, number: int, tensor: Tensor) -> Tensor:
        """The same for variances of independent entries of a factor."""
        return self._map(number, tensor, [one.value.square() for one in self.maps])

    def _map(self, number: int, tensor: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        for one, matrix in zip(self.maps, matrices, strict=True):
            if one.factor == number:
                tensor = one.apply(tensor, matrix)
        return tensor.contiguous()


def selection(network: Network, rank: str, keep: Sequence[int], like: Tensor) -> list[AxisMap]:
    """The maps that keep some slices of a rank on every factor that carries it."""
    matrix = torch.eye(network.ranks[rank], dtype=like.dtype, device=like.device)[:, list(keep)]
    return [AxisMap(number, axis, matrix, matrix) for number, axis in network.carriers(rank)]


def removal(network: Network, factors: Sequence[Tensor]) -> Reduction:
    """The reduction to nothing: one slice of each rank, all factors zero."""
    maps = [one for rank in network.ranks for one in selection(network, rank, [0], factors[0])]
    empty = network.resized(dict.fromkeys(network.ranks, 1))
    zeros = [torch.zeros(shape, dtype=one.dtype, device=one.device) for shape, one in zip(empty.shapes, factors, strict=True)]
    return Reduction(empty.ranks, zeros, maps, 1.0, True)


def kept_slices(network: Network, factors: Sequence[Tensor], keep: Mapping[str, Tensor]) -> Reduction:
    """The reduction that keeps the slices marked in `keep`, for each rank named; all is removed where a rank keeps none."""
    if any(not bool(mask.any()) for mask in keep.values()):
        return removal(network, factors)
    maps: list[AxisMap] = []
    for rank, mask in keep.items():
        if not bool(mask.all()):
            maps += selection(network, rank, mask.nonzero().flatten().tolist(), factors[0])
    sizes = {**network.ranks, **{rank: int(mask.sum()) for rank, mask in keep.items()}}
    made = Reduction(sizes, (), maps)
    return Reduction(sizes, [made.values(number, one) for number, one in enumerate(factors)], maps)
