"""ONNX files give the model's outputs in onnxruntime, or are refused."""

import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from model_file_cases import Reader, reader_inputs, small_net
from torch import Tensor, nn

import tenfold
from tenfold import export
from tenfold.export import relative_difference, to_onnx
from tenfold.layers import all_layers

DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data"))


of_its_time = pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 needs ONNX packages of its time, which pip does not choose")


def run_onnx(path: Path, *inputs: Tensor) -> list[Tensor]:
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return [torch.from_numpy(value) for value in session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})]


@of_its_time
def test_onnx_gives_the_outputs_of_the_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    net = small_net().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        to_onnx(net, torch.randn(1, 3, 9, 9), tmp_path / "net.onnx")
    assert net.training and net.conv.training
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    net.eval()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 9, 9)
        torch.testing.assert_close(run_onnx(tmp_path / "net.onnx", x)[0], net(x).detach(), rtol=1e-4, atol=1e-5)
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@of_its_time
def test_onnx_for_one_batch_size(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    x = torch.randn(2, 3, 9, 9)
    to_onnx(small_net(), x, tmp_path / "net.onnx", dynamic_batch=False)
    assert onnx.load(tmp_path / "net.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


@of_its_time
def test_onnx_with_several_inputs_and_a_chosen_opset(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    model = Reader().eval()
    inputs = reader_inputs()
    to_onnx(model, dict(zip(("ids", "weight"), inputs, strict=True)), tmp_path / "reader.onnx", opset=18)
    wanted = model(*inputs)
    found = run_onnx(tmp_path / "reader.onnx", *inputs)
    torch.testing.assert_close(found[0], wanted["y"].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[-1], wanted["last"])
    assert onnx.load(tmp_path / "reader.onnx").opset_import[0].version == 18


def test_onnx_runtime_with_other_outputs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    monkeypatch.setattr(export, "_run_onnx", lambda session, example: [torch.ones(example.shape[0], 5)])
    with pytest.raises(
        RuntimeError, match=r"onnxruntime differs from the model by .* of the largest output .*; at most 1e-04 is allowed: the export"
    ):
        to_onnx(nn.Linear(3, 5), torch.randn(2, 3), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_model_that_onnx_lacks(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    with pytest.raises(
        RuntimeError, match=r"Sequential did not become ONNX: .*; operators that both .* are needed: convert the model to float32"
    ):
        to_onnx(nn.Sequential(nn.Conv2d(3, 4, 3)).bfloat16(), torch.randn(2, 3, 5, 5).bfloat16(), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@of_its_time
@pytest.mark.parametrize("opset", [5, 99])
def test_an_opset_that_torch_does_not_make(tmp_path: Path, opset: int) -> None:
    with pytest.raises(
        RuntimeError, match=rf"did not become ONNX: ValueError: opset {opset} was asked for, and torch made \d+.*: .*another opset"
    ):
        to_onnx(nn.Linear(4, 4), torch.ones(2, 4), tmp_path / "a.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


def test_model_too_large_for_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ONNX_LIMIT", 40)
    monkeypatch.setattr(export, "_onnx_packages", lambda: (None, None))
    with pytest.raises(ValueError, match=r"Linear has 48 bytes; one ONNX file holds 40: use tenfold\.export\.export_torch"):
        to_onnx(nn.Linear(3, 3), torch.randn(2, 3), tmp_path / "a.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == package else importlib.import_module("json"))
    with pytest.raises(ImportError, match=rf'needs the package {package}, which is not installed; .*: pip install "tenfold\[onnx\]"'):
        to_onnx(nn.Linear(3, 3), torch.randn(2, 3), tmp_path / "a.onnx")


# -- a real network ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_googlenet_through_the_file_and_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 57 convolutions factorised (7x7 strided by CP, 1x1 by SVD, 3x3 and 5x5 by Tucker-2); real weights, small pictures."""
    weights = DATA / "weights" / "imagenet_googlenet_bvlc.safetensors"
    if not weights.is_file():
        pytest.skip(f"{weights} is not here; set TENFOLD_DATA")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    monkeypatch.syspath_prepend(str(DATA))
    networks = importlib.import_module("networks")
    net = networks.load(weights)
    kind: Any = all_layers()["Conv2d"]
    n_replaced = 0
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            format = (
                tenfold.CP(rank=16)
                if module.in_channels == 3
                else tenfold.SVD(rank=8)
                if module.kernel_size == (1, 1)
                else tenfold.Tucker(rank=8)
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a few sweeps do not converge, which does not matter here
                layer = kind.from_dense(module, format, sweeps=2)
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, layer)
            n_replaced += 1
    assert n_replaced == 57
    tenfold.save(net, tmp_path / "net.safetensors")
    back = tenfold.load(tmp_path / "net.safetensors", networks.GoogLeNet).eval()
    x = 50 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = net(x)
        torch.testing.assert_close(back(x), wanted, rtol=0, atol=0)
    to_onnx(back, x, tmp_path / "net.onnx")
    assert relative_difference(run_onnx(tmp_path / "net.onnx", x)[0], wanted) < 1e-4
