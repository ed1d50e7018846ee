"""Dense again and torch.export: what is exported gives the model's outputs, or is refused. ONNX: test_export_onnx.py."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_file_cases import Net, Reader, every_case, reader_inputs, small_net
from torch import Tensor, nn

from tenfold import BT, SVD, TTM, compress, export, files
from tenfold.export import export_torch, relative_difference, to_dense, to_exported_program, tolerance
from tenfold.layers.base import FactorizedLayer

CASES = dict(every_case())


# -- dense again ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_dense_layer_has_the_weight(name: str) -> None:
    layer = CASES[name]
    dense: Any = to_dense(layer)
    assert type(dense) is layer.dense_type
    torch.testing.assert_close(dense.weight, layer.weight)


def test_dense_model() -> None:
    net = small_net().double()
    net.head.weight.requires_grad_(False)
    net.conv.factorized.requires_grad_(False)  # type: ignore[operator]
    before, x = copy.deepcopy(net.state_dict()), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    dense: Any = to_dense(net)
    assert not any(isinstance(module, FactorizedLayer) for module in dense.modules())
    assert type(dense) is Net and type(dense.conv) is nn.Conv2d
    assert dense.shared is dense.again
    assert not dense.training and not dense.conv.training
    assert [dense.conv.weight.requires_grad, dense.conv.bias.requires_grad, dense.head.weight.requires_grad] == [False, True, False]
    torch.testing.assert_close(dense(x), net(x))
    with torch.no_grad():
        for tensor in (*dense.parameters(), *dense.buffers()):
            tensor.zero_()
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0)


def test_dense_model_from_a_compiled_one() -> None:
    net = small_net()
    dense = to_dense(torch.compile(net, backend="eager"))  # type: ignore[arg-type]
    assert type(dense) is Net
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(dense(x), net(x))


def test_dense_layers_have_hooks_of_their_own() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(6, 6), 2.0
            self.linear.register_forward_pre_hook(self.times)

        def times(self, _: nn.Module, arguments: tuple[Tensor]) -> Tensor:
            return self.scale * arguments[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    small = compress(Scaled(), SVD(rank=2))
    dense, x = to_dense(small), torch.randn(3, 6)
    torch.testing.assert_close(dense(x), small(x))
    dense.scale = 5.0
    dense.linear.register_forward_hook(lambda *_: torch.zeros(()))
    assert not dense(x).any() and small(x).all()
    bound = next(iter(dense.linear._forward_pre_hooks.values()))
    assert bound.__self__ is dense


def test_dense_weights_load_into_the_original_network() -> None:
    Net().load_state_dict(to_dense(small_net()).state_dict(), strict=True)


# -- torch.export -----------------------------------------------------------------------------------------------------


def test_program_takes_any_batch() -> None:
    net = small_net().train()
    net.head.eval()
    modes = [module.training for module in net.modules()]
    program = to_exported_program(net, torch.randn(1, 3, 9, 9))
    assert [module.training for module in net.modules()] == modes
    net.eval()
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 9, 9)
        torch.testing.assert_close(program.module()(x), net(x))


def test_program_for_one_batch_size(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 9, 9)
    export_torch(small_net(), x, tmp_path / "net.pt2", dynamic_batch=False)
    for program in (to_exported_program(small_net(), x, dynamic_batch=False), torch.export.load(tmp_path / "net.pt2")):
        with pytest.raises((RuntimeError, AssertionError)):
            program.module()(torch.randn(3, 3, 9, 9))


def test_program_with_several_inputs_and_outputs(tmp_path: Path) -> None:
    model = Reader().eval()
    ids, weight = reader_inputs()
    for inputs in ((ids, weight), {"ids": ids, "weight": weight, "shift": torch.ones(4)}):
        export_torch(model, inputs, tmp_path / "reader.pt2")
        loaded = torch.export.load(tmp_path / "reader.pt2").module()
        wanted = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
        found = loaded(**inputs) if isinstance(inputs, dict) else loaded(*inputs)
        torch.testing.assert_close(found, wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["reader.pt2"]


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 exports no model with compiled parts")
def test_program_of_a_model_with_a_compiled_part() -> None:
    net: Any = small_net()
    x = torch.randn(2, 3, 9, 9)
    wanted = net(x)
    net.head = torch.compile(net.head, backend="eager")
    torch.testing.assert_close(to_exported_program(net, x).module()(x), wanted)


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class ByBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.table


@pytest.mark.parametrize("build", [ByValue, ByBatch])
def test_model_that_torch_cannot_export(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(
        RuntimeError, match=r"torch\.export stopped at By.* with .*; a forward is needed .*: change it, or export for one batch"
    ):
        to_exported_program(build(), torch.ones(2, 3))


def test_program_where_torch_proves_no_range_of_a_named_batch() -> None:
    """Of the guard 5 b min(6, 60 b) = 30 b that a split sum leaves, torch 2.13 cannot say that all batches satisfy it."""
    small = compress(nn.Sequential(nn.Linear(16, 3)), BT(rank=2)).eval()
    program = to_exported_program(small, torch.randn(3, 5, 16))
    for batch in (1, 2, 7):
        x = torch.randn(batch, 5, 16)
        torch.testing.assert_close(program.module()(x), small(x))


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(60, 16, mode="sum")

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        return self.table(ids, offsets)


@pytest.mark.parametrize("offsets", [[0, 3, 3], [0, 1, 2, 3, 4, 5, 6]])
def test_bags_with_offsets_have_no_free_batch(offsets: list[int]) -> None:
    small = compress(Bags(), TTM(rank=2)).eval()
    ids, starts = torch.arange(7), torch.tensor(offsets)
    with pytest.raises(
        RuntimeError, match=r"Bags does not run for a batch of \d, made of the 7 given: .*offset.*; for a free batch every .*: ex"
    ):
        to_exported_program(small, (ids, starts))
    program = to_exported_program(small, (ids, starts), dynamic_batch=False)
    torch.testing.assert_close(program.module()(ids, starts), small(ids, starts))


@pytest.mark.parametrize("inputs", [np.zeros((2, 3), np.float32), "x", None])
def test_inputs_that_are_no_arguments(inputs: Any) -> None:
    with pytest.raises(TypeError, match=rf"inputs are a {type(inputs).__name__}; an example is needed .*: convert arrays with"):
        to_exported_program(nn.Linear(3, 4), inputs)


def test_error_of_the_model_itself_passes() -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        to_exported_program(nn.Conv2d(3, 4, 3), torch.ones(2, 5, 4, 4))


def wrong_program(wanted: Tensor) -> Callable[..., Any]:
    """A stand-in for torch.export.export whose program gives another output."""

    class Program:
        def module(self) -> Callable[..., Tensor]:
            return lambda *_: wanted

    return lambda *_, **__: Program()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            torch.full((2, 3), 1.001),
            r"the exported program differs from the model by 1\.00e-03 of the largest output for a batch of 2; at most 1e-04 is",
        ),
        (torch.full((2, 3), float("nan")), r"differs from the model by nan of the largest output"),
        (
            torch.ones(3, 3),
            r"gives outputs of shapes \[\(3, 3\)\] for a batch of 2, and the model \[\(2, 3\)\]; they must be the same: the export cannot",
        ),
    ],
)
def test_program_with_other_outputs_is_refused(monkeypatch: pytest.MonkeyPatch, output: Tensor, message: str) -> None:
    monkeypatch.setattr(torch.export, "export", wrong_program(output))
    monkeypatch.setattr(export, "call", lambda model, example: model(example))
    with pytest.raises(RuntimeError, match=message):
        to_exported_program(nn.Identity(), torch.ones(2, 3))


def test_program_that_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Program:
        def module(self) -> Callable[..., Tensor]:
            return lambda _: torch.ones(2) @ torch.ones(3)

    monkeypatch.setattr(torch.export, "export", lambda *_, **__: Program())
    monkeypatch.setattr(export, "call", lambda model, example: model(example))
    with pytest.raises(
        RuntimeError, match=r"the exported program fails for a batch of 2 with RuntimeError: .*; it must run as the model does: "
    ):
        to_exported_program(nn.Identity(), torch.ones(2, 3))


def test_difference() -> None:
    inf, nan = float("inf"), float("nan")
    assert relative_difference(torch.tensor([1.0, -4.0]), torch.tensor([1.0, -5.0])) == pytest.approx(0.2)
    assert relative_difference(torch.tensor([1.0, -inf, nan]), torch.tensor([1.0, -inf, nan])) == 0
    assert relative_difference(torch.tensor([1.0, inf]), torch.tensor([1.0, 2.0])) == inf
    assert relative_difference(torch.empty(0), torch.empty(0)) == 0
    assert relative_difference(torch.tensor([2]), torch.tensor([1])) == 1
    assert tolerance(torch.float32) == tolerance(torch.float64) == 1e-4
    assert tolerance(torch.bfloat16) == pytest.approx(0.0625)
    assert tolerance(torch.int64) == 0


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*a\.pt2: No space left on device; .*: choose another path, or make room"):
        export_torch(nn.Linear(3, 3), torch.randn(2, 3), tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []
