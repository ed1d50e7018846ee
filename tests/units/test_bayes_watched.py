"""The optimisers that a rank method watches: highest rates over a restart, and several of them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from tenfold.bayes import GlobalBudget, GroupLasso, HardConcrete, L1Bonds, Rounding, attach
from tenfold.formats import CP, TTM
from tenfold.nn import Linear

PEAK, DECAYED = 0.01, 4e-4


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Linear(12, 12, format=TTM(rank=4)), nn.Tanh(), Linear(12, 4, format=CP(rank=4)))


def steps(model: nn.Module, method: Any, *optimizers: torch.optim.Optimizer, n: int = 3) -> None:
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(64, 12, generator=generator), torch.randint(0, 4, (64,), generator=generator)
    for _ in range(n):
        method.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        method.loss(F.cross_entropy(model(x), y)).backward()
        for optimizer in optimizers:
            optimizer.step()


def set_rate(rate: float, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


@pytest.mark.parametrize("is_watched_before", [False, True])
def test_a_training_that_goes_on_after_the_decay_may_decide(is_watched_before: bool) -> None:
    """The documented order: the method's state, the model's, a new optimiser and its state, watch, shrink."""
    model = network()
    posterior, optimizer = attach(model, n_examples=64), torch.optim.Adam(model.parameters(), lr=PEAK)
    posterior.watch(optimizer)
    steps(model, posterior, optimizer)
    set_rate(DECAYED, optimizer)
    steps(model, posterior, optimizer)
    saved = copy.deepcopy((posterior.state_dict(), model.state_dict(), optimizer.state_dict()))
    assert saved[0]["run"]["peaks"] == [PEAK]

    model = network()
    posterior = attach(model, n_examples=64)
    if is_watched_before:
        posterior.watch(torch.optim.Adam(model.parameters(), lr=DECAYED))
    posterior.load_state_dict(saved[0])
    model.load_state_dict(saved[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=DECAYED)
    optimizer.load_state_dict(saved[2])
    assert posterior.state_dict()["run"]["peaks"] == [PEAK]
    posterior.watch(optimizer)
    assert posterior.state_dict()["run"]["peaks"] == [PEAK]
    steps(model, posterior, optimizer, n=1)
    assert posterior.shrink(Rounding(0.3, n_spreads=0)).layers


def test_saved_rates_are_for_as_many_groups_and_until_the_next_step() -> None:
    model = network()
    posterior, optimizer = attach(model, n_examples=64), torch.optim.Adam(model.parameters(), lr=PEAK)
    posterior.watch(optimizer)
    steps(model, posterior, optimizer, n=1)
    saved = copy.deepcopy(posterior.state_dict())
    parts = [{"params": list(one.parameters())} for one in (model[0], model[2])]
    posterior.load_state_dict(saved)
    posterior.watch(torch.optim.Adam(parts, lr=DECAYED))
    assert posterior.run.watched.state() == [DECAYED, DECAYED], "the state knows one group"
    later = torch.optim.Adam(model.parameters(), lr=DECAYED)
    posterior.step()
    posterior.watch(later)
    assert posterior.run.watched.state() == [DECAYED], "another phase of the training has its own peak"
    later.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "lr": 0.5})
    posterior.step()
    assert posterior.run.watched.state() == [DECAYED, 0.5]


METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "map": lambda model: attach(model, n_examples=64, kind="map"),
    "variational": lambda model: attach(model, n_examples=64),
    "lasso": lambda model: GroupLasso(model, n_examples=64, strength=30.0),
}


@pytest.mark.parametrize("name", METHODS)
def test_several_optimisers_go_on_after_a_decision(name: str) -> None:
    model = network()
    method = METHODS[name](model)
    first, second = (torch.optim.Adam(model[n].parameters(), lr=PEAK) for n in (0, 2))
    method.watch(first)
    method.watch(second)
    steps(model, method, first, second)
    set_rate(DECAYED, first)
    with pytest.raises(RuntimeError, match=r"the learning rate is 0.01, 100% of its peak 0.01; ranks are decided at 5% or less"):
        method.shrink()
    set_rate(DECAYED, second)
    decision = method.shrink(Rounding(0.3, n_spreads=0))
    assert all(one.after != one.before for one in decision.layers)
    for optimizer, layer in ((first, model[0]), (second, model[2])):
        assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in layer.parameters()}
    before = [p.detach().clone() for p in model.parameters()]
    steps(model, method, first, second, n=1)
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_an_optimiser_takes_the_place_of_one_with_the_same_parameters() -> None:
    model = network()
    posterior = attach(model, n_examples=64)
    first, second, both = (torch.optim.SGD(one.parameters(), lr=0.1) for one in (model[0], model[2], model))
    for optimizer in (first, second, both):
        posterior.watch(optimizer)
    assert posterior.run.watched.optimizers == (both,)
    set_rate(0.001, both)
    assert posterior.shrink(Rounding(0.3, n_spreads=0)).layers, "those that are no more used do not count"


ADDING: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "variational": (METHODS["variational"], "log_variances.0, log_variances.1"),
    "gates": (lambda model: HardConcrete(model, target=0.5), "scales.r1"),
    "l1": (lambda model: L1Bonds(model), "scales.r1"),
    "budget": (lambda model: GlobalBudget(model, slices=4, schedule=(1, 3)), "scales.r1"),
}


@pytest.mark.parametrize("name", ADDING)
def test_an_optimiser_that_was_made_before_attaching_is_refused(name: str) -> None:
    make, added = ADDING[name]
    model = network()
    early = torch.optim.Adam(model.parameters(), lr=PEAK)
    method = make(model)
    text = (
        f"the optimiser trains factors of layer '0' but not {added}, which the rank method has added; it finds no ranks without these: "
        "make the optimiser from the model's parameters after the method is attached"
    )
    with pytest.raises(ValueError) as caught:
        method.watch(early)
    assert str(caught.value) == text
    assert not method.run.watched.optimizers
    method.watch(torch.optim.Adam(model.parameters(), lr=PEAK))


def test_what_a_method_has_added_may_be_frozen_or_have_an_optimiser_of_its_own() -> None:
    model = network()
    factors = list(model.parameters())
    posterior = attach(model, n_examples=64)
    logs = [p for name, p in model.named_parameters() if "log_variances" in name]
    posterior.watch(torch.optim.Adam(logs, lr=PEAK))
    posterior.watch(torch.optim.Adam(factors, lr=PEAK))
    other = network()
    factors = list(other.parameters())
    posterior = attach(other, n_examples=64)
    for name, p in other.named_parameters():
        p.requires_grad_("log_variances" not in name)
    posterior.watch(torch.optim.Adam(factors, lr=PEAK))
    attach(network(), n_examples=64, kind="map").watch(torch.optim.Adam(nn.Linear(2, 2).parameters(), lr=PEAK))


def test_an_optimiser_with_lists_of_its_own_is_refused() -> None:
    """Its lists would keep the parameters that a decision replaces."""
    model = network()
    method = L1Bonds(model)
    text = (
        "the optimiser that trains layer '0' is a LBFGS, which keeps a list of parameters beside its groups; a decision replaces "
        "parameters in groups alone, and the new ones would not be trained: watch an optimiser such as Adam, or watch none and make this "
        "one anew after every shrink()"
    )
    with pytest.raises(ValueError) as caught:
        method.watch(torch.optim.LBFGS(model.parameters()))
    assert str(caught.value) == text
    method.watch(torch.optim.LBFGS(nn.Linear(2, 2).parameters()))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="the optimiser that trains layer '0' is a ZeroRedundancyOptimizer"):
            method.watch(ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=PEAK))
    finally:
        dist.destroy_process_group()
