"""Low rank of a table in metrics of its rows, against a dense singular value decomposition and against every other choice."""

import pytest
import torch
from torch.testing import assert_close

from tenfold.solvers.table_metric import fit_table


def _spd(*shape: int) -> torch.Tensor:
    root = torch.randn(*shape, shape[-1], dtype=torch.float64)
    return root @ root.mT + 0.1 * torch.eye(shape[-1], dtype=torch.float64)


def test_one_metric_is_a_weighted_svd() -> None:
    """With H_r = H the best rank-2 table is that of (W - mean) H^(1/2), whose error is the sum of the cut squares; ridge 1e-3: 1 %."""
    table, metric = torch.randn(40, 6, dtype=torch.float64), _spd(6)
    fit = fit_table(table, metric.expand(40, 6, 6), 2)
    values, vectors = torch.linalg.eigh(metric)
    singular = torch.linalg.svdvals((table - table.mean(0)) @ vectors * values.sqrt())
    best = singular[2:].square().sum() / singular.square().sum()
    assert_close(torch.tensor(fit.costs[-1], dtype=torch.float64), best, rtol=0.01, atol=0)


def test_own_metrics_beat_the_mean_one() -> None:
    """Rows that see different columns: the fit in their own metrics costs less than the best for the mean metric."""
    table = torch.randn(60, 8, dtype=torch.float64)
    metrics = torch.stack([torch.diag((torch.rand(8) < 0.4).double() + 0.01) for _ in range(60)])
    fit = fit_table(table, metrics, 3, turns=5)
    mean = fit_table(table, metrics.mean(0).expand(60, 8, 8), 3)
    cost = [float(torch.einsum("ri,rij,rj->", e, metrics, e)) for e in (table - fit.dense(), table - mean.dense())]
    assert cost[0] < 0.5 * cost[1]
    assert all(after <= before for before, after in zip(fit.costs, fit.costs[1:], strict=False)) and len(fit.costs) > 2


def test_a_table_of_the_rank_is_found_again() -> None:
    table = torch.randn(30, 2, dtype=torch.float64) @ torch.randn(2, 5, dtype=torch.float64) + torch.randn(5, dtype=torch.float64)
    fit = fit_table(table, _spd(30, 5), 2, turns=10)
    assert fit.costs[-1] < 1e-4
    assert_close(fit.dense(), table, rtol=0, atol=0.1)


def test_rows_that_are_never_used() -> None:
    metrics = _spd(10, 4)
    metrics[3] = 0
    assert torch.isfinite(fit_table(torch.randn(10, 4), metrics, 2).dense()).all()


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match=r"metrics of shape \(3, 2, 2\) were given for a table of shape \(4, 2\); \(4, 2, 2\) is needed: give"
    ):
        fit_table(torch.randn(4, 2), torch.eye(2).expand(3, 2, 2), 1)
    with pytest.raises(ValueError, match="the rank is 3 for a table of width 2; 1 to 2 is needed: choose one of these"):
        fit_table(torch.randn(4, 2), torch.eye(2).expand(4, 2, 2), 3)
