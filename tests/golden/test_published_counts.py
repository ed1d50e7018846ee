"""Parameter counts and multiply-adds that papers and their code give, exactly.

Sources: TT-RNN (Yang, Krompass, Tresp 2017, arXiv 1707.01786) and its script Experiment_UCF11.py; TedNet (arXiv 2104.05018),
ext/benchmark; the TT layers of Yin et al. 2021 (TTLinear.py, compare_tt_lstm.py); Novikov et al. 2015, arXiv 1509.06569.
Input-to-hidden matrices of all four LSTM gates, without biases: 57,600 -> 4 x 256 in UCF11 and YouTube Celebrities Face.
"""

import pytest
import torch

from tenfold.contract import Machine, plan_linear
from tenfold.fold import make_fold
from tenfold.format import Format
from tenfold.formats import CP, TT, TTM, Tucker
from tenfold.network import Network
from tenfold.weight import FactorizedWeight

GATES = (16, 4, 4, 4)
TR_LSTM = (
    "z i1 a, a i2 b, b i3 c, c i4 d, d i5 e, e i6 f, f i7 g, g i8 h, h o1 p, p o2 q, q o3 r, r o4 s, s o5 z "
    "-> o1 o2 o3 o4 o5 i1 i2 i3 i4 i5 i6 i7 i8"
)


def network(format: Format, in_modes: tuple[int, ...], out_modes: tuple[int, ...]) -> Network:
    n_in, n_out = torch.tensor(in_modes).prod().item(), torch.tensor(out_modes).prod().item()
    return format.network(make_fold([("o", int(n_out)), ("i", int(n_in))], 1, in_modes=in_modes, out_modes=out_modes))


@pytest.mark.parametrize(
    ("in_modes", "out_modes", "rank", "count"),
    [
        ((8, 20, 20, 18), GATES, 4, 3_360),  # TT-LSTM, UCF11
        ((8, 20, 20, 18), GATES, 3, 2_040),
        ((8, 20, 20, 18), GATES, 5, 5_000),
        ((8, 20, 20, 18), (12, 4, 4, 4), 3, 1_944),  # TT-GRU: three gates
        ((8, 20, 20, 18), (12, 4, 4, 4), 4, 3_232),
        ((8, 20, 20, 18), (12, 4, 4, 4), 5, 4_840),
        ((8, 20, 20, 18), (4, 4, 4, 4), 4, 2_976),  # one gate
        ((4, 20, 20, 36), GATES, 4, 3_392),  # YouTube Celebrities Face
        ((10, 18, 13, 30), GATES, 4, 3_104),  # Hollywood2
        ((1, 1, 5, 7, 9), (8, 2, 4, 4, 8), (2, 2, 2, 2), 360),  # TIMIT
    ],
)
def test_tt_matrix(in_modes: tuple[int, ...], out_modes: tuple[int, ...], rank: int, count: int) -> None:
    assert network(TTM(rank=rank), in_modes, out_modes).numel == count


@pytest.mark.parametrize(
    ("out_modes", "in_modes", "ranks", "count"),
    [
        ((16, 8, 8), (8, 20, 20, 18), (4, 8, 16, 8, 4, 4), 3_400),  # UCF11
        ((32, 8, 4), (4, 20, 20, 36), (4, 8, 16, 8, 8, 4), 3_472),  # YouTube Celebrities Face
        ((16, 8, 16), (5, 7, 9), (2, 2, 4, 2, 2), 278),  # TIMIT
    ],
)
def test_tt_of_separate_modes(out_modes: tuple[int, ...], in_modes: tuple[int, ...], ranks: tuple[int, ...], count: int) -> None:
    """A matrix product state with the output modes first, as in the code of Yin et al."""
    assert network(TT(rank=ranks), in_modes, out_modes).numel == count


def test_tednet_cp() -> None:
    """CP of (64, 32) -> (128, 64) at rank 400: 115,200 numbers, 146 times fewer than 16,777,216."""
    count = network(CP(rank=400), (64, 32), (128, 64)).numel
    assert count == 115_200
    assert 16_777_216 / count == pytest.approx(145.64, abs=0.005)


def test_tednet_tt() -> None:
    """TedNet's TT merges an input mode with an output mode in each of two cores: (64 x 128) 10 + 10 (32 x 64) = 102,400."""
    count = network(TTM(rank=10), (64, 32), (128, 64)).numel
    assert count == 102_400
    assert 16_777_216 / count == pytest.approx(163.84)


def test_tednet_tucker2_as_a_statement() -> None:
    """TK2 of (16, 16, 8) -> 8192 at ranks (10, 10): the second and third input mode stay in the core."""
    sizes = {"i1": 16, "i2": 16, "i3": 8, "o1": 8192, "r1": 10, "r2": 10}
    assert Network.parse("i1 r1, i2 i3 r1 r2, r2 o1 -> o1 i1 i2 i3", sizes).numel == 94_880


@pytest.mark.parametrize(
    ("statement", "sizes", "count"),
    [
        # KCP: a sum of Kronecker products, R (sum of m_k n_k); the published maximum compression 278,219 means 212 numbers
        ("r o1 i1, r o2 i2, r o3 i3, r o4 i4 -> o1 o2 o3 o4 i1 i2 i3 i4", {"r": 2, "o": GATES, "i": (8, 20, 20, 18)}, 720),
        (
            "r o1 i1, r o2 i2, r o3 i3, r o4 i4, r o5 i5 -> o1 o2 o3 o4 o5 i1 i2 i3 i4 i5",
            {"r": 1, "o": (8, 4, 2, 8, 2), "i": (8, 10, 10, 9, 8)},
            212,
        ),
        # BT-LSTM: two blocks, core 4^4
        (
            "s a b c d, s a o1 i1, s b o2 i2, s c o3 i3, s d o4 i4 -> o1 o2 o3 o4 i1 i2 i3 i4",
            {"s": 2, "a": 4, "b": 4, "c": 4, "d": 4, "o": GATES, "i": (8, 20, 20, 18)},
            3_392,
        ),
        # TR-LSTM: a ring over separate modes; all ranks 5 but r_0 = 10
        (
            TR_LSTM,
            {
                "z": 10,
                **dict.fromkeys("abcdefghpqrs", 5),
                "o": (16, 4, 2, 4, 2),
                "i": (4, 2, 5, 8, 6, 5, 3, 2),
            },
            1_725,
        ),
        # HT-LSTM: a binary tree, leaves 4, inner nodes 5
        (
            "o1 i1 a, o2 i2 b, o3 i3 c, o4 i4 d, o5 i5 e, a b p, p c q, d e s, q s -> o1 o2 o3 o4 o5 i1 i2 i3 i4 i5",
            {**dict.fromkeys("abcde", 4), **dict.fromkeys("pqs", 5), "o": (16, 4, 2, 4, 2), "i": (8, 10, 10, 9, 8)},
            1_245,
        ),
    ],
    ids=["KCP", "KCP-212", "BT", "TR", "HT"],
)
def test_statements_of_other_formats(statement: str, sizes: dict, count: int) -> None:
    """A format is a statement: the counts of formats that are no file of the library follow from theirs."""
    flat = {name: size for name, size in sizes.items() if isinstance(size, int)}
    for role in "oi":
        flat |= {f"{role}{number}": size for number, size in enumerate(sizes[role], 1)}
    assert Network.parse(statement, flat).numel == count


def test_multiply_adds_of_the_tt_lstm() -> None:
    """Contracted from the right, 1,937,408 multiply-adds for each sample; from the left it would be 12,607,488, dense 58,982,400."""
    fold = make_fold([("o", 1024), ("i", 57_600)], 4, in_modes=(8, 20, 20, 18), out_modes=GATES)
    weight = FactorizedWeight(TTM(rank=4).network(fold), fold, device="meta")
    assert weight.plan_apply(16).flops == 2 * 1_937_408
    assert plan_linear(weight.network, 16, False, Machine()).flops == 2 * 1_937_408


@pytest.mark.parametrize(("rank", "parameters"), [((64, 128), 73_728 + 256 * 64 + 256 * 128)])
def test_tucker2_convolution(rank: tuple[int, int], parameters: int) -> None:
    """Kim et al. 2016, section 3.1: S r_s + k k r_s r_t + T r_t."""
    fold = make_fold([("o", 256), ("i", 256), ("k", 3), ("k", 3)], 1)
    assert Tucker(rank=rank).network(fold).numel == parameters == 64 * 128 * 9 + 256 * 64 + 256 * 128
