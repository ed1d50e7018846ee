"""tenfold formats: the table, as text and as JSON, and what is said to wrong shapes."""

import contextlib
import io
import json
from typing import Any

import pytest

from tenfold.cli.app import run
from tenfold.formats import all_formats

MODES = ("--in-modes", "4x4x4", "--out-modes", "4,4,4")


def shown(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(["formats", *arguments]) == 0
    return out.getvalue()


def as_json(*arguments: str) -> dict[str, Any]:
    return json.loads(shown(*arguments, "--json"))


def test_without_a_shape_all_formats_are_described() -> None:
    text = " ".join(shown().split())
    assert all(kind.__name__ in text for kind in all_formats().values())
    assert "Kronecker CP decomposition" in text
    assert "for numbers give --shape OUTxIN, for instance --shape 1024x57600" in text


def test_a_shape_gives_numbers() -> None:
    data = as_json("--shape", "64x64", *MODES, "--rank", "2")
    rows = {row["name"]: row for row in data["formats"]}
    assert len(rows) == len(all_formats())
    assert (rows["KCP"]["parameters"], rows["KCP"]["ranks"], rows["KCP"]["rank_bound"]) == (96, {"r": 2}, 64)
    assert rows["TT"]["rank_bound"] == 2
    assert rows["KCP"]["multiply_adds"] <= rows["KCP"]["dense_multiply_adds"] == 4096
    text = shown("--shape", "64x64", *MODES, "--rank", "2")
    assert "64 of 64" in text and "2 of 64" in text
    assert "dense: 4,096 multiply-adds a sample" in text


def test_a_format_that_cannot_take_the_shape_says_why() -> None:
    text = " ".join(shown("--shape", "64x64", "--in-modes", "8x8", "--out-modes", "4x4x4").split())
    assert "cannot take this shape: a merged format needs as many" in text


def test_a_convolution() -> None:
    rows = {row["name"]: row for row in as_json("--shape", "16x16x3x3", "--rank", "3")["formats"]}
    assert rows["CP"]["parameters"] == rows["CP"]["multiply_adds"] == 123


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "wide"), "--shape is 'wide'; whole numbers joined by x are needed: write for instance --shape 8x10x10x9x8"),
        (("--shape", "64x64", "--in-modes", "8x"), "--in-modes is '8x'; whole numbers joined by x are needed"),
        (("--shape", "64x64", "--rank", "2", "--params", "9"), "each decides the ranks: leave one out"),
        (("--rank", "2"), "given without a shape"),
        (("--shape", "64"), "the shape is 64;"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["formats", *arguments]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert message in " ".join(found.err.split())
