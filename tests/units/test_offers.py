"""Offers: computed once, good for any number of budgets, and the same plans as one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import tenfold
from tenfold import CP, SVD, Budget, Format, selection
from tenfold.fold import Fold
from tenfold.network import Network as Statement
from tenfold.plan import offers_for
from tenfold.progress import silent
from tenfold.ranks import offers as module
from tenfold.ranks.latency import timed_plan
from tenfold.ranks.offers import Offers


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(12, 24, 3, padding=1), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().mean((2, 3)))


X = torch.randn(16, 12, 8, 8)


def _plan(made: Offers, goal: Budget) -> tenfold.Plan:
    return timed_plan(made, goal, "ignored", None, silent)[1]


@pytest.mark.parametrize("calibration", [None, X], ids=["weights", "outputs"])
def test_many_budgets_need_one_set_of_solutions(calibration: Tensor | None, monkeypatch: pytest.MonkeyPatch):
    model = Network()
    options = {"inputs": X, "calibration": calibration, "latency": "ignored"}
    single = {budget: tenfold.plan(model, budget=budget, **options) for budget in ("flops=0.5", "params=0.4")}
    made = offers_for(model, goal=Budget(flops=0.5), inputs=X, calibration=calibration)
    monkeypatch.setattr(module, "candidates", lambda *_, **__: pytest.fail("solved again"))
    for budget, plan in single.items():
        assert _plan(made, Budget.parse(budget)) == plan
    params = [_plan(made, Budget(flops=fraction)).flops_after for fraction in (0.8, 0.6, 0.4, 0.2)]
    assert params == sorted(params, reverse=True)  # type: ignore[type-var]


def test_a_plan_of_nothing_says_that_all_is_dense():
    made = offers_for(Network(), CP(), goal=Budget(flops=0.5), inputs=X).plan_of({}, None)
    assert all(one.format is None for one in made.layers) and made.params_after == made.params_before


@dataclass(frozen=True)
class Brittle(SVD):
    """An SVD that does not take weights as large as 5."""

    def errors(self, target: Tensor, networks: Sequence[Statement], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        if float(target.abs().max()) > 5:
            raise torch.linalg.LinAlgError("it does not converge")
        return super().errors(target, networks, sweeps=sweeps, seed=seed)


def test_a_layer_that_cannot_be_decomposed_leaves_the_plan_to_the_others():
    model = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 24))
    nn.init.constant_(model[1].weight, 9.0)
    with pytest.warns(
        UserWarning, match=r"1 could not be decomposed as Brittle \(it does not converge\) and is planned without it; errors"
    ):
        rows = tenfold.plan(model, Brittle(), budget=0.7).layers
    assert [one.format is None for one in rows] == [False, True, False]
    assert rows[1].reason == "it could not be decomposed"


@dataclass(frozen=True)
class Product(Format):
    """``o1 r, r k1 k2 i1 -> o1 i1 k1 k2``: without a kernel, what an SVD is."""

    is_svd_of_matrices = True

    def factors(self, fold: Fold) -> list[tuple[str, ...]]:
        return [(*fold.role("o"), "r"), ("r", *fold.role("k"), *fold.role("i"))]


def test_an_svd_by_another_name_is_tried_for_kernels_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(selection, "AUTO", (SVD(), Product()))
    made = offers_for(Network(), goal=Budget(params=0.5))
    tried = {name: {type(one.format) for one in found} for name, found in made.candidates.items()}
    assert tried == {"body": {SVD, Product}, "head": {SVD}}
    made = offers_for(Network(), Product(), goal=Budget(params=0.5))
    assert {type(one.format) for one in made.candidates["head"]} == {Product}, "there is no other"


def test_a_budget_of_accuracy_is_no_plan():
    with pytest.raises(ValueError, match=r"asks for a loss of accuracy, which a plan cannot know; models have to be made .*tenfold.search"):
        tenfold.plan(Network(), budget="accuracy_drop=0.5", inputs=X)
