"""State of optimisers through a decision: every optimiser of torch goes on, and what cannot be mapped starts anew."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from tenfold.bayes import Rounding, attach
from tenfold.bayes.posterior import Posterior
from tenfold.formats import TTM
from tenfold.nn import Linear

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "adam": ("Adam", {"lr": 1e-2, "amsgrad": True}),
    "nadam": ("NAdam", {"lr": 1e-2}),
    "radam": ("RAdam", {"lr": 1e-2}),
    "adamax": ("Adamax", {"lr": 1e-2}),
    "adagrad": ("Adagrad", {"lr": 5e-2}),
    "adadelta": ("Adadelta", {}),
    "adafactor": ("Adafactor", {"lr": 1e-2}),
    "rmsprop": ("RMSprop", {"lr": 1e-3, "momentum": 0.5}),
    "rmsprop, centred": ("RMSprop", {"lr": 1e-3, "centered": True}),
    "rprop": ("Rprop", {"lr": 1e-3}),
    "asgd": ("ASGD", {"lr": 1e-3}),
}


def regression() -> tuple[Linear, Tensor, Tensor]:
    """A map of rank 2 and a layer of rank 6 that learns it."""
    torch.manual_seed(0)
    modes = {"in_modes": (4, 4), "out_modes": (4, 4)}
    x, teacher = torch.randn(256, 16), Linear(16, 16, bias=False, format=TTM(rank=2), **modes)
    y = teacher(x).detach()
    return Linear(16, 16, bias=False, format=TTM(rank=6), **modes), x, y / y.std()


def steps(posterior: Posterior, optimizer: torch.optim.Optimizer, layer: Linear, x: Tensor, y: Tensor, n: int) -> list[float]:
    losses = []
    for step in range(n):
        rows = slice(32 * (step % 8), 32 * (step % 8) + 32)
        posterior.step()
        loss = posterior.loss(F.mse_loss(layer(x[rows]), y[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(F.mse_loss(layer(x), y).item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_goes_on(name: str) -> None:
    """Ten steps after a decision that changes the basis, the loss is at most a tenth above that at the decision."""
    kind, options = OPTIMIZERS[name]
    layer, x, y = regression()
    posterior = attach(layer, n_examples=10**6, kind="map")
    optimizer = getattr(torch.optim, kind)(layer.parameters(), **options)
    posterior.watch(optimizer)
    steps(posterior, optimizer, layer, x, y, 60)
    assert posterior.shrink(Rounding(0.3, n_spreads=0), force=True).ranks["model"]["r1"] < 6
    for p in layer.parameters():
        state = optimizer.state.get(p, {})
        for key in ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta", "exp_inf", "step_size"):
            assert key not in state or bool((state[key] >= 0).all()), key
        if "grad_avg" in state:
            assert bool((state["square_avg"] >= state["grad_avg"].square()).all())
        assert all(one.shape == p.shape for one in state.values() if isinstance(one, Tensor) and one.dim())
    before = F.mse_loss(layer(x), y).item()
    assert max(steps(posterior, optimizer, layer, x, y, 10)) < 1.1 * before


def test_bounds_of_gradients_and_step_sizes_stay_what_they_are() -> None:
    layer, x, y = regression()
    posterior = attach(layer, n_examples=10**6, kind="map")
    adamax, rprop = (getattr(torch.optim, one)(layer.parameters(), lr=1e-3) for one in ("Adamax", "Rprop"))
    posterior.run.watched.peaks = {adamax: [1.0], rprop: [1.0]}  # two that hold the same parameters, for the test alone
    F.mse_loss(layer(x), y).backward()
    adamax.step()
    rprop.step()
    old = [(p.grad, adamax.state[p]["exp_inf"].clone(), rprop.state[p]["step_size"].min()) for p in layer.parameters()]
    reduction = posterior.decide(Rounding(0.3, n_spreads=0))["model"]
    posterior.shrink(Rounding(0.3, n_spreads=0), force=True)
    for number, (p, (gradient, _, step)) in enumerate(zip(layer.parameters(), old, strict=True)):
        assert gradient is not None
        assert bool((adamax.state[p]["exp_inf"] >= reduction.gradients(number, gradient.double()).abs() - 1e-7).all())
        assert_close(rprop.state[p]["step_size"], step.expand(p.shape))


def test_state_that_is_not_known_starts_anew() -> None:
    layer, x, y = regression()
    posterior = attach(layer, n_examples=10**6, kind="map")
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    posterior.watch(optimizer)
    steps(posterior, optimizer, layer, x, y, 5)
    first, second = layer.parameters()
    optimizer.state[first]["curvature"] = torch.ones_like(first)
    posterior.shrink(Rounding(0.3, n_spreads=0), force=True)
    first, second = layer.parameters()
    assert first not in optimizer.state and int(optimizer.state[second]["step"]) == 5
    steps(posterior, optimizer, layer, x, y, 1)
    assert int(optimizer.state[first]["step"]) == 1
