"""The other methods behind the same interface: L1 on bonds, group lasso, gates, a global budget, dynamical low rank."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from planted_ranks import CASES, train
from torch import nn
from torch.testing import assert_close

from tenfold.bayes import DLRT, GlobalBudget, GroupLasso, HardConcrete, L1Bonds, Rounding, Selection
from tenfold.bayes.global_budget import SMOOTHING
from tenfold.bayes.hard_concrete import gate, open_probability
from tenfold.formats import CP, KCP, SVD, TT, TTM, Tucker
from tenfold.nn import Linear

METHODS: dict[str, Any] = {
    "l1": lambda model: L1Bonds(model),
    "lasso": lambda model: GroupLasso(model, n_examples=64),
    "gates": lambda model: HardConcrete(model, target=0.5),
    "budget": lambda model: GlobalBudget(model, slices=4, schedule=(2, 6)),
}
TTM_CASE = next(one for one in CASES if one.name == "TTM")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("format", [TT(rank=3), CP(rank=4), Tucker(rank=2)])
def test_attaching_changes_nothing_in_eval_and_finish_keeps_what_is_computed(name: str, format: Any) -> None:
    layer = Linear(12, 12, format=format, in_modes=(3, 4), out_modes=(3, 4), dtype=torch.float64)
    x = torch.randn(5, 12, dtype=torch.float64)
    before, keys, count = layer.eval()(x), set(layer.state_dict()), sum(p.numel() for p in layer.parameters())
    method = METHODS[name](layer)
    assert_close(layer(x), before)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
    after = layer(x)
    method.finish()
    assert_close(layer(x), after)
    assert set(layer.state_dict()) == keys and sum(p.numel() for p in layer.parameters()) == count


@pytest.mark.parametrize("name", METHODS)
def test_shrinking_keeps_what_is_computed(name: str) -> None:
    layer = Linear(12, 12, format=TT(rank=(2, 5, 2)), in_modes=(3, 4), out_modes=(3, 4), dtype=torch.float64)
    with torch.no_grad():
        layer.factorized.factors[1][:, :, 2:] = 0
    method = METHODS[name](layer)
    x, before = torch.randn(5, 12, dtype=torch.float64), layer.eval().weight
    method.shrink(Rounding(1e-4))
    assert layer.factorized.network.ranks == {"r1": 2, "r2": 2, "r3": 2}
    assert_close(layer.weight, before, rtol=1e-6, atol=1e-9)
    assert layer.train()(x).shape == (5, 12)


def test_l1_counts_live_scales_alone() -> None:
    layer = Linear(12, 12, format=CP(rank=3), in_modes=(3, 4), out_modes=(3, 4))
    method = L1Bonds(layer, strength=0.5, cut=0.1, warmup=(0, 2))
    method.run.steps = 1
    with torch.no_grad():
        method.factors["model"].scales["r"].copy_(torch.tensor([2.0, -1.0, 0.1]))
    assert method.penalty().item() == pytest.approx(0.5 * 0.5 * 3 / 2)
    method.penalty().backward()
    assert_close(method.factors["model"].scales["r"].grad, torch.tensor([0.125, -0.125, 0.0]))
    assert method.marks("model")["r"].tolist() == [True, True, False]
    assert method.shrink(Selection()).layers[0].after == {"r": 2}


def test_lasso_takes_the_proximal_step() -> None:
    """For one rank: slices shrink by rate x strength / N x sqrt(D), and those below it become exactly zero."""
    layer = Linear(6, 4, bias=False, format=SVD(rank=2), dtype=torch.float64)
    method = GroupLasso(layer, n_examples=10, strength=2.0)
    with pytest.raises(RuntimeError, match=r"GroupLasso has no optimiser of its factors; it needs one, .* call watch\(optimizer\) first"):
        method.step()
    with torch.no_grad():
        layer.factorized.factors[0][:, 1] *= 1e-4
        layer.factorized.factors[1][1] *= 1e-4
    before = method.spectra()["model"]["r"]
    method.watch(torch.optim.SGD(layer.parameters(), lr=0.1))
    method.step()
    threshold = 0.1 * 2.0 / 10 * math.sqrt(10)
    assert_close(method.spectra()["model"]["r"], torch.stack([before[0] - threshold, torch.zeros_like(before[1])]))
    assert method.marks("model")["r"].tolist() == [True, False]
    assert method.shrink(Selection(), force=True).layers[0].after == {"r": 1}


def test_gates_and_their_probability() -> None:
    """20,000 draws: the part of gates that are not zero within 0.02."""
    parameter = torch.tensor([-1.0, 0.0, 2.0])
    draws = gate(parameter, torch.rand(20_000, 1).clamp(1e-6, 1 - 1e-6).logit())
    assert_close((draws > 0).double().mean(0), open_probability(parameter).double(), rtol=0, atol=0.02)
    assert draws.min() == 0 and draws.max() == 1


def test_expected_size_is_that_of_the_open_gates() -> None:
    layer = Linear(12, 12, format=TTM(rank=4), in_modes=(3, 4), out_modes=(3, 4))
    method = HardConcrete(layer, target=0.5)
    with torch.no_grad():
        method.factors["model"].scales["r1"].copy_(torch.tensor([50.0, 50.0, 50.0, -50.0]))
    assert method.expected_size().item() == pytest.approx(
        layer.factorized.network.resized({"r1": 3}).numel / layer.factorized.network.numel
    )
    method.run.steps = 10
    method._update()
    assert method.multipliers[0] == pytest.approx(0.05 * 0.25) and method.multipliers[1] == pytest.approx(0.05 * 0.0625)


def test_gates_reach_their_target() -> None:
    """4 of 10 slices are asked for, of a map that has 3; what is left computes it."""
    torch.manual_seed(2)
    layer = Linear(16, 16, format=TTM(rank=10), in_modes=(4, 4), out_modes=(4, 4))
    method = HardConcrete(layer, target=0.4, rate=0.01, warmup=(50, 300))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    x = torch.randn(256, 16)
    y = Linear(16, 16, bias=False, format=TTM(rank=3), in_modes=(4, 4), out_modes=(4, 4))(x).detach()
    y = y / y.std()
    for _ in range(900):
        method.step()
        optimizer.zero_grad()
        method.loss(F.mse_loss(layer(x), y)).backward()
        optimizer.step()
    assert 0.3 <= method.shrink(Selection()).layers[0].numel_after / 320 <= 0.5
    method.finish()
    assert F.mse_loss(layer(x), y).item() < 0.1


def test_budget_falls_by_a_cubic_law() -> None:
    method = GlobalBudget(Linear(12, 12, format=TTM(rank=9), in_modes=(3, 4), out_modes=(3, 4)), slices=1, schedule=(10, 20))
    numbers = []
    for step in (0, 10, 15, 20, 30):
        method.run.steps = step
        numbers.append(method.budget())
    assert numbers == [9, 9, 2, 1, 1]


def test_budget_goes_to_the_layers_that_matter() -> None:
    """One layer feeds the output, the other does not."""
    model = nn.ModuleList([Linear(12, 12, format=TTM(rank=4), in_modes=(3, 4), out_modes=(3, 4)) for _ in range(2)])
    method = GlobalBudget(model, slices=4, schedule=(3, 12), interval=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(64, 12), torch.randn(64, 12)
    for _ in range(15):
        method.step()
        optimizer.zero_grad()
        (F.mse_loss(model[0](x), y) + 1e-4 * F.mse_loss(model[1](x), y)).backward()
        optimizer.step()
    assert method.marks("0")["r1"].sum() == 4 and method.marks("1")["r1"].sum() == 0
    with pytest.warns(UserWarning, match="all ranks of 1 were removed"):
        assert method.shrink(Selection()).removed == ("1",)


@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("to_none", [True, False])
def test_budget_needs_gradients_of_the_last_step(first: int, to_none: bool) -> None:
    """optimizer.zero_grad() in front of step() leaves it none."""
    layer = Linear(6, 4, format=SVD(rank=4))
    method = GlobalBudget(layer, slices=1, schedule=(first, 20), interval=1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)

    def step(is_zeroed_before: bool) -> None:
        if is_zeroed_before:
            optimizer.zero_grad(set_to_none=to_none)
        method.step()
        optimizer.zero_grad(set_to_none=to_none)
        layer(torch.randn(3, 6)).square().sum().backward()
        optimizer.step()

    for _ in range(max(2, first) - 1):
        step(True)
    text = (
        f"GlobalBudget has found no gradient in {max(2, first)} steps; step\\(\\) reads those of the last backward pass: call it before "
        r"optimizer.zero_grad\(\), and not after it"
    )
    with pytest.raises(RuntimeError, match=text):
        step(True)
    layer(torch.randn(3, 6)).square().sum().backward()
    step(False)
    method.shrink(Selection())
    step(True)


def test_importance_is_smoothed_value_times_gradient() -> None:
    layer = Linear(6, 4, bias=False, format=SVD(rank=2), dtype=torch.float64)
    method = GlobalBudget(layer, slices=1, schedule=(10, 20))
    layer(torch.randn(3, 6, dtype=torch.float64)).square().sum().backward()
    factors, scale = method.factors["model"].parameters_alone, method.factors["model"].scales["r"]
    assert scale.grad is not None and factors[0].grad is not None and factors[1].grad is not None
    now = (scale * scale.grad).abs() + (factors[0] * factors[0].grad).abs().mean(0) + (factors[1] * factors[1].grad).abs().mean(1)
    method.step()
    mean = (1 - SMOOTHING) * now
    assert_close(method.importance("model")["r"], (mean * (1 - SMOOTHING) * (now - mean).abs()).detach())


@pytest.mark.parametrize("format", [SVD(rank=9), TTM(rank=9), KCP(rank=9)])
def test_dlrt_finds_the_rank_of_a_linear_map(format: Any) -> None:
    """Rank 2 in a full-batch regression without noise; the loss falls by four decades."""
    modes = {"in_modes": (4, 5), "out_modes": (3, 4)}
    one = Linear(20, 12, bias=False, format=type(format)(rank=2), **modes, dtype=torch.float64)
    layer = Linear(20, 12, format=format, **modes, dtype=torch.float64)
    method = DLRT(layer, rate=0.25, tolerance=0.02)
    x = torch.randn(300, 20, dtype=torch.float64)
    y = one(x).detach() / one(x).std().detach()
    others = torch.optim.SGD(method.other_parameters(), lr=0.1)
    assert [p.shape for p in method.other_parameters()] == [(12,)]

    def closure() -> torch.Tensor:
        layer.zero_grad()
        loss = 0.5 * (layer(x) - y).square().sum(-1).mean()
        loss.backward()
        return loss

    losses = []
    for _ in range(60):
        loss = method.step(closure)
        assert loss is not None
        losses.append(loss.item())
        others.step()
    assert losses[-1] < 1e-4 * losses[0]
    assert list(layer.factorized.network.ranks.values()) == [2]
    assert method.report().layers[0].ranks == layer.factorized.network.ranks
    method.shrink()
    method.finish()


@pytest.mark.parametrize("bad", [1, 2])
def test_dlrt_needs_finite_losses_and_gradients(bad: int) -> None:
    """In both passes of a step."""
    layer, count = Linear(8, 8, format=SVD(rank=4)), 0
    method = DLRT(layer, rate=0.1)

    def closure(is_loss: bool) -> torch.Tensor:
        nonlocal count
        count += 1
        layer.zero_grad()
        loss = layer(torch.ones(2, 8)).square().mean() * (math.nan if is_loss and count == bad else 1)
        loss.backward()
        if not is_loss and count == bad:
            for p in layer.parameters():
                p.grad = torch.full_like(p, math.inf)
        return loss

    with pytest.raises(ValueError, match="the loss is nan after 1 steps; a finite one is needed"):
        method.step(lambda: closure(True))
    count = 0
    text = "the factors of layer .model. have gradients that are not finite after 2 steps; finite ones are needed: lower the learning rates"
    with pytest.raises(ValueError, match=text):
        method.step(lambda: closure(False))


def test_dlrt_refuses() -> None:
    with pytest.raises(
        ValueError, match=r"DLRT got layer 'model' with 'o1 r1, .*'; it needs two factors that share one rank and no mode: use SVD"
    ):
        DLRT(Linear(16, 16, format=TT(rank=2)), rate=0.1)
    with pytest.raises(ValueError, match="DLRT got tolerance=1.0; it is a part of a norm, above 0 and below 1: give one like 0.01"):
        DLRT(Linear(16, 16, format=SVD(rank=2)), rate=0.1, tolerance=1.0)
    with pytest.raises(ValueError, match="DLRT got max_rank=0; a rank is at least 1: give a larger one, or leave it out"):
        DLRT(Linear(16, 16, format=SVD(rank=2)), rate=0.1, max_rank=0)
    with pytest.raises(TypeError, match=r"DLRT.step got no closure; it needs one that zeroes gradients, .* and returns the loss"):
        DLRT(Linear(16, 16, format=SVD(rank=2)), rate=0.1).step()


def test_settings_out_of_range() -> None:
    layer = Linear(12, 12, format=TTM(rank=4), in_modes=(3, 4), out_modes=(3, 4))
    with pytest.raises(ValueError, match="L1Bonds got strength=0; it needs a finite number above 0: give one like 0.01"):
        L1Bonds(layer, strength=0)
    with pytest.raises(ValueError, match="HardConcrete got target=0; it is the part of the values to keep, above 0 and at most 1"):
        HardConcrete(layer, target=0)
    with pytest.raises(
        ValueError, match=r"GlobalBudget got slices=5 and schedule=\(0, 10\); it needs 1 to 4 slices, .* slices=2, schedule=\(500, 3000\)"
    ):
        GlobalBudget(layer, slices=5, schedule=(0, 10))


@pytest.mark.parametrize(
    ("make", "rule", "most"),
    [
        (lambda layer, n: L1Bonds(layer, strength=5.0), Rounding(0.03), 3),
        (lambda layer, n: GroupLasso(layer, n_examples=n, strength=20.0), Rounding(0.03), 3),
        (lambda layer, n: GlobalBudget(layer, slices=6, schedule=(50, 300)), Selection(), 3),
    ],
    ids=["l1", "lasso", "budget"],
)
def test_planted_ranks_of_a_chain(make: Any, rule: Any, most: int) -> None:
    result = train(TTM_CASE, TTM_CASE.student, 0, attach=make, rule=rule, steps=350)
    assert result.ranks == {"r1": most, "r2": most} and result.error < 0.02
