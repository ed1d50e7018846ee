"""Layers that were removed: they stay zero however the training goes on."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tenfold.bayes import GlobalBudget, GroupLasso, HardConcrete, L1Bonds, Rounding, attach
from tenfold.formats import SVD
from tenfold.nn import Linear

METHODS: dict[str, Any] = {
    "variational": lambda model: attach(model, n_examples=100),
    "map": lambda model: attach(model, n_examples=100, kind="map"),
    "l1": lambda model: L1Bonds(model),
    "lasso": lambda model: GroupLasso(model, n_examples=100),
    "gates": lambda model: HardConcrete(model, target=0.5),
    "budget": lambda model: GlobalBudget(model, slices=1, schedule=(1, 5)),
}


def network(rank: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Linear(8, 8, format=SVD(rank=rank)), nn.Linear(8, 4))


def steps(model: nn.Module, method: Any, optimizer: torch.optim.Optimizer, n: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(32, 8, generator=generator), torch.randn(32, 4, generator=generator)
    for _ in range(n):
        method.step()
        loss = method.loss(F.mse_loss(model(x), y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def removed(name: str, rank: int = 3, kind: str = "Adam") -> tuple[nn.Sequential, Any, torch.optim.Optimizer]:
    """A network, a method that has removed its first layer after ten steps, and the optimiser, which has momentum."""
    model = network(rank)
    method = METHODS[name](model)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.01, **({"momentum": 0.9} if kind == "SGD" else {}))
    method.watch(optimizer)
    steps(model, method, optimizer, 10)
    with torch.no_grad():
        getattr(model[0].factorized.factors, "0").mul_(1e-7)  # pyright: ignore
    with pytest.warns(UserWarning, match="all ranks of 0 were removed"):
        assert method.shrink(Rounding(0.01, n_spreads=0), force=True).removed == ("0",)
    return model, method, optimizer


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("kind", ["Adam", "SGD"])
@pytest.mark.parametrize("name", METHODS)
def test_training_on_leaves_it_zero(name: str, kind: str, rank: int) -> None:
    model, method, optimizer = removed(name, rank, kind)
    steps(model, method, optimizer, 5)
    assert not any(one.any() for one in method._values("0"))
    method.finish()
    assert not model[0].weight.any()  # pyright: ignore


@pytest.mark.parametrize("name", METHODS)
def test_an_earlier_state_trains_it_again(name: str) -> None:
    fresh = network(3)
    early, trained = METHODS[name](fresh).state_dict(), [p.requires_grad for p in fresh.parameters()]
    model, method, _ = removed(name)
    late = copy.deepcopy(method.state_dict())
    assert not any(p.requires_grad for p in model[0].factorized.parameters())  # pyright: ignore
    method.load_state_dict(early)
    assert [p.requires_grad for p in model.parameters()] == trained and all(trained)
    method.load_state_dict(late)
    assert not any(p.requires_grad for p in model[0].factorized.parameters())  # pyright: ignore


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_resuming_is_exact(name: str, rank: int) -> None:
    model, method, optimizer = removed(name, rank)
    other = network(rank)
    resumed = METHODS[name](other)
    resumed.load_state_dict(copy.deepcopy(method.state_dict()))
    other.load_state_dict(model.state_dict())
    after = torch.optim.Adam(other.parameters(), lr=0.01)
    after.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.watch(after)
    x = torch.randn(4, 8)
    assert torch.equal(other(x), model(x))
    steps(model, method, optimizer, 3)
    steps(other, resumed, after, 3)
    assert torch.equal(other(x), model(x))


def test_its_weight_is_known_to_be_zero() -> None:
    _, posterior, _ = removed("variational")
    assert not any(one.any() for one in posterior.moments("0"))
