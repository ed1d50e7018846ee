"""Reproduction: parts that are asked for, tables as Markdown, the folder of data."""

from pathlib import Path

import pytest

from tenfold.recipes.reproduction import Request, Table, data_folder, markdown_file


def test_parts_come_in_the_order_of_the_paper() -> None:
    assert Request().chosen(("a", "b", "c")) == ("a", "b", "c")
    assert Request(only=("c", "a")).chosen(("a", "b", "c")) == ("a", "c")
    with pytest.raises(ValueError, match="the parts d, e are asked for; some of a, b are needed: choose among them"):
        Request(only=("a", "d", "e")).chosen(("a", "b"))


def test_tables_are_markdown() -> None:
    one = Table("Counts", ("layer", "format", "n"), (("first", "a|b", "7"),), ("said below",), words=("format",))
    assert one.numbers == ("n",)
    lines = one.markdown().splitlines()
    assert lines == ["## Counts", "", "| layer | format | n |", "| --- | ---: | ---: |", "| first | a\\|b | 7 |", "", "- said below"]
    text = markdown_file("Paper", [one], ["missing"])
    assert text.startswith("# Paper\n\n## Counts\n") and text.endswith("- said below\n\n- missing\n")
    assert markdown_file("Paper", [], []) == "# Paper\n"


def test_the_folder_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    assert data_folder(None) is None
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    with pytest.raises(ValueError, match="the folder of data .*nowhere does not exist; a folder that holds data sets is needed: check"):
        data_folder(tmp_path / "nowhere")
