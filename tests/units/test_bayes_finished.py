"""Rank methods after finish(): the model is a plain one, and the method does not touch it any more."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tenfold.bayes import DLRT, GlobalBudget, GroupLasso, HardConcrete, L1Bonds, Posterior, attach
from tenfold.formats import SVD
from tenfold.nn import Linear

METHODS: dict[str, Callable[[Linear], Any]] = {
    "posterior": lambda layer: attach(layer, n_examples=10),
    "l1": lambda layer: L1Bonds(layer),
    "lasso": lambda layer: GroupLasso(layer, n_examples=10),
    "gates": lambda layer: HardConcrete(layer, target=0.5),
    "budget": lambda layer: GlobalBudget(layer, slices=2, schedule=(0, 5)),
    "dlrt": lambda layer: DLRT(layer, rate=0.1),
}
TEXT = (
    r"the rank method is finished, and its model a plain one again; steps, decisions and draws come before finish\(\): attach a method anew"
)


def finished(name: str) -> tuple[Linear, Any, Tensor]:
    """A layer whose scales are not 1 when its method is finished, the method, and the weight."""
    torch.manual_seed(0)
    layer = Linear(8, 8, format=SVD(rank=4))
    method = METHODS[name](layer)
    with torch.no_grad():
        for key, one in layer.named_parameters():
            if "scales" in key:
                one.mul_(torch.tensor([0.5, 2.0, 3.0, 4.0]))
    method.finish()
    return layer, method, layer.weight.detach().clone()


@pytest.mark.parametrize("name", METHODS)
def test_the_weight_stays_what_it_is(name: str) -> None:
    layer, method, weight = finished(name)
    state = method.state_dict()
    method.finish()
    method.report()
    calls = [method.step, lambda: method.loss(torch.ones(())), method.decide, lambda: method.shrink(force=True)]
    calls += [lambda: method.load_state_dict(state)]
    if name == "dlrt":
        calls[0] = lambda: method.step(lambda: layer.weight.sum())
    for call in calls:
        with pytest.raises(RuntimeError, match=TEXT):
            call()
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=0, atol=0)


def test_nothing_is_known_of_it_any_more() -> None:
    layer, method, _ = finished("posterior")
    assert isinstance(method, Posterior)
    calls: list[Callable[[], Any]] = [method.kl, lambda: method.moments("model"), lambda: method.predictions(lambda: layer.weight, 2)]
    for call in calls:
        with pytest.raises(RuntimeError, match=TEXT):
            call()


@pytest.mark.parametrize("name", METHODS)
def test_a_later_method_stays_where_an_earlier_one_is_finished_again(name: str) -> None:
    layer, method, _ = finished(name)
    later = attach(layer, n_examples=10)
    held = layer.factorized.factors
    method.finish()
    assert layer.factorized.factors is held
    later.finish()
