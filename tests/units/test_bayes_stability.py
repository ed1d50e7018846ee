"""Stability: decisions that have to agree before ranks are decided."""

import pytest
import torch
from torch import nn

from tenfold.bayes import RanksWarning, Rounding, Stability, attach
from tenfold.formats import TTM
from tenfold.nn import Linear


def layer_of_rank(rank: int) -> Linear:
    layer = Linear(12, 8, format=TTM(rank=4), bias=False)
    set_rank(layer, rank)
    return layer


def set_rank(layer: Linear, rank: int) -> None:
    with torch.no_grad():
        for factor, indices in zip(layer.factorized.factors, layer.factorized.network.factors, strict=True):
            factor.normal_()
            factor.movedim(indices.index("r1"), 0)[rank:] = 0


def test_moments_of_other_layers_are_refused() -> None:
    model = nn.Sequential(Linear(16, 16, format=TTM(rank=3)), Linear(16, 16, format=TTM(rank=3)))
    posterior = attach(model, n_examples=10)
    rule = Rounding(0.05, moments={"0": torch.eye(16), "layre": torch.eye(16)})
    for decide in (posterior.decide, posterior.shrink, lambda rule: Stability(posterior, rule).evaluate()):
        with pytest.raises(
            ValueError, match="Rounding got moments of layre; the layers whose ranks are decided are 0, 1: give moments of these alone"
        ):
            decide(rule)
    with torch.no_grad():
        for factor in posterior.run.weights["0"].factors.means:  # pyright: ignore
            factor.zero_()
    rule = Rounding(0.05, moments={"0": torch.eye(16)})
    with pytest.warns(RanksWarning, match="all ranks of 0 were removed"):
        posterior.shrink(rule)
    assert posterior.decide(rule).keys() == {"1"}, "a layer that was removed is still known"


def test_ranks_are_stable_when_the_last_decisions_agree() -> None:
    layer = layer_of_rank(3)
    posterior = attach(layer, n_examples=10, kind="map")
    stability = Stability(posterior, Rounding(0.01), evaluations=3)
    assert not stability.is_stable
    assert [stability.evaluate() for _ in range(3)] == [False, False, True]
    set_rank(layer, 2)
    assert [stability.evaluate() for _ in range(3)] == [False, False, True]
    assert [one["model"]["r1"] for one in stability.history] == [3, 3, 3, 2, 2, 2]
    assert layer.factorized.network.ranks == {"r1": 4}  # nothing was decided


def test_slack_and_state() -> None:
    layer = layer_of_rank(3)
    posterior = attach(nn.Sequential(layer), n_examples=10, kind="map")
    stability = Stability(posterior, evaluations=2, slack=1)
    stability.evaluate()
    set_rank(layer, 2)
    again = Stability(posterior, evaluations=2, slack=1)
    again.load_state_dict(stability.state_dict())
    assert again.evaluate() and stability.evaluate()
    set_rank(layer, 4)
    assert not stability.evaluate()


def test_a_layer_without_anything_left_has_ranks_of_zero() -> None:
    layer = layer_of_rank(2)
    posterior = attach(layer, n_examples=10, kind="map")
    with torch.no_grad():
        for factor in layer.factorized.factors:
            factor.zero_()
    stability = Stability(posterior)
    stability.evaluate()
    assert stability.history == [{"model": {"r1": 0}}]


def test_what_is_refused() -> None:
    posterior = attach(layer_of_rank(2), n_examples=10, kind="map")
    with pytest.raises(ValueError, match="Stability got evaluations=1 and slack=0; at least 2 and 0 are needed: give for instance 3 and 0"):
        Stability(posterior, evaluations=1)
    with pytest.raises(ValueError, match="slack=-1; at least 2 and 0"):
        Stability(posterior, slack=-1)
