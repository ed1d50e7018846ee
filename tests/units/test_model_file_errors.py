"""save and load refuse by name what does not fit, and damage of any kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_file_cases import Net, factorised, small_net
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

import tenfold
from tenfold.files import write_safetensors
from tenfold.layers import all_layers
from tenfold.layers.base import FactorizedLayer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tenfold.save(small_net(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


class WithState(nn.Module):
    def get_extra_state(self) -> Any:
        return {"a": 1}

    def set_extra_state(self, state: Any) -> None: ...


class Foreign(all_layers()["Linear"]):
    pass


def foreign() -> nn.Module:
    layer = factorised(all_layers()["Linear"], tenfold.SVD(rank=2))
    layer.__class__ = Foreign
    return nn.Sequential(layer)


def sparse() -> nn.Module:
    model = nn.Module()
    model.register_buffer("links", torch.eye(3).to_sparse())
    return model


NOT_SAVED: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "meta": (lambda: nn.Linear(2, 2, device="meta"), ValueError, 'is on the "meta" device and has no values; .*: load or initialise it'),
    "lazy": (lambda: nn.LazyLinear(2), ValueError, "weight has no shape yet; every tensor needs one: run the model once"),
    "sparse": (sparse, TypeError, "links is a sparse or quantised tensor; a file holds plain tensors only: convert it"),
    "extra state": (
        lambda: nn.Sequential(WithState()),
        TypeError,
        r"0 \(WithState\) keeps extra state that is no tensor; .*: store that state",
    ),
    "foreign": (foreign, TypeError, r"0 is a Foreign of .*; load knows the layers of tenfold\.layers only: put its file there"),
    "complex": (lambda: nn.Linear(2, 2, dtype=torch.complex128), TypeError, "(weight|bias) has the dtype torch.complex128; .*: convert it"),
}


@pytest.mark.parametrize("name", NOT_SAVED)
def test_what_cannot_be_saved(tmp_path: Path, name: str) -> None:
    build, kind, message = NOT_SAVED[name]
    with pytest.raises(kind, match=message):
        tenfold.save(build(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def changed(**layers: nn.Module | None) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        net = Net()
        for name, layer in layers.items():
            setattr(net, name, layer)
        return net

    return build


NO_FIT = {
    "no such layer": (changed(conv=None), r"has a layer 'conv', which the network lacks; a Conv2d is needed there: build the Net"),
    "other kind": (changed(conv=nn.Linear(3, 8)), r"has a Conv2d at 'conv', where the network has a Linear; a Conv2d is needed there"),
    "other shape": (
        changed(conv=nn.Conv2d(3, 9, 3)),
        r"shape \(8, 3, 3, 3\) with 1 groups at 'conv', where the network has \(9, 3, 3, 3\) with 1",
    ),
    "other groups": (changed(shared=nn.Linear(4, 8)), r"a weight of shape \(8, 8\) .* where the network has \(8, 4\)"),
    "missing": (changed(more=nn.Linear(2, 2)), r"more\.weight is missing; more\.bias is missing; every tensor of the network must"),
    "unexpected": (changed(head=None), r"head\.bias is unexpected; head\.weight is unexpected; .*: build the Net that was saved"),
    "shape": (changed(head=nn.Linear(8, 6)), r"head\.weight has shape \(5, 8\) in the file and \(6, 8\) in the network; head\.bias"),
    "bias": (changed(conv=nn.Conv2d(3, 8, 3, bias=False)), r"conv\.bias is unexpected"),
    "dtype": (
        changed(head=nn.Linear(8, 5, dtype=torch.complex64)),
        r"head\.weight has dtype torch\.float32 in the file and torch\.complex64",
    ),
    "many": (changed(more=nn.LSTM(2, 2, 2)), r"and 4 more; every tensor"),
}


RANK_METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "posterior": lambda model: tenfold.bayes.attach(model, n_examples=9),
    "gates": lambda model: tenfold.bayes.HardConcrete(model, target=0.5),
}


@pytest.mark.parametrize("name", RANK_METHODS)
def test_a_model_with_a_rank_method_is_saved_after_it_is_finished(tmp_path: Path, name: str) -> None:
    model, path = nn.Sequential(factorised(all_layers()["Linear"], tenfold.SVD(rank=2))), tmp_path / "net.safetensors"
    method = RANK_METHODS[name](model)
    with pytest.raises(
        ValueError,
        match=r"layer '0' has a rank method, .*; a file holds plain layers: call the method's finish\(\) first, or keep method.state_dict\(\)",
    ):
        tenfold.save(model, path)
    assert not path.exists()
    method.finish()
    tenfold.save(model, path)
    tenfold.load(path, model)


def test_factors_that_are_computed_from_others(tmp_path: Path) -> None:
    """They were written under names that no `load` takes."""
    for change, undo in (
        (lambda factors: prune.l1_unstructured(factors, "0", 0.5), lambda factors: prune.remove(factors, "0")),
        (lambda factors: weight_norm(factors, "0"), lambda factors: remove_parametrizations(factors, "0")),
    ):
        model = tenfold.factorize(nn.Sequential(nn.Linear(12, 18)), tenfold.TTM(rank=2))
        factors: Any = model[0].factorized.factors  # type: ignore[index, union-attr]
        change(factors)
        with pytest.raises(
            ValueError, match=r"layer '0' has factors that are computed from .*0.*; a file holds the factors themselves: call"
        ):
            tenfold.save(model, tmp_path / "a")
        undo(factors)
        tenfold.save(model, tmp_path / "a")
        x = torch.randn(3, 12)
        torch.testing.assert_close(tenfold.load(tmp_path / "a", nn.Sequential(nn.Linear(12, 18)))(x), model(x))


@pytest.mark.parametrize("name", NO_FIT)
def test_file_for_another_network(saved: Path, name: str) -> None:
    build, message = NO_FIT[name]
    with pytest.raises(ValueError, match=message):
        tenfold.load(saved, build)


def test_two_tensors_for_one(tmp_path: Path) -> None:
    net = Net()
    net.again = nn.Linear(8, 8)
    tenfold.save(net, tmp_path / "a")
    with pytest.raises(ValueError, match=r"again\.weight and shared\.weight are two tensors in the file and one in the network"):
        tenfold.load(tmp_path / "a", Net)


@pytest.mark.parametrize("build", [lambda: 3, 3, "net.py"])
def test_build_model_gives_no_module(saved: Path, build: Any) -> None:
    with pytest.raises(TypeError, match=r"build_model gave a (int|str); a torch\.nn\.Module is needed: pass one, or a function"):
        tenfold.load(saved, build)


def test_file_that_changes_while_it_is_read(saved: Path) -> None:
    def build() -> nn.Module:
        tenfold.save(small_net().double(), saved)
        return Net()

    with pytest.raises(ValueError, match="changed while it was read; it must stay as it is until load returns: try again"):
        tenfold.load(saved, build)


def test_plain_safetensors(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", dict(Net().state_dict()), {"format": "pt"})
    with pytest.raises(ValueError, match=r"is not a tenfold file \(its metadata are \['format'\]\); .*: save the model with tenfold\.save"):
        tenfold.load(tmp_path / "a", Net)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 1 << 16),
)
def test_damaged_model_files(saved: Path, changes: list[tuple[int, int]], cut: int | None) -> None:
    """Bytes are changed anywhere and the end is cut off: a ValueError, or a model that holds exactly what the file holds."""
    data = bytearray(saved.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path = saved.parent / "damaged"
    path.write_bytes(data[: len(data) if cut is None else cut % (len(data) + 1)])
    try:
        model = tenfold.load(path, Net)
    except ValueError as error:
        assert "; " in str(error) and ": " in str(error)
        return
    state = model.state_dict()
    for name, tensor in load_file(path).items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert any(isinstance(module, FactorizedLayer) for module in model.modules())
