"""Settings of the rank methods that are refused, with what was given, what is needed and what to do."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tenfold.bayes import DLRT, GlobalBudget, GroupLasso, HardConcrete, L1Bonds, Rounding, Stability, attach
from tenfold.formats import SVD
from tenfold.nn import Linear

MOMENT = (
    "the moment has shape (8,), or values that are not finite, or negative on its diagonal; the weight has 8 inputs and needs (8,) or "
    "(8, 8): give the mean of x x', or of x^2, over the layer's inputs"
)
CASES: dict[str, tuple[Callable[[Linear], Any], type[Exception], str]] = {
    "warm-up, number": (
        lambda layer: attach(layer, n_examples=10, warmup=5),  # pyright: ignore
        TypeError,
        "the warm-up is 5; it is (start, end) in steps, or a Warmup: give one like (500, 3000)",
    ),
    "warm-up, one number": (
        lambda layer: L1Bonds(layer, warmup=(5,)),  # pyright: ignore
        TypeError,
        "the warm-up is (5,); it is (start, end) in steps, or a Warmup: give one like (500, 3000)",
    ),
    "warm-up, text": (
        lambda layer: L1Bonds(layer, warmup=("a", 5)),  # pyright: ignore
        TypeError,
        "Warmup got start='a', a str; it needs a number: give one like 500",
    ),
    "warm-up, infinite": (
        lambda layer: attach(layer, n_examples=10, warmup=(0, math.inf)),  # pyright: ignore
        ValueError,
        "Warmup got start=0, end=inf; it needs 0 <= start <= end < inf, in steps: give one like (500, 3000)",
    ),
    "temperature": (
        lambda layer: attach(layer, n_examples=10, temperature=torch.tensor([1.0, 2.0])),  # pyright: ignore
        TypeError,
        "attach got temperature=tensor([1., 2.]), a Tensor; it needs a number: give one like 1",
    ),
    "tolerance of rounding": (
        lambda layer: Rounding("a"),  # pyright: ignore
        TypeError,
        "Rounding got tolerance='a', a str; it needs a number: give one like 0.01",
    ),
    "spreads": (
        lambda layer: Rounding(n_spreads=None),  # pyright: ignore
        TypeError,
        "Rounding got n_spreads=None, a NoneType; it needs a number: give one like 2",
    ),
    "target": (
        lambda layer: HardConcrete(layer, target="x"),  # pyright: ignore
        TypeError,
        "HardConcrete got target='x', a str; it needs a number: give one like 0.25",
    ),
    "tolerance of DLRT": (
        lambda layer: DLRT(layer, rate=0.1, tolerance=None),  # pyright: ignore
        TypeError,
        "DLRT got tolerance=None, a NoneType; it needs a number: give one like 0.01",
    ),
    "largest rank": (
        lambda layer: DLRT(layer, rate=0.1, max_rank="8"),  # pyright: ignore
        TypeError,
        "DLRT got max_rank='8', a str; it needs a number: give one like 64",
    ),
    "cut": (
        lambda layer: L1Bonds(layer, cut=1.0),
        ValueError,
        "L1Bonds got cut=1.0; it is a part of the largest scale, above 0 and below 1: give one like 0.01",
    ),
    "interval": (
        lambda layer: GlobalBudget(layer, slices=2, schedule=(0, 5), interval=0.5),  # pyright: ignore
        ValueError,
        "GlobalBudget got interval=0.5; it needs a whole number: give one like 10",
    ),
    "loss": (
        lambda layer: attach(layer, n_examples=10).loss(1.0),  # pyright: ignore
        TypeError,
        "the loss is 1.0, a float; a tensor with a gradient is needed: give what backward() starts from",
    ),
    "samples": (
        lambda layer: attach(layer, n_examples=10).predictions(lambda: layer.weight, samples=2.5),  # pyright: ignore
        ValueError,
        "predictions got samples=2.5; it needs a whole number: give one like 8",
    ),
    "seed of a posterior": (
        lambda layer: attach(layer, n_examples=10, seed="a"),  # pyright: ignore
        TypeError,
        "attach got seed='a', a str; it needs a number: give one like 0",
    ),
    "seed of gates": (
        lambda layer: HardConcrete(layer, target=0.5, seed=1.5),  # pyright: ignore
        ValueError,
        "HardConcrete got seed=1.5; it needs a whole number: give one like 0",
    ),
    "part of a rank": (
        lambda layer: DLRT(layer, rate=0.1, max_rank=2.5),  # pyright: ignore
        ValueError,
        "DLRT got max_rank=2.5; it needs a whole number: give one like 64",
    ),
    "part of a slice": (
        lambda layer: GlobalBudget(layer, slices=1.5, schedule=(0, 5)),  # pyright: ignore
        ValueError,
        "GlobalBudget got slices=1.5; it needs a whole number: give one like 64",
    ),
    "schedule": (
        lambda layer: GlobalBudget(layer, slices=2, schedule=5),  # pyright: ignore
        TypeError,
        "GlobalBudget got schedule=5; it is (first, last) in steps: give one like (500, 3000)",
    ),
    "schedule, text": (
        lambda layer: GlobalBudget(layer, slices=2, schedule=(0, "a")),  # pyright: ignore
        TypeError,
        "GlobalBudget got the last step of the schedule='a', a str; it needs a number: give one like 500",
    ),
    "orthogonality": (
        lambda layer: GlobalBudget(layer, slices=2, schedule=(0, 5), orthogonality=math.nan),
        ValueError,
        "GlobalBudget got orthogonality=nan; it is the weight of a penalty, 0 or a finite number above it: give one like 0.1",
    ),
    "evaluations": (
        lambda layer: Stability(attach(layer, n_examples=10), evaluations="a"),  # pyright: ignore
        TypeError,
        "Stability got evaluations='a', a str; it needs a number: give one like 3",
    ),
    "loss of each example": (
        lambda layer: attach(layer, n_examples=10).loss(torch.ones(4)),
        ValueError,
        "the loss has shape (4,); one number is needed, the mean over all examples: give loss.mean()",
    ),
    "rule": (
        lambda layer: attach(layer, n_examples=10).shrink(0.01),  # pyright: ignore
        TypeError,
        "the rule of the decision is 0.01, a float; a Rounding or a Selection is needed: give one like Rounding(0.01)",
    ),
    "moment": (
        lambda layer: attach(layer, n_examples=10).decide(Rounding(moments={"model": -torch.ones(8)})),
        ValueError,
        MOMENT,
    ),
    "counts": (
        lambda layer: attach(layer, n_examples=10).decide(Rounding(moments={"model": {"i1": torch.full((8,), math.nan)}})),
        ValueError,
        "the counts of a mode are negative or not finite; numbers from 0 on are needed: count ids, see IdFrequencies",
    ),
    "optimiser": (
        lambda layer: attach(layer, n_examples=10).watch("adam"),  # pyright: ignore
        TypeError,
        "a str was given to be watched; a torch.optim.Optimizer is needed: give the one that trains the factors, whatever schedules its rates",
    ),
    "no layer": (
        lambda layer: attach(layer, [], n_examples=10),
        ValueError,
        "no layer was named; the factorised ones are model: name some, or leave layers out to mean all",
    ),
    "another layer": (
        lambda layer: attach(layer, n_examples=10).moments("encoder"),
        ValueError,
        "there is no layer 'encoder'; the method has model: give the name of one of these",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_messages(name: str) -> None:
    make, error, text = CASES[name]
    with pytest.raises(error) as caught:
        make(Linear(8, 8, format=SVD(rank=4)))
    assert str(caught.value) == text


def test_group_lasso_needs_the_optimiser_of_its_factors() -> None:
    layer = Linear(8, 8, format=SVD(rank=4))
    method = GroupLasso(layer, n_examples=10)
    method.watch(torch.optim.SGD([layer.bias], lr=0.1))  # pyright: ignore
    text = (
        r"GroupLasso has no optimiser of its factors; it needs one, whose learning rate is the size of its step: call watch\(optimizer\) "
        "first, with the optimiser that trains the factorised layers"
    )
    with pytest.raises(RuntimeError, match=text):
        method.step()
    method.watch(torch.optim.SGD(layer.factorized.parameters(), lr=0.1))
    method.step()
