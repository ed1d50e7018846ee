"""The search: the right order among all, all candidates of the field's formats in its space, and in a short time."""

import itertools
import math
import random
import time

import pytest

from tenfold.contract import Machine, dense_plan, fewest_flops, plan_linear
from tenfold.contract.moves import Moves
from tenfold.contract.orders import sequences
from tenfold.contract.search import THRIFT, _plan, _setting
from tenfold.network import Network

CPU = Machine()


def sizes_of(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> dict[str, int]:
    return {f"i{n}": size for n, size in enumerate(inputs, 1)} | {f"o{n}": size for n, size in enumerate(outputs, 1)}


def right(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> str:
    return " ".join([*(f"o{n}" for n in range(1, len(outputs) + 1)), *(f"i{n}" for n in range(1, len(inputs) + 1))])


def kcp(inputs: tuple[int, ...], outputs: tuple[int, ...], rank: int) -> Network:
    factors = ", ".join(f"r o{n} i{n}" for n in range(1, len(inputs) + 1))
    return Network.parse(f"{factors} -> {right(inputs, outputs)}", sizes_of(inputs, outputs) | {"r": rank})


def ring(inputs: tuple[int, ...], outputs: tuple[int, ...], rank: int) -> Network:
    modes = [*(f"i{n}" for n in range(1, len(inputs) + 1)), *(f"o{n}" for n in range(1, len(outputs) + 1))]
    cores = ", ".join(f"r{n} {mode} r{(n + 1) % len(modes)}" for n, mode in enumerate(modes))
    return Network.parse(f"{cores} -> {right(inputs, outputs)}", sizes_of(inputs, outputs) | {f"r{n}": rank for n in range(len(modes))})


def chain(inputs: tuple[int, ...], outputs: tuple[int, ...], rank: int) -> Network:
    last = len(inputs)
    cores = [" ".join([*([f"r{n - 1}"] if n > 1 else []), f"o{n} i{n}", *([f"r{n}"] if n < last else [])]) for n in range(1, last + 1)]
    sizes = sizes_of(inputs, outputs) | {f"r{n}": rank for n in range(1, last)}
    return Network.parse(f"{', '.join(cores)} -> {right(inputs, outputs)}", sizes)


def mode_by_mode(inputs: tuple[int, ...], outputs: tuple[int, ...], groups: tuple[tuple[int, ...], ...]) -> int:
    """Multiply-adds of one Kronecker term: formats.md, algorithm A; a group of factors is multiplied out first."""
    total, size = 0, math.prod(inputs)
    for group in groups:
        new = math.prod(outputs[k] for k in group)
        total += size * new
        size = size // math.prod(inputs[k] for k in group) * new
    return total


def drawn_modes(pick: random.Random, counts: list[int], most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    count = pick.choice(counts)
    return tuple(pick.randint(2, most) for _ in range(count)), tuple(pick.randint(2, most) for _ in range(count))


def test_the_order_of_kronecker_factors_is_that_of_the_key() -> None:
    """400 random cases: modes sorted by 1/m - 1/n are the best of all orders, and what the planner takes; no merged group is better."""
    pick = random.Random(1)
    for _ in range(400):
        inputs, outputs = drawn_modes(pick, [2, 3, 3, 4, 5], 12)
        count = len(inputs)
        key = tuple((k,) for k in sorted(range(count), key=lambda k: 1 / inputs[k] - 1 / outputs[k]))
        best = min(mode_by_mode(inputs, outputs, tuple((k,) for k in order)) for order in itertools.permutations(range(count)))
        assert mode_by_mode(inputs, outputs, key) == best
        assert fewest_flops(kcp(inputs, outputs, 1), 16).flops == 2 * best, (inputs, outputs)


def test_the_fewest_flops_of_several_terms() -> None:
    """60 random cases with ranks above 1 against all ordered partitions: here merged groups and the dense weight can have fewer."""
    pick = random.Random(4)
    orders = {count: list(itertools.permutations(range(count))) for count in (2, 3)}
    n_merged = 0
    for _ in range(60):
        (inputs, outputs), rank = drawn_modes(pick, [2, 3], 6), pick.randint(2, 6)
        count, found = len(inputs), []
        for order in orders[count]:
            for cuts in itertools.product((False, True), repeat=count - 1):
                ends = [n + 1 for n, cut in enumerate(cuts) if cut]
                groups = tuple(order[a:b] for a, b in zip([0, *ends], [*ends, count], strict=True))
                found.append(mode_by_mode(inputs, outputs, groups) * (rank if len(groups) > 1 else 1))
        plan = fewest_flops(kcp(inputs, outputs, rank), 16)
        assert plan.flops == 2 * min(found), (inputs, outputs, rank)
        n_merged += len(plan.steps) < count
    assert 0 < n_merged < 60


def test_sequences_come_in_the_order_of_their_price() -> None:
    """All ordered partitions of four factors, drawn prices: from the cheapest on, each once, none left out within the slack."""
    moves = Moves(chain((2, 3, 2, 3), (2, 2, 2, 2), 2), False)
    pick = random.Random(2)
    prices: dict[tuple[int, int], float] = {}

    def price(done: int, group: int) -> float:
        return prices.setdefault((done, group), pick.uniform(1, 2))

    def total(path: tuple[int, ...]) -> float:
        return sum(price(sum(path[:n]), group) for n, group in enumerate(path))

    found = list(sequences(moves, price, 1e9))
    assert [total(path) for path in found] == sorted(total(path) for path in found)
    assert len(found) == len(set(found)) == 75 and all(sum(path) == moves.all for path in found), "75 = ordered partitions of 4"
    close = list(sequences(moves, price, 1.3))
    assert close == [path for path in found if total(path) <= 1.3 * total(found[0])]


def test_groups_of_larger_networks_are_joined_through_ranks() -> None:
    """A ring of 8 cores: 8 x 7 arcs and the whole ring, not 255 sets; factors on one rank: runs of them."""
    arcs = Moves(ring((2, 3, 2, 3), (2, 2, 2, 2), 2), False).groups
    assert len(arcs) == 8 * 7 + 1 and 0b10000011 in arcs and 0b101 not in arcs
    runs = Moves(kcp((2,) * 7, (2,) * 7, 2), False).groups
    assert len(runs) == 7 * 8 // 2 and 0b11100 in runs and 0b101 not in runs
    assert len(Moves(kcp((2,) * 6, (2,) * 6, 2), False).groups) == 63


def groups_of(network: Network) -> set[tuple[int, ...]]:
    moves = Moves(network, False)
    return {moves.factors(group) for group in moves.groups}


def test_the_candidates_of_the_formats_are_in_the_space() -> None:
    """TR merged: inputs and outputs each as one tensor. BT: one by one, or a half with the core. KCP: one by one, halves, all."""
    network = ring((4, 2, 5, 8, 6, 5, 3, 2), (16, 4, 2, 4, 2), 5)
    assert {tuple(range(8)), tuple(range(8, 13))} <= groups_of(network)
    blocks = Network.parse(
        "b o1 i1 p, b o2 i2 q, b o3 i3 s, b o4 i4 t, b p q s t -> o1 o2 o3 o4 i1 i2 i3 i4",
        sizes_of((8, 20, 20, 18), (16, 4, 4, 4)) | dict.fromkeys("pqst", 4) | {"b": 2},
    )
    assert {(0,), (4,), (0, 1, 4), (2, 3)} <= groups_of(blocks)
    assert {(0,), (0, 1), (2, 3, 4), (0, 1, 2, 3, 4)} <= groups_of(kcp((8, 10, 10, 9, 8), (16, 4, 2, 4, 2), 4))


def test_the_cheaper_sweep_of_a_chain() -> None:
    """A mode that expands is contracted last, on whichever end it stands."""
    inputs, outputs = (8, 20, 20, 18), (16, 4, 4, 4)
    network, mirrored = chain(inputs, outputs, 4), chain(inputs[::-1], outputs[::-1], 4)
    assert [step.group.factors for step in fewest_flops(network, 16).steps] == [(3,), (2,), (1,), (0,)]
    assert [step.group.factors for step in fewest_flops(mirrored, 16).steps] == [(0,), (1,), (2,), (3,)]
    assert fewest_flops(mirrored, 16).flops == fewest_flops(network, 16).flops


def test_rebuilding_is_a_candidate() -> None:
    """A ring whose ranks exceed its modes: the dense weight, cached in eval; in training a factorised order again."""
    network = ring((4, 4), (4, 4), 6)
    assert plan_linear(network, 256, True, CPU).is_dense
    wide = ring((16, 16), (16, 16), 2)
    assert not plan_linear(wide, 1, False, CPU).is_dense


def test_few_flops_are_not_bought_at_any_price() -> None:
    """The fewest FLOP are taken unless the fastest order gains more time than a power of the FLOP that it spends, or dense is faster."""
    n_fast = 0
    permuted = kcp((9, 8, 8, 10, 10), (4, 16, 2, 2, 4), 1)  # the mode that should be summed first has ten values behind it only
    for network in (permuted, chain((8, 20, 20, 18), (16, 4, 4, 4), 4), ring((12, 10, 8), (8, 8), 5)):
        for batch in (1, 16, 256):
            chosen, few = plan_linear(network, batch, True, CPU), fewest_flops(network, batch)
            assert chosen.flops >= few.flops
            n_fast += chosen.steps != few.steps
            if chosen.steps != few.steps and few.seconds <= dense_plan(network, batch, True, CPU, None).seconds:
                assert few.seconds / chosen.seconds > (chosen.flops / few.flops) ** THRIFT
    assert 0 < n_fast < 9


@pytest.mark.parametrize(
    ("network", "limit"),
    [
        pytest.param(kcp((8, 10, 10, 9, 8), (16, 4, 2, 4, 2), 4), 0.1, id="KCP, 5 factors"),
        pytest.param(ring((4, 2, 5, 8, 6, 5, 3, 2), (16, 4, 2, 4, 2), 5), 0.8, id="TR, 13 factors"),
        pytest.param(kcp((2,) * 14, (2,) * 14, 4), 2.0, id="KCP, 14 factors"),
    ],
)
def test_the_search_is_short(network: Network, limit: float) -> None:
    """Seconds of one core, about four times what was measured: a search that looks at all subsets takes minutes."""
    began = time.thread_time()
    _plan(_setting(network, 16, True, CPU, None))
    assert time.thread_time() - began < limit
