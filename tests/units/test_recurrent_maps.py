"""Maps of recurrent layers: wide inputs are not copied, and autocast keeps one dtype."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

import tenfold
from tenfold.nn import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from tenfold.recipes.measure import peak_bytes
from tenfold.recurrent.cells import Cell


def test_an_input_with_the_batch_first_is_not_copied() -> None:
    x = torch.randn(4, 5, 40_000)
    layer = LSTM(40_000, 8, batch_first=True, format=tenfold.KCP(rank=1), in_modes=(8, 50, 100), out_modes=(2, 2, 2)).eval()
    with torch.no_grad():
        layer(x)
        assert peak_bytes(lambda: layer(x)) < x.numel() * 4 / 2
        assert_close(layer(x)[0], layer.to_dense()(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("formats", [{}, {"recurrent_format": tenfold.KCP(rank=2)}, {"joint_format": tenfold.KCP(rank=2)}], ids=str)
def test_autocast(kind: Any, formats: dict[str, Any]) -> None:
    layer, x = kind(12, 8, **formats), torch.randn(5, 3, 12)
    wanted = layer(x)[0]
    for hooks in (False, True):
        if hooks and "joint_format" not in formats:
            layer.hh_l0.register_forward_hook(lambda *_: None)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)[0]
        y.float().sum().backward()
        assert y.dtype == torch.bfloat16
        assert_close(y.float(), wanted, rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("formats", [{}, {"recurrent_format": tenfold.KCP(rank=2)}], ids=str)
def test_autocast_with_a_state(kind: Any, formats: dict[str, Any]) -> None:
    """A state in the dtype of the weights, as a decoder keeps it, or the zeros of a cell; new states have the dtype of torch's."""
    layer, is_cell = kind(12, 8, **formats), issubclass(kind, Cell)
    x, state = (torch.randn(3, 12), torch.randn(3, 8)) if is_cell else (torch.randn(5, 3, 12), torch.randn(1, 3, 8))
    given = (state, state) if layer.n_states > 1 else state
    for arguments in ((x, given), (x,)) if is_cell else ((x, given),):
        wanted = layer(*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(*arguments)
        mine, other = (one if kind in (GRUCell, RNNCell) else one[0] for one in (found, wanted))
        assert mine.dtype == (torch.bfloat16 if kind in (RNN, RNNCell) else torch.float32)
        assert_close(mine.float(), other, rtol=0, atol=0.05)
        mine.float().sum().backward()
