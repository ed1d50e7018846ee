"""Rounding of tree networks: the ranks that a relative tolerance needs, whatever basis the factors are in.

Every edge of a tree cuts the weight into a matrix A B'. Triangles R_A and R_B of its two sides come from QR, factor by factor; the singular
values of R_A R_B' are those of the matrix. With R_A R_B' = U S V', the left factor of the edge is multiplied by X = R_B' V S^(-1/2) and the
right one by Y = R_A' U S^(-1/2), which leaves the leading triples, shared equally by both sides. All edges are cut at once: each cut is
an orthogonal projection of the weight, so the squared error is at most the sum of what is cut.

Source: Oseledets 2011, Alg. 2, doi:10.1137/090752286 (chains); Grasedyck 2010, doi:10.1137/090764189 (trees). Deviation: maps on the
edges in place of new cores, so that what belongs to the factors can follow.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tenfold.bayes.reduction import AxisMap
from tenfold.network import Network

NOISE = 1e-13  # singular values below this part of the largest are rounding


def round_tree(
    network: Network, factors: Sequence[Tensor], tolerance: float, roots: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, int], list[AxisMap], float]:
    """Ranks, maps and the bound of the error that they cause, at most `tolerance`; one term that is not zero, all in float64.

    Args:
        tolerance: largest error ||W - W~|| / ||W||.
        roots: a matrix (n, n) for some of the modes: the norm is that of W multiplied by them.
    """
    tree = _Tree(network, factors, roots or {})
    edges = [rank for rank, size in network.ranks.items() if size > 1]
    sizes, maps, total = dict(network.ranks), [], 0.0
    for rank in edges:
        (left, left_axis), (right, right_axis) = network.carriers(rank)
        a, b = tree.triangle(left, rank), tree.triangle(right, rank)
        u, s, v = torch.linalg.svd(a @ b.mT, full_matrices=False)
        tails = s.square().sum(0).flip(0).cumsum(0).flip(0)
        tails = tails / tails[0]
        keep = max(1, int((tails > tolerance**2 / len(edges)).sum()))
        total += float(tails[keep]) if keep < len(tails) else 0.0
        sizes[rank] = keep
        is_noise = s <= NOISE * s.max()
        root = torch.where(is_noise, torch.zeros_like(s), s.clamp_min(1e-300).rsqrt())[:, :keep]
        x = (b.mT @ v.mT[..., :keep]) * root[:, None, :]
        y = (a.mT @ u[..., :keep]) * root[:, None, :]
        maps.append(AxisMap(left, left_axis, tree.unflattened(x), tree.unflattened(y), tree.axes(left)))
        maps.append(AxisMap(right, right_axis, tree.unflattened(y), tree.unflattened(x), tree.axes(right)))
    return sizes, maps, math.sqrt(total)


def spectra(network: Network, factors: Sequence[Tensor]) -> dict[str, Tensor]:
    """The singular values of the matrix that each rank of a tree network cuts, falling; those of all groups together."""
    tree = _Tree(network, factors, {})
    found = {}
    for rank in (rank for rank, size in network.ranks.items() if size > 1):
        (left, _), (right, _) = network.carriers(rank)
        values = torch.linalg.svdvals(tree.triangle(left, rank) @ tree.triangle(right, rank).mT)
        found[rank] = values.square().sum(0).sqrt()
    return found


def triangle_of(matrix: Tensor) -> Tensor:
    """(batch, m, columns) with the inner products of the columns of (batch, rows, columns), and no more rows than columns."""
    return torch.linalg.qr(matrix, mode="r").R if matrix.shape[1] > matrix.shape[2] else matrix


class _Tree:
    """The factors as (batch, *other indices), and the triangle of each side of each edge."""

    def __init__(self, network: Network, factors: Sequence[Tensor], roots: Mapping[str, Tensor]) -> None:
        self.network, self.batch = network, network.shared_modes
        self.sizes = [network.sizes[mode] for mode in self.batch]
        self.tensors: list[Tensor] = []
        self.indices: list[list[str]] = []
        for indices, factor in zip(network.factors, factors, strict=True):
            for mode in set(indices) & set(roots):
                factor = (factor.movedim(indices.index(mode), -1) @ roots[mode].to(factor)).movedim(-1, indices.index(mode))
            rest = [i for i in indices if i not in self.batch]
            order = [indices.index(i) for i in (*self.batch, *rest)]
            self.tensors.append(factor.permute(order).reshape(-1, *(network.sizes[i] for i in rest)))
            self.indices.append(rest)
        self._known: dict[tuple[int, str], Tensor] = {}

    def triangle(self, number: int, rank: str) -> Tensor:
        """(batch, m, size of the rank): R of the side of an edge on which factor `number` is, seen as (everything, rank)."""
        key = (number, rank)
        if key not in self._known:
            tensor, indices = self.tensors[number], self.indices[number]
            for axis, other in enumerate(indices, 1):
                if other != rank and self.network.ranks.get(other, 1) > 1:
                    beyond = next(k for k, _ in self.network.carriers(other) if k != number)
                    triangle = self.triangle(beyond, other)
                    tensor = self._multiplied(tensor, axis, triangle)
            matrix = tensor.movedim(indices.index(rank) + 1, -1).reshape(len(tensor), -1, self.network.ranks[rank])
            self._known[key] = triangle_of(matrix)
        return self._known[key]

    @staticmethod
    def _multiplied(tensor: Tensor, axis: int, matrix: Tensor) -> Tensor:
        moved = tensor.movedim(axis, -1)
        result = moved.reshape(len(tensor), -1, moved.shape[-1]) @ matrix.mT
        return result.reshape(*moved.shape[:-1], matrix.shape[1]).movedim(-1, axis)

    def axes(self, number: int) -> tuple[int, ...]:
        """Where factor `number` has the modes that all factors carry."""
        return tuple(self.network.factors[number].index(mode) for mode in self.batch)

    def unflattened(self, matrices: Tensor) -> Tensor:
        """(*modes that all factors carry, old, new) from (batch, old, new)."""
        return matrices.reshape(*self.sizes, *matrices.shape[1:])
