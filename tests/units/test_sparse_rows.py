"""Sparse rows: supports that are found, values that are shared out, a table that stores little, and fits that stay on their support."""

import pytest
import torch
from torch import Tensor

from tenfold.recipes.recommenders.models import NcfMlp
from tenfold.recipes.recommenders.ranking_fit import FLOOR, drawn_pairs, in_order, linearised, listed_loss, scores_of_all
from tenfold.recipes.recommenders.ranking_step import row_metrics, scaled
from tenfold.recipes.recommenders.sparse_fit import sparse_rows
from tenfold.recipes.recommenders.sparse_rows import SparseRows
from tenfold.recipes.recommenders.tower_fit import Side, Tower, as_model, score_gradients, tower_vectors
from tenfold.solvers.sparse_table import fit_sparse_tables
from tenfold.solvers.table_metric import fit_table


def planted(rows: int, dim: int, values: int) -> Tensor:
    """Rows of a few atoms of an orthogonal dictionary, around a mean."""
    atoms, _ = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))
    codes = torch.zeros(rows, dim, dtype=torch.float64)
    codes.scatter_(1, torch.rand(rows, dim).argsort(1)[:, :values], 1 + torch.rand(rows, values, dtype=torch.float64))
    return codes @ atoms


def cost(table: Tensor, metrics: Tensor, made: Tensor) -> float:
    error = table - made
    return float((error * (metrics @ error[..., None])[..., 0]).sum())


def test_sparse_codes_are_closer_than_a_basis_for_all() -> None:
    torch.manual_seed(0)
    table, roots = planted(600, 12, 2), torch.randn(600, 12, 12, dtype=torch.float64)
    metrics = roots @ roots.mT
    [sparse] = fit_sparse_tables([table], [metrics], 3 * 600)
    low = fit_table(table, metrics, 3)
    assert int((sparse.codes != 0).sum()) <= 3 * 600
    mean = table.mean(0).expand_as(table)
    assert sparse.cost < 0.3 * cost(table, metrics, low.dense()) < 0.3 * cost(table, metrics, mean)


def test_values_go_where_rows_need_them() -> None:
    torch.manual_seed(1)
    tables = [planted(200, 8, 1), planted(200, 8, 4)]
    metrics = [torch.eye(8, dtype=torch.float64).expand(200, -1, -1), 4 * torch.eye(8, dtype=torch.float64).expand(200, -1, -1)]
    easy, hard = fit_sparse_tables(tables, metrics, 1000)
    counts = [int((fit.codes != 0).sum()) for fit in (easy, hard)]
    assert sum(counts) <= 1000 and counts[1] > 1.5 * counts[0]


def test_the_cost_is_exact_and_falls_with_values() -> None:
    torch.manual_seed(2)
    table, roots = torch.randn(50, 6, dtype=torch.float64), torch.randn(50, 6, 6, dtype=torch.float64)
    metrics, costs = roots @ roots.mT + torch.eye(6, dtype=torch.float64), []
    for values in (0, 60, 150, 300):
        [fit] = fit_sparse_tables([table], [metrics], values, turns=4)
        assert fit.cost == pytest.approx(cost(table, metrics, fit.mean + fit.codes @ fit.basis), rel=1e-2, abs=1e-6)
        costs.append(fit.cost)
    assert costs == sorted(costs, reverse=True) and costs[-1] < 1e-6 * costs[0]
    with pytest.raises(ValueError, match="n_values is -1; at least 0 is needed: give the number"):
        fit_sparse_tables([table], [metrics], -1)
    with pytest.raises(ValueError, match="0 atoms are asked for; at least 1 is needed: give None"):
        fit_sparse_tables([table], [metrics], 10, atoms=0)


def test_more_atoms_than_columns_are_closer_for_as_many_values() -> None:
    torch.manual_seed(3)
    lines = torch.randn(12, 6, dtype=torch.float64)  # each row is along one of twelve, in a space of six
    table = lines[torch.arange(240) % 12] * torch.randn(240, 1, dtype=torch.float64)
    metrics = torch.eye(6, dtype=torch.float64).expand(240, -1, -1)
    [square], [wide] = (fit_sparse_tables([table], [metrics], 240, atoms=atoms) for atoms in (None, 24))
    assert wide.codes.shape == (240, 24) and int((wide.codes != 0).sum()) <= 240
    assert wide.cost < 0.2 * square.cost
    [again] = fit_sparse_tables([table], [metrics], 240, atoms=24)
    torch.testing.assert_close(again.codes, wide.codes, rtol=0, atol=0)


@pytest.mark.parametrize("width", [3, 8, 20])
def test_a_table_of_sparse_rows_is_the_dense_one(width: int) -> None:
    table = torch.randn(30, width)
    support = torch.rand(30, width) < 0.3
    support[4] = False
    rows = SparseRows(table, support)
    dense = table * support
    torch.testing.assert_close(rows.weight, dense, rtol=0, atol=0)
    ids = torch.randint(30, (4, 5))
    torch.testing.assert_close(rows(ids), dense[ids], rtol=0, atol=0)
    rows(ids).sum().backward()
    grad = torch.autograd.grad(torch.nn.functional.embedding(ids, table.requires_grad_()).sum(), table)[0]
    torch.testing.assert_close(rows.values.grad, grad[support])
    other = SparseRows(torch.zeros(30, width), torch.zeros(30, width, dtype=torch.bool))
    other.load_state_dict(rows.state_dict())
    torch.testing.assert_close(other(ids), dense[ids], rtol=0, atol=0)
    assert rows.values.numel() == len(rows.places) == int(support.sum()) and len(rows.counts) == 30


def test_a_table_too_wide_for_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="width 300 with up to 2 values in a row was given; at most 256 columns .* use a narrower table"):
        SparseRows(torch.ones(2, 300), torch.ones(2, 300).cumsum(1) <= 2)


@pytest.fixture
def model() -> NcfMlp:
    torch.manual_seed(0)
    made = NcfMlp(50, 40, (8, 8), (8, 6)).eval()
    with torch.no_grad():
        for layer in (made.user, made.item):
            layer.weight.mul_(2)
    return made


def test_fits_stay_on_their_support_and_lower_the_error(model: NcfMlp) -> None:
    start = sparse_rows(model, (3, 3))
    ordered, losses = in_order(model, start, sweeps=6, n_pairs=40)
    assert losses[-1] < 0.7 * losses[0]
    n_behind = sum(one.numel() for one in model.fc.parameters())
    for tower in (start, ordered):
        for side in (tower.users, tower.items):
            assert side.support is not None and not bool(side.codes[~side.support].any())
        small = as_model(model, tower)
        assert small.table_numel() + sum(one.numel() for one in small.fc.parameters()) - n_behind <= 3 * 90
        ids = torch.arange(7)
        x = tower.users.vectors[:7] + tower.items.vectors[:7] + tower.offset
        torch.testing.assert_close(small(ids, ids), model.behind(x), rtol=1e-4, atol=1e-5)


def test_metrics_are_weighted_covariances_of_gradients(model: NcfMlp) -> None:
    """A constant added to all scores of a user costs nothing, so that a user's metric is centred."""
    with torch.no_grad():
        x, y = tower_vectors(model)
    pairs = drawn_pairs(scores_of_all(model), 30, torch.Generator().manual_seed(3))
    found, gradients = linearised(model, Tower(Side(x, torch.eye(8)), Side(y, torch.eye(8)), torch.zeros(8)), pairs.items)
    curvatures = listed_loss(found, pairs, torch.zeros(50))[3]
    users, items = row_metrics(*scaled(gradients, curvatures), pairs.items, 40)
    wanted = torch.zeros(40, 8, 8)
    for user, (drawn, score, threshold, weight) in enumerate(zip(pairs.items, pairs.wanted, pairs.thresholds, pairs.weights, strict=True)):
        g = score_gradients(model, x[user] + y[drawn])[1]
        p = (score - threshold).sigmoid()
        weights = weight * (p * (1 - p) + FLOOR)
        torch.testing.assert_close(users[user], torch.cov(g.mT, correction=0, aweights=weights) * weights.sum(), rtol=1e-3, atol=1e-6)
        for one, item in enumerate(drawn):
            wanted[item] += weights[one] * (1 - weights[one] / weights.sum()) * torch.outer(g[one], g[one])
    torch.testing.assert_close(items, wanted, rtol=1e-3, atol=1e-6)
