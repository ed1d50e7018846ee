"""Multiply-adds of chosen plans for the input map of the UCF11 LSTM, 57,600 -> 4 x 256, at most those of the best known algorithms.

Source: ../shared/reference/formats.md 3.5, derived there from each format's definition; dense is 58,982,400. Where a row has several
algorithms, the best one counts. Unit: multiply-adds for each sample; tolerance: none.
"""

import pytest

from tenfold.contract import Machine, fewest_flops, plan_linear
from tenfold.fold import make_fold
from tenfold.format import Format
from tenfold.formats import BT, HT, KCP, TR, TTM
from tenfold.network import Network

FIVE = (8, 10, 10, 9, 8), (16, 4, 2, 4, 2)
FOUR = (8, 20, 20, 18), (16, 4, 4, 4)
RING = (4, 2, 5, 8, 6, 5, 3, 2), (16, 4, 2, 4, 2)


def network_of(format: Format, modes: tuple[tuple[int, ...], tuple[int, ...]]) -> Network:
    inputs, outputs = modes
    return format.network(make_fold([("o", 1024), ("i", 57_600)], format.n_modes, in_modes=inputs, out_modes=outputs))


def tensor_ring(rank: int, first: int) -> Network:
    """A ring that starts at the inputs: r_0 before i1 and after o5, all other ranks equal."""
    inputs, outputs = RING
    modes = {f"i{n}": size for n, size in enumerate(inputs, 1)} | {f"o{n}": size for n, size in enumerate(outputs, 1)}
    cores = ", ".join(f"r{n} {mode} r{(n + 1) % len(modes)}" for n, mode in enumerate(modes))
    right = " ".join(sorted(modes, key=lambda mode: "oi".index(mode[0])))
    return Network.parse(f"{cores} -> {right}", modes | {f"r{n}": rank if n else first for n in range(len(modes))})


def turned(modes: tuple[tuple[int, ...], tuple[int, ...]], order: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pairs of modes in another order: the same layer with its pixels and units renumbered."""
    return tuple(modes[0][k] for k in order), tuple(modes[1][k] for k in order)


ROWS = {
    "KCP 1": (network_of(KCP(rank=1), FIVE), 240, 162_560),
    "KCP 1, mirrored": (network_of(KCP(rank=1), turned(FIVE, (4, 3, 2, 1, 0))), 240, 162_560),
    "KCP 4": (network_of(KCP(rank=4), FIVE), 960, 650_240),
    "KCP 4, mirrored": (network_of(KCP(rank=4), turned(FIVE, (4, 3, 2, 1, 0))), 960, 650_240),
    "KCP 1 of 212 values": (network_of(KCP(rank=1), (FIVE[0], (8, 4, 2, 8, 2))), 212, 167_168),
    "TT 4": (network_of(TTM(rank=4), FOUR), 3_360, 1_937_408),
    "TT 4, mirrored": (network_of(TTM(rank=4), turned(FOUR, (3, 2, 1, 0))), 3_360, 1_937_408),
    "TR 5, first 10": (tensor_ring(5, 10), 1_725, 2_931_200),
    "TR 5, as the format has it": (network_of(TR(rank=5), RING), 1_575, 2_931_200),
    "HT 4, inner 5": (network_of(HT(rank=4, inner_rank=5), FIVE), 1_245, 3_471_360),
    "HT 4, inner 5, mirrored": (network_of(HT(rank=4, inner_rank=5), turned(FIVE, (4, 3, 2, 1, 0))), 1_245, 3_471_360),
    "BT 4, 2 blocks": (network_of(BT(rank=4, blocks=2), FOUR), 3_392, 43_876_352),
    "BT 4, 2 blocks, mirrored": (network_of(BT(rank=4, blocks=2), turned(FOUR, (3, 2, 1, 0))), 3_392, 43_876_352),
    "BT 1, 2 blocks": (network_of(BT(rank=1, blocks=2), FOUR), 722, 2_988_032),
}


@pytest.mark.parametrize("batch", [1, 16, 96, 256])
@pytest.mark.parametrize("row", ROWS)
def test_multiply_adds_of_the_chosen_plan(row: str, batch: int) -> None:
    """In eval and in training, for every batch size; weight-side products of a training step are counted apart."""
    network, numel, best = ROWS[row]
    assert network.numel == numel
    for is_cached in (True, False):
        assert plan_linear(network, batch, is_cached, Machine()).flops <= 2 * best


@pytest.mark.parametrize(
    ("rank", "modes", "best"),
    [(1, FIVE, 162_560), (4, FIVE, 650_240), (8, FIVE, 1_300_480), (9, FOUR, 2_644_992)],
)
def test_algorithm_a_is_the_fewest(rank: int, modes: tuple[tuple[int, ...], tuple[int, ...]], best: int) -> None:
    """Mode by mode in the order of the key 1/m - 1/n: exactly these, no merged group has fewer."""
    plan = fewest_flops(network_of(KCP(rank=rank), modes), 16)
    assert plan.flops == 2 * best and [len(step.group.factors) for step in plan.steps] == [1] * len(modes[0])


@pytest.mark.parametrize("order", [(3, 0, 4, 2, 1), (1, 4, 0, 3, 2), (2, 3, 0, 1, 4)])
def test_the_order_of_the_modes_does_not_change_the_fewest(order: tuple[int, ...]) -> None:
    """Renumbered pixels: the same multiply-adds. (A plan may still spend more, where its first sum would run over scattered values.)"""
    assert fewest_flops(network_of(KCP(rank=1), turned(FIVE, order)), 16).flops == 2 * 162_560


def test_the_best_order_of_the_five_modes() -> None:
    """Modes 3, 5, 2, 4, 1 (formats.md 3.5)."""
    assert [step.group.factors for step in fewest_flops(network_of(KCP(rank=1), FIVE), 16).steps] == [(2,), (4,), (1,), (3,), (0,)]
