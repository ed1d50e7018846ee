"""tenfold train: the list of recipes, a training with its files, and what is said to wrong input."""

import json
from pathlib import Path

import pytest

import tenfold.recipes
from recipe_data import write_series
from tenfold.cli.app import run

FORMAT = "kcp:rank=2,in=3x4,out=16x32"


def test_without_a_name_all_recipes_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--data", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in tenfold.recipes.names())
    assert "train one with: tenfold train NAME --data PATH --out FOLDER" in text
    assert run(["train", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert [row["name"] for row in rows] == list(tenfold.recipes.names())
    assert all("Protocol" in row["description"] and row["title"] for row in rows)


def test_a_recipe_is_trained_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = write_series(tmp_path), tmp_path / "out"
    arguments = ["train", "series-lstm", "--data", str(place), "--format", FORMAT, "--epochs", "2", "--seeds", "2", "--seed", "5"]
    arguments += ["--out", str(out), "--turns", "2"]
    assert run(arguments) == 0
    found = capsys.readouterr()
    assert "series-lstm" in found.out and "17x" in found.out
    assert "2 seeds x 1 fold, mean over seeds +- standard deviation" in " ".join(found.out.split())
    assert f"series-lstm {FORMAT}, seed 6, fold 1" in found.err
    data = json.loads((out / "series-lstm.json").read_text())
    assert data["settings"]["seeds"] == [5, 6]
    assert [row["format"] for row in data["rows"]] == ["dense", FORMAT]
    assert run([*arguments, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["rows"], again["runs"]) == (data["rows"], data["runs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("series",), "there is no recipe 'series'; one of charlm-lstm, "),
        (("series-lstm", "--seeds", "0"), "--seeds is 0; at least 1 is needed"),
        (("series-lstm", "--data", "nowhere"), "the data nowhere do not exist"),
        (("series-lstm", "--data", "{data}", "--format", "kpc:rank=2"), "'kpc' is no format"),
        (("series-lstm", "--data", "{data}", "--format", "kcp:rank=2,in=3x3,out=16x32"), "product 9, which does not fit its size 12"),
        (("series-lstm", "--data", "{data}", "--epochs", "0"), "'epochs': 0}; each needs to be at least 1"),
        (("series-lstm", "--data", "{data}", "--folds", "2"), "2 folds are asked for;"),
        (("ucf11-lstm", "--protocol", "six"), "there is no protocol 'six' for UCF11"),
        (("series-lstm", "--protocol", "six"), "series-lstm got protocol, which it does not take; its choices are batch_size, data, "),
        (("series-lstm", "--temperature", "10"), "series-lstm got temperature, which it does not take"),
        (("series-lstm", "--temperature", "0"), "got the temperature 0.0; it needs a finite number above 0"),
    ],
)
def test_wrong_input(tmp_path: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = write_series(tmp_path)
    assert run(["train", *(argument.format(data=place) for argument in arguments), "--out", str(tmp_path / "out")]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert message in " ".join(found.err.split())
    assert not (tmp_path / "out").exists()
