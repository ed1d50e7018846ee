"""The metadata of a model file are read as if by an enemy: whatever they say, nothing is allocated, run or imported for it."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_file_cases import Net, small_net
from torch import nn

import tenfold
from tenfold.files import read_header, read_tensors, write_safetensors
from tenfold.layers import all_layers
from tenfold.model_recipe import FACTOR_LIMIT, check_recipe


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    path = tmp_path_factory.mktemp("recipe") / "net.safetensors"
    tenfold.save(small_net(), path)
    return read_tensors(path), read_header(path).metadata


def load_changed(parts: Any, folder: Path, **metadata: Any) -> nn.Module:
    tensors, original = parts
    values = {**original, **{key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}}
    write_safetensors(folder / "a", tensors, {key: value for key, value in values.items() if value != "null"})
    return tenfold.load(folder / "a", Net)


MADE = r"a is damaged or made by hand: .*; a file of tenfold\.save is needed: save the model again"
METADATA = {
    "no version": (
        {"tenfold": None},
        r"is not a tenfold file \(its metadata are \['aliases', 'layers', .*\]\); one written by tenfold\.save is needed",
    ),
    "no layers": ({"layers": None}, "is not a tenfold file"),
    "no number": ({"tenfold": "one"}, "is not a tenfold file"),
    "other digits": ({"tenfold": "\u0661"}, "is not a tenfold file"),
    "newer": ({"tenfold": "2"}, "has format version 2; this tenfold reads version 1: update tenfold"),
    "layers no JSON": ({"layers": "{"}, MADE.replace(".*", r"its metadata 'layers' are not readable as JSON \(JSONDecodeError\)")),
    "deep JSON": ({"layers": '{"a":' * 100_000 + "1" + "}" * 100_000}, MADE.replace(".*", r".*\(RecursionError\)")),
    "long number": ({"layers": '{"conv": ' + "9" * 10_000 + "}"}, MADE),
    "layers a list": ({"layers": "[]"}, MADE.replace(".*", "its metadata 'layers' are a list, not an object")),
    "alias of nothing": ({"aliases": {"x": "y"}}, MADE.replace(".*", "its 'aliases' map 'x' to 'y', but map new names to known ones")),
    "alias of itself": ({"aliases": {"head.bias": "head.bias"}}, MADE),
    "alias no name": ({"aliases": {"x": ["head.bias"]}}, MADE),
    "module of nothing": ({"modules": {"again": "head"}}, MADE.replace(".*", "its 'modules' map 'again' to 'head', .*")),
    "unknown alias": ({"aliases": {"x": "head.bias"}}, r"does not fit Net: .*x is unexpected"),
    "path trick": ({"modules": {"../../again": "shared"}}, r"has a layer '\.\./\.\./again', which the network lacks"),
    "attribute trick": ({"modules": {"conv.__class__": "conv"}}, "has a layer 'conv.__class__', which the network lacks"),
}


@pytest.mark.parametrize("name", METADATA)
def test_wrong_metadata(parts: Any, tmp_path: Path, name: str) -> None:
    change, message = METADATA[name]
    with pytest.raises(ValueError, match=message):
        load_changed(parts, tmp_path, **change)


def axes(**first: Any) -> list[list[Any]]:
    values = {"role": "o", "size": 8, "modes": [8], "groups": 1, **first}
    return [list(values.values()), ["i", 3, [3], 1], ["k", 3, [3], 1], ["k", 3, [3], 1]]


STATEMENT = "o1 r1, r1 r2 k1 k2, r2 i1 -> o1 i1 k1 k2"
HUGE = {"o1": 2**40, "r1": 2**40, "r2": 2**40, "i1": 2**40, "k1": 2**40, "k2": 2**40}
LAYERS = {
    "unknown layer": ({"layer": "Attention"}, "layer 'conv' is a 'Attention', and the layers are Conv1d, "),
    "layer by path": ({"layer": "os.system"}, "layer 'conv' is a 'os.system', and the layers are"),
    "layer no text": ({"layer": ["Conv2d"]}, "and the layers are"),
    "extra key": ({"code": "import os"}, "is not described by layer, statement, sizes and axes"),
    "missing key": ({"axes": None}, "it has no list of axes"),
    "statement no text": ({"statement": 3}, "has no statement of at most 10,000 characters and 32 factors"),
    "long statement": ({"statement": STATEMENT + " " * 10_000}, "has no statement of at most"),
    "many factors": ({"statement": "o1 r1, " * 40 + STATEMENT}, "has no statement of at most"),
    "many terms": ({"statement": "o1 r1 + " * 40 + STATEMENT}, "has no statement of at most"),
    "a term without modes": ({"statement": "o1 r1 + " + STATEMENT}, r"has modes .* that no factor carries"),
    "no arrow": ({"statement": "o1 r1"}, "'o1 r1' is not a statement; write index names"),
    "no name": ({"statement": "o1 ../r1, r1 -> o1"}, "is not a statement"),
    "no sizes": ({"sizes": []}, "has sizes that are no whole numbers above 0"),
    "size 0": ({"sizes": {**dict.fromkeys(HUGE, 3), "r1": 0}}, "has sizes that are no whole numbers above 0"),
    "size true": ({"sizes": {**dict.fromkeys(HUGE, 3), "r1": True}}, "has sizes that are no whole numbers above 0"),
    "size 2.0": ({"sizes": {**dict.fromkeys(HUGE, 3), "r1": 2.0}}, "has sizes that are no whole numbers above 0"),
    "size 2^63": ({"sizes": {**dict.fromkeys(HUGE, 3), "r1": 2**63}}, "has sizes that are no whole numbers above 0"),
    "huge sizes": ({"sizes": HUGE}, "do not belong together"),
    "sizes too many": ({"sizes": {"o1": 8, "r1": 2, "r2": 2, "i1": 3, "k1": 3, "k2": 3, "x": 9}}, "do not belong together"),
    "sizes too few": ({"sizes": {"o1": 8}}, "sizes are given for"),
    "ranks": (
        {"sizes": {"o1": 8, "r1": 2**40, "r2": 2, "i1": 3, "k1": 3, "k2": 3}},
        r"needs 'conv\.factorized\.factors\.0' of shape \(8, 1099511627776\)",
    ),
    "another factor": ({"statement": f"r1, {STATEMENT}"}, r"needs 'conv\.factorized\.factors\.0' of shape \(2,\) and has \(8, 2\)"),
    "a factor more": (
        {"statement": STATEMENT.replace(" ->", ", r1 r2 ->")},
        r"needs 'conv\.factorized\.factors\.3' of shape \(2, 2\) and has none",
    ),
    "role": ({"axes": axes(role="x")}, "an axis has a role other than o, i or k"),
    "role no text": ({"axes": axes(role=["o"])}, "an axis has a role other than o, i or k"),
    "groups 0": ({"axes": axes(groups=0)}, "an axis has sizes that are no whole numbers above 0"),
    "groups that do not divide": ({"axes": axes(groups=3)}, "groups must divide the axis"),
    "no modes": ({"axes": axes(modes=[])}, "sizes must be at least 1"),
    "modes too small": ({"axes": axes(modes=[7])}, "does not fit its size 8; choose modes"),
    "axis no list": ({"axes": [1, 2]}, "an axis is not a list of role, size, modes and groups"),
    "many axes": ({"axes": axes() * 3}, "it has no list of axes"),
    "groups twice": ({"axes": [["o", 8, [4], 2], ["i", 4, [2], 2]]}, "more than one axis has groups"),
    "another axis": ({"axes": axes()[:2]}, "do not belong together"),
    "axis size": ({"axes": axes(size=7)}, r"a weight of shape \(7, 3, 3, 3\) .* where the network has \(8, 3, 3, 3\)"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_wrong_layer(parts: Any, tmp_path: Path, name: str) -> None:
    change, message = LAYERS[name]
    layers = json.loads(parts[1]["layers"])
    layers["conv"] |= change
    with pytest.raises(ValueError, match=message):
        load_changed(parts, tmp_path, layers=layers)


def test_roles_exchanged(tmp_path: Path) -> None:
    """A square weight whose input and output are exchanged has the right shape and the wrong meaning."""
    tenfold.save(tenfold.nn.Linear(4, 4, format=tenfold.SVD(rank=2)), tmp_path / "a")
    tensors, metadata = read_tensors(tmp_path / "a"), read_header(tmp_path / "a").metadata
    entry = {"layer": "Linear", "statement": "i1 r1, r1 o1 -> i1 o1", "sizes": {"i1": 4, "r1": 2, "o1": 4}}
    axes = [["i", 4, [4], 1], ["o", 4, [4], 1]]
    write_safetensors(tmp_path / "a", tensors, {**metadata, "layers": json.dumps({"": {**entry, "axes": axes}})})
    with pytest.raises(ValueError, match="both must be the same: build the Linear that was saved"):
        tenfold.load(tmp_path / "a", nn.Linear(4, 4))


def test_layer_that_is_no_object(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=MADE.replace(".*", "layer 'conv' is not described by layer, statement, sizes and axes")):
        load_changed(parts, tmp_path, layers={"conv": "Conv2d"})


def test_bomb_by_padding(tmp_path: Path) -> None:
    """Factors of 100 values each promise a weight of a hundred million."""
    layer = tenfold.nn.Linear(10, 10, format=tenfold.SVD(rank=1))
    tenfold.save(layer, tmp_path / "a")
    tensors, metadata = read_tensors(tmp_path / "a"), read_header(tmp_path / "a").metadata
    tensors |= {"factorized.factors.0": torch.ones(10_000, 1), "factorized.factors.1": torch.ones(1, 10_000)}
    entry = {"layer": "Linear", "statement": "o1 r1, r1 i1 -> o1 i1", "sizes": {"o1": 10_000, "r1": 1, "i1": 10_000}}
    axes = [["o", 10, [10_000], 1], ["i", 10, [10_000], 1]]
    write_safetensors(tmp_path / "a", tensors, {**metadata, "layers": json.dumps({"": {**entry, "axes": axes}})})
    with pytest.raises(
        ValueError, match="it pads a weight of 100 values to 100,000,000; a file may hold 64 times as many: choose other modes"
    ):
        tenfold.load(tmp_path / "a", nn.Linear(10, 10))


def test_limits_hold_when_saving(tmp_path: Path) -> None:
    layer = tenfold.nn.Linear(4, 4, format=tenfold.SVD(rank=1), in_modes=(40,), out_modes=(40,))
    with pytest.raises(
        ValueError, match="layer '0' pads a weight of 16 values to 1,600; a file may hold 64 times as many: choose other modes"
    ):
        tenfold.save(nn.Sequential(layer), tmp_path / "a")
    layer = tenfold.nn.Linear(4, 4, format=tenfold.TT(rank=1), in_modes=(4, *[1] * 20), out_modes=(4, *[1] * 20))
    with pytest.raises(
        ValueError, match=rf"layer '0' has 42 factors in a statement of \d+ characters; a file may hold {FACTOR_LIMIT} and 10,000: use"
    ):
        tenfold.save(nn.Sequential(layer), tmp_path / "a")


def test_check_recipe_accepts_what_the_formats_make() -> None:
    layer: Any = all_layers()["Linear"](100, 90, format=tenfold.TTM(rank=2), in_modes=(5, 5, 5), out_modes=(5, 5, 4))
    check_recipe(layer.factorized.network, layer.factorized.fold, "it")


def test_factors_of_two_dtypes(parts: Any, tmp_path: Path) -> None:
    tensors, metadata = parts
    name = "conv.factorized.factors.1"
    for dtype in (torch.float64, torch.int32):
        write_safetensors(tmp_path / "a", {**tensors, name: tensors[name].to(dtype)}, metadata)
        with pytest.raises(
            ValueError, match=r"has factors of the dtypes \['torch\.float32', 'torch\..*'\], and needs one real floating-point"
        ):
            tenfold.load(tmp_path / "a", Net)


def test_nothing_is_allocated_before_the_check(parts: Any, tmp_path: Path) -> None:
    """A gigabyte is promised by every factor; the message comes at the price of a header."""
    layers = json.loads(parts[1]["layers"])
    layers["conv"]["sizes"] |= {"r1": 2**27, "r2": 2**27}
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"of shape \(8, 134217728\) and has \(8, 2\)"):
        load_changed(parts, tmp_path, layers=layers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**62, 2**64, 10**30, -1, 0.5, float("inf"), "", "o1", "conv", "Linear", "r1 -> r1", "a" * 100, [], {}, [[]]]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_junk_anywhere_in_the_description(parts: Any, tmp_path: Path, data: st.DataObject) -> None:
    """One value, at any depth, is replaced: a ValueError with advice, or the very same model."""
    layers = json.loads(parts[1]["layers"])
    place: Any = layers
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(place[key], dict | list) and place[key]) or data.draw(st.integers(0, 4)) == 0:
            break
        place = place[key]
    place[key] = data.draw(JUNK)
    try:
        model = load_changed(parts, tmp_path, layers=layers)
    except ValueError as error:
        assert "; " in str(error) and ": " in str(error)
    else:
        x = torch.randn(2, 3, 5, 5)
        torch.testing.assert_close(model.eval()(x), small_net()(x))
