"""Mean and spread over seeds, and the tables made of them."""

import json
import math

import pytest

from tenfold.recipes.measure import StepCost
from tenfold.recipes.papers.kcp import findings
from tenfold.recipes.sequences.results import Result, Row, Run, markdown_table, score_text, summarize

COST = StepCost(flops=2_500_000, seconds=0.0123, seconds_min=0.011, peak_bytes=4_200_000, n_turns=20)


def run(seed: int, fold: int, accuracy: float, n_test: int = 10, loss: float = 1.0) -> Run:
    return Run("kcp:rank=2", seed, fold, accuracy, loss, n_test, 100, 1.5)


def row(format: str, score: float, seconds: float = 0.01) -> Row:
    cost = StepCost(2_500_000, seconds, seconds, 4_200_000, 20)
    return Row(format, score, 0.01, 3, 5, 1_000, 5_000.0, 400, 2_000, 80.0, cost)


def result(*rows: Row, metric: str = "accuracy") -> Result:
    settings = {"epochs": 3, "batch_size": 16}
    return Result("clips-lstm", "5 folds", metric, settings, {"torch": "2"}, rows, (run(0, 0, 0.5),))  # type: ignore[arg-type]


def test_a_seed_is_scored_over_all_test_data_of_its_folds() -> None:
    runs = [run(0, 0, 0.5, 10), run(0, 1, 1.0, 30), run(1, 0, 0.9, 10), run(1, 1, 0.9, 30)]
    mean, spread = summarize(runs, "accuracy")
    assert mean == pytest.approx((0.875 + 0.9) / 2)
    assert spread == pytest.approx(0.025 / math.sqrt(2))
    assert summarize(runs[:2], "accuracy") == (pytest.approx(0.875), None)


def test_bits_per_character_come_from_the_loss() -> None:
    assert summarize([run(0, 0, 0.5, loss=2 * math.log(2))], "bits per character") == (pytest.approx(2.0), None)


@pytest.mark.parametrize(
    ("score", "spread", "metric", "text"),
    [
        (0.8315, 0.0114, "accuracy", "83.2 % +- 1.1"),
        (0.5, None, "accuracy", "50.0 %"),
        (1.92345, 0.0021, "bits per character", "1.923 +- 0.002"),
    ],
)
def test_scores_as_text(score: float, spread: float | None, metric: str, text: str) -> None:
    assert score_text(score, spread, metric) == text  # type: ignore[arg-type]


def test_a_result_is_a_table_and_json() -> None:
    found = result(row("dense", 0.8), row("kcp:rank=2", 0.79))
    assert found.columns[1] == "accuracy"
    lines = found.markdown().splitlines()
    assert lines[:2] == ["## clips-lstm", ""]
    assert "| kcp:rank=2 | 79.0 % +- 1.0 | 1,000 | 5,000x | 2,000 | 80.0x | 2.5 | 10.0 | 4.2 |" in lines
    assert "3 seeds x 5 folds, mean over seeds +- standard deviation; tested once after the last epoch (3 epochs, batch 16)" in str(found)
    data = json.loads(found.json())
    assert data["rows"][1]["cost"]["flops"] == 2_500_000
    assert data["runs"][0]["n_test"] == 10


def test_findings_compare_with_the_dense_twin_and_the_median() -> None:
    rows = (
        row("dense", 0.80, 0.05),
        row("kcp:rank=2,in=4x4", 0.79, 0.009),
        row("ttm:rank=2", 0.795),
        row("tr:rank=2", 0.7),
        row("ht:rank=2", 0.78),
    )
    assert findings(result(*rows)) == (
        "best factorised: ttm, -0.5 points from the dense twin, at 5,000x on the input map",
        "KCP is not worse than the median of the other formats",
        "lowest time per step among the factorised: kcp, 9.0 ms",
    )
    worse = findings(result(row("kcp:rank=2", 0.6, 0.02), row("tr:rank=2", 0.7)))
    assert worse == ("KCP is worse than the median of the other formats", "lowest time per step among the factorised: tr, 10.0 ms")
    bits = findings(result(row("dense", 2.0), row("kcp:rank=2", 2.1), row("tr:rank=2", 2.2), metric="bits per character"))
    assert bits[:2] == (
        "best factorised: kcp, +0.100 bits from the dense twin, at 5,000x on the input map",
        "KCP is not worse than the median of the other formats",
    )


def test_a_markdown_table_keeps_its_columns() -> None:
    assert markdown_table(("a", "b"), [("x|y", "1")]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"
