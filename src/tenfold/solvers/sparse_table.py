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

TURNS = 15
MOST = 24  # atoms of a row
BISECTIONS = 100
LEAST_GAIN = 1e-12  # of an atom's own power in the metric: what is left of it is rounding


@dataclass(frozen=True)
class SparseFit:
    """Rows mean + codes @ basis; codes (rows, atoms) are zero outside of each row's support. cost: in the metrics, summed over rows."""

    codes: Tensor
    basis: Tensor
    mean: Tensor
    cost: float


def fit_sparse_tables(
    tables: Sequence[Tensor], metrics: Sequence[Tensor], n_values: int, *, atoms: int | None = None, turns: int = TURNS, seed: int = 0
) -> list[SparseFit]:
    """Sparse codes and dictionaries of tables (rows, dim), in the metrics (rows, dim, dim) of their rows; float64.

    Args:
        n_values: stored values of all tables together, at most; those of the dictionaries are not counted.
        atoms: of each dictionary; None: as many as its table is wide. More of them than that start from rows, drawn by what they cost.

    Raises:
        ValueError: n_values or atoms is out of range.

    >>> table = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, -3.0, 0.0]])
    >>> fit = fit_sparse_tables([table], [torch.eye(3).expand(4, -1, -1)], 4)[0]
    >>> float((fit.mean + fit.codes @ fit.basis - table).abs().max()) < 1e-6, int((fit.codes != 0).sum())
    (True, 4)
    """
    if n_values < 0:
        raise ValueError(f"n_values is {n_values}; at least 0 is needed: give the number of values that may be stored")
    if atoms is not None and atoms < 1:
        raise ValueError(f"{atoms} atoms are asked for; at least 1 is needed: give None for as many as a table is wide")
    generator = torch.Generator().manual_seed(seed)
    means = [table.double().mean(0) for table in tables]
    targets = [table.double() - mean for table, mean in zip(tables, means, strict=True)]
    metrics = [ridged(metric.double()) for metric in metrics]
    bases = [_start(t, m, atoms or t.shape[1], generator) for t, m in zip(targets, metrics, strict=True)]
    weighted = [(m @ t[..., None])[..., 0] for t, m in zip(targets, metrics, strict=True)]
    codes = _codes(metrics, weighted, bases, n_values)
    for _ in range(turns - 1):
        bases = [best_basis(m, w, c) for m, w, c in zip(metrics, weighted, codes, strict=True)]
        codes = _codes(metrics, weighted, bases, n_values)
    fits = zip(targets, metrics, codes, bases, means, strict=True)
    return [SparseFit(c, b, mean, weighted_cost(t, m, c, b)) for t, m, c, b, mean in fits]


def _start(target: Tensor, metrics: Tensor, atoms: int, generator: torch.Generator) -> Tensor:
    """Leading directions, and rows as far as these are too few."""
    basis = leading_vectors(target, metrics, min(atoms, target.shape[1]))
    if (n_more := min(atoms - len(basis), len(target))) <= 0:
        return basis
    costs = (target * (metrics @ target[..., None])[..., 0]).sum(1)
    drawn = torch.multinomial(costs.clamp_min(1e-300).cpu(), n_more, generator=generator)
    return torch.cat([basis, target[drawn.to(target.device)]])


def _codes(metrics: Sequence[Tensor], weighted: Sequence[Tensor], bases: Sequence[Tensor], n_values: int) -> list[Tensor]:
    """For fixed dictionaries the codes (rows, atoms) of tables, with at most n_values of all of them not zero.

    Args:
        weighted: metrics times the rows that are wanted, (rows, dim).
    """
    grown = [_grown(m, w, b) for m, w, b in zip(metrics, weighted, bases, strict=True)]
    counts = _shared_out([gains for gains, _ in grown], n_values)
    codes = []
    for (_, order), count, metric, right, basis in zip(grown, counts, metrics, weighted, bases, strict=True):
        used = (torch.arange(order.shape[1], device=order.device) < count[:, None]).to(metric.dtype)
        own = basis[order] * used[..., None]
        gram = own @ metric @ own.mT + torch.diag_embed(1 - used)
        values = torch.linalg.solve(gram, own @ right[..., None])[..., 0]
        codes.append(values.new_zeros(len(order), len(basis)).scatter(1, order, values))
    return codes


def _grown(metrics: Tensor, weighted: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """By how much 0, 1, .. atoms lower the cost of each row, (rows, most + 1), and these atoms in order, (rows, most)."""
    ahead = metrics @ basis.mT
    left = power = (basis.mT * ahead).sum(1)
    right = weighted @ basis.mT
    gains, order, explained = [right.new_zeros(len(right))], [], []
    is_free = torch.ones_like(right, dtype=torch.bool)
    for _ in range(min(MOST, len(basis))):
        is_new = left > LEAST_GAIN * power
        gain, atom = torch.where(is_new, right.square() / left, 0.0).masked_fill(~is_free, -1.0).max(1)
        gains.append(gains[-1] + gain)
        order.append(atom)
        atom = atom[:, None]
        is_free = is_free.scatter(1, atom, False)
        # what the atom explains is taken out of all others, as in Gram-Schmidt
        column = ahead.gather(2, atom[:, None].expand(-1, ahead.shape[1], 1))[..., 0] @ basis.mT
        for one in explained:
            column = column - one * one.gather(1, atom)
        root = left.gather(1, atom).clamp_min(1e-300).sqrt()
        column = torch.where(is_new.gather(1, atom), column / root, 0.0)
        right = right - column * (right.gather(1, atom) / root)
        left = left - column.square()
        explained.append(column)
    return torch.stack(gains, 1), torch.stack(order, 1)


def _shared_out(gains: Sequence[Tensor], n_values: int) -> list[Tensor]:
    """How many atoms each row of each table gets: those at the lowest price for a value at which all together are few enough."""

    def at(price: float) -> list[Tensor]:
        return [(price * torch.arange(gain.shape[1], device=gain.device) - gain).argmin(1) for gain in gains]

    low, high = 0.0, max(float(gain.max()) for gain in gains) + 1e-300
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(int(count.sum()) for count in at(middle)) > n_values else (low, middle)
    return at(high)
