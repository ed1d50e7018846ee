"""tenfold reproduce: the table of counts, and files that a second call does not make again."""

import json
from pathlib import Path

import pytest

from recipe_data import write_digits, write_network
from tenfold.cli.app import run


def test_counts_without_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    assert run(["reproduce", "kcp"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "212 278,218.9x 278,219x match 266,207 222.6x" in text
    assert "no published value" in text
    assert "clips-lstm: not trained, its data are not there" in text


def test_what_is_there_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_digits(tmp_path / "data")
    arguments = ["reproduce", "kcp", "--quick", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert run(arguments) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "KCP is" in text and "lowest time per step among the factorised" in text
    assert "--quick: these accuracies say that everything works, nothing more" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "results.json",
        "results.md",
        "runs",
        "speech-lstm.json",
        "speech-lstm.md",
    ]
    assert run([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [len(result["rows"]) for result in data["results"]] == [6]


@pytest.mark.filterwarnings("ignore:cp_als for")
def test_a_part_of_a_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = str(write_network(tmp_path / "data")), tmp_path / "out"
    arguments = ["reproduce", "stable-cpd", "--quick", "--only", "resnet20", "--only", "stability", "--budgets", "0.5"]
    assert run([*arguments, "--data", place, "--out", str(out)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Stability: the same fine-tuning of plain and of corrected CP" in text and "Published, on ImageNet" in text
    assert "Accuracy against FLOP" not in text and "--quick: these accuracies say that everything works, nothing more" in text
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "results.md", "runs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kpc",), "there is nothing to reproduce for 'kpc'; one of kcp,"),
        (("stable-cpd", "--only", "vgg16"), "the parts vgg16 are asked for; some of accuracy, stability, resnet20"),
        (("stable-cpd", "--budgets", "2"), "the budgets are [2.0]; fractions between 0 and 1 are needed"),
        (("kcp", "--seeds", "0"), "--seeds is 0; at least 1 is needed"),
        (("kcp", "--data", "nowhere"), "the folder of data nowhere does not exist"),
    ],
)
def test_wrong_input(arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", *arguments, "--out", str(tmp_path / "out")]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert message in " ".join(found.err.split())
    assert not (tmp_path / "out").exists()
