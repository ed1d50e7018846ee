"""Rows of tables as sums of a few atoms of a dictionary, where each row has a metric of its own, as in table_metric.py.

A rank-k table gives each row k values for the same k directions. Here a row chooses its own among the atoms of a dictionary, and rows that
are harder or cost more get more of them: one price for a value, over all rows of all tables. In turns: supports grow atom by atom, each the
one that lowers the cost most with all values of the row solved anew; then the dictionary is solved for fixed values.

Source: Chen, Billings, Luo 1989 (orthogonal least squares, doi:10.1080/00207178908953472) for the supports; sparse codes of embeddings:
Chen et al. 2016, arXiv 1610.03950. Deviations: metrics of rows, and values shared out by one price.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.solvers.table_metric import best_basis, leading_vectors, ridged, weighted_cost

TURNS = 20
MOST = 16  # atoms of a row
BISECTIONS = 100
LEAST_GAIN = 1e-12  # of an atom's own power in the metric: what is left of it is rounding


@dataclass(frozen=True)
class SparseFit:
    """Rows mean + codes @ basis; codes (rows, atoms) are zero outside of each row's support. cost: in the metrics, summed over rows."""

    codes: Tensor
    basis: Tensor
    mean: Tensor
    cost: float


def fit_sparse_tables(tables: Sequence[Tensor], metrics: Sequence[Tensor], n_values: int, *, turns: int = TURNS) -> list[SparseFit]:
    """Sparse codes and dictionaries of tables (rows, dim), in the metrics (rows, dim, dim) of their rows; float64.

    A dictionary has as many atoms as its table is wide.

    Args:
        n_values: stored values of all tables together, at most.

    Raises:
        ValueError: n_values is negative.

    >>> table = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, -3.0, 0.0]])
    >>> fit = fit_sparse_tables([table], [torch.eye(3).expand(4, -1, -1)], 4)[0]
    >>> float((fit.mean + fit.codes @ fit.basis - table).abs().max()) < 1e-6, int((fit.codes != 0).sum())
    (True, 4)
    """
    if n_values < 0:
        raise ValueError(f"n_values is {n_values}; at least 0 is needed: give the number of values that may be stored")
    means = [table.double().mean(0) for table in tables]
    targets = [table.double() - mean for table, mean in zip(tables, means, strict=True)]
    metrics = [ridged(metric.double()) for metric in metrics]
    bases = [leading_vectors(t, m, t.shape[1]) for t, m in zip(targets, metrics, strict=True)]
    weighted = [(m @ t[..., None])[..., 0] for t, m in zip(targets, metrics, strict=True)]
    codes = _codes(metrics, weighted, bases, n_values)
    for _ in range(turns - 1):
        bases = [best_basis(m, w, c) for m, w, c in zip(metrics, weighted, codes, strict=True)]
        codes = _codes(metrics, weighted, bases, n_values)
    fits = zip(targets, metrics, codes, bases, means, strict=True)
    return [SparseFit(c, b, mean, weighted_cost(t, m, c, b)) for t, m, c, b, mean in fits]


def _codes(metrics: Sequence[Tensor], weighted: Sequence[Tensor], bases: Sequence[Tensor], n_values: int) -> list[Tensor]:
    """For fixed dictionaries the codes (rows, atoms) of tables, with at most n_values of all of them not zero.

    Args:
        weighted: metrics times the rows that are wanted, (rows, dim).
    """
    grown = [_grown(m, w, b) for m, w, b in zip(metrics, weighted, bases, strict=True)]
    counts = _shared_out([gains for gains, _ in grown], n_values)
    codes = []
    for (_, order), count, metric, right, basis in zip(grown, counts, metrics, weighted, bases, strict=True):
        used = torch.zeros(len(order), len(basis), dtype=metric.dtype)
        used.scatter_(1, order, (torch.arange(order.shape[1]) < count[:, None]).to(metric.dtype))
        gram = basis @ metric @ basis.mT * used[:, :, None] * used[:, None, :] + torch.diag_embed(1 - used)
        codes.append(torch.linalg.solve(gram, (right @ basis.mT * used)[..., None])[..., 0])
    return codes


def _grown(metrics: Tensor, weighted: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """By how much 0, 1, .. atoms lower the cost of each row, (rows, most + 1), and these atoms in order, (rows, most)."""
    gram, right = basis @ metrics @ basis.mT, weighted @ basis.mT
    power = gram.diagonal(dim1=1, dim2=2).clone()
    gains, order = [right.new_zeros(len(right))], []
    is_free = torch.ones_like(right, dtype=torch.bool)
    for _ in range(min(MOST, len(basis))):
        left = gram.diagonal(dim1=1, dim2=2)
        gain, atom = torch.where(left > LEAST_GAIN * power, right.square() / left, 0.0).masked_fill(~is_free, -1.0).max(1)
        gains.append(gains[-1] + gain)
        order.append(atom)
        is_free = is_free.scatter(1, atom[:, None], False)
        # what the atom explains is taken out of all others, as in Gram-Schmidt
        column = gram.gather(2, atom[:, None, None].expand(-1, len(basis), 1))[..., 0]
        pivot = column.gather(1, atom[:, None]).clamp_min(1e-300)
        right = right - column * right.gather(1, atom[:, None]) / pivot
        gram = gram - column[:, :, None] * column[:, None, :] / pivot[..., None]
    return torch.stack(gains, 1), torch.stack(order, 1)


def _shared_out(gains: Sequence[Tensor], n_values: int) -> list[Tensor]:
    """How many atoms each row of each table gets: those at the lowest price for a value at which all together are few enough."""

    def at(price: float) -> list[Tensor]:
        return [(price * torch.arange(gain.shape[1]) - gain).argmin(1) for gain in gains]

    low, high = 0.0, max(float(gain.max()) for gain in gains) + 1e-300
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(int(count.sum()) for count in at(middle)) > n_values else (low, middle)
    return at(high)
