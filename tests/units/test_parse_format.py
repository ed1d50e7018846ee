"""Formats as text, in files and on the command line."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from tenfold import BT, CP, HT, KT, SVD, TT, TTM, Format, Tucker
from tenfold.fold import Fold
from tenfold.formats import all_formats, format_text, parse_format


@dataclasses.dataclass(frozen=True)
class Outside(Format):
    """A format of somebody else, with a field of its own."""

    sides: tuple[int, ...] = (2, 3)
    scale: float = 1.0

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return [(*fold.role("o"), "r"), ("r", *fold.role("i"), *fold.role("k"))]


@pytest.mark.parametrize(
    ("text", "format", "modes"),
    [
        ("svd", SVD(), {}),
        ("cp:rank=12", CP(rank=12), {}),
        (" CP : rank = 12 ", CP(rank=12), {}),
        ("tucker:rank=4x6,all_modes=true", Tucker(rank=(4, 6), all_modes=True), {}),
        ("tt:rank=0.25", TT(rank=0.25), {}),
        ("tt:rank=5e-2", TT(rank=0.05), {}),
        ("tt:rank=7x", TT(rank=(7,)), {}),
        ("ttm:rank=4,in=8x8,out=4x16", TTM(rank=4), {"in_modes": (8, 8), "out_modes": (4, 16)}),
        ("cp:in=64", CP(), {"in_modes": (64,)}),
        ("bt:rank=4,blocks=3", BT(rank=4, blocks=3), {}),
        ("ht:rank=4,inner_rank=5,tree=((1 2) 3) (4 5)", HT(rank=4, inner_rank=5, tree="((1 2) 3) (4 5)"), {}),
        ("kt:rank=4x4,groups=2x1+1x2,in=2x2x2", KT(rank=(4, 4), groups=((2, 1), (1, 2))), {"in_modes": (2, 2, 2)}),
        ("kt:rank=4,groups=2x1+", KT(rank=4, groups=((2, 1),)), {}),
        ("kt:groups=1x1x1+3", KT(groups=((1, 1, 1), (3,))), {}),
        ("tenfold.formats.ttm.TTM:rank=2", TTM(rank=2), {}),
        (f"{__name__}.Outside:rank=2,sides=4x5", Outside(rank=2, sides=(4, 5)), {}),
    ],
)
def test_text_is_read(text: str, format: Format, modes: dict[str, Any]):
    assert parse_format(text) == (format, modes)


@pytest.mark.parametrize("kind", [*all_formats().values(), Outside], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("rank", [None, 3, 0.5, 1.0, 1e-7, (3,), (1, 2, 3)])
@pytest.mark.parametrize("modes", [(None, None), ((8,), None), ((2, 3), (3, 4))])
def test_text_of_every_format_is_read_back(kind: type[Format], rank: Any, modes: Any):
    format = kind(rank=rank)
    found, read = parse_format(format_text(format, *modes))
    assert (found, read.get("in_modes"), read.get("out_modes")) == (format, *modes)
    assert type(found.rank) is type(rank)


@pytest.mark.parametrize(
    "format",
    [
        HT(rank=2, tree="1 (2 3)"),
        HT(inner_rank=3),
        KT(groups=((2, 1), (1, 2))),
        KT(groups=((2, 1),)),
        KT(groups=((1, 1), (2,))),
        BT(blocks=4),
    ],
    ids=repr,
)
def test_trees_and_groups_are_read_back(format: Format):
    assert parse_format(format_text(format, (2, 2, 2))) == (format, {"in_modes": (2, 2, 2)})


def test_fields_are_written_where_they_are_not_the_default():
    assert format_text(Tucker(rank=(2, 3), all_modes=True)) == "tucker:rank=2x3,all_modes=true"
    assert format_text(Outside(rank=1, scale=0.5)) == f"{__name__}.Outside:rank=1,scale=0.5"
    assert format_text(CP()) == "cp"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no format; known are bt, cp, .*, or the dotted path of a Format class: choose one of them"),
        ("pc:rank=3", "'pc' is no format; known are bt, cp, "),
        ("tenfold.formats.cp.PC", "the format 'tenfold.formats.cp.PC' cannot be imported .*: check it"),
        ("no.such.module.Ring", "cannot be imported .*No module named"),
        ("..formats.CP", "cannot be imported"),
        ("os.path.join", "'os.path.join' is no format"),
        ("cp:8", "'cp:8' has '8'; cp takes rank=.., stable=.., in=.., out=..: write for instance cp:rank=8"),
        ("cp:ranks=8", "'cp:ranks=8' has 'ranks=8'; cp takes rank=.., stable=.., in=.., out=.."),
        ("cp:all_modes=true", "has 'all_modes=true'; cp takes"),
        ("cp:rank=", "has the value ''; it needs a whole number, a fraction, sizes as 4x6, groups as 2x1.1x2, true or false"),
        ("cp:rank=2+3", "has the value '2.3'; it needs a whole number"),
        ("kt:groups=2x1+1xx2", "has the value '1xx2'"),
        ("cp:rank=many", "has the value 'many'; it needs a whole number"),
        ("ttm:rank=4x,in=x8", "has the value 'x8'"),
        ("ttm:rank=4xx8", "has the value '4xx8'"),
        ("cp:rank=8;import os", "has the value '8;import os'"),
    ],
)
def test_text_that_is_no_format(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        parse_format(text)
