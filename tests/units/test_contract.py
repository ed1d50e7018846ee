"""Plans: what is chosen, what it is said to cost, and that what runs is what was said."""

import dataclasses
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from tenfold import contract
from tenfold.contract import (
    ContractionPlan,
    Machine,
    Positions,
    dense_plan,
    fewest_flops,
    plan_convolution,
    plan_dense,
    plan_linear,
    plan_rows,
    recount,
)
from tenfold.contract.search import _finish, _setting, lay_out
from tenfold.fold import Fold, make_fold
from tenfold.formats import CP, SVD, TT, TTM, Tucker
from tenfold.network import Network

CPU = Machine()
MATRIX = make_fold([("o", 12), ("i", 15)], 2)
ALL = [SVD(rank=3), CP(rank=4), Tucker(rank=2), Tucker(rank=2, all_modes=True), TT(rank=2), TTM(rank=3)]


def factors_of(network: Network) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]


def orders(count: int) -> list[tuple[int, ...]]:
    """All ordered partitions of so many factors, as bit masks."""
    if not count:
        return [()]
    found = set()
    for labels in itertools.product(range(count), repeat=count):
        if set(labels) == set(range(max(labels) + 1)):
            found.add(tuple(sum(1 << k for k in range(count) if labels[k] == group) for group in range(max(labels) + 1)))
    return sorted(found)


@pytest.mark.parametrize("format", ALL, ids=str)
def test_every_order_gives_the_same_and_none_is_better(format) -> None:
    """All ordered partitions of the factors are right; none has fewer FLOP than the thriftiest, nor is it predicted to be faster."""
    network = format.network(MATRIX)
    factors = factors_of(network)
    dense = torch.einsum(_einsum(network), *factors).reshape(12, 15)
    x = torch.randn(5, 15, dtype=torch.float64)
    setting = _setting(network, 5, False, CPU, None)
    fewest = fewest_flops(network, 5, False)
    plans = []
    for order in orders(len(network.factors)):
        plan = _finish(setting, lay_out(setting, [order]))
        assert_close(contract.linear(plan, contract.prepare(plan, factors), x), x @ dense.mT)
        plans.append(plan)
    assert _work(fewest) == min(map(_work, plans))
    chosen = plan_linear(network, 5, False, CPU)
    fastest = min(plan.seconds for plan in plans)
    assert chosen.seconds <= fastest * (1 + 1e-9) or chosen.steps == fewest.steps


def _work(plan: ContractionPlan) -> int:
    return plan.batch * plan.flops + plan.weight_flops


@pytest.mark.parametrize("format", ALL, ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_every_order_of_a_convolution(format, groups: int) -> None:
    fold = make_fold([("o", 12), ("i", 4), ("k", 3), ("k", 1)], format.n_kernel_modes or format.n_modes, groups=groups)
    network = format.network(fold)
    factors = factors_of(network)
    dense = fold.unfold(torch.einsum(_einsum(network), *factors))
    x = torch.randn(2, 4 * groups, 5, 4, dtype=torch.float64)
    wanted = torch.conv2d(x, dense, stride=2, groups=groups)
    positions = Positions(20, 4, (3, 1), stride=4)
    setting = _setting(network, 2, False, CPU, positions)
    seconds = []
    for order in orders(len(network.factors)):
        if any(group & setting.moves.kernel and setting.moves.kernel & ~group for group in order):
            continue  # part of a kernel is no convolution
        plan = _finish(setting, lay_out(setting, [order]))
        run = contract.convolve(plan, contract.prepare(plan, factors), x, lambda x, w, g: torch.conv2d(x, w, stride=2, groups=g))
        assert_close(run, wanted)
        seconds.append(plan.seconds)
    chosen = plan_convolution(network, 2, False, CPU, positions)
    assert chosen.seconds <= min(seconds) * (1 + 1e-9) or chosen.steps == fewest_flops(network, 2, False, CPU, positions).steps
    assert len(seconds) > 1


def _einsum(network: Network) -> str:
    letters = dict(zip(network.sizes, "abcdefghijklmnopqrstuvwxyz", strict=False))
    return ",".join("".join(letters[i] for i in f) for f in network.factors) + "->" + "".join(letters[m] for m in network.modes)


def test_cp_convolution_is_pointwise_depthwise_pointwise() -> None:
    network = CP(rank=16).network(make_fold([("o", 64), ("i", 64), ("k", 3), ("k", 3)], 1))
    plan = plan_convolution(network, 16, True, CPU, Positions(1024, 1024, (3, 3)))
    assert [(step.kind, step.n_shared) for step in plan.steps] == [("linear", 1), ("convolve", 16), ("linear", 1)]
    assert plan.flops == 2 * 1024 * (64 * 16 + 16 * 9 + 16 * 64)


def test_tucker_convolution_is_pointwise_full_pointwise() -> None:
    network = Tucker(rank=(24, 16)).network(make_fold([("o", 64), ("i", 64), ("k", 3), ("k", 3)], 1))
    plan = plan_convolution(network, 16, True, CPU, Positions(1024, 256, (3, 3), stride=4))
    assert [(step.kind, step.n_shared) for step in plan.steps] == [("linear", 1), ("convolve", 1), ("linear", 1)]
    assert plan.flops == 2 * (1024 * 64 * 16 + 256 * 9 * 16 * 24 + 256 * 24 * 64)


@pytest.mark.parametrize(("n", "places"), [(1, 256), (1, 1024), (16, 256)])
@pytest.mark.parametrize("comes_last", [False, True])
@pytest.mark.parametrize("is_cached", [True, False], ids=["eval", "training"])
@pytest.mark.parametrize(("format", "is_moved"), [(CP(rank=16), True), (Tucker(rank=12), False)], ids=["CP", "Tucker"])
def test_channels_last_inside_gives_the_same(format, is_moved: bool, is_cached: bool, comes_last: bool, n: int, places: int) -> None:
    """Eval runs a depthwise step channels last, and others of many images or large ones; training a depthwise one of many. Nobody sees it."""
    fold = make_fold([("o", 64), ("i", 48), ("k", 3), ("k", 3)], 1)
    network = format.network(fold)
    factors = factors_of(network)
    dense = fold.unfold(torch.einsum(_einsum(network), *factors))
    plan = plan_convolution(network, n, is_cached, CPU, Positions(places, places, (3, 3)))
    layout = torch.channels_last if comes_last else torch.contiguous_format
    x = torch.randn(n, 48, 8, 7, dtype=torch.float64).contiguous(memory_format=layout)
    seen = []

    def spatial(x: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return torch.conv2d(x, weight, groups=groups)

    y = contract.convolve(plan, contract.prepare(plan, factors), x, spatial)
    assert_close(y, torch.conv2d(x, dense))
    assert y.is_contiguous(memory_format=layout) and seen == [
        comes_last or (is_cached and (is_moved or places == 1024)) or (n > 1 and (is_cached or is_moved))
    ]


def test_convolutions_with_few_channels_are_torchs_own_steps() -> None:
    """Matrix products with less than a dozen rows or columns are slow, but a depthwise step gains more than they lose."""
    for format, is_last in ((Tucker(rank=8), False), (Tucker(rank=16), True), (CP(rank=8), True)):
        network = format.network(make_fold([("o", 64), ("i", 48), ("k", 3), ("k", 3)], 1))
        plan = plan_convolution(network, 16, True, CPU, Positions(1024, 1024, (3, 3)))
        seen = []

        def spatial(x: torch.Tensor, weight: torch.Tensor, groups: int, seen=seen) -> torch.Tensor:
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return torch.conv2d(x, weight, groups=groups)

        x = torch.randn(16, 48, 8, 7, dtype=torch.float64)
        contract.convolve(plan, contract.prepare(plan, factors_of(network)), x, spatial)
        assert plan.narrowest == min(network.ranks.values()) and seen == [is_last]


@pytest.mark.parametrize("is_cached", [True, False], ids=["eval", "training"])
@pytest.mark.parametrize("rank", [4, 24])
def test_a_kernel_of_one_value_is_products_alone(rank: int, is_cached: bool) -> None:
    """Rank 24 is cheaper as the dense weight."""
    fold = make_fold([("o", 24), ("i", 48), ("k", 1), ("k", 1)], 1)
    network = SVD(rank=rank).network(fold)
    factors = factors_of(network)
    plan = plan_convolution(network, 16, is_cached, CPU, Positions(64, 64, (1, 1), is_pointwise=True))
    x = torch.randn(3, 48, 8, 7, dtype=torch.float64)
    y = contract.convolve(plan, contract.prepare(plan, factors), x, None)
    assert plan.is_dense is (rank == 24)
    assert_close(y, torch.conv2d(x, fold.unfold(torch.einsum(_einsum(network), *factors))))


def test_the_dense_weight_is_used_where_it_is_cheaper() -> None:
    """A rank that saves nothing: rebuilding costs nothing in eval, and the plan says so."""
    network = SVD(rank=63).network(make_fold([("o", 64), ("i", 64)], 1))
    plan = plan_linear(network, 256, True, CPU)
    assert plan.is_dense and plan.flops == 2 * 64 * 64
    assert "the dense weight is rebuilt and used: no factorised order is predicted to be faster" in str(plan)
    assert plan.weight_flops == 2 * 64 * 63 * 64
    assert dense_plan(network, 256, True, CPU, None) == plan
    narrow = plan_linear(SVD(rank=8).network(make_fold([("o", 1024), ("i", 1024)], 1)), 256, True, CPU)
    assert not narrow.is_dense and narrow.flops == 2 * 8 * 2048


def test_a_plan_prints_what_it_does() -> None:
    """Steps with their FLOP, states and bytes; then the sums, the peak and the time, and what they are for."""
    network = TTM(rank=2).network(make_fold([("o", 1024), ("i", 1024)], 2))
    plan = plan_linear(network, 16, True, CPU)
    head, columns, *steps, sums = str(plan).splitlines()
    assert head == "apply: o1 i1 r1, r1 o2 i2 -> o1 o2 i1 i2"
    assert columns.split() == ["step", "kind", "FLOP/sample", "state", "bytes"]
    for line, step in zip(steps, plan.steps, strict=True):
        assert line.split()[-4:] == [step.kind, f"{step.flops:,}", f"{step.size:,}", f"{step.moved_bytes:,}"]
    assert (
        f"{plan.flops:,} FLOP a sample, 0 FLOP on weights, {plan.size_bytes:,} bytes moved, {plan.peak_bytes:,} bytes at the peak" in sums
    )
    assert "us for a batch of 16 in eval" in sums
    assert "in training, with gradients" in str(plan_linear(network, 16, False, CPU))
    rows = str(plan_rows(TTM(rank=2).network(make_fold([("i", 15), ("o", 12)], 2))))
    assert rows.startswith("rows: ") and "FLOP a row" in rows and "1 products" in rows


def test_plans_are_data_made_once() -> None:
    """The same sizes give the same object; it is hashable and holds no tensors."""
    network = TT(rank=2).network(MATRIX)
    plan = plan_linear(network, 16, True, CPU)
    again = Network.parse(network.statement, network.sizes)
    assert plan_linear(again, 16, True, CPU) is plan
    assert hash(plan) == hash(dataclasses.replace(plan))
    assert plan_linear(network, 256, True, CPU) is not plan


def test_recount_keeps_the_steps() -> None:
    """The plan is chosen for a class of sizes; its FLOP are counted at the sizes of the run."""
    network = Tucker(rank=8).network(make_fold([("o", 64), ("i", 64), ("k", 3), ("k", 3)], 1))
    positions = Positions(100, 25, (3, 3), stride=4)
    assert (positions.nominal.n_in, positions.nominal.n_out) == (64, 16)
    plan = plan_convolution(network, 16, True, CPU, positions.nominal)
    exact = recount(plan, network, 16, True, CPU, positions)
    assert [step.group for step in exact.steps] == [step.group for step in plan.steps]
    assert plan.flops == 2 * (64 * 64 * 8 + 16 * 8 * 8 * 9 + 16 * 8 * 64)
    assert exact.flops == 2 * (100 * 64 * 8 + 25 * 8 * 8 * 9 + 25 * 8 * 64)


@pytest.mark.parametrize(("n_in", "nominal"), [(1, 16), (32, 16), (33, 64), (1024, 1024), (50_176, 16_384)])
def test_few_plans_serve_all_images(n_in: int, nominal: int) -> None:
    assert Positions(n_in, 1, (3, 3)).nominal.n_in == nominal
    assert Positions(n_in, 1, (3, 3), True, 4).nominal.n_out == 4 * nominal
    assert Positions(n_in, 1, (3, 3)).nominal.nominal == Positions(n_in, 1, (3, 3)).nominal


@pytest.mark.parametrize("format", ALL, ids=str)
def test_dense_and_rows(format) -> None:
    fold: Fold = make_fold([("i", 15), ("o", 12)], 2)
    network = format.network(fold)
    factors = factors_of(network)
    wanted = torch.einsum(_einsum(network), *factors)
    assert_close(contract.dense(plan_dense(network), factors), wanted)
    ids = torch.tensor([3, 14, 3, 0])
    i1, i2 = fold.axis("i").modes
    assert_close(contract.rows(plan_rows(network), factors, [ids // i2, ids % i2]), wanted.reshape(15, 12)[ids])
    assert i1 * i2 == 15


def test_a_single_factor_and_a_network_of_many() -> None:
    one = Network.parse("o1 i1 -> o1 i1", {"o1": 3, "i1": 4})
    values = [torch.randn(3, 4)]
    assert_close(contract.dense(plan_dense(one), values), values[0])
    plan = plan_linear(one, 5, True, CPU)
    x = torch.randn(5, 4)
    assert_close(contract.linear(plan, contract.prepare(plan, values), x), x @ values[0].mT)
    many = TT(rank=2).network(make_fold([("o", 32), ("i", 32)], 1, out_modes=(2, 2, 2, 2, 2), in_modes=(2, 2, 2, 4)))
    factors = factors_of(many)
    assert len(many.factors) == 9
    plan = plan_linear(many, 16, True, CPU)
    x = torch.randn(3, 32, dtype=torch.float64)
    dense = contract.dense(plan_dense(many), factors).reshape(32, 32)
    assert_close(contract.linear(plan, contract.prepare(plan, factors), x), x @ dense.mT)


def test_the_dense_weight_of_many_factors_on_one_rank() -> None:
    """A hyper-edge joins each factor to each: all sets of them would be looked at for the best order of pairs."""
    modes = [f"{role}{number}" for role in "oi" for number in range(1, 9)]
    network = Network.parse(f"{', '.join(f'{mode} r' for mode in modes)} -> {' '.join(modes)}", {**dict.fromkeys(modes, 2), "r": 3})
    factors = factors_of(network)
    halves = []
    for part in (factors[:8], factors[8:]):
        half = part[0]
        for factor in part[1:]:
            half = (half[:, None] * factor).reshape(-1, 3)
        halves.append(half)
    assert_close(contract.dense(plan_dense(network), factors).reshape(256, 256), halves[0] @ halves[1].mT)


def test_costs_grow_with_work() -> None:
    assert CPU.product(1, 64, 64, 128) > CPU.product(1, 64, 64, 64)
    assert CPU.product(1, 64, 4, 64) > CPU.product(1, 64, 64, 64) / 16, "thin products run below the peak"
    assert CPU.front(4096, 64, 2) < CPU.product(1, 4096, 64, 2), "few columns as rows fill no lanes in vain"
    assert CPU.product(2000, 4, 4, 4) > 2000 * 2 * 4**3 / CPU.peak_flops * 10, "tiny products of a batch run in plain loops"
    assert CPU.step(1.0, 0, 1) > 1.0 and CPU.step(0.0, 1e9, 1) > 0.1
    assert CPU.copy(1e6, 2) > CPU.copy(1e6, 64), "short runs are copied slowly"
    assert CPU.depthwise(3e9) > 3e9 / CPU.peak_flops
    assert Machine.of("cuda").peak_flops > Machine.of("cpu").peak_flops
    assert math.isclose(CPU.traffic(2 * CPU.cache_bytes), CPU.cache_bytes / CPU.cache_bandwidth + CPU.cache_bytes / CPU.bandwidth)


def flops_of(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_flops_are_those_that_run_in_parts_too() -> None:
    """A batch that is cut into parts, and a split sum that is added part by part, do the FLOP of the plan."""
    network = TTM(rank=4).network(make_fold([("o", 256), ("i", 14_400)], 3, in_modes=(20, 30, 24), out_modes=(16, 4, 4)))
    factors = [torch.randn(shape) for shape in network.shapes]
    x = torch.randn(70, 14_400)
    plan = plan_linear(network, 70, True, CPU)
    assert any(step.axes == "apk" for step in plan.steps) and plan.tile_above >= 70
    prepared = contract.prepare(plan, factors)
    with torch.no_grad():
        wanted = contract.linear(plan, prepared, x)
        for some in (plan, dataclasses.replace(plan, tile=32, tile_above=32)):
            assert flops_of(lambda some=some: contract.linear(some, prepared, x)) == 70 * plan.flops
            assert_close(contract.linear(some, prepared, x), wanted, rtol=1e-4, atol=1e-3)  # float32: sums in another order
