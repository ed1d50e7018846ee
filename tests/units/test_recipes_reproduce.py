"""Reproduce: all counts, the recipes whose data are there, files that are made once."""

import json
from pathlib import Path

import pytest

from recipe_data import write_clips, write_digits
from tenfold.recipes.papers.kcp_counts import ROWS
from tenfold.recipes.reproduce import reproduce


def test_without_data_there_are_the_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    found = reproduce("kcp", out=tmp_path)
    assert found.results == ()
    assert [name for name, _ in found.missing] == ["clips-lstm", "speech-lstm", "ucf11-lstm", "ucf50-lstm", "ytc-lstm"]
    data = json.loads((tmp_path / "results.json").read_text())
    assert len(data["counts"]) == len(ROWS)
    (largest,) = [row for row in data["counts"] if row["layer"] == "KCP-LSTM, largest published ratio"]
    assert (largest["parameters"], largest["status"], round(largest["model_ratio"], 1)) == (212, "match", 222.6)
    text = (tmp_path / "results.md").read_text()
    assert "| KCP-LSTM, largest published ratio | kcp:rank=1 | 8.10.10.9.8 -> 8.4.2.8.2 | 212 | 278,218.9x | 278,219x | match |" in text
    assert "ucf11-lstm: not trained, its data are not there (UCF11_updated_mpg or" in text


def test_the_data_that_are_there_are_trained_on_once(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_clips(data)
    write_digits(data)
    found = reproduce("kcp", data=data, out=out, quick=True)
    assert [result.recipe for result in found.results] == ["clips-lstm", "speech-lstm"]
    assert all(len(result.rows) == 6 and result.settings["epochs"] == 2 for result in found.results)
    text = (out / "results.md").read_text()
    assert "## clips-lstm" in text and "- lowest time per step among the factorised: " in text
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    assert len(before) == 2 * (6 + 1)
    again = reproduce("kcp", data=data, out=out, quick=True)
    assert [(result.rows, result.runs) for result in again.results] == [(result.rows, result.runs) for result in found.results]
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == before


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is nothing to reproduce for 'kpc'; one of kcp, .* is needed: choose one of them"):
        reproduce("kpc")
    with pytest.raises(ValueError, match="the folder of data .*nowhere does not exist; a folder that holds data sets is needed"):
        reproduce("kcp", data=tmp_path / "nowhere")
