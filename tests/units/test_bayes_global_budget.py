"""The global budget where gradients are missing or not finite."""

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
