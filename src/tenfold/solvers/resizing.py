"""Factors of a network at other ranks, from factors of one with the same statement: where a smaller fit starts."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered, per_tensor

DUST = 0.02  # of the root mean square of a factor


def resized(network: Network, factors: Sequence[Tensor], wanted: Network) -> list[Tensor]:
    """Batched factors of a network with other ranks, from factors of one with the same statement.

    A rank that joins two factors is cut where their product loses least; of one that joins more, the largest slices are kept. A rank
    that grows is filled up with noise.
    """
    result = list(factors)
    for rank, size in wanted.ranks.items():
        carriers = network.carriers(rank)
        if size < network.sizes[rank]:
            keep = _cut_bond if len(carriers) == 2 else _largest_slices
            for (number, _), factor in zip(carriers, keep(network, result, rank, size), strict=True):
                result[number] = factor
        elif size > network.sizes[rank]:
            for number, axis in carriers:
                shape = list(result[number].shape)
                shape[axis + 1] = size - network.sizes[rank]
                noise = torch.randn(shape[1:], generator=torch.Generator().manual_seed(number), dtype=torch.float64).to(result[number])
                rms = per_tensor(result[number].flatten(1).square().mean(1).sqrt(), result[number])
                result[number] = torch.cat([result[number], DUST * rms * noise], axis + 1)
        network = network.resized({rank: size})
    return result


def _cut_bond(network: Network, factors: Sequence[Tensor], rank: str, size: int) -> list[Tensor]:
    """The two factors of a bond with the leading singular values of their product, for each value of the indices that both have."""
    numbers = [k for k, _ in network.carriers(rank)]
    both = [i for i in network.factors[numbers[0]] if i in network.factors[numbers[1]] and i != rank]
    halves, orders = [], []
    for number in numbers:
        indices = network.factors[number]
        order = [*both, *(i for i in indices if i not in both and i != rank), rank]
        moved = ordered(factors[number], indices, order)
        count = math.prod(network.sizes[i] for i in both)
        halves.append(torch.linalg.qr(moved.reshape(len(moved), count, -1, network.sizes[rank])))
        orders.append(order)
    u, s, v = torch.linalg.svd(halves[0].R @ halves[1].R.mT, full_matrices=False)
    root = s[..., None, :size].sqrt()
    missing = size - root.shape[-1]  # where the product has fewer singular values
    result = []
    for number, order, half, side in zip(numbers, orders, halves, (u, v.mT), strict=True):
        values = torch.nn.functional.pad(half.Q @ side[..., :size] * root, (0, missing))
        sizes = [size if i == rank else network.sizes[i] for i in order]
        result.append(ordered(values.reshape(-1, *sizes), order, network.factors[number]).contiguous())
    return result


def _largest_slices(network: Network, factors: Sequence[Tensor], rank: str, size: int) -> list[Tensor]:
    """The factors that carry a rank with the slices of the largest products of norms."""
    carriers = network.carriers(rank)
    moved = [factors[k].movedim(axis + 1, 1) for k, axis in carriers]
    norms = torch.stack([one.flatten(2).square().sum(2) for one in moved]).log().sum(0)
    kept = norms.topk(size, dim=-1).indices
    result = []
    for one, (_, axis) in zip(moved, carriers, strict=True):
        index = kept.reshape(*kept.shape, *[1] * (one.dim() - 2)).expand(-1, -1, *one.shape[2:])
        result.append(one.gather(1, index).movedim(1, axis + 1))
    return result
