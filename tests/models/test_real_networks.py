"""Pretrained networks through plan, compress, save and load: no layer left out, budgets exact, outputs those of the dense weights."""

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import tenfold
from tenfold import SVD, TTM, Tucker, compress, plan, to_dense
from tenfold.layers.base import FactorizedLayer

DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the pretrained networks: a folder named by $TENFOLD_DATA, or ../shared/data"),
    pytest.mark.filterwarnings("ignore:cp_als .* did not converge", "ignore:cp_als .* is degenerate"),
]


def networks() -> Any:
    """The module networks.py of the data folder."""
    spec = importlib.util.spec_from_file_location("networks", DATA / "networks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretrained(name: str) -> nn.Module:
    path = DATA / "weights" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return networks().load(path)


def counted(model: nn.Module, inputs: Any) -> float:
    """FLOP of one sample at the second call in eval."""
    model.eval()
    with torch.no_grad():
        model(inputs)
        with FlopCounterMode(display=False) as counter:
            model(inputs)
    return counter.get_total_flops() / len(inputs)


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def factorized(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, FactorizedLayer)]


def assert_loads_back(small: nn.Module, build: Any, inputs: Any, path: Path) -> None:
    """save and load give the same tensors and the same outputs, bit for bit."""
    tenfold.save(small, path)
    again = tenfold.load(path, build).eval()
    torch.testing.assert_close(again.state_dict(), small.state_dict(), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(again(inputs), small.eval()(inputs), rtol=0, atol=0)


def test_resnet20_keeps_half_of_the_flops(tmp_path: Path):
    model = pretrained("cifar10_resnet20_jpegtuned")
    made = plan(model, budget="flops=0.5", inputs=torch.randn(2, 3, 32, 32), latency="ignored")
    assert len(made.layers) == 20 and all(one.format or one.reason for one in made.layers)
    assert made.flops_before == 81_102_080 and made.flops_after is not None and 0.47 < made.flops_after / made.flops_before <= 0.5
    assert len({one.params_after / one.params_before for one in made.layers}) > 5  # not the same ratio everywhere
    small = compress(model, tenfold.Plan.parse(made.to_text()), sweeps=10)
    assert n_parameters(small) == made.params_after
    assert [counted(small, torch.randn(n, 3, 32, 32)) for n in (16, 64, 128)] == [made.flops_after] * 3
    assert_loads_back(small, networks().cifar10_resnet20, torch.randn(4, 3, 32, 32), tmp_path / "small.safetensors")


def test_character_lstm(tmp_path: Path):
    """Every matrix of the recurrent layer has a row; the plan, the file and the way back know them. Kept: half of the parameters."""
    model = pretrained("charlstm_bronte")
    ids = torch.randint(108, (3, 7))
    made = plan(model, budget=0.5, inputs=ids)
    rows = {one.name: one for one in made.layers}
    assert list(rows) == ["emb", "lstm.ih_l0", "lstm.hh_l0", "lstm.ih_l1", "lstm.hh_l1", "out"]
    assert sum(rows[name].format is not None for name in rows if name.startswith("lstm")) >= 3
    small = compress(model, made)
    assert factorized(small) and n_parameters(small) == made.params_after <= 0.5 * made.params_before
    with torch.no_grad():
        torch.testing.assert_close(small(ids)[0], to_dense(small)(ids)[0], rtol=1e-4, atol=1e-4)
    path = tmp_path / "small.safetensors"
    tenfold.save(small, path, plan=made)
    again = tenfold.load(path, networks().charlstm_bronte).eval()
    torch.testing.assert_close(again.state_dict(), small.state_dict(), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(again(ids), small(ids), rtol=0, atol=0)


@pytest.mark.parametrize("embedding", [TTM(rank=12), SVD(rank=40), Tucker(rank=30)], ids=str)
def test_llama_with_a_tied_embedding(embedding: Any, tmp_path: Path):
    """The output layer is `tok.weight.T`: the table is rebuilt on demand, and both uses stay tied."""
    model = pretrained("babyllama105_tinystories")
    ids = torch.randint(105, (2, 20))
    made = plan(model, {"tok": embedding, "blocks.*": SVD()}, budget=0.5, inputs=ids)
    small = compress(model, made)
    assert made.params_after == n_parameters(small) <= 0.5 * made.params_before
    assert "tok" in factorized(small) and len(made.layers) == 1 + 5 * 7
    torch.testing.assert_close(small.tok.weight, small.tok.factorized.dense(), rtol=0, atol=0)
    torch.testing.assert_close(small.tok(ids), small.tok.weight[ids], rtol=1e-5, atol=1e-5)
    dense = to_dense(small)
    with torch.no_grad():
        torch.testing.assert_close(small(ids), dense(ids), rtol=1e-3, atol=1e-3)
    small.train()(ids).sum().backward()  # gradients reach the factors through both uses
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in small.tok.parameters())
    assert_loads_back(small.eval(), networks().tinyllama, ids, tmp_path / "small.safetensors")


def test_llama_plans_on_its_outputs():
    """0.35 of the parameters of the blocks, with and without calibration on token ids."""
    model = pretrained("babyllama105_tinystories")
    ids = torch.randint(105, (24, 32))
    made = plan(model, SVD(), budget=0.6, calibration=ids, filter="blocks.*")
    assert made.metric == "output" and {one.reason for one in made.layers if one.name == "tok"} == {"left out by the filter"}
    small, plain = compress(model, made, calibration=ids), compress(model, made)
    with torch.no_grad():
        errors = [float((one(ids) - model(ids)).norm() / model(ids).norm()) for one in (small, plain)]
    assert errors[0] < 0.9 * errors[1]


def test_googlenet_has_a_row_for_every_layer(tmp_path: Path):
    """58 layers (1x1, 3x3, 5x5 and a strided 7x7), each with a format or a reason, in less than 20 s."""
    model = pretrained("imagenet_googlenet_bvlc")
    began = time.process_time()
    made = plan(model, {"fc": SVD(), "*": Tucker()}, budget=0.4)
    small = compress(model, made)
    assert time.process_time() - began < 20
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 58 and [one.name for one in made.layers] == layers
    assert all(one.format is not None or one.reason for one in made.layers)
    assert factorized(small) == [one.name for one in made.layers if one.format]
    assert n_parameters(small) == made.params_after <= 0.4 * made.params_before
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(small(x), to_dense(small)(x), rtol=1e-3, atol=1e-3)
    assert_loads_back(small, networks().imagenet_googlenet, x, tmp_path / "small.safetensors")


class Calls(TorchDispatchMode):
    """Records the names of torch's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("format", [SVD(rank=6), TTM(rank=4)], ids=str)
def test_transformer_encoder_layer_on_the_fast_path(format: Any):
    model, x = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval(), torch.randn(3, 5, 32)
    made = plan(model, format, inputs=x)
    assert {one.name: one.format is None for one in made.layers} == {
        "self_attn": True, "self_attn.out_proj": False, "linear1": False, "linear2": False,
    }  # fmt: skip
    small = compress(model, made)
    dense: Any = to_dense(small)
    with torch.no_grad(), Calls() as calls:
        got = small(x)
    assert "aten._transformer_encoder_layer_fwd.default" in calls.names
    with torch.no_grad(), Calls() as calls:
        expected = dense(x)
    assert "aten._transformer_encoder_layer_fwd.default" in calls.names
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(small(x), expected, rtol=1e-4, atol=1e-4)  # and with gradients, without the fast path


def test_attention_on_the_fast_path():
    model, x = nn.MultiheadAttention(32, 4, batch_first=True).eval(), torch.randn(3, 5, 32)
    small = compress(model, {"out_proj": SVD(rank=6)})
    with torch.no_grad(), Calls() as calls:
        got = small(x, x, x)[0]
    assert "aten._native_multi_head_attention.default" in calls.names
    with torch.no_grad():
        torch.testing.assert_close(got, to_dense(small)(x, x, x)[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(small(x, x, x)[0], got, rtol=1e-4, atol=1e-4)
