"""Tensors and layers that stand at several places: stored once, put back as the file has them, and replaced at all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import tenfold
from tenfold import places
from tenfold.files import read_header
from tenfold.places import modules_of, places_of, replace, tensors_of


def equal(found: nn.Module, wanted: nn.Module) -> None:
    ours, theirs = found.state_dict(), wanted.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


def test_names_are_those_of_the_state_dict() -> None:
    inner = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LSTM(3, 2))
    inner.register_buffer("passing", torch.zeros(1), persistent=False)
    model = nn.ModuleDict({"a": torch.compile(inner, backend="eager"), "b": inner})
    assert places_of(model).keys() == {name.replace("_orig_mod.", "") for name in model.state_dict()}
    assert modules_of(model)["a"] is inner
    tensors, aliases = tensors_of(model)
    assert all(name.startswith("a.") for name in tensors)
    assert aliases == {name.replace("a.", "b."): name for name in tensors}


class Tied(nn.Module):
    def __init__(self, is_tied: bool = True) -> None:
        super().__init__()
        self.tok = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        if is_tied:
            self.head.weight = self.tok.weight


def test_ties_are_those_of_the_file(tmp_path: Path) -> None:
    tied, untied = Tied(), Tied(False)
    tenfold.save(tied, tmp_path / "tied")
    tenfold.save(untied, tmp_path / "untied")
    assert list(read_header(tmp_path / "tied").tensors) == ["tok.weight"]
    for is_tied in (True, False):
        for build in (Tied(is_tied), lambda is_tied=is_tied: Tied(is_tied)):
            model: Any = tenfold.load(tmp_path / "tied", build)
            assert model.head.weight is model.tok.weight
            equal(model, tied)
            model = tenfold.load(tmp_path / "untied", build)
            assert model.head.weight is not model.tok.weight
            equal(model, untied)


def test_memory_in_common_is_stored_once_where_it_is_the_same(tmp_path: Path) -> None:
    model = nn.Module()
    base = torch.arange(12.0)
    model.a = nn.Parameter(base)
    model.b = nn.Parameter(base.detach())  # the same memory under another object: a tie
    model.register_buffer("c", base[2:8])  # a part of it: stored by itself
    model.register_buffer("d", base.reshape(3, 4).T)
    tenfold.save(model, tmp_path / "a")
    assert sorted(load_file(tmp_path / "a")) == ["a", "c", "d"]
    build = nn.Module()
    build.a, build.b = nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(12))
    build.register_buffer("c", torch.zeros(6))
    build.register_buffer("d", torch.zeros(4, 3))
    back = tenfold.load(tmp_path / "a", build)
    assert back.a is back.b
    equal(back, model)


def test_values_reach_other_references(tmp_path: Path) -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)
            self.tied = [self.inner.weight]  # hidden from torch, and used in forward

    model = Keeps()
    tenfold.save(model, tmp_path / "a")
    for build in (Keeps, Keeps()):
        back: Any = tenfold.load(tmp_path / "a", build)
        assert back.tied[0] is back.inner.weight
        torch.testing.assert_close(back.tied[0], model.inner.weight, rtol=0, atol=0)


def test_parameter_and_buffer_in_one(tmp_path: Path) -> None:
    tenfold.save(Tied(), tmp_path / "a")
    net: Any = Tied(False)
    del net.head.weight
    net.head.register_buffer("weight", torch.zeros(7, 4))
    with pytest.raises(
        ValueError, match=r"head\.weight and tok\.weight are one tensor in the file, and a parameter and a buffer in the network"
    ):
        tenfold.load(tmp_path / "a", net)


def test_replace_puts_a_layer_wherever_the_old_one_stands():
    old, new = nn.Linear(8, 8), nn.Identity()
    steps = nn.Sequential(old, nn.ReLU(), old)
    model = nn.ModuleDict({"first": old, "second": old, "steps": steps})
    assert replace(model, old, new) is model
    assert all(one is new for one in (model["first"], model["second"], steps[0], steps[2]))
    assert replace(steps, steps, new) is new


class Listed(nn.Module):
    """Runs its layers from a plain list, and refers to them in every other way too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.stages = [self.first, self.second]
        self.pairs = ({"in": [self.first]}, Pair(self.first, 3))
        self.unregistered = [nn.Sequential(self.first)]
        self.__dict__["plain"] = self.first
        self.stages.append(self.stages)  # a list that holds itself

    def forward(self, x: Tensor) -> Tensor:
        return self.stages[1](self.stages[0](x))


class Pair(NamedTuple):
    layer: nn.Module
    size: int


def test_replace_reaches_plain_attributes_and_what_is_in_lists_tuples_and_dicts():
    model, new = Listed(), nn.Identity()
    stages, second = model.stages, model.second
    replace(model, model.first, new)
    nested, pair = model.pairs
    found = (model.first, stages[0], nested["in"][0], pair.layer, model.unregistered[0][0], model.__dict__["plain"])
    assert all(one is new for one in found)
    assert type(pair) is Pair and pair.size == 3 and model.stages is stages and stages[1] is model.second is second


def test_layers_that_a_list_holds_are_compressed_saved_and_made_dense(tmp_path: Path):
    model, x = Listed(), torch.randn(5, 6)
    before = model(x)
    small = tenfold.compress(model, tenfold.SVD(rank=1))
    assert small.stages[:2] == [small.first, small.second] and type(small.first) is tenfold.nn.Linear
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    assert not torch.allclose(small(x), before, atol=1e-2)
    tenfold.save(small, tmp_path / "small.safetensors")
    for same in (tenfold.load(tmp_path / "small.safetensors", Listed), tenfold.to_dense(small)):
        torch.testing.assert_close(same(x), small(x))


def test_replace_reaches_into_compiled_modules_and_keeps_them_compiled():
    inner = nn.Linear(4, 4)
    model = nn.Sequential(torch.compile(inner, backend="eager"), torch.compile(nn.Sequential(nn.Linear(4, 4)), backend="eager"))
    for old in [model[0]._orig_mod, model[1]._orig_mod[0]]:
        replace(model, old, nn.Linear(4, 2) if old is not inner else nn.Linear(4, 4, bias=False))
    assert model(torch.zeros(3, 4)).shape == (3, 2)
    assert {type(module).__name__ for module in model} == {"OptimizedModule"}
    assert [name.replace("_orig_mod.", "") for name in model.state_dict()] == ["0.weight", "1.0.weight", "1.0.bias"]


def test_hooks_go_on_to_the_new_layer():
    model, seen = nn.Sequential(nn.Linear(3, 3)), []
    handle = model[0].register_forward_hook(lambda module, inputs, output: seen.append(module))
    model[0].register_forward_pre_hook(lambda module, args, kwargs: (args, kwargs), with_kwargs=True)
    new = nn.Linear(3, 3)
    replace(model, model[0], new)
    model(torch.zeros(1, 3))
    assert seen == [new]
    handle.remove()
    model(torch.zeros(1, 3))
    assert seen == [new]


def of_maps_and_lstms(n_layers: int) -> nn.Module:
    return nn.Sequential(*[nn.Sequential(nn.Linear(6, 6), nn.LSTM(6, 6)) for _ in range(n_layers)])


def visits(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> int:
    """How many values of a model are looked at while layers are put in the places of others."""
    count, look = 0, places._swapped

    def counted(value: Any, done: dict[int, Any]) -> Any:
        nonlocal count
        count += 1
        return look(value, done)

    with monkeypatch.context() as patch:
        patch.setattr(places, "_swapped", counted)
        act()
    return count


def test_replacing_all_layers_visits_a_model_as_often_as_replacing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counts = []
    for n_layers in (4, 16):
        model, file = of_maps_and_lstms(n_layers), tmp_path / "small.safetensors"
        small = tenfold.compress(model, {"*.0": tenfold.SVD(rank=1)})
        tenfold.save(small, file)
        acts: list[Callable[[], object]] = [
            lambda model=model: tenfold.compress(model, {"*.0": tenfold.SVD(rank=1)}),
            lambda model=model: tenfold.factorize(of_maps_and_lstms(len(model)), {"*.0": tenfold.SVD(rank=1)}),
            lambda file=file, model=model: tenfold.load(file, model),
        ]
        counts.append([visits(monkeypatch, act) for act in acts])
    for few, many in zip(*counts, strict=True):
        assert many < 5 * few  # four times the layers; one walk for each took seventeen times as many visits
