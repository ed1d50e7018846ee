"""Diagnosis of factorised layers and models."""

import json
import math

import pytest
import torch
from torch import Tensor, nn

import tenfold.nn
from tenfold import CP, SVD, TR, TT, TTM, Tucker
from tenfold.diagnosis import UNBALANCED, diagnose
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.sensitivity import sensitivity


def degenerate(layer: nn.Module) -> nn.Module:
    """A CP layer whose first two terms are huge and cancel each other but for a little."""
    factors: list[Tensor] = list(layer.factorized.factors)  # type: ignore[union-attr, arg-type]
    with torch.no_grad():
        for factor, axis in zip(factors, (1, 0, 0), strict=True):
            moved = factor.movedim(axis, 0)
            moved[:2] *= 6 / moved[:2].norm()
            moved[1] = moved[0] + 0.02 * moved[1]
        factors[0][:, 1] *= -1
    return layer


def test_a_healthy_layer_is_not_flagged_and_its_numbers_are_those_of_the_solvers():
    layer = tenfold.nn.Conv2d(12, 16, 3, format=CP(rank=6))
    (found,) = diagnose(layer)
    assert (found.name, found.is_flagged, found.advice) == ("", False, "")
    factors = [factor.detach().double()[None] for factor in layer.factorized.factors]
    assert found.sensitivity == pytest.approx(float(sensitivity(layer.factorized.network, factors)))
    assert 0.2 < found.normalised_sensitivity < 10 and 1 <= found.imbalance < UNBALANCED and found.intensity_ratio < 3
    assert len(found.condition_numbers) == 3 and found.stable_step == pytest.approx(1 / found.largest_eigenvalue)
    assert "healthy" in str(found) and found.statement in str(found)


def test_names_are_those_of_the_model_inside_of_wrappers():
    model = nn.Sequential(nn.ReLU(), torch.compile(tenfold.nn.Linear(8, 8, format=SVD(rank=2)), backend="eager"))
    for wrapped in (model, torch.compile(model, backend="eager"), nn.DataParallel(model)):
        assert [one.name for one in diagnose(wrapped)] == ["1"]


def test_a_degenerate_layer_is_flagged_with_what_to_do():
    model = nn.Sequential(
        tenfold.nn.Conv2d(12, 16, 3, format=CP(rank=6)), nn.ReLU(), degenerate(tenfold.nn.Conv2d(16, 16, 3, format=CP(rank=6)))
    )
    healthy, found = diagnose(model)
    assert (healthy.name, healthy.is_flagged) == ("0", False)
    assert (found.name, found.is_flagged) == ("2", True)
    assert found.intensity_ratio > 10 and found.worst_congruence < -0.9
    assert found.stable_step < 0.1 * healthy.stable_step
    assert "its terms cancel" in found.advice and "tenfold.correction.correct" in found.advice
    assert f"flagged: {found.advice}" in str(found)


@pytest.mark.parametrize(("part", "is_stable"), [(0.9, True), (1.1, False)])
def test_gradient_descent_diverges_above_the_stable_step(part: float, is_stable: bool):
    layer = tenfold.nn.Linear(6, 5, bias=False, format=SVD(rank=2)).double()
    wanted, step = layer.weight.detach().clone(), part * diagnose(layer)[0].stable_step
    errors = []
    with torch.no_grad():
        for factor in layer.parameters():
            factor += 1e-6 * torch.randn_like(factor)
    for _ in range(60):
        loss = (layer.weight - wanted).square().sum()
        errors.append(loss.item())
        for factor, gradient in zip(layer.parameters(), torch.autograd.grad(loss, list(layer.parameters())), strict=True):
            factor.data -= step * gradient
    assert (errors[-1] < errors[0]) == is_stable


def test_unbalanced_factors_are_flagged():
    layer = tenfold.nn.Linear(24, 20, format=SVD(rank=4))
    with torch.no_grad():
        layer.factorized.factors[0] *= 100
        layer.factorized.factors[1] /= 100
    (found,) = diagnose(layer.factorized)
    assert found.is_flagged and found.imbalance > 100
    assert "times as sensitive as after scaling alone, up to 2 is healthy; scale them with" in found.advice


def test_zero_and_broken_weights_are_flagged():
    layer = tenfold.nn.Linear(24, 20, format=SVD(rank=4))
    with torch.no_grad():
        layer.factorized.factors[0].zero_()
        layer.factorized.factors[1].zero_()
    (found,) = diagnose(layer)
    assert found.is_flagged and "all of it is zero" in found.advice
    with torch.no_grad():
        layer.factorized.factors[0][0, 0] = math.inf
    (found,) = diagnose(layer)
    assert found.is_flagged and "1 values are NaN or infinite; load an earlier checkpoint" in found.advice
    assert json.loads(json.dumps(found.as_json()))["sensitivity"] is None


@pytest.mark.parametrize(
    "format", [CP(rank=4), Tucker(rank=3), TT(rank=3), TR(rank=2), TTM(rank=3), SVD(rank=4)], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("groups", [1, 2])
def test_every_format_and_grouped_weights_have_a_diagnosis(format: Format, groups: int):
    layer = tenfold.nn.Conv2d(12, 16, 3, groups=groups, format=format)
    (found,) = diagnose(layer)
    assert not found.is_flagged and math.isfinite(found.largest_eigenvalue) and found.largest_eigenvalue > 0
    assert json.loads(json.dumps(found.as_json()))["is_flagged"] is False
    network: Network = layer.factorized.network
    whole = sensitivity(network, [factor.detach().double()[None] for factor in layer.factorized.factors])
    assert found.sensitivity == pytest.approx(float(whole), rel=1e-6)


def test_a_large_embedding_is_diagnosed_without_its_dense_weight():
    layer = tenfold.nn.Embedding(2_000_000, 512, format=TTM(rank=8), in_modes=(125, 125, 128), out_modes=(8, 8, 8))
    (found,) = diagnose(layer)  # dense it would take 8 GB
    assert math.isfinite(found.sensitivity) and math.isfinite(found.largest_eigenvalue)


def test_a_model_without_factors_is_told():
    with pytest.raises(
        ValueError, match=r"Linear has no factorised weight, and diagnosis is of factors; give a model that tenfold.compress"
    ):
        diagnose(nn.Linear(3, 2))
