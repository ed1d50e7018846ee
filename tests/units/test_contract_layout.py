"""Layouts: every way to do a step is right, in values and gradients, for networks of every kind."""

import random
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tenfold import contract
from tenfold.contract import Machine, Positions, plan_convolution, plan_dense, plan_linear, plan_rows
from tenfold.contract.layout import arrangements, kept_run, new_orders, roles
from tenfold.contract.moves import Move
from tenfold.contract.search import _setting
from tenfold.contract.setting import Setting
from tenfold.contract.steps import ContractionPlan
from tenfold.network import Network

CPU = Machine()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
STATEMENTS = [
    "o1 o2 i1 r, r o2 i1 i2 -> o1 o2 i1 i2",  # Monarch: a mode on two factors
    "o r, r i, o s, s i -> o i",  # LoHa
    "r o1 i1, r o2 i2, r o3 i3 -> o1 o2 o3 i1 i2 i3",  # KCP: one rank on all factors
    "b o1 i1 q, b o2 i2 p, b q p -> o1 o2 i1 i2",  # BT: a block index
    "a i1 b, b i2 c, c o1 d, d o2 a -> o1 o2 i1 i2",  # TR
    "a o1 i1 b, b o2 i2 c, c o3 i3 a -> o1 o2 o3 i1 i2 i3",  # TR-matrix
    "o1 i1 a, o2 i2 b, o3 i3 c, a b p, p c -> o1 o2 o3 i1 i2 i3",  # HT
    "o1 i1, o2 i2 -> o1 o2 i1 i2",  # no rank at all
    "g o r, g r i -> g o i",  # groups
]
CONVOLUTIONS = [
    "o r, i r, k1 r, k2 r -> o i k1 k2",
    "o r k1, r i k2, o s, s i -> o i k1 k2",
    "o k1 k2 r, r i k1 k2 -> o i k1 k2",  # kernel modes on two factors
    "o1 o2 i1 r, r o2 i1 i2 k1 k2 -> o1 o2 i1 i2 k1 k2",
    "g o r, g r i k1 k2 -> g o i k1 k2",
]


def some_sizes(statement: str, pick: random.Random, sizes: tuple[int, ...]) -> dict[str, int]:
    return {name: pick.choice(sizes) for name in dict.fromkeys(statement.replace(",", " ").replace("->", " ").split())}


def drawn_network(pick: random.Random) -> Network:
    """Any network: modes on one or two factors, ranks on two to four, sizes of 1 too."""
    modes = [f"o{n + 1}" for n in range(pick.randint(1, 3))] + [f"i{n + 1}" for n in range(pick.randint(1, 3))]
    factors: list[list[str]] = [[] for _ in range(pick.randint(1, 5))]
    for mode in modes:
        for factor in pick.sample(factors, min(len(factors), pick.choice([1, 1, 1, 2]))):
            factor.append(mode)
    for rank in range(pick.randint(0, 4) if len(factors) > 1 else 0):
        for factor in pick.sample(factors, pick.randint(2, min(len(factors), 4))):
            factor.append(f"r{rank}")
    for factor in factors:
        pick.shuffle(factor)
    kept = [factor for factor in factors if factor]
    return Network.of(kept, modes, {name: pick.choice([1, 2, 2, 3, 4]) for factor in kept for name in factor})


def dense_of(network: Network, factors: list[Tensor]) -> Tensor:
    letters = dict(zip(network.sizes, LETTERS, strict=False))
    inputs = ",".join("".join(letters[i] for i in indices) for indices in network.factors)
    return torch.einsum(f"{inputs}->{''.join(letters[m] for m in network.modes)}", *factors)


def drawn_plan(setting: Setting, pick: random.Random) -> ContractionPlan:
    """A plan whose groups, order and layout are drawn: right, though no search would take it."""
    order, done, steps = setting.start, 0, []
    while done != setting.moves.all:
        group = pick.choice([group for group in setting.moves.groups if not group & done])
        kinds: dict[object, list[tuple[float, tuple[str, ...], object]]] = {}
        for found in setting.ways(order, done, group):
            kinds.setdefault((found[2].axes, found[2].is_copied) if setting.verb == "apply" else 0, []).append(found)
        _, after, way = pick.choice(kinds[pick.choice(list(kinds))])  # rare kinds as often as common ones
        steps.append(setting.step(order, done, group, way))
        order, done = after, done | group
    return setting.finish(tuple(steps), order, 0.0)


def check_linear(network: Network, pick: random.Random) -> list[ContractionPlan]:
    factors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in network.shapes]
    inner = [mode for mode in network.modes if mode[0] in "gi"]
    outer = [mode for mode in network.modes if mode[0] in "go"]
    letters = dict(zip(network.sizes, LETTERS, strict=False))
    names = ["".join(letters[mode] for mode in some) for some in (inner, network.modes, outer)]
    x = torch.randn(3, *(network.sizes[mode] for mode in inner), dtype=torch.float64, requires_grad=True)
    dense = dense_of(network, factors)
    assert_close(contract.dense(plan_dense(network), factors), dense)
    wanted = torch.einsum(f"Z{names[0]},{names[1]}->Z{names[2]}", x, dense).reshape(3, -1)
    flow = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, [x, *factors], flow)
    plans = [plan_linear(network, 3, is_cached, CPU) for is_cached in (True, False)]
    plans += [drawn_plan(_setting(network, 3, pick.random() < 0.5, CPU, None), pick) for _ in range(3)]
    for plan in plans:
        y = contract.linear(plan, contract.prepare(plan, factors), x.reshape(3, -1))
        assert_close(y, wanted)
        for mine, other in zip(torch.autograd.grad(y, [x, *factors], flow), gradients, strict=True):
            assert_close(mine, other)
    return plans


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_layout_is_right(statement: str) -> None:
    pick = random.Random(statement)
    for sizes in ((2, 3, 4), (1, 2), (3, 5)):
        check_linear(Network.parse(statement, some_sizes(statement, pick, sizes)), pick)


def test_drawn_networks() -> None:
    """150 networks: hyper-edges, modes on several factors, factors without modes or ranks; all kinds of steps are met."""
    pick = random.Random(0)
    met: Counter[str] = Counter()
    kcp = STATEMENTS[2]
    for number in range(150):
        network = drawn_network(pick) if number % 3 else Network.parse(kcp, some_sizes(kcp, pick, (2, 3)))
        met.update(f"{step.kind} {step.axes}" for plan in check_linear(network, pick) for step in plan.steps)
    assert {kind.split()[0] for kind in met} == {"linear", "left", "batched", "split", "scale"}
    assert {"linear kp", "left pkq", "batched psk", "batched spkq", "split apk"} <= set(met)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("statement", CONVOLUTIONS)
def test_convolutions_in_every_layout(statement: str, is_transposed: bool) -> None:
    pick = random.Random(f"{statement}{is_transposed}")
    for _ in range(4):
        network = Network.parse(statement, some_sizes(statement, pick, (1, 2, 3)))
        factors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in network.shapes]
        count = dict.fromkeys("goik", 1)
        for mode in network.modes:
            count[mode[0]] *= network.sizes[mode]
        kernel = (network.sizes["k1"], network.sizes["k2"])
        dense = dense_of(network, factors).reshape(count["g"], count["o"], count["i"], *kernel)
        weight = dense.transpose(1, 2).flatten(0, 1) if is_transposed else dense.flatten(0, 1)
        function = torch.conv_transpose2d if is_transposed else torch.conv2d
        x = torch.randn(2, count["g"] * count["i"], 4, 5, dtype=torch.float64, requires_grad=True)

        def spatial(x: Tensor, weight: Tensor, groups: int, function=function) -> Tensor:
            return function(x, weight, stride=2, groups=groups)

        wanted = spatial(x, weight, count["g"])
        positions = Positions(20, wanted.shape[2] * wanted.shape[3], kernel, is_transposed, 4)
        flow = torch.randn_like(wanted)
        gradients = torch.autograd.grad(wanted, [x, *factors], flow)
        plans = [plan_convolution(network, 2, is_cached, CPU, positions) for is_cached in (True, False)]
        plans += [drawn_plan(_setting(network, 2, False, CPU, positions), pick) for _ in range(2)]
        for plan in plans:
            y = contract.convolve(plan, contract.prepare(plan, factors), x, spatial)
            assert_close(y, wanted)
            for mine, other in zip(torch.autograd.grad(y, [x, *factors], flow), gradients, strict=True):
                assert_close(mine, other)


@pytest.mark.parametrize("statement", [s for s in STATEMENTS if not s.startswith("g")])
def test_rows_with_modes_on_several_factors(statement: str) -> None:
    network = Network.parse(statement, some_sizes(statement, random.Random(statement), (2, 3, 4)))
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    digit_modes = [mode for mode in network.modes if mode[0] == "i"]
    digits = [torch.randint(network.sizes[mode], (6,)) for mode in digit_modes]
    n_out = len(network.modes) - len(digit_modes)
    wanted = dense_of(network, factors).movedim(tuple(range(n_out)), tuple(range(-n_out, 0)))[tuple(digits)].reshape(6, -1)
    assert_close(contract.rows(plan_rows(network), factors, digits), wanted)


def test_a_middle_mode_is_summed_on_a_view_of_the_input() -> None:
    """No large input is copied into another order: KCP's best order starts in the middle of it."""
    statement = "r o1 i1, r o2 i2, r o3 i3 -> o1 o2 o3 i1 i2 i3"
    network = Network.parse(statement, {"r": 1, "o1": 8, "i1": 8, "o2": 2, "i2": 12, "o3": 8, "i3": 64})
    plan = plan_linear(network, 64, True, CPU)
    assert plan.steps[0].group.factors == (1,) and (plan.steps[0].kind, plan.steps[0].perm) == ("left", None)
    x = torch.randn(64, 8 * 12 * 64)
    (weight, *_) = contract.prepare(plan, [torch.randn(shape) for shape in network.shapes])
    assert x.reshape(plan.steps[0].shape).data_ptr() == x.data_ptr() and weight.shape == (2, 12)


def test_what_a_product_can_do_without_a_copy() -> None:
    """Runs of passing, shared and summed indices: which products fit, and where the new index may stand afterwards."""
    names = {0: (), 1: ("s",), 2: ("k",), 4: ("n",)}

    def ways(*order: str, shared: bool) -> set[tuple[bool, tuple[str, ...]]]:
        role = roles(Move(0, int(shared), 2, 4), names, ("n",))
        return {(way.is_copied, way.after) for way in arrangements(order, role)}

    assert ways("p", "k", shared=False) == {(False, ("p", "n")), (False, ("n", "p"))}
    assert ways("p", "k", "q", shared=False) == {
        (False, ("p", "n", "q")),
        (False, ("p", "q", "n")),
        (True, ("p", "q", "n")),
        (True, ("n", "p", "q")),
    }
    assert (False, ("s", "p", "n")) in ways("p", "s", "k", shared=True)
    assert {is_copied for is_copied, _ in ways("p", "k", "s", shared=True)} == {True}
    assert kept_run(("a", "b", "c", "d"), ("b", "a", "c", "d")) == ("c", "d")
    assert kept_run(("a", "b"), ("b", "a")) == ("a",) and kept_run(("a", "b"), ("a", "b")) == ("a", "b")
    assert set(new_orders(("o", "r"), ("o",))) == {("o", "r"), ("r", "o")}
    assert len(new_orders(("o", "r", "s"), ("o",))) == 6 and len(new_orders(("o", "r", "s", "t"), ("o",))) == 2
