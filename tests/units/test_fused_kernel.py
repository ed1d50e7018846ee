"""Counting FLOP on a run."""

import torch
from torch import nn

from tenfold.flops import model_flops
from tenfold.formats import SVD
from tenfold.layers.linear import Linear


def test_flops_of_lstm_and_attention_are_counted():
    assert model_flops(nn.LSTM(8, 16, batch_first=True), torch.randn(2, 5, 8)) == 2 * 5 * 64 * (8 + 16)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    expected = 2 * 5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 2 * 5 * 5 * 16
    assert model_flops(layer, torch.randn(2, 5, 16)) == expected
    assert torch.backends.mha.get_fastpath_enabled()
    layer.linear1 = Linear.from_dense(layer.linear1, SVD(rank=2))  # type: ignore[assignment]
    assert model_flops(layer, torch.randn(2, 5, 16)) == expected  # it runs as its dense kernel, which is made once and not counted
