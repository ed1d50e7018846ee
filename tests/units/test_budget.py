"""Budgets: fractions kept, from numbers and from text."""

from typing import Any

import pytest

from tenfold import Budget
from tenfold.budget import as_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0.25", Budget(params=0.25)),
        ("flops=0.5", Budget(flops=0.5)),
        (" flops = 0.5 , params= 1e-1", Budget(params=0.1, flops=0.5)),
        ("bytes=1", Budget(bytes=1.0)),
        ("accuracy_drop=0.5", Budget(accuracy_drop=0.5)),
        ("accuracy_drop=0, smallest=params, flops=0.5", Budget(accuracy_drop=0.0, smallest="params", flops=0.5)),
    ],
)
def test_text_is_read(text: str, budget: Budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    "budget", [Budget(flops=0.123456789), Budget(1 / 3, 0.5, 1), Budget(bytes=1e-7), Budget(accuracy_drop=0.3, smallest="bytes")]
)
def test_text_of_a_budget_is_read_back_exactly(budget: Budget):
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["", "half", "speed=0.5", "flops=", "flops=0.5,", "=0.5", "flops=nan", "params=0.5=0.5", "accuracy_drop=little"]
)
def test_text_that_is_no_budget(text: str):
    with pytest.raises(ValueError, match="is no budget; it needs NAME=FRACTION with one of params, flops, bytes: write for instance"):
        Budget.parse(text)


@pytest.mark.parametrize("value", [0, -0.5, 1.01, 50, float("nan"), float("inf"), "0.5", [0.5]])
def test_values_that_are_no_fraction(value: Any):
    with pytest.raises(ValueError, match=r"the budget has flops=.*; it needs a fraction to keep, above 0 and at most 1, e.g. flops=0.5"):
        Budget(flops=value)


def test_an_empty_budget():
    with pytest.raises(ValueError, match="the budget is empty; at least one of params, flops and bytes is needed"):
        Budget()


def test_what_stands_for_a_budget():
    assert as_budget(0.5) == as_budget("0.5") == as_budget({"params": 0.5}) == as_budget(Budget(0.5)) == Budget(params=0.5)
    assert Budget(0.5, flops=0.25).limits == {"params": 0.5, "flops": 0.25}
    with pytest.raises(ValueError, match="the budget has 'flop'; it knows params, flops and bytes, accuracy_drop and smallest: correct"):
        as_budget({"flop": 0.5})


@pytest.mark.parametrize("value", [-0.1, 100, float("nan"), float("inf"), "0.5", True])
def test_losses_of_accuracy_that_are_none(value: Any):
    with pytest.raises(ValueError, match=r"the budget has accuracy_drop=.*; it needs points of top-1 accuracy, at least 0 and below 100"):
        Budget(accuracy_drop=value)


def test_what_is_to_be_smallest():
    with pytest.raises(ValueError, match="the budget has smallest='time'; params, flops, bytes can be made small: give one of them"):
        Budget(accuracy_drop=1, smallest="time")
    with pytest.raises(ValueError, match="the budget has smallest='params' without accuracy_drop; .*: give accuracy_drop= too"):
        Budget(flops=0.5, smallest="params")
    assert Budget(accuracy_drop=1).counts_flops and not Budget(accuracy_drop=1, smallest="params").counts_flops
    assert Budget(accuracy_drop=1, params=0.5).limits == {"params": 0.5}
    assert repr(Budget(accuracy_drop=1)) == "Budget(accuracy_drop=1, smallest='flops')"
