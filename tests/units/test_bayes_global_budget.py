"""The global budget where gradients are missing or not finite."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tenfold.bayes import GlobalBudget
from tenfold.formats import SVD
from tenfold.nn import Linear


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Linear(8, 8, format=SVD(rank=4)), Linear(8, 8, format=SVD(rank=4)))


def trained(model: nn.Module, method: GlobalBudget, overflow: int | None = None) -> GlobalBudget:
    """The method after 30 steps; at one of them all gradients are infinite, and the optimiser's step is skipped."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.randn(32, 8), torch.randn(32, 8)
    for step in range(30):
        method.step()
        optimizer.zero_grad()
        method.loss(F.mse_loss(model(x), y)).backward()
        if step == overflow:
            for p in model.parameters():
                p.grad = torch.full_like(p, float("inf"))
        else:
            optimizer.step()
    return method


def test_a_step_whose_gradients_are_infinite_counts_for_nothing() -> None:
    """A gradient scaler skips such a step."""
    model = network()
    method = trained(model, GlobalBudget(model, slices=4, schedule=(10, 20), interval=1), overflow=3)
    assert all(bool(score.isfinite().all()) for name in "01" for score in method.importance(name).values())
    model = network()
    clean = trained(model, GlobalBudget(model, slices=4, schedule=(10, 20), interval=1))
    assert [method.marks(name)["r"].tolist() for name in "01"] == [clean.marks(name)["r"].tolist() for name in "01"]


def test_ranks_whose_first_factor_is_frozen_keep_their_slices() -> None:
    """They cannot be scored; the others share the places."""
    model = network()
    model[0].factorized.factors[0].requires_grad_(False)  # pyright: ignore
    method = trained(model, GlobalBudget(model, slices=3, schedule=(0, 20), interval=1))
    assert method.marks("0")["r"].all() and method.scales("0")["r"].tolist() == [1.0] * 4
    assert method.marks("1")["r"].sum() == 3
    method.finish()
    with pytest.raises(ValueError, match=r"GlobalBudget got slices=5 and .*; it needs 1 to 4 slices"):
        GlobalBudget(model, slices=5, schedule=(0, 20))


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_resumed_run_has_the_gradients_of_the_step_before(stop: int) -> None:
    """No state of a model or an optimiser holds gradients, and `step` reads them; a decision is taken before the seventh step."""
    x, y = torch.randn(32, 8, generator=torch.Generator().manual_seed(1)), torch.ones(32, 8)

    def attached() -> tuple[nn.Sequential, GlobalBudget, torch.optim.Optimizer]:
        model = network()
        method = GlobalBudget(model, slices=3, schedule=(2, 9), interval=1)
        return model, method, torch.optim.SGD(model.parameters(), lr=0.1)

    def run(model: nn.Module, method: GlobalBudget, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
        method.watch(optimizer)
        losses = []
        for step in steps:
            if step == 6:
                method.shrink(force=True)
            method.step()
            optimizer.zero_grad()
            loss = method.loss(F.mse_loss(model(x), y))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    whole, killed, again = attached(), attached(), attached()
    losses = run(*whole, range(12))
    run(*killed, range(stop))
    again[1].load_state_dict(copy.deepcopy(killed[1].state_dict()))
    again[0].load_state_dict(killed[0].state_dict())
    resumed = torch.optim.SGD(again[0].parameters(), lr=0.1)
    assert run(again[0], again[1], resumed, range(stop, 12)) == losses[stop:]
    for name in "01":
        torch.testing.assert_close(again[1].importance(name), whole[1].importance(name), rtol=0, atol=0)


def test_a_state_stays_what_it_was_when_training_goes_on() -> None:
    """One that is held, as that of the best step so far, is one to go back to."""
    model = network()
    method = trained(model, GlobalBudget(model, slices=4, schedule=(10, 20), interval=1))
    state = method.state_dict()
    before = copy.deepcopy(state)
    trained(model, method)
    for key in ("means", "spreads", "places", "sensitivities"):
        torch.testing.assert_close(state[key], before[key], rtol=0, atol=0)
