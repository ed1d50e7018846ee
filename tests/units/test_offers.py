"""Offers: computed once, good for any number of budgets, and the same plans as one by one."""

import pytest
import torch
from torch import Tensor, nn

import tenfold
from tenfold import CP, Budget
from tenfold.plan import offers_for
from tenfold.ranks import offers as module


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(12, 24, 3, padding=1), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().mean((2, 3)))


X = torch.randn(16, 12, 8, 8)


@pytest.mark.parametrize("calibration", [None, X], ids=["weights", "outputs"])
def test_many_budgets_need_one_set_of_solutions(calibration: Tensor | None, monkeypatch: pytest.MonkeyPatch):
    model = Network()
    options = {"inputs": X, "calibration": calibration, "latency": "ignored"}
    single = {budget: tenfold.plan(model, budget=budget, **options) for budget in ("flops=0.5", "params=0.4")}
    made = offers_for(model, goal=Budget(flops=0.5), inputs=X, calibration=calibration)
    monkeypatch.setattr(module, "candidates", lambda *_, **__: pytest.fail("solved again"))
    for budget, plan in single.items():
        assert made.plan(Budget.parse(budget)) == plan
    params = [made.plan(Budget(flops=fraction)).flops_after for fraction in (0.8, 0.6, 0.4, 0.2)]
    assert params == sorted(params, reverse=True)  # type: ignore[type-var]


def test_a_plan_of_nothing_says_that_all_is_dense():
    made = offers_for(Network(), CP(), goal=Budget(flops=0.5), inputs=X).plan_of({}, None)
    assert all(one.format is None for one in made.layers) and made.params_after == made.params_before


def test_a_budget_of_accuracy_is_no_plan():
    with pytest.raises(ValueError, match=r"asks for a loss of accuracy, which a plan cannot know; models have to be made .*tenfold.search"):
        tenfold.plan(Network(), budget="accuracy_drop=0.5", inputs=X)
