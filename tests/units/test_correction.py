"""Correction of factorised weights."""

import pytest
import torch
from test_diagnosis import degenerate
from torch import nn

import tenfold.nn
from tenfold import CP, TR
from tenfold.correction import correct, corrected
from tenfold.diagnosis import diagnose


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


def test_a_degenerate_layer_is_healed_within_one_per_cent_of_itself():
    layer = degenerate(tenfold.nn.Conv2d(16, 16, 3, format=CP(rank=6), dtype=torch.float64))
    before = layer.weight.detach().clone()
    (ill,) = diagnose(layer)
    layer.factorized = corrected(layer.factorized)
    (well,) = diagnose(layer)
    assert ill.is_flagged and not well.is_flagged
    assert well.sensitivity < 0.1 * ill.sensitivity and well.stable_step > 10 * ill.stable_step
    assert relative(layer.weight, before) <= 0.01 * (1 + 1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_error_to_the_dense_weight_is_kept_in_every_group(groups: int):
    dense = nn.Conv2d(12, 16, 3, groups=groups)
    layer = tenfold.nn.Conv2d.from_dense(dense, CP(rank=8))
    better = corrected(layer.factorized, dense.weight, slack=1.02)
    assert better.factors[0].dtype == torch.float32 and better.network == layer.factorized.network
    for part, own, other in zip(*(w.chunk(groups) for w in (dense.weight, layer.weight, better.dense())), strict=True):
        assert relative(other, part) == pytest.approx(1.02 * relative(own, part), rel=1e-4)
    layer.factorized, before = better, diagnose(layer)[0].sensitivity
    assert diagnose(layer)[0].sensitivity < before


def test_intensities_can_be_the_objective_and_any_format_the_weight():
    dense = nn.Linear(16, 12)
    layer = tenfold.nn.Linear.from_dense(dense, TR(rank=3)).eval()
    better = corrected(layer.factorized, dense.weight, slack=1.05, objective="intensity", sweeps=20)
    assert relative(better.dense(), dense.weight) <= 1.05 * relative(layer.weight, dense.weight) * (1 + 1e-5)
    assert not better.training


def test_wrong_requests_are_told():
    layer = tenfold.nn.Linear.from_dense(nn.Linear(16, 12), TR(rank=3))
    with pytest.raises(ValueError, match=r"the weight has shape \(3, 2\), but this fold is for \(12, 16\); make a fold for its shape"):
        corrected(layer.factorized, torch.zeros(3, 2))
    with pytest.raises(TypeError, match="the dense weight has the dtype torch.int64; real floating-point values are needed"):
        corrected(layer.factorized, torch.zeros(12, 16, dtype=torch.long))
    with pytest.raises(ValueError, match="delta is 1e-08, but the factors of tensor 0 have the relative error"):
        corrected(layer.factorized, torch.randn(12, 16), delta=1e-8)


def test_a_model_is_corrected_where_it_is_flagged_and_nowhere_else():
    """The third layer is healthy; the second one is only out of balance, so its weight stays."""
    torch.manual_seed(0)
    ill = degenerate(tenfold.nn.Conv2d(16, 16, 3, padding=1, format=CP(rank=6), dtype=torch.float64))
    uneven, well = (tenfold.nn.Conv2d(16, 16, 3, padding=1, groups=2, format=TR(rank=2), dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        uneven.factorized.factors[0].mul_(1e3)
    model = nn.Sequential(ill, uneven, well)
    parameters, before = list(model.parameters()), [one.weight.detach().clone() for one in (ill, uneven, well)]
    assert correct(model) == ["0", "1"] and not any(one.is_flagged for one in diagnose(model))
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    assert 0 < relative(ill.weight, before[0]) <= 0.01 * (1 + 1e-9)
    torch.testing.assert_close(uneven.weight, before[1])
    torch.testing.assert_close(well.weight, before[2], rtol=0, atol=0)
    assert correct(model) == []


def test_the_error_to_the_dense_model_is_kept():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(16, 16, 3, dtype=torch.float64), nn.ReLU())
    layer = degenerate(tenfold.nn.Conv2d(16, 16, 3, format=CP(rank=6), dtype=torch.float64))
    model = nn.Sequential(layer, nn.ReLU())
    with torch.no_grad():
        dense[0].weight.copy_(layer.weight + 0.1 * layer.weight.norm() / 48 * torch.randn_like(layer.weight))
    error = relative(layer.weight, dense[0].weight)
    assert correct(model, dense, slack=1.05) == ["0"] and relative(layer.weight, dense[0].weight) <= 1.05 * error * (1 + 1e-6)
    with pytest.raises(ValueError, match="Sequential has no layer '0'; the bound on a layer's error needs the weight that it stands for"):
        correct(nn.Sequential(degenerate(layer)), nn.Sequential(nn.ReLU()))


def test_a_layer_far_from_its_dense_weight_moves_by_a_per_cent_and_one_without_is_named():
    """The first layer's bound would be 1 or more, which zero factors meet; the last one's dense layer has another shape."""
    torch.manual_seed(0)
    far, near, wrong = (degenerate(tenfold.nn.Conv2d(16, 16, 3, format=CP(rank=6), dtype=torch.float64)) for _ in range(3))
    dense = nn.Sequential(*(nn.Conv2d(16, n, 3, dtype=torch.float64) for n in (16, 16, 8)))
    with torch.no_grad():
        dense[1].weight.copy_(near.weight + 0.1 * near.weight.norm() / 48 * torch.randn_like(near.weight))
    before, error = far.weight.detach().clone(), relative(near.weight, dense[1].weight)
    assert relative(far.weight, dense[0].weight) > 1
    model = nn.Sequential(far, near, wrong)
    with pytest.warns(UserWarning, match=r"^2 could not be corrected \(the weight has shape \(8, 16, 3, 3\), but .*\) and stays as it is"):
        assert correct(model, dense) == ["0", "1"]
    assert [one.is_flagged for one in diagnose(model)] == [False, False, True]
    assert 0 < relative(far.weight, before) <= 0.01 * (1 + 1e-9)
    assert relative(near.weight, dense[1].weight) <= 1.01 * error * (1 + 1e-6)
    with pytest.raises(ValueError, match="the slack is 0.9; the bound is slack x the error of the fit"):
        correct(model, dense, slack=0.9)


def test_frozen_factors_stay_frozen():
    layer = tenfold.nn.Linear.from_dense(nn.Linear(16, 12), TR(rank=3)).requires_grad_(False)
    assert not any(factor.requires_grad for factor in corrected(layer.factorized).factors)
