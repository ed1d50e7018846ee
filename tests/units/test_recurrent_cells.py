"""Cells beside torch's: names, state dicts, trained cells and the way back."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import tenfold
from tenfold.nn import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

KINDS = pytest.mark.parametrize("kind", [LSTMCell, GRUCell, RNNCell], ids=lambda kind: kind.__name__)
X = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


def state_of(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@KINDS
def test_torch_names(kind: Any) -> None:
    cell = kind(12, 8, format=tenfold.KCP(rank=2))
    assert_close(cell.weight_ih, cell.ih.factorized.dense())
    assert cell.weight_hh is cell.hh.weight and cell.bias_ih is cell.ih.bias
    assert kind(12, 8, bias=False).bias_hh is None
    with pytest.raises(AttributeError, match="weight_hr"):
        _ = cell.weight_hr


@KINDS
def test_state_dicts_go_both_ways(kind: Any) -> None:
    dense = kind.dense_type(12, 8)
    cell = nn.Sequential(kind(12, 8))
    cell.load_state_dict({f"0.{name}": value for name, value in dense.state_dict().items()})
    assert_close(state_of(cell(X)), state_of(dense(X)))
    assert cell[0].to_dense().state_dict().keys() == dense.state_dict().keys()
    opened = kind.opened(dense)
    assert opened.weight_hh is dense.weight_hh and opened.closed().weight_hh is dense.weight_hh


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell], ids=lambda kind: kind.__name__)
def test_from_dense_heeds_the_modes_of_both_maps(kind: Any) -> None:
    """The gates multiply the size of one factor, which `gate_mode` names."""
    modes = {"in_modes": (2, 2, 3), "out_modes": (4, 1, 2), "recurrent_modes": (4, 2)}
    made = kind.from_dense(kind.dense_type(12, 8), tenfold.TTM(rank=1), recurrent_format=tenfold.TTM(rank=2), gate_mode=2, **modes)
    inputs, hidden = (next(one for name, one in made.factorized.items() if f"weight_{part}" in name) for part in ("ih", "hh"))
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind.__name__.removesuffix("Cell")]
    assert sorted(factor.numel() for factor in inputs.factors) == sorted((2 * 4, 2 * 1, gates * 3 * 2))
    assert hidden.fold.axis("i").modes == hidden.fold.axis("o").modes[-2:] == (4, 2)


@KINDS
def test_from_dense(kind: Any) -> None:
    dense = kind.dense_type(12, 8, dtype=torch.float64).eval()
    cell = kind.from_dense(dense, tenfold.SVD(rank=1.0), recurrent_format=tenfold.TTM(rank=1.0))
    assert set(cell.factorized) == {"weight_ih", "weight_hh"} and not cell.training
    assert_close(state_of(cell(X.double())), state_of(dense(X.double())), rtol=1e-8, atol=1e-8)
    assert not {p.data_ptr() for p in cell.parameters()} & {p.data_ptr() for p in dense.parameters()}
    with pytest.raises(TypeError, match=rf"{kind.__name__}.from_dense got a Linear; it needs a torch.nn.{kind.__name__}: give one"):
        kind.from_dense(nn.Linear(2, 2))


def test_a_nonlinearity_goes_along() -> None:
    dense = nn.RNNCell(12, 8, nonlinearity="relu")
    assert_close(RNNCell.from_dense(dense, tenfold.SVD(rank=1.0))(X), dense(X), rtol=1e-4, atol=1e-5)


@KINDS
def test_wrong_states(kind: Any) -> None:
    cell, state = kind(12, 8), torch.zeros(5, 8)
    for wrong in ((state,), state) if kind is LSTMCell else ((state,), (state, state)):
        with pytest.raises(TypeError, match=r"got a state of type (tuple|Tensor); it needs .*: give that, or nothing for zeros"):
            cell(X, wrong)
    given = (state.double(), state) if kind is LSTMCell else state.double()
    with pytest.raises(RuntimeError, match=r"got a state of the dtype torch.float64; its input has torch.float32: convert one of them"):
        cell(X, given)


@KINDS
def test_a_model_that_calls_a_cell_step_by_step(kind: Any) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kind.dense_type(12, 8, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = None
            for now in x.unbind(1):
                state = self.cell(now, state)
            return state_of(state)

    model, x = Reader().eval(), torch.randn(3, 4, 12, dtype=torch.float64)
    plan = tenfold.plan(model, tenfold.SVD(rank=1.0), inputs=x, calibration=[x])
    assert [row.name for row in plan.layers] == ["cell.ih", "cell.hh"] and plan.layers[0].flops_before == 4 * 2 * 12 * 8 * kind.n_gates
    small: Any = tenfold.compress(model, plan)
    assert isinstance(small.cell, kind)
    assert_close(small(x), model(x), rtol=1e-8, atol=1e-8)
    assert type(tenfold.to_dense(small).cell) is kind.dense_type
