"""Factorised parts of torch's own transformer layers: the fast path of eval reads `.weight` and `.bias` of its children."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from tenfold.formats import CP, SVD, TT, TTM, Tucker
from tenfold.layers.linear import Linear

FORMATS = pytest.mark.parametrize("format", [SVD(rank=4), CP(rank=6), Tucker(rank=4), TT(rank=4), TTM(rank=4)], ids=str)


class Calls(TorchDispatchMode):
    """Records the names of torch's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def dense_twin(module: nn.Module, twin: nn.Module) -> nn.Module:
    """A torch layer with the weights that the factorised parts stand for."""
    state = dict(module.state_dict())
    for name, part in module.named_modules():
        if isinstance(part, Linear):
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.factorized")}
            state[f"{name}.weight"] = part.weight.detach()
    twin.load_state_dict(state)
    return twin.train(module.training)


@FORMATS
def test_encoder_layer_on_the_fast_path(format: Any) -> None:
    layer: Any = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    layer.linear1 = Linear.from_dense(layer.linear1, format)
    layer.linear2 = Linear.from_dense(layer.linear2, format)
    layer.self_attn.out_proj = Linear.from_dense(layer.self_attn.out_proj, format)
    twin = dense_twin(layer, nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True))
    x = torch.randn(3, 5, 32)
    assert_close(layer(x), twin(x), rtol=1e-4, atol=1e-5)
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    layer.eval()
    twin.eval()
    with torch.no_grad():
        with Calls() as calls:
            got = layer(x)
        assert "aten._transformer_encoder_layer_fwd.default" in calls.names
        assert_close(got, twin(x), rtol=1e-4, atol=1e-5)
        layer.linear1.factorized.factors[0].mul_(2)
        assert_close(layer(x), dense_twin(layer, twin)(x), rtol=1e-4, atol=1e-5)


@FORMATS
def test_attention_on_the_fast_path(format: Any) -> None:
    attention: Any = nn.MultiheadAttention(32, 4, batch_first=True)
    attention.out_proj = Linear.from_dense(attention.out_proj, format)
    twin = dense_twin(attention, nn.MultiheadAttention(32, 4, batch_first=True))
    x = torch.randn(3, 5, 32)
    for got, wanted in zip(attention(x, x, x), twin(x, x, x), strict=True):
        assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    attention.eval()
    twin.eval()
    with torch.inference_mode():
        with Calls() as calls:
            got, _ = attention(x, x, x)
        assert "aten._native_multi_head_attention.default" in calls.names
        assert_close(got, twin(x, x, x)[0], rtol=1e-4, atol=1e-5)


def test_encoder_of_layers_with_padding() -> None:
    """A whole encoder with nested tensors, which torch builds from a padding mask on the fast path."""
    layer: Any = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    encoder: Any = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()
    for one in encoder.layers:
        one.linear1 = Linear.from_dense(one.linear1, SVD(rank=8))
        one.linear2 = Linear.from_dense(one.linear2, SVD(rank=8))
    twin = dense_twin(encoder, nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True), 2)).eval()
    x, mask = torch.randn(2, 6, 32), torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    with torch.no_grad():
        assert_close(encoder(x, src_key_padding_mask=mask)[0], twin(x, src_key_padding_mask=mask)[0], rtol=1e-4, atol=1e-5)
