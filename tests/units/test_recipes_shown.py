"""What a recipe gives back: tables, notes and data, and the files of finished runs."""

import json
import math
from pathlib import Path

import pytest

import tenfold.recipes
from tenfold.recipes.finished_runs import kept_place, read_kept, write_kept
from tenfold.recipes.options import Options
from tenfold.recipes.shown import Table, write_result

TABLE = Table("tiny", ("network", "values"), (("dense", "10"), ("tt|x", "2")), ("One seed.",), {"rows": [10, 2]})


def test_a_table_is_shown_as_markdown() -> None:
    lines = TABLE.markdown().splitlines()
    assert lines == ["## tiny", "", "| network | values |", "| --- | ---: |", "| dense | 10 |", "| tt\\|x | 2 |", "", "One seed."]
    assert str(TABLE) == TABLE.markdown()


def test_a_result_is_written_as_data_and_as_text(tmp_path: Path) -> None:
    write_result(TABLE, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "tiny.json").read_text()) == {"recipe": "tiny", "rows": [10, 2]}
    assert (tmp_path / "out" / "tiny.md").read_text() == TABLE.markdown()
    write_result(TABLE, None)


def test_scores_that_are_not_defined_are_null_in_data(tmp_path: Path) -> None:
    """As the AUC of a test in which all rows have one label; NaN is no JSON."""
    write_result(Table("one", (), (), (), {"runs": [{"auc": math.nan, "n": 3}], "spread": (math.inf, 0.5)}), tmp_path)
    found = json.loads((tmp_path / "one.json").read_text(), parse_constant=pytest.fail)
    assert found == {"recipe": "one", "runs": [{"auc": None, "n": 3}], "spread": [None, 0.5]}


def test_a_run_is_found_again_by_all_that_it_depends_on(tmp_path: Path) -> None:
    key, other = {"lr": 0.1, "seed": 1}, {"lr": 0.2, "seed": 1}
    place = kept_place(tmp_path, "tiny", "TT rank=2, seed 1", key)
    assert place is not None and place.parent == tmp_path / "runs" and place.name.startswith("tiny-tt-rank-2-seed-1-")
    assert read_kept(place, key) is None
    write_kept(place, key, {"accuracy": 0.5})
    assert read_kept(place, key) == {"accuracy": 0.5}
    assert read_kept(place, other) is None and kept_place(tmp_path, "tiny", "TT rank=2, seed 1", other) != place
    place.write_text("{")
    assert read_kept(place, key) is None
    assert kept_place(None, "tiny", "x", key) is None
    write_kept(None, key, {})


def test_every_recipe_says_what_it_takes() -> None:
    known = set(Options.__dataclass_fields__)
    for name in tenfold.recipes.names():
        assert set(tenfold.recipes.recipe(name).TAKES) <= known, name


def test_a_choice_that_a_recipe_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="tiny got dense, hidden, which it does not take; its choices are data, epochs, out, seeds: leave dense"
    ):
        Options(hidden=3, has_dense_twin=False, data=tmp_path, epochs=2, seeds=(1,)).check_taken("tiny", ("epochs",))
    Options(data=tmp_path, epochs=2, progress=lambda *_: None).check_taken("tiny", ("epochs",))
    with pytest.raises(ValueError, match="series-lstm got temperature, which it does not take"):
        tenfold.recipes.train("series-lstm", data=tmp_path, temperature=2.0)
