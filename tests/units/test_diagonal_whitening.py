"""The metric of layers whose second moment would be too large: its diagonal alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tenfold
from tenfold import CP, SVD, TT, Format, Tucker, second_moments
from tenfold.decompose import Decomposition, decompose
from tenfold.layers import all_layers
from tenfold.solvers.diagonal_whitening import DiagonalWhitening
from tenfold.solvers.whitening import Whitening
from tenfold.survey import survey


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "linear": nn.Linear(24, 16, dtype=torch.float64),
        "conv": nn.Conv2d(6, 10, 3, dtype=torch.float64),
        "grouped": nn.Conv1d(8, 12, 5, groups=2, dtype=torch.float64),
    }


def made(dense: Any, format: Format, metric: Whitening | None) -> Decomposition:
    kind = all_layers()[type(dense).__name__]
    fold = kind.fold_of(dense, kind.modes_of(format))
    return decompose([dense.weight], fold, format.network(fold), format, whitenings=[metric], warn=False)[0]


def diagonal_of(dense: Any) -> Tensor:
    """(groups, in x kernel): two decades of second moments over channels, and a factor of two over positions of the kernel."""
    channels = 10 ** (2 * torch.rand(getattr(dense, "groups", 1), dense.weight.shape[1], 1, dtype=torch.float64))
    return (channels * (1 + torch.rand(dense.weight[0, 0].numel(), dtype=torch.float64))).flatten(1)


@pytest.mark.parametrize("name", layers())
def test_of_a_diagonal_moment_it_is_all_there_is(name: str):
    dense: Any = layers()[name]
    diagonal = diagonal_of(dense)
    metrics = DiagonalWhitening(diagonal), Whitening(torch.diag_embed(diagonal))
    mine, whole = (made(dense, SVD(rank=4), metric) for metric in metrics)
    torch.testing.assert_close(mine.weight.dense(), whole.weight.dense(), rtol=1e-6, atol=1e-8)
    for metric in metrics:
        assert mine.error_of(metric, dense.weight) == pytest.approx(whole.error_of(metrics[1], dense.weight), rel=1e-6)


@pytest.mark.parametrize("name", layers())
@pytest.mark.parametrize("format", [SVD(rank=0.3), CP(rank=0.3), Tucker(rank=0.3), TT(rank=0.3)], ids=str)
def test_inputs_that_are_large_count_more(name: str, format: Format):
    dense: Any = layers()[name]
    metric = DiagonalWhitening(diagonal_of(dense))
    plain, weighted = (made(dense, format, one).error_of(metric, dense.weight) for one in (None, metric))
    factor = 1.0 if isinstance(format, TT) and name == "linear" else 0.97  # several cores share the inputs there
    assert weighted <= factor * plain


def test_a_mean_that_is_free_is_left_out():
    moment, mean = torch.tensor([[5.0, 4.0, 9.0]]).double(), torch.tensor([[2.0, 2.0, 0.0]]).double()
    assert DiagonalWhitening(moment, mean, True).metric.tolist() == [[1.0, 0.0, 9.0]]
    assert DiagonalWhitening(moment, mean).metric.tolist() == moment.tolist()
    still = DiagonalWhitening(mean.square(), mean, True)
    assert still.metric.abs().max() == 0 and still.damped.tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("is_sequential", [False, True])
def test_wide_layers_are_calibrated_by_it(monkeypatch: pytest.MonkeyPatch, is_sequential: bool):
    """A model with a wide layer after a narrow one; the wide one's inputs differ a hundredfold in size."""
    torch.manual_seed(1)
    wide = nn.Linear(8, 32)
    model = nn.Sequential(nn.Linear(8, 8), wide, nn.Linear(32, 24)).double()
    with torch.no_grad():
        wide.weight.mul_(10 ** (2 * torch.rand(32, 1)))
    x = torch.randn(256, 8, dtype=torch.float64)
    monkeypatch.setattr(second_moments, "SIZE_LIMIT", 16)
    plan = tenfold.plan(model, SVD(), budget="params=0.7", inputs=x, calibration=x, filter="2")
    row = next(one for one in plan.layers if one.name == "2")
    assert row.format is not None and row.metric == "" and plan.metric == "output"
    small = tenfold.compress(model, plan, calibration=x, sequential=is_sequential)
    blind = tenfold.compress(model, plan)
    with torch.no_grad():
        errors = [float((one(x) - model(x)).norm() / model(x).norm()) for one in (small, blind)]
    assert errors[0] < 0.5 * errors[1]


def test_the_sums_are_those_of_the_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(second_moments, "SIZE_LIMIT", 4)
    model, x = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False)), torch.randn(10, 2, 5, 5)
    found = survey(model)
    with second_moments.InputMoments(model, found) as seen:
        model(x[:4])
        model(x[4:])
    metric = seen.moments["0"]
    patches = torch.nn.functional.unfold(x, 3).movedim(1, 2).reshape(-1, 18).double()
    assert isinstance(metric, DiagonalWhitening) and metric.mean is not None
    torch.testing.assert_close(metric.moment, patches.square().mean(0)[None], rtol=1e-6, atol=0)
    torch.testing.assert_close(metric.mean, patches.mean(0)[None], rtol=1e-5, atol=1e-7)
