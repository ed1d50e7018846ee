"""Memory: what a plan says about its peak is what is allocated; large batches go in parts, and their gradients are the same."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from tenfold import contract
from tenfold.contract import ContractionPlan, Machine, fewest_flops, plan_linear
from tenfold.network import Network

CPU = Machine()
MODES = {"o1": 16, "o2": 4, "o3": 2, "o4": 4, "o5": 2, "i1": 8, "i2": 10, "i3": 10, "i4": 9, "i5": 8}
RIGHT = "o1 o2 o3 o4 o5 i1 i2 i3 i4 i5"
KCP = Network.parse(f"r o1 i1, r o2 i2, r o3 i3, r o4 i4, r o5 i5 -> {RIGHT}", MODES | {"r": 4})
CHAIN = Network.parse(f"o1 i1 a, a o2 i2 b, b o3 i3 c, c o4 i4 d, d o5 i5 -> {RIGHT}", MODES | dict.fromkeys("abcd", 4))
N_IN = 57_600


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that is allocated at once beside what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def factors_of(network: Network, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype).mul_(0.5).requires_grad_() for shape in network.shapes]


def step(plan: ContractionPlan, factors: list[Tensor], x: Tensor) -> None:
    for factor in factors:
        factor.grad = None
    contract.linear(plan, contract.prepare(plan, factors), x).sum().backward()


@pytest.mark.parametrize("network", [KCP, CHAIN], ids=["KCP", "TTM"])
@pytest.mark.parametrize("batch", [16, 96])
def test_the_peak_is_what_is_allocated(network: Network, batch: int) -> None:
    """Within a quarter, in eval and with gradients: what it says is meant for choosing a batch size."""
    factors = factors_of(network)
    x = torch.randn(batch, N_IN)
    plan = plan_linear(network, batch, True, CPU)
    prepared = [weight.detach() for weight in contract.prepare(plan, factors)]
    with torch.no_grad():
        held = sum(weight.numel() * 4 for weight in prepared)
        measured = peak_bytes(lambda: contract.linear(plan, prepared, x)) + held
    assert 0.75 * measured < plan.peak_bytes < 1.25 * measured
    plan = plan_linear(network, batch, False, CPU)
    step(plan, factors, x)
    assert 0.75 * plan.peak_bytes < peak_bytes(lambda: step(plan, factors, x)) < 1.25 * plan.peak_bytes


def test_a_step_of_a_full_size_layer_takes_less_than_30_megabytes() -> None:
    """57,600 inputs, 16 clips of 6 frames: the input alone is 22 MB, a dense weight with its gradient would be 472 MB."""
    factors = factors_of(KCP)
    x = torch.randn(96, N_IN)
    plan = plan_linear(KCP, 96, False, CPU)
    step(plan, factors, x)
    assert peak_bytes(lambda: step(plan, factors, x)) < 30e6
    assert all(state.perm is None for state in plan.steps[:1]), "the input is not copied"


@pytest.mark.parametrize("recompute_above", [1, 1000], ids=["states computed again", "states saved"])
def test_parts_give_the_same_gradients(recompute_above: int) -> None:
    """Of the input and of every factor, also where rows do not divide into equal parts, and gradients of gradients."""
    network = KCP.resized({"i1": 2, "i2": 3, "i3": 4, "i4": 3, "i5": 2})
    factors = factors_of(network, torch.float64)
    x = torch.randn(11, 144, dtype=torch.float64, requires_grad=True)
    plan = fewest_flops(network, 11, False)
    parts = dataclasses.replace(plan, tile=4, tile_above=4, recompute_above=recompute_above)
    flow = torch.randn(11, 1024, dtype=torch.float64)
    wanted, got = (
        torch.autograd.grad(contract.linear(p, contract.prepare(p, factors), x), [x, *factors], flow, create_graph=True)
        for p in (plan, parts)
    )
    for mine, other in zip(got, wanted, strict=True):
        assert_close(mine, other)
    twice = [torch.autograd.grad(sum(one.square().sum() for one in first), [x, *factors]) for first in (wanted, got)]
    for mine, other in zip(*twice, strict=True):
        assert_close(mine, other)
    plain = torch.autograd.grad(contract.linear(parts, contract.prepare(parts, factors), x), factors[1], flow)
    assert_close(plain[0], wanted[2].detach())


def test_gradients_of_many_parts_in_bfloat16() -> None:
    """They are as near to those of float32 as the ones of a whole batch: a sum of 1,500 parts in bfloat16 stops at a third of it."""
    network = KCP.resized({"i1": 2, "i2": 3, "i3": 4, "i4": 3, "i5": 2, "r": 1})
    factors = [torch.rand(shape).bfloat16().requires_grad_() for shape in network.shapes]
    x = torch.rand(1500, 144).bfloat16()
    plan = dataclasses.replace(fewest_flops(network, 1500, False), tile_above=10_000)
    wide = [factor.detach().float().requires_grad_() for factor in factors]
    wanted = torch.autograd.grad(contract.linear(plan, contract.prepare(plan, wide), x.float()).sum(), wide)
    parts = dataclasses.replace(plan, tile=1, tile_above=1, recompute_above=1)
    found = torch.autograd.grad(contract.linear(parts, contract.prepare(parts, factors), x).sum(), factors)
    for mine, other in zip(found, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        assert_close(mine.float(), other, rtol=0.05, atol=0.0)


def test_parts_under_torch_func() -> None:
    """Transforms of torch.func see plain operations: they take no function that calls autograd itself."""
    network = KCP.resized({"i1": 2, "i2": 3, "i3": 4, "i4": 3, "i5": 2})
    factors = [factor.detach() for factor in factors_of(network, torch.float64)]
    x = torch.randn(9, 144, dtype=torch.float64)
    plan = dataclasses.replace(fewest_flops(network, 9, False), tile=4, tile_above=4, recompute_above=4)

    def loss(factors: list[Tensor], plan: ContractionPlan) -> Tensor:
        return contract.linear(plan, contract.prepare(plan, factors), x).square().sum()

    whole = dataclasses.replace(plan, tile_above=100)
    for mine, other in zip(torch.func.grad(loss)(factors, plan), torch.func.grad(loss)(factors, whole), strict=True):
        assert_close(mine, other)


def test_parts_in_forward_mode() -> None:
    network = KCP.resized({"i1": 2, "i2": 3, "i3": 4, "i4": 3, "i5": 2})
    factors, x = factors_of(network), torch.randn(9, 144)
    plan = dataclasses.replace(fewest_flops(network, 9, False), tile=4, tile_above=4, recompute_above=4)
    prepared, direction = contract.prepare(plan, factors), torch.randn(9, 144)
    with forward_ad.dual_level():
        y = contract.linear(plan, prepared, forward_ad.make_dual(x, direction))
        assert_close(forward_ad.unpack_dual(y).tangent, contract.linear(plan, prepared, direction))


def test_small_batches_are_not_cut() -> None:
    plan = plan_linear(KCP, 16, True, CPU)
    assert plan.tile < plan.tile_above and plan.tile_above >= 16 and plan.recompute_above > plan.tile_above
    assert plan_linear(KCP, 16, False, CPU).recompute_above < 1000
