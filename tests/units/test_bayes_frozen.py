"""Layers and factors that are frozen: no rank method changes them."""

from typing import Any

import pytest
import torch
from torch import nn

from tenfold.bayes import DLRT, GlobalBudget, GroupLasso, HardConcrete, L1Bonds, Rounding, attach
from tenfold.formats import SVD
from tenfold.nn import Linear

METHODS: dict[str, Any] = {
    "variational": lambda model, layers=None: attach(model, layers, n_examples=64),
    "map": lambda model, layers=None: attach(model, layers, n_examples=64, kind="map"),
    "lasso": lambda model, layers=None: GroupLasso(model, layers, n_examples=64, strength=30.0),
    "l1": lambda model, layers=None: L1Bonds(model, layers),
    "gates": lambda model, layers=None: HardConcrete(model, layers, target=0.3),
    "budget": lambda model, layers=None: GlobalBudget(model, layers, slices=2, schedule=(1, 3)),
    "dlrt": lambda model, layers=None: DLRT(model, layers, rate=0.1),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Linear(12, 12, format=SVD(rank=4)), Linear(12, 12, format=SVD(rank=4)))


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_layer_stays_what_it_is(name: str) -> None:
    model, x = network(), torch.randn(8, 12)
    model[0].requires_grad_(False)
    weight, keys = model[0].weight.clone(), list(model[0].state_dict())  # pyright: ignore
    method = METHODS[name](model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if name != "dlrt" or p.dim() == 1], lr=0.1)
    method.watch(optimizer)

    def closure() -> torch.Tensor:
        model.zero_grad()
        loss = method.loss(model(x).square().mean())
        loss.backward()
        return loss

    for _ in range(4):
        method.step(closure)
        closure()
        optimizer.step()
    assert list(method.shrink(Rounding(0.5, n_spreads=0), force=True).ranks) == ["1"]
    method.finish()
    assert torch.equal(model[0].weight, weight) and list(model[0].state_dict()) == keys  # pyright: ignore


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_layer_that_is_named_is_refused(name: str) -> None:
    model = network()
    model[0].requires_grad_(False)
    text = (
        "the layers 0 are frozen: no factor requires a gradient; a rank method changes the factors of its layers: leave these out, or "
        r"call requires_grad_\(True\) on them"
    )
    with pytest.raises(ValueError, match=text):
        METHODS[name](model, ["0", "1"])
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="the layers 0, 1 are frozen"):
        METHODS[name](model)


def test_what_is_added_to_a_frozen_factor_is_frozen() -> None:
    layer = network()[0]
    layer.factorized.factors[0].requires_grad_(False)
    for name, added in (("variational", ["log_variances.0"]), ("l1", ["scales.r"])):
        method = METHODS[name](layer)
        assert [key for key, p in layer.factorized.factors.named_parameters() if not p.requires_grad] == ["0", *added]
        method.finish()


def test_group_lasso_leaves_a_frozen_factor_and_shrinks_the_other() -> None:
    """The norms are those of the trained factor: its slices become exactly zero however large the frozen one is."""
    layer = network()[0]
    first, second = layer.factorized.factors
    first.requires_grad_(False).mul_(100)
    before = first.clone()
    method = GroupLasso(layer, n_examples=1, strength=1e6)
    method.watch(torch.optim.SGD(layer.parameters(), lr=0.1))
    method.step()
    assert torch.equal(first, before) and not second.any() and not method.marks("model")["r"].any()


@pytest.mark.parametrize("number", [0, 1])
def test_dlrt_refuses_a_frozen_factor(number: int) -> None:
    """It trained nothing where the first one was frozen, and the second one all the same."""
    model = network()
    model[1].factorized.factors[number].requires_grad_(False)  # pyright: ignore
    text = (
        f"DLRT got layer '1' whose factor {number} is frozen; it trains both factors together, and makes both anew in every step: call "
        r"requires_grad_\(True\) on it, leave the layer out, or use another method"
    )
    with pytest.raises(ValueError, match=text):
        DLRT(model, rate=0.1)
    assert list(DLRT(model, "0", rate=0.1).run.weights) == ["0"]


def test_frozen_gates_have_no_noise_and_count_as_open() -> None:
    """No optimiser can close them: noise would only drop slices at random, and the size would be told too low."""
    model, x = network(), torch.randn(8, 12)
    model[0].factorized.factors[0].requires_grad_(False)  # pyright: ignore
    weight = model[0].weight.detach().clone()  # pyright: ignore
    method = HardConcrete(model, target=0.3)
    for _ in range(2):
        method.step()
        torch.testing.assert_close(model[0](x), x @ weight.T + model[0].bias)
    assert method.factors["1"].scale("r", False).std() > 0  # the gates that are trained are random
    trained = HardConcrete(network(), target=0.3)
    assert float(method.expected_size().detach()) > float(trained.expected_size().detach())
