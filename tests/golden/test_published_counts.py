"""Parameter counts and multiply-adds that papers and their code give, exactly.

Sources: TT-RNN (Yang, Krompass, Tresp 2017, arXiv 1707.01786) and its script Experiment_UCF11.py; BT-RNN (Ye et al. 2018, arXiv
1712.05134) and its script experiment_UCF11.py; TR-RNN (Pan et al. 2019, arXiv 1811.07503) and HT-RNN (Yin et al. 2021, arXiv 2005.04366):
their shapes are inferred, the counts fit exactly; KCP (arXiv 2008.09342): the largest compression of its abstract, 278,219; TedNet
(arXiv 2104.05018), ext/benchmark; the TT layers of Yin et al. 2021 (TTLinear.py, compare_tt_lstm.py); Novikov et al. 2015, arXiv 1509.06569.

Input-to-hidden matrices of all four LSTM gates, without biases: 57,600 -> 4 x 256 in UCF11 and YouTube Celebrities Face. A ratio is the
size of that matrix over the count, which is what the papers print.
"""

import pytest
import torch

from tenfold.contract import Machine, plan_linear
from tenfold.fold import make_fold
from tenfold.format import Format
from tenfold.formats import BT, CP, HT, KCP, TR, TT, TTM, Tucker
from tenfold.network import Network
from tenfold.weight import FactorizedWeight

UCF11 = 57_600 * 4 * 256
GATES = (16, 4, 4, 4)
IN_4, IN_5, IN_8 = (8, 20, 20, 18), (8, 10, 10, 9, 8), (4, 2, 5, 8, 6, 5, 3, 2)
OUT_5 = (16, 4, 2, 4, 2)
YTC = (4, 20, 20, 36)


def network(format: Format, in_modes: tuple[int, ...], out_modes: tuple[int, ...]) -> Network:
    n_in, n_out = torch.tensor(in_modes).prod().item(), torch.tensor(out_modes).prod().item()
    return format.network(make_fold([("o", int(n_out)), ("i", int(n_in))], 1, in_modes=in_modes, out_modes=out_modes))


LSTM = [
    (TTM(rank=4), IN_4, GATES, 3_360, 17_554.3),  # TT-LSTM; published 17,554
    (TTM(rank=3), IN_4, GATES, 2_040, 28_912.9),
    (TTM(rank=5), IN_4, GATES, 5_000, 11_796.5),
    (TTM(rank=4), YTC, GATES, 3_392, 17_388.7),  # YouTube Celebrities Face
    (BT(rank=1), IN_4, GATES, 722, 81_693.1),  # BT-LSTM, two blocks
    (BT(rank=2), IN_4, GATES, 1_472, 40_069.6),
    (BT(rank=4), IN_4, GATES, 3_392, 17_388.7),  # published 17,388
    (BT(rank=1), (320, 180), (64, 16), 46_722, 1_262),
    (BT(rank=2), (320, 180), (64, 16), 93_448, 631),
    (BT(rank=4), (320, 180), (64, 16), 186_912, 316),
    (BT(rank=1), (36, 40, 40), (32, 4, 8), 3_266, 18_060),
    (BT(rank=2), (36, 40, 40), (32, 4, 8), 6_544, 9_013),
    (BT(rank=4), (36, 40, 40), (32, 4, 8), 13_184, 4_474),
    (BT(rank=1), IN_5, (16, 2, 2, 4, 4), 474, 124_435),
    (BT(rank=2), IN_5, (16, 2, 2, 4, 4), 1_008, 58_514),
    (BT(rank=4), IN_5, (16, 2, 2, 4, 4), 3_936, 14_985),
    (TR(rank=(5,) * 5 + (10,) + (5,) * 7), IN_8, OUT_5, 1_725, 34_192.7),  # TR-LSTM: 10 where its chain begins and ends; published 34,193
    (TR(rank=5), IN_8, OUT_5, 1_575, 37_449.1),
    (HT(rank=4, inner_rank=5), IN_5, OUT_5, 1_245, 47_375.4),  # HT-LSTM; published 47,375
    (HT(rank=4, inner_rank=4), IN_5, OUT_5, 1_168, 50_498.6),
    (HT(rank=5), IN_5, OUT_5, 1_600, 36_864),
    (HT(rank=4, inner_rank=5, tree="((1 2) 3) (4 5)"), IN_5, (16, 2, 2, 4, 4), 1_229, 47_992.2),
    *((KCP(rank=rank), IN_4, GATES, 360 * rank, 163_840 / rank) for rank in (1, 2, 4, 8)),
    *((KCP(rank=rank), IN_5, OUT_5, 240 * rank, 245_760 / rank) for rank in (1, 2, 4, 8, 10)),
    *((KCP(rank=rank), IN_5, (16, 2, 2, 4, 4), 236 * rank, 249_925.4 / rank) for rank in (1, 2, 4)),
    (KCP(rank=1), IN_5, (8, 4, 2, 8, 2), 212, 278_218.9),  # the largest compression of KCP, 278,219
    (TT(rank=(4, 8, 16, 8, 4, 4)), IN_4, (16, 8, 8), 3_400, 17_347.8),  # a matrix product state, output modes first (Yin et al.)
    (TT(rank=(4, 8, 16, 8, 8, 4)), YTC, (32, 8, 4), 3_472, 16_988.0),
]


@pytest.mark.parametrize(("format", "in_modes", "out_modes", "count", "ratio"), LSTM, ids=repr)
def test_lstm_of_57600_inputs(format: Format, in_modes: tuple[int, ...], out_modes: tuple[int, ...], count: int, ratio: float) -> None:
    found = network(format, in_modes, out_modes)
    assert found.numel == count
    assert UCF11 / found.numel == pytest.approx(ratio, abs=0.05 if ratio % 1 else 0.5)


OTHERS = [
    (TTM(rank=3), IN_4, (12, 4, 4, 4), 1_944, 22_755.6),  # TT-GRU: three gates
    (TTM(rank=4), IN_4, (12, 4, 4, 4), 3_232, 13_687.1),
    (TTM(rank=5), IN_4, (12, 4, 4, 4), 4_840, 9_139.8),
    (TTM(rank=4), IN_4, (4, 4, 4, 4), 2_976, 4_954.8),  # one gate
    (TTM(rank=4), (10, 18, 13, 30), GATES, 3_104, 23_158.8),  # Hollywood2: the ratio counts 70,200 inputs
    (TTM(rank=(2, 2, 2, 2)), (1, 1, 5, 7, 9), (8, 2, 4, 4, 8), 360, 1_792),  # TIMIT
    (TT(rank=(2, 2, 4, 2, 2)), (5, 7, 9), (16, 8, 16), 278, 2_320.6),
    (TR(rank=20), (64, 32), (128, 64), 115_200, 145.64),  # TedNet, published 146
    (BT(rank=5), (64, 32), (128, 64), 102_450, 163.76),  # published 164
    (CP(rank=400), (64, 32), (128, 64), 115_200, 145.64),  # published 146
    (TTM(rank=10), (64, 32), (128, 64), 102_400, 163.84),  # its TT merges an input mode with an output mode; published 164
]


@pytest.mark.parametrize(("format", "in_modes", "out_modes", "count", "ratio"), OTHERS, ids=repr)
def test_other_maps(format: Format, in_modes: tuple[int, ...], out_modes: tuple[int, ...], count: int, ratio: float) -> None:
    found = network(format, in_modes, out_modes)
    assert found.numel == count
    full = 70_200 * 1024 if in_modes[0] == 10 else torch.tensor((*in_modes, *out_modes)).prod().item()
    assert full / found.numel == pytest.approx(ratio, abs=0.05 if ratio > 1000 else 0.005)


def test_rounded_ratios_are_the_published_ones() -> None:
    """The digits that the papers print."""
    published = {3_360: 17_554, 1_725: 34_193, 1_245: 47_375, 212: 278_219}
    assert {count: round(UCF11 / count) for count in published} == published
    assert UCF11 // 3_392 == 17_388
    assert [round(16_777_216 / count) for count in (115_200, 102_450, 102_400, 94_880)] == [146, 164, 164, 177]


@pytest.mark.parametrize(
    ("count", "total", "ratio"), [(212, 266_207, 222.6), (1_245, 267_240, 221.7), (1_725, 267_720, 221.3), (3_360, 269_355, 220.0)]
)
def test_the_dense_recurrent_weight_limits_the_whole_model(count: int, total: int, ratio: float) -> None:
    """With 256 x 1,024 recurrent weights, biases and a head for 11 classes no input map can bring the LSTM below 1 / 223."""
    rest = 256 * 1024 + 1024 + 257 * 11
    assert count + rest == total
    assert (UCF11 + rest) / total == pytest.approx(ratio, abs=0.05)


def test_the_gates_may_be_a_mode_of_their_own() -> None:
    """On the first mode the count is that of the packed (4 x 4, 4, 4, 4); the default place costs less where it does not expand a mode."""
    first = make_fold([("o", 1024), ("i", 57_600)], 4, in_modes=IN_4, out_modes=(4, 4, 4, 4), gates=4, gate_mode=0)
    default = make_fold([("o", 1024), ("i", 57_600)], 4, in_modes=IN_4, out_modes=(4, 4, 4, 4), gates=4)
    assert TTM(rank=4).network(first).numel == 3_360
    assert KCP(rank=1).network(first).numel == 360
    assert default.gate == 1
    assert KCP(rank=1).network(default).numel == 4 * 8 + 16 * 20 + 4 * 20 + 4 * 18


def test_tednet_tucker2_as_a_statement() -> None:
    """TK2 of (16, 16, 8) -> 8192 at ranks (10, 10): the second and third input mode stay in the core. Published 177."""
    sizes = {"i1": 16, "i2": 16, "i3": 8, "o1": 8192, "r1": 10, "r2": 10}
    found = Network.parse("i1 r1, i2 i3 r1 r2, r2 o1 -> o1 i1 i2 i3", sizes).numel
    assert found == 94_880
    assert 16_777_216 / found == pytest.approx(176.83, abs=0.005)


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
