"""Which layers may change and what they may become: formats by name, pattern and type, and filters."""

from typing import Any

import pytest
from torch import nn

from tenfold import CP, SVD, TTM, Tucker
from tenfold.selection import AUTO, Choice, select
from tenfold.survey import survey


def network() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    return nn.ModuleDict({"stem": stem, "body": nn.Sequential(nn.Linear(16, 12), nn.Linear(12, 10)), "rnn": nn.LSTM(4, 4)})


def chosen(format: Any, filter: Any = None) -> dict[str, list[Any]]:
    """{name: formats} of the layers that may change."""
    return {name: [choice.format for choice in choices] for name, choices in select(survey(network()), format, filter)[0].items()}


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (SVD(rank=2), {"stem.0": [SVD(rank=2)], "body.0": [SVD(rank=2)], "body.1": [SVD(rank=2)]}),
        ("svd:rank=2", {"stem.0": [SVD(rank=2)], "body.0": [SVD(rank=2)], "body.1": [SVD(rank=2)]}),
        ("auto", {name: list(AUTO) for name in ("stem.0", "body.0", "body.1")}),
        ({"body.0": SVD(), "stem.0": None}, {"body.0": [SVD()]}),
        ({"body.0": "auto", "stem.0": "dense"}, {"body.0": list(AUTO)}),
        ({"body.*": SVD()}, {"body.0": [SVD()], "body.1": [SVD()]}),
        ({nn.Conv2d: CP(), nn.Linear: SVD()}, {"stem.0": [CP()], "body.0": [SVD()], "body.1": [SVD()]}),
        # a full name counts first, wherever it stands; among patterns and types the first that matches
        ({nn.Linear: SVD(), "body.1": None}, {"body.0": [SVD()]}),
        ({"*": SVD(), nn.Linear: TTM(), "stem.0": Tucker()}, {"stem.0": [Tucker()], "body.0": [SVD()], "body.1": [SVD()]}),
        ({"*": SVD(), "rnn": None}, {"stem.0": [SVD()], "body.0": [SVD()], "body.1": [SVD()]}),
    ],
)
def test_formats(format: Any, expected: dict[str, list[Any]]):
    assert chosen(format) == expected


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (None, ["stem.0", "body.0", "body.1"]),
        ("body.*", ["body.0", "body.1"]),
        (["stem.0", "body.1"], ["stem.0", "body.1"]),
        (("*.0",), ["stem.0", "body.0"]),
        (nn.Conv2d, ["stem.0"]),
        ([nn.Conv2d, "body.1"], ["stem.0", "body.1"]),
        ((name for name in ("body.1",)), ["body.1"]),
        (lambda module, name: isinstance(module, nn.Linear) and name.endswith("1"), ["body.1"]),
    ],
)
def test_filters(filter: Any, expected: list[str]):
    assert list(chosen("auto", filter)) == expected


def test_layers_that_stay_dense_have_a_reason():
    _, reasons = select(survey(network()), {"body.*": SVD()}, "*.0")
    assert reasons == {
        "stem.0": "no format is given for it",
        "body.1": "left out by the filter",
        "rnn": "there is no factorised layer for LSTM",
    }


def test_modes_go_with_a_format():
    [choice] = select(survey(network()), {"body.0": "ttm:rank=2,in=4x4,out=2x6"})[0]["body.0"]
    assert choice == Choice(TTM(rank=2), (4, 4), (2, 6))
    [layer] = [one for one in survey(network()) if one.name == "body.0"]
    fold, network_ = choice.network(layer)
    assert [axis.modes for axis in fold.axes] == [(2, 6), (4, 4)] and network_.ranks == {"r1": 2}


@pytest.mark.parametrize(
    ("format", "filter", "message"),
    [
        ({"bdy.*": SVD()}, None, "'bdy.*' matches no layer; the layers are stem.0, body.0, body.1, rnn: correct it"),
        ({nn.Embedding: SVD()}, None, "Embedding matches no layer; the layers are stem.0"),
        ("auto", "bdy", "'bdy' matches no layer; the layers are stem.0"),
        ("auto", ["body.*", "x*"], "'x\\*' matches no layer"),
        ({"rnn": SVD()}, None, "'rnn' asks for a format, but there is no factorised layer for LSTM; take it out of the mapping"),
        (
            "auto",
            lambda module, name: False,
            r"no layer that can be factorised here \(stem.0: left out by the filter; body.0: .*\); it needs",
        ),
        ("auto", [], "no layer that can be factorised here"),
        ("auto", "rnn", "stem.0: left out by the filter"),
        ({"body.*": None}, None, "stem.0: no format is given for it"),
        ("dense", None, "stem.0: no format is given for it"),
    ],
)
def test_selections_that_are_refused(format: Any, filter: Any, message: str):
    with pytest.raises(ValueError, match=message):
        chosen(format, filter)


def test_a_model_without_a_weight():
    with pytest.raises(
        ValueError, match=r"no layer that can be factorised here \(it holds no weight with two or more axes\); it needs at least"
    ):
        select(survey(nn.ReLU()), "auto")


def test_values_and_keys_of_other_types():
    with pytest.raises(TypeError, match="3 is no format; a Format such as CP.rank=8., its text, 'auto', 'dense' or None is needed"):
        chosen(3)
    with pytest.raises(TypeError, match="3 names no layer; a name, a pattern such as 'layer1.*' or a layer type is needed"):
        chosen({3: SVD()})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(SVD(rank=11)), "layer 'body.1' with svd:rank=11: SVD got rank 11, but ranks above 10 add nothing here"),
        (Choice(SVD(rank=0)), "layer 'body.1' with svd:rank=0: SVD got rank 0; every rank must be at least 1"),
        (
            Choice(TTM(rank=2), (2, 5), (2, 5)),
            "layer 'body.1' with ttm:rank=2,in=2x5,out=2x5: .* product 10, which does not fit its size 12",
        ),
        (
            Choice(TTM(rank=2), (3, 4), (10,)),
            "layer 'body.1' with ttm:rank=2,in=3x4,out=10x: a merged format needs as many output modes as input modes",
        ),
        (Choice(SVD()), r"layer 'body.1' gets SVD\(\) without a rank; one is needed: give SVD\(rank=8\), or make a plan with a budget"),
    ],
)
def test_choices_that_do_not_fit_name_the_layer(choice: Choice, message: str):
    [layer] = [one for one in survey(network()) if one.name == "body.1"]
    with pytest.raises(ValueError, match=message):
        choice.network(layer)
