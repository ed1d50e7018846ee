"""save and load: what comes back is bit-equal, whatever the network is given as. What is refused: test_model_file_errors.py."""

import copy
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_file_cases import Net, documentation, every_case, factorised, small_net
from safetensors.torch import load_file
from torch import Tensor, nn

import tenfold
from tenfold import files
from tenfold.files import read_header
from tenfold.layers import all_layers

CASES = dict(every_case())


def equal(found: nn.Module, wanted: nn.Module) -> None:
    """The same names with the same bits, and the same classes."""
    ours, theirs = found.state_dict(), wanted.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)
    assert [type(m) for m in found.modules()] == [type(m) for m in wanted.modules()]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tenfold.save(small_net(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


# -- every layer in every format --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_layer_comes_back_and_a_reader_of_ten_lines_rebuilds_it(tmp_path: Path, name: str) -> None:
    layer = CASES[name]
    model = nn.Sequential(nn.Identity(), layer)
    tenfold.save(model, tmp_path / "a")
    back = tenfold.load(tmp_path / "a", nn.Sequential(nn.Identity(), layer.to_dense()))
    equal(back, model)
    again: Any = back[1]
    torch.testing.assert_close(again.weight, layer.weight, rtol=0, atol=0)
    assert again.extra_repr() == layer.extra_repr()
    torch.testing.assert_close(dense_weight_of_the_documentation()(tmp_path / "a", "1"), layer.weight.detach(), rtol=1e-4, atol=1e-5)


def dense_weight_of_the_documentation() -> Callable[[Path, str], Tensor]:
    blocks = re.findall(r"```python\n(.*?)```", documentation().read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "def dense_weight" in block), names)
    return names["dense_weight"]


def test_documentation_promises_ten_lines() -> None:
    text = documentation().read_text(encoding="utf-8")
    body = text.split("def dense_weight(path, name):\n")[1].split("```")[0]
    assert len(body.splitlines()) <= 11
    assert "tenfold" not in body


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("-0")])
def test_copies_and_pickles(name: str) -> None:
    layer = CASES[name].eval()
    with torch.no_grad():
        _ = layer.weight  # what is kept between calls is not copied
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)):
        equal(other, layer)
        torch.testing.assert_close(other.weight, layer.weight, rtol=0, atol=0)
        assert next(other.parameters()) is not next(layer.parameters())
    state = io.BytesIO()
    torch.save(layer.state_dict(), state)
    state.seek(0)
    fresh = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(torch.load(state, weights_only=True))
    equal(fresh, layer)


# -- what the network may be given as ---------------------------------------------------------------------------------


def test_factory_class_and_skeleton(saved: Path) -> None:
    wanted = small_net()
    for build in (lambda: Net().eval(), Net, Net()):
        equal(tenfold.load(saved, build), wanted)
    x = torch.randn(2, 3, 9, 9)
    model = tenfold.load(saved, Net().eval())
    torch.testing.assert_close(model(x), wanted(x), rtol=0, atol=0)
    assert not any(module.training for module in model.modules())


def test_weights_of_a_skeleton_are_not_copied(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(nn.Parameter, "__deepcopy__")
    monkeypatch.setattr(Tensor, "__deepcopy__", lambda self, _: pytest.fail(f"copies {tuple(self.shape)}") if self.numel() > 1 else self)
    equal(tenfold.load(saved, Net()), small_net())


def test_skeleton_stays_as_it_is(saved: Path) -> None:
    skeleton = Net().train()
    skeleton.head.weight.requires_grad_(False)
    skeleton.conv.weight.requires_grad_(False)
    before = copy.deepcopy(skeleton)
    model: Any = tenfold.load(saved, skeleton)
    equal(skeleton, before)
    assert type(skeleton.conv) is nn.Conv2d
    assert model.training and model.conv.training and model.conv.factorized.training
    assert [p.requires_grad for p in model.conv.parameters()] == [True, False, False, False]
    assert not model.head.weight.requires_grad and model.shared.factorized.factors[0].requires_grad
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    equal(skeleton, before)


def test_hooks_of_the_network_are_kept(saved: Path) -> None:
    seen = []

    def build() -> nn.Module:
        net = Net().eval()
        net.conv.register_forward_hook(lambda module, *_: seen.append(module))
        return net

    model: Any = tenfold.load(saved, build)
    model(torch.randn(2, 3, 9, 9))
    assert seen == [model.conv]


def test_skeleton_on_meta(tmp_path: Path) -> None:
    model = nn.Sequential(factorised(all_layers()["Conv2d"], tenfold.CP(rank=3)), nn.BatchNorm2d(12), nn.LSTM(4, 3)).eval()
    tenfold.save(model, tmp_path / "a")
    with torch.device("meta"):
        skeleton = nn.Sequential(nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.LSTM(4, 3)).eval()
    back: Any = tenfold.load(tmp_path / "a", skeleton)
    equal(back, model)
    assert all(tensor.is_meta for tensor in skeleton.state_dict().values())
    x = torch.randn(5, 2, 4)
    torch.testing.assert_close(back[2](x)[0], model[2](x)[0])


def test_skeleton_on_meta_with_a_buffer_that_is_not_saved(saved: Path) -> None:
    with torch.device("meta"):
        skeleton = Net()
    with pytest.raises(ValueError, match=r'the buffer \.?scale is not saved, and has no values on "meta"; every tensor .*: build the Net'):
        tenfold.load(saved, skeleton)


def test_network_that_is_factorised_already(saved: Path) -> None:
    def build() -> nn.Module:
        net: Any = Net()
        net.conv = tenfold.nn.Conv2d(3, 8, 3, stride=2, padding=1, format=tenfold.CP(rank=5))  # other ranks than in the file
        return net.eval()

    equal(tenfold.load(saved, build), small_net())


def test_the_whole_model_is_one_layer(tmp_path: Path) -> None:
    layer = factorised(all_layers()["Linear"], tenfold.TT(rank=2))
    tenfold.save(layer, tmp_path / "a")
    assert "factorized.factors.0" in read_header(tmp_path / "a").tensors
    equal(tenfold.load(tmp_path / "a", lambda: nn.Linear(23, 30)), layer)


def test_model_without_factorised_layers(tmp_path: Path) -> None:
    net = Net()
    tenfold.save(net, tmp_path / "a")
    equal(tenfold.load(tmp_path / "a", Net), net)


def test_dtypes_are_those_of_the_file(tmp_path: Path) -> None:
    tenfold.save(small_net().bfloat16(), tmp_path / "a")
    model = tenfold.load(tmp_path / "a", Net)
    equal(model, small_net().bfloat16())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_compiled_models(tmp_path: Path, saved: Path) -> None:
    compiled: Any = torch.compile(small_net(), backend="eager")
    tenfold.save(compiled, tmp_path / "whole")
    inner: Any = small_net()
    inner.shared = inner.again = torch.compile(inner.shared, backend="eager")
    tenfold.save(inner, tmp_path / "inner")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "inner").read_bytes() == saved.read_bytes()
    skeleton: Any = Net()
    skeleton.shared = skeleton.again = torch.compile(skeleton.shared, backend="eager")
    skeleton.head = torch.compile(skeleton.head, backend="eager")
    equal(tenfold.load(saved, torch.compile(skeleton, backend="eager")), small_net())  # type: ignore[arg-type]


def test_recurrent_layers_use_the_loaded_weights(tmp_path: Path) -> None:
    model = nn.LSTM(4, 3, num_layers=2)
    tenfold.save(model, tmp_path / "a")
    x = torch.randn(5, 2, 4)
    for build in (lambda: nn.LSTM(4, 3, num_layers=2), nn.LSTM(4, 3, num_layers=2)):
        torch.testing.assert_close(tenfold.load(tmp_path / "a", build)(x)[0], model(x)[0], rtol=0, atol=0)


# -- what stands at several places ------------------------------------------------------------------------------------


def test_shared_layers_stay_shared(saved: Path) -> None:
    model: Any = tenfold.load(saved, Net)
    assert model.shared is model.again
    assert not any("again" in name for name in read_header(saved).tensors)

    def unshared() -> nn.Module:
        net = Net()
        net.again = nn.Linear(8, 8)
        return net

    model = tenfold.load(saved, unshared)
    assert model.shared is model.again


# -- the file ---------------------------------------------------------------------------------------------------------


def test_metadata_and_names(tmp_path: Path) -> None:
    net = small_net()
    plan = tenfold.plan(Net(), {"conv": tenfold.SVD(rank=2)})
    tenfold.save(net, tmp_path / "a", plan=plan)
    header = read_header(tmp_path / "a")
    assert header.metadata["tenfold"] == "1"
    assert header.metadata["tenfold_version"] == tenfold.__version__
    assert header.metadata["model"] == "Net"
    assert tenfold.Plan.parse(header.metadata["plan"]).layers[0].format == plan.layers[0].format
    assert {"conv.factorized.factors.0", "conv.bias", "norm.running_mean", "head.weight"} <= header.tensors.keys()
    assert "conv.weight" not in header.tensors
    assert "scale" not in header.tensors
    bytes_of_values = sum(tensor.numel() * tensor.element_size() for tensor in load_file(tmp_path / "a").values())
    n_values = sum(p.numel() for p in net.parameters()) + 2 * 8
    assert bytes_of_values == 4 * n_values + 8  # BatchNorm's counter has 8 bytes


def test_documentation_names_every_key(saved: Path) -> None:
    text = documentation().read_text(encoding="utf-8")
    assert [key for key in (*read_header(saved).metadata, "plan") if f"| `{key}` |" not in text] == []


def test_full_disk_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*net\.safetensors: No space left on device; .*: choose another path, or make room"):
        tenfold.save(small_net(seed=2), saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
