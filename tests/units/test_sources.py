"""MODEL and --weights: what they may name, and what is said where they name nothing."""

import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tenfold.sources import is_tenfold_file, load_weights, model_factory, read_function, read_model

FILE = """
from torch import nn
from sibling import WIDTH

def small():
    return nn.Sequential(nn.Linear(WIDTH, 4), nn.BatchNorm1d(4))

def tied():
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    return model

def late():
    import sibling_used_late
    return nn.Linear(sibling_used_late.WIDTH, 1)

def with_argument(width):
    return nn.Linear(width, 1)

def broken():
    return 1 / 0

def number():
    return 7

_private = small
NAME = "no function"
"""


@pytest.fixture
def networks(tmp_path: Path) -> str:
    (tmp_path / "networks.py").write_text(FILE)
    (tmp_path / "sibling.py").write_text("WIDTH = 6\n")
    (tmp_path / "sibling_used_late.py").write_text("WIDTH = 5\n")
    sys.modules.pop("sibling", None)
    sys.modules.pop("sibling_used_late", None)
    return str(tmp_path / "networks.py")


def test_a_file_is_loaded_with_its_siblings_and_leaves_the_path_as_it_was(networks: str) -> None:
    before = list(sys.path)
    model = read_model(f"{networks}:small")
    assert model.get_submodule("0").in_features == 6
    assert not model.training
    assert read_model(f"{networks}:late").in_features == 5
    assert sys.path == before


def test_a_file_is_run_once(networks: str) -> None:
    assert read_function(f"{networks}:small", "MODEL", "x") is read_function(f"{networks}:small", "MODEL", "x")


def test_a_package_names_a_function() -> None:
    assert isinstance(read_model("tenfold.demo:digits_network"), nn.Sequential)


def test_the_seed_decides_fresh_weights(networks: str) -> None:
    one, two, three = (read_model(f"{networks}:small", seed=seed).state_dict()["0.weight"] for seed in (1, 1, 2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert not torch.equal(one, three)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{networks}", ValueError, r"MODEL is .*; it needs to be path/to/file.py:function.*: write for instance"),
        ("{networks}:", ValueError, "it needs to be path/to/file.py:function"),
        ("nowhere/networks.py:small", ValueError, r"the file .*nowhere/networks.py does not exist; .*: check the path"),
        ("{networks}:tiny", ValueError, r"has no function 'tiny'; it has small, tied, late, broken, number: name one of these"),
        ("{networks}:NAME", ValueError, "has no function 'NAME'"),
        ("{networks}:with_argument", ValueError, r"with_argument raised TypeError: .*; it must run without arguments: try it"),
        ("{networks}:broken", ValueError, r"broken raised ZeroDivisionError: division by zero; it must run"),
        ("{networks}:number", TypeError, r"number returned a int; MODEL needs a function that returns a torch.nn.Module"),
        ("tenfold.nowhere:x", ValueError, r"the module 'tenfold.nowhere' cannot be imported \(ModuleNotFoundError.*: check the name"),
        ("tenfold.demo:x", ValueError, r"has no function 'x'; it has digits_network, digits_train, digits_test"),
    ],
)
def test_a_model_that_is_not_there(networks: str, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_model(text.format(networks=networks))


def test_a_file_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import torch\nraise RuntimeError('no luck')\n")
    with pytest.raises(ValueError, match=r"bad.py raised RuntimeError: no luck; it must be importable: run it with Python"):
        read_model(f"{tmp_path / 'bad.py'}:f")
    assert not any(name.startswith("tenfold_source_bad") for name in sys.modules)


def test_code_that_ends_the_program_does_not_end_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script_of_a_user.py").write_text("import sys\nsys.exit()\n")
    (tmp_path / "leaves.py").write_text("import sys\ndef f():\n    sys.exit('no checkpoint')\n")
    with pytest.raises(ValueError, match=r"script_of_a_user.py raised SystemExit: .*; it must be importable: .*__main__"):
        read_model(f"{tmp_path / 'script_of_a_user.py'}:f")
    with pytest.raises(ValueError, match=r"leaves.py:f raised SystemExit: no checkpoint; it must run without arguments"):
        read_model(f"{tmp_path / 'leaves.py'}:f")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"the module 'script_of_a_user' cannot be imported \(SystemExit"):
        read_model("script_of_a_user:f")


# -- collections ------------------------------------------------------------------------------------------------------


def fake_collection(name: str, **members: object) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(members)
    return module


def test_collections_give_pretrained_weights_only_where_no_file_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def get_model(name: str, weights: str | None) -> nn.Module:
        asked.append((name, weights))
        return nn.Linear(2, 2)

    monkeypatch.setitem(sys.modules, "torchvision", fake_collection("torchvision", models=types.SimpleNamespace(get_model=get_model)))
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "w.safetensors")
    read_model("torchvision:resnet18")
    read_model("torchvision:resnet18", tmp_path / "w.safetensors")
    assert asked == [("resnet18", "DEFAULT"), ("resnet18", None)]


def test_timm_and_transformers_are_asked_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "timm", fake_collection("timm", create_model=lambda name, pretrained: nn.Linear(len(name), 1 + pretrained))
    )
    assert read_model("timm:resnet").weight.shape == (2, 6)
    config = types.SimpleNamespace(from_pretrained=lambda name: types.SimpleNamespace(architectures=["Net"]))
    net = types.SimpleNamespace(from_pretrained=lambda name: nn.Linear(len(name), 3))
    monkeypatch.setitem(sys.modules, "transformers", fake_collection("transformers", AutoConfig=config, Net=net))
    assert read_model("hf:me/net").weight.shape == (3, 6)


def test_a_collection_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"timm:resnet18 needs the package timm, which is not installed; run: pip install timm"):
        read_model("timm:resnet18")


def test_a_collection_that_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(
        ImportError, match=r"timm, which cannot be imported \(RuntimeError: operator does not exist\); a build for the installed"
    ):
        read_model("timm:resnet18")


def test_a_name_that_a_collection_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool) -> nn.Module:
        raise RuntimeError(f"Unknown model ({name})")

    monkeypatch.setitem(sys.modules, "timm", fake_collection("timm", create_model=create_model))
    with pytest.raises(
        ValueError, match=r"timm has not given the model 'x' \(RuntimeError: Unknown model.*: check the name, or pass --weights"
    ):
        read_model("timm:x")


# -- weights ----------------------------------------------------------------------------------------------------------


def test_weights_from_safetensors_and_state_dict(networks: str, tmp_path: Path) -> None:
    source = read_model(f"{networks}:small", seed=5)
    state = source.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "nested.pt")
    save_file({f"_orig_mod.{key}": value for key, value in state.items() if "num_batches" not in key}, tmp_path / "compiled.safetensors")
    for name in ("w.safetensors", "w.pt", "nested.pt", "compiled.safetensors"):
        torch.testing.assert_close(read_model(f"{networks}:small", tmp_path / name, seed=1).state_dict(), state, rtol=0, atol=0)


def test_weights_go_into_a_compiled_model_and_into_a_module_called_module(tmp_path: Path) -> None:
    source = nn.Linear(3, 2)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    compiled = torch.compile(nn.Linear(3, 2))
    load_weights(compiled, tmp_path / "w.pt")  # type: ignore[arg-type]
    torch.testing.assert_close(compiled.weight, source.weight)  # type: ignore[union-attr]
    owner = nn.Sequential()
    owner.module = source
    torch.save(owner.state_dict(), tmp_path / "owner.pt")
    fresh = nn.Sequential()
    fresh.module = nn.Linear(3, 2)
    load_weights(fresh, tmp_path / "owner.pt")
    torch.testing.assert_close(fresh.module.weight, source.weight)


def test_a_tied_weight_may_stand_once_in_the_file(networks: str, tmp_path: Path) -> None:
    value = torch.randn(3, 3)
    save_file({"a.weight": value}, tmp_path / "w.safetensors")
    model = read_model(f"{networks}:tied", tmp_path / "w.safetensors")
    torch.testing.assert_close(model.get_parameter("b.weight"), nn.Parameter(value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": torch.zeros(4, 7)}, r"0.weight is \(4, 7\) in the file and \(4, 6\) in the model \(1 of wrong shape\); every tensor"),
        ({"0.weight": None}, r"do not fit Sequential: 1 missing: 0.weight; every tensor of the model is needed .*: check that MODEL"),
        ({"2.weight": torch.zeros(1)}, r"1 unknown: 2.weight"),
    ],
)
def test_weights_that_do_not_fit(networks: str, tmp_path: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
    state = {**read_model(f"{networks}:small").state_dict(), **change}
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / "w.pt")
    model = read_model(f"{networks}:small", seed=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / "w.pt")
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("pwned"),)


def test_files_that_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(2, 2)
    torch.save(Hostile(), tmp_path / "hostile.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff\x00\x00")
    for name, message in {
        "nowhere.pt": r"the weights .* do not exist; a safetensors or state_dict file is needed: check the path",
        "hostile.pt": r"cannot be read as tensors only \(UnpicklingError\); code in files is never run, so .*: write one with",
        "text.pt": r"cannot be read as tensors only",
        "epoch.pt": r"hold a dict that is no state_dict; a mapping of names to tensors is needed: write one",
        "cut.safetensors": r"ends before its header .*; a header must fit the file .*: the file is truncated or no safetensors file",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_weights(model, tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_other_files_are_not_taken_for_tenfolds(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors", metadata={"format": "pt"})
    (tmp_path / "text.safetensors").write_text("x")
    assert not any(is_tenfold_file(tmp_path / name) for name in ("plain.safetensors", "text.safetensors", "nowhere"))


def test_a_factory_builds_a_new_module_each_time(networks: str) -> None:
    factory = model_factory(f"{networks}:small")
    assert factory() is not factory()
