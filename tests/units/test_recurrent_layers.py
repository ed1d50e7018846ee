"""What recurrent layers have beyond torch's: gates as a mode, counts, start values and the arguments of formats."""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import tenfold
from tenfold.nn import GRU, LSTM, RNN, GRUCell, LSTMCell

UCF = {"in_modes": (8, 10, 10, 9, 8)}


def count(layer: Any) -> int:
    return sum(p.numel() for p in layer.factorized["weight_ih_l0"].parameters())


def test_published_counts_of_input_maps() -> None:
    """UCF11: 57,600 inputs, 256 hidden; the gates inside the first output mode, as in the papers."""
    four = {"in_modes": (8, 20, 20, 18)}
    with torch.device("meta"):
        assert count(LSTM(57600, 256, format=tenfold.TTM(rank=4), **four, out_modes=(16, 4, 4, 4))) == 3360
        assert count(GRU(57600, 256, format=tenfold.TTM(rank=4), **four, out_modes=(12, 4, 4, 4))) == 3232
        assert count(LSTM(57600, 256, format=tenfold.KCP(rank=1), **UCF, out_modes=(8, 4, 2, 8, 2))) == 212
        assert count(LSTM(57600, 256, format=tenfold.KCP(rank=1), **UCF, out_modes=(16, 4, 2, 4, 2))) == 240


def test_gates_are_one_more_mode_where_they_cost_least() -> None:
    layer = LSTM(57600, 256, format=tenfold.KCP(rank=1), **UCF, out_modes=(4, 4, 2, 4, 2))
    network = layer.factorized["weight_ih_l0"].network
    assert network.factors[2] == ("r", "o1", "o4", "i3") and network.sizes["o1"] == 4, "10 inputs for 2 outputs: the most"
    assert network.numel == 32 + 40 + 4 * 20 + 36 + 16
    other = LSTM(57600, 256, format=tenfold.KCP(rank=1), **UCF, out_modes=(4, 4, 2, 4, 2), gate_mode=0)
    assert other.factorized["weight_ih_l0"].network.numel == 240


def test_the_whole_model_passes_5000x_with_a_recurrent_format() -> None:
    """The dense hidden-to-hidden map holds 262,144 values and caps the ratio of the model near 222."""
    dense = 4 * 256 * (57600 + 256) + 2 * 1024
    with torch.device("meta"):
        plain = LSTM(57600, 256, format=tenfold.KCP(rank=1), **UCF, out_modes=(8, 4, 2, 8, 2))
        both = LSTM(
            57600, 256, format=tenfold.KCP(rank=1), **UCF, out_modes=(8, 4, 2, 8, 2),
            recurrent_format=tenfold.KCP(rank=4), recurrent_modes=(4, 4, 4, 4),
        )  # fmt: skip
    ratios = [dense / sum(p.numel() for p in layer.parameters()) for layer in (plain, both)]
    assert 220 < ratios[0] < 226 and ratios[1] > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_modes": (3, 4), "out_modes": (2, 2, 2)}, r"as many output modes as input modes, but there are 3 and 2"),
        ({"recurrent_modes": (2, 4)}, r"a map without a format got in_modes=\(2, 4\), out_modes=\(2, 4\); only a factorised map has modes"),
        ({"format": None, "out_modes": (2, 4)}, r"a map without a format got out_modes=\(2, 4\); .*: give format= too"),
        ({"in_modes": (3, 3), "out_modes": (2, 4)}, r"have the product 9, which does not fit its size 12"),
        ({"in_modes": (3, 4), "out_modes": (8, 4), "gate_mode": 0}, r"hold all 4 gates, but gate_mode=0 asks for a mode of their own"),
        (
            {"in_modes": (3, 4), "out_modes": (2, 4), "gate_mode": 2},
            r"gate_mode=2 names no output mode of \(2, 4\); give a number from 0 to 1",
        ),
    ],
)
def test_modes_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSTM(12, 8, **{"format": tenfold.TTM(rank=2), **arguments})


def test_other_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"GRU got proj_size=2; only an LSTM has a projection: leave it out"):
        GRU(12, 8, proj_size=2)
    with pytest.raises(ValueError, match=r"recurrent_init is 'eye'; it needs to be 'normal' or 'orthogonal': choose that"):
        LSTM(12, 8, recurrent_init="eye")
    with pytest.raises(ValueError, match=r"recurrent_init is 'orthogonal'; it needs to be 'normal' with joint_format: choose that"):
        LSTM(12, 8, joint_format=tenfold.KCP(rank=1), recurrent_init="orthogonal")
    with pytest.raises(ValueError, match=r"LSTM got forget_bias=1.0 with bias=False; it needs biases: leave one of the two out"):
        LSTM(12, 8, bias=False, forget_bias=1.0)
    with pytest.raises(ValueError, match=r"with another format; one map of \[x, h\] takes the place of both: give joint_format alone"):
        LSTM(12, 8, format=tenfold.SVD(rank=1), joint_format=tenfold.SVD(rank=1))
    with pytest.raises(TypeError, match=r"a recurrent map got the format 'ttm:rank=2'; an object of a format is needed: give for instance"):
        LSTM(12, 8, recurrent_format="ttm:rank=2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
        LSTM(12, 0)
    with pytest.raises(ValueError, match="Unknown nonlinearity 'sine'"):
        RNN(12, 8, nonlinearity="sine")


def test_cells_check_their_inputs() -> None:
    cell = LSTMCell(12, 8)
    with pytest.raises(RuntimeError, match=r"LSTMCell got an input of 11 features; it has input_size=12: give as many"):
        cell(torch.zeros(2, 11))
    with pytest.raises(ValueError, match=r"LSTMCell got 3 axes; it needs a tensor \(features\) or \(batch, features\): give one step"):
        cell(torch.zeros(2, 3, 12))
    with pytest.raises(RuntimeError, match=r"GRUCell got a state of shape \(3, 8\); it needs \(2, 8\): build it for this input"):
        GRUCell(12, 8)(torch.zeros(2, 12), torch.zeros(3, 8))
    with pytest.raises(ValueError, match="nonlinearity is 'sine'; it needs to be 'tanh' or 'relu': choose one of them"):
        tenfold.nn.RNNCell(12, 8, nonlinearity="sine")


def test_start_values() -> None:
    """Factorised maps vary as torch's, and less where they are wider than the hidden features: no gate is saturated at the start."""
    torch.manual_seed(0)
    narrow = LSTM(64, 64, format=tenfold.KCP(rank=16), in_modes=(8, 8), out_modes=(8, 8))
    assert float(narrow.weight_ih_l0.detach().std()) == pytest.approx(1 / math.sqrt(3 * 64), rel=0.25)
    wide = LSTM(4096, 64, format=tenfold.KCP(rank=64), in_modes=(64, 64), out_modes=(8, 8))
    assert float(wide.ih_l0(torch.randn(50, 4096)).detach().std()) == pytest.approx(1 / math.sqrt(3), rel=0.25)


def test_orthogonal_start_of_the_recurrence() -> None:
    kronecker = LSTM(16, 16, recurrent_format=tenfold.KCP(rank=1), recurrent_modes=(4, 4), recurrent_init="orthogonal")
    for layer in (kronecker, LSTM(16, 16, recurrent_init="orthogonal")):
        for gate in layer.weight_hh_l0.detach().chunk(4):
            assert_close(gate @ gate.T, torch.eye(16), rtol=1e-4, atol=1e-5)


def test_forget_bias() -> None:
    layer = LSTM(4, 3, forget_bias=1.0)
    assert_close((layer.bias_ih_l0 + layer.bias_hh_l0)[3:6], torch.ones(3))


def test_dropout_is_between_layers_in_training_only() -> None:
    layer = LSTM(6, 5, 2, dropout=0.5)
    x = torch.randn(4, 2, 6)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert_close(layer(x)[0], layer.to_dense()(x)[0])


def test_weight_side_contractions_are_made_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LSTM(16, 16, recurrent_format=tenfold.KCP(rank=2), recurrent_modes=(4, 4))
    calls = []
    original = layer.factorized["weight_hh_l0"]._ready
    monkeypatch.setattr(layer.factorized["weight_hh_l0"], "_ready", lambda *arguments: calls.append(1) or original(*arguments))
    layer(torch.randn(7, 2, 16))[0].sum().backward()
    assert len(calls) == 1


def test_repr_names_the_arguments() -> None:
    assert repr(LSTM(4, 3, 2, bidirectional=True)).splitlines()[1].strip() == "4, 3, num_layers=2, bidirectional=True"
