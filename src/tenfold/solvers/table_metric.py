"""Low rank of a table whose rows have metrics of their own: what a row's error costs the model differs from row to row.

An embedding is followed by layers. To first order an error e of row r costs e' H_r e, where H_r is the mean of g g' over what is computed
from that row, g being the gradient of the output. With a rank-k table, row r is m + V' a_r, and

    sum_r (z_r - V' a_r)' H_r (z_r - V' a_r),    z_r = row - m,

is least squares in all a_r for fixed V, and in V for fixed a_r: both are solved exactly, in turns. Where all H_r are multiples of one
matrix this is a weighted singular value decomposition, which is also where the turns start.

Source: the normal equations are those of alternating least squares, as in weighted low-rank approximation (Srebro and Jaakkola 2003).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3  # of a metric's mean diagonal, added to it: directions that cost nothing to first order do a little
ROWS = 1024  # that are worked on together
UNUSED = 1e-3  # of the mean row: what the metric of a row counts at least


@dataclass(frozen=True)
class TableFit:
    """Rows mean + codes @ basis. costs: the weighted squared error relative to that of the mean alone, after every turn, falling."""

    codes: Tensor
    basis: Tensor
    mean: Tensor
    costs: tuple[float, ...]

    def dense(self) -> Tensor:
        """The table (rows, dim)."""
        return self.mean + self.codes @ self.basis


def fit_table(table: Tensor, metrics: Tensor, rank: int, *, turns: int = 3, is_centred: bool = True) -> TableFit:
    """The table (rows, dim) of a rank, around its mean, that is closest in the metrics (rows, dim, dim); float64, on the table's device.

    Args:
        is_centred: else it is around zero, and the mean takes part of the rank.

    Raises:
        ValueError: the metrics are not those of the table's rows, or the rank is out of range.

    >>> table = torch.tensor([[2.0, 1.0], [-2.0, 3.0], [0.0, -4.0]])
    >>> only_first = torch.tensor([[1.0, 0.0], [0.0, 1e-6]]).expand(3, 2, 2)
    >>> (fit_table(table, only_first, 1).dense()[:, 0] - table[:, 0]).abs().max() < 1e-2
    tensor(True)
    """
    rows, dim = table.shape
    if metrics.shape != (rows, dim, dim):
        raise ValueError(
            f"metrics of shape {tuple(metrics.shape)} were given for a table of shape {tuple(table.shape)}; ({rows}, {dim}, {dim}) is "
            "needed: give one matrix for each row"
        )
    if not 1 <= rank <= dim:
        raise ValueError(f"the rank is {rank} for a table of width {dim}; 1 to {dim} is needed: choose one of these")
    mean = table.double().mean(0) * float(is_centred)
    target, metrics = table.double() - mean, ridged(metrics.double())
    weighted = (metrics @ target[..., None])[..., 0]
    start = float((target * weighted).sum().clamp_min(1e-300))
    basis = leading_vectors(target, metrics, rank)
    codes = _codes(metrics, weighted, basis)
    costs = [weighted_cost(target, metrics, codes, basis) / start]
    for _ in range(turns):
        new_basis = best_basis(metrics, weighted, codes)
        new_codes = _codes(metrics, weighted, new_basis)
        cost = weighted_cost(target, metrics, new_codes, new_basis) / start
        if cost > costs[-1]:
            break  # rounding is all that moves the factors now
        basis, codes = new_basis, new_codes
        costs.append(cost)
    return TableFit(codes, basis, mean, tuple(costs))


def leading_vectors(target: Tensor, metrics: Tensor, rank: int) -> Tensor:
    """The leading right vectors of the table in the mean metric, its rows weighted by their share of it."""
    values, vectors = torch.linalg.eigh(metrics.mean(0))
    root = values.clamp_min(1e-9 * float(values[-1].clamp_min(1e-300))).sqrt()
    shares = metrics.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    _, _, v = torch.linalg.svd(shares[:, None] * (target @ vectors) * root, full_matrices=False)
    return (v[:rank] / root) @ vectors.mT


def _codes(metrics: Tensor, weighted: Tensor, basis: Tensor) -> Tensor:
    return torch.linalg.solve(basis @ metrics @ basis.mT, (weighted @ basis.mT)[..., None])[..., 0]


def best_basis(metrics: Tensor, weighted: Tensor, codes: Tensor) -> Tensor:
    """The basis (rank, dim) that is best for codes (rows, rank). weighted: metrics times rows."""
    gram = basis_gram(metrics, codes)
    ridge = (1e-9 * gram.diagonal().mean() + 1e-300) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, (codes.mT @ weighted).reshape(-1)).reshape(codes.shape[1], -1)


def basis_gram(metrics: Tensor, codes: Tensor) -> Tensor:
    """The normal matrix (rank * dim, rank * dim) of a basis (rank, dim) for codes (rows, rank) in the metrics of the rows."""
    rank, dim = codes.shape[1], metrics.shape[-1]
    gram = metrics.new_zeros(rank**2, dim**2)
    for part, metric in zip(codes.split(ROWS), metrics.split(ROWS), strict=True):
        gram += (part[:, :, None] * part[:, None, :]).flatten(1).mT @ metric.flatten(1)
    return gram.reshape(rank, rank, dim, dim).permute(0, 2, 1, 3).reshape(rank * dim, rank * dim)


def weighted_cost(target: Tensor, metrics: Tensor, codes: Tensor, basis: Tensor) -> float:
    """The squared error of codes @ basis in the metrics, summed over rows."""
    error = target - codes @ basis
    return float((error * (metrics @ error[..., None])[..., 0]).sum())


def ridged(metrics: Tensor) -> Tensor:
    """Metrics (rows, dim, dim) with a little of everything."""
    size = metrics.diagonal(dim1=1, dim2=2).mean(1)
    size = RIDGE * torch.maximum(size, UNUSED * size.mean()) + 1e-300
    return metrics + size[:, None, None] * torch.eye(metrics.shape[-1], dtype=metrics.dtype, device=metrics.device)
