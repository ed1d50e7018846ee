"""The experiment on click data: what does not fit is said before anything is trained, and no table is built."""

from pathlib import Path

import pytest
from click_cases import row, write

import tenfold.recipes
from tenfold.data.ctr_synthetic import PlantedClicks, write_clicks
from tenfold.weight import FactorizedWeight


def _never(label: str, done: int, total: int) -> None:
    raise AssertionError(f"{label} was trained")


def test_a_format_that_does_not_fit_a_table_is_refused_before_any_training(tmp_path: Path) -> None:
    path = tmp_path / "clicks.tsv"
    write_clicks(PlantedClicks((6,) * 26, {}), path, (0, 300))
    with pytest.raises(
        ValueError,
        match=r"the format 'ttm:rank=8' does not fit the table C1 of 7 ids, with vectors of 4: TTM got rank 8, .*; choose at most that",
    ):
        tenfold.recipes.train("dlrm", data=path, hidden=4, progress=_never)


def test_one_row_is_not_enough_for_training_and_test(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.tsv \(\d+ bytes\) has 1 good row; at least 2 are needed, the last one for the test"):
        tenfold.recipes.train("dlrm", data=write(tmp_path / "a.tsv", [row(1)]))


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_no_run_builds_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clicks.tsv"
    write_clicks(PlantedClicks((60,) * 26, {}), path, (0, 100))

    def refused(self: FactorizedWeight) -> None:
        raise AssertionError("a dense table was built")

    monkeypatch.setattr(FactorizedWeight, "dense", refused)
    result = tenfold.recipes.train("dlrm", data=path, format="ttm:rank=2", seeds=1, batch_size=4, hidden=4)
    assert "found ranks from scratch" in [cells[0] for cells in result.cells()]


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_finished_runs_of_other_data_of_the_same_size_are_not_taken_over(tmp_path: Path) -> None:
    """A label in the middle is another one; name, size and vocabulary of the file are as before."""
    path, trained = tmp_path / "clicks.tsv", set[str]()
    write_clicks(PlantedClicks((60,) * 26, {}), path, (0, 100))
    options = {"data": path, "format": "ttm:rank=2", "seeds": 1, "batch_size": 4, "hidden": 4, "out": tmp_path / "out"}
    tenfold.recipes.train("dlrm", **options)
    tenfold.recipes.train("dlrm", **options, progress=_never)
    lines = path.read_bytes().split(b"\n")
    lines[50] = (b"0" if lines[50].startswith(b"1") else b"1") + lines[50][1:]
    path.write_bytes(b"\n".join(lines))
    tenfold.recipes.train("dlrm", **options, progress=lambda label, done, total: trained.add(label))
    assert len(trained) == 7
