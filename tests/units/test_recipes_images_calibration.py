"""Calibration: against loops over examples, and what is refused."""

import math

import pytest
import torch

from tenfold.recipes.images.calibration import N_BINS, calibration


def test_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(300, 5, generator=generator).mul(2).softmax(1)
    y = torch.randint(0, 5, (300,), generator=generator)
    found = calibration(p, y)
    right = [int(row.argmax()) == int(label) for row, label in zip(p, y, strict=True)]
    sure = [float(row.max()) for row in p.double()]
    ece = 0.0
    for number in range(N_BINS):
        inside = [k for k, one in enumerate(sure) if number / N_BINS < one <= (number + 1) / N_BINS]
        if inside:
            gap = sum(sure[k] for k in inside) / len(inside) - sum(right[k] for k in inside) / len(inside)
            ece += abs(gap) * len(inside) / 300
    pairs = [(a, b) for a, ok in zip(sure, right, strict=True) if ok for b, good in zip(sure, right, strict=True) if not good]
    auc = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)
    loss = -sum(math.log(float(row[label])) for row, label in zip(p.double(), y, strict=True)) / 300
    assert found.accuracy == sum(right) / 300 and found.n == 300
    assert found.ece == pytest.approx(ece, abs=1e-9)
    assert found.loss == pytest.approx(loss, abs=1e-9)
    assert found.error_auc == pytest.approx(auc, abs=1e-9)


def test_certain_and_right_is_perfect() -> None:
    found = calibration(torch.eye(4), torch.arange(4))
    assert (found.accuracy, found.ece, found.loss, found.error_auc) == (1.0, 0.0, 0.0, None)


def test_certain_and_wrong_has_a_finite_loss() -> None:
    found = calibration(torch.eye(2), torch.tensor([1, 0]))
    assert found.ece == 1.0 and math.isfinite(found.loss) and found.error_auc is None


def test_one_label_for_each_row() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 2\) and the labels \(2,\); \(n, classes\) and \(n,\) with at least one"):
        calibration(torch.ones(3, 2), torch.zeros(2).long())
