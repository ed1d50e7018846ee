"""Rank table: what runs with automatic ranks found, one row for each format and way, as mean and spread over seeds."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from tenfold.recipes.images.rank_runs import AUTOMATIC, N_SAMPLES, NULL, RankRun
from tenfold.recipes.options import DENSE
from tenfold.recipes.shown import Table

COLUMNS = ("network", "ranks", "accuracy", "to dense", "log loss", "ECE", "ECE sampled", "weights", "ratio", "model ratio", "found")
WORDS = {DENSE: "dense", AUTOMATIC: "automatic", "fixed": "as found, from scratch", NULL: "null model, no data"}
NOTE = (
    "Tested once, after the last step; all networks have the same number of steps. weights: values stored for the factorised layers, their "
    "ratio to dense ones, and that of the whole model with biases. ECE: expected calibration error; sampled: of the mean prediction of "
    f"{N_SAMPLES} draws of the factors."
)


def rank_table(recipe: str, runs: Sequence[RankRun], settings: dict[str, Any], remarks: Sequence[str] = ()) -> Table:
    """The table of a recipe; rows in the order of the runs."""
    kinds = list(dict.fromkeys((run.format, run.way) for run in runs))
    dense = [run for run in runs if run.way == DENSE]
    rows = [row(format, way, [run for run in runs if (run.format, run.way) == (format, way)], dense) for format, way in kinds]
    values = {"settings": settings, "rows": [_data(one) for one in rows], "runs": [dataclasses.asdict(run) for run in runs]}
    return Table(recipe, COLUMNS, tuple(one.cells() for one in rows), (*notes(runs), *remarks), values)


@dataclasses.dataclass(frozen=True)
class RankRow:
    """All runs of one format and way; means over seeds, and standard deviations where there are several.

    points: accuracy minus that of the dense networks of the same seeds, in points (0.01), None without them.
    removed: seeds whose run ended with a layer of which nothing is left.
    """

    format: str
    way: str
    n_seeds: int
    accuracy: float | None
    spread: float | None
    points: float | None
    loss: float | None
    ece: float | None
    ece_sampled: float | None
    weights: float
    ratio: float | None
    model_ratio: float
    found: str
    removed: tuple[int, ...]

    def cells(self) -> tuple[str, ...]:
        """Texts for the columns of a table."""
        spread = "" if self.spread is None else f" +- {100 * self.spread:.2f}"
        return (
            self.format,
            WORDS[self.way],
            "-" if self.accuracy is None else f"{100 * self.accuracy:.2f} %{spread}",
            "-" if self.points is None else f"{self.points:+.2f}",
            *("-" if value is None else f"{value:.4f}" for value in (self.loss, self.ece, self.ece_sampled)),
            f"{self.weights:,.0f}",
            "-" if self.ratio is None else f"{self.ratio:,.1f}x",
            f"{self.model_ratio:,.1f}x",
            self.found,
        )


def row(format: str, way: str, runs: Sequence[RankRun], dense: Sequence[RankRun]) -> RankRow:
    """The summary of runs of one format and way."""
    tests = [run.test for run in runs if run.test is not None]
    scores = [test.accuracy for test in tests]
    pairs = [(run, one) for run in runs for one in dense if run.seed == one.seed and run.test and one.test]
    points = [100 * (run.test.accuracy - one.test.accuracy) for run, one in pairs if run.test and one.test]
    weights = statistics.fmean(run.weights for run in runs)
    parameters = statistics.fmean(run.parameters for run in runs)
    dense_parameters = statistics.fmean(run.parameters - run.weights + run.dense_weights for run in runs)
    return RankRow(
        format,
        way,
        len(runs),
        _mean(scores),
        statistics.stdev(scores) if len(scores) > 1 else None,
        _mean(points) if way != DENSE else None,
        _mean([test.loss for test in tests]),
        _mean([test.ece for test in tests]),
        _mean([run.sampled.ece for run in runs if run.sampled is not None]),
        weights,
        runs[0].dense_weights / weights if weights else None,
        dense_parameters / parameters,
        "" if way == DENSE else found_text(runs[0]),
        tuple(run.seed for run in runs if run.removed),
    )


def found_text(run: RankRun) -> str:
    """The ranks of a run, layer by layer."""
    return " ".join("removed" if name in run.removed else "[" + ",".join(map(str, one.values())) + "]" for name, one in run.ranks.items())


def notes(runs: Sequence[RankRun]) -> tuple[str, ...]:
    """What has to be said with the table."""
    n_seeds = {len({run.seed for run in runs if (run.format, run.way) == kind}) for kind in {(run.format, run.way) for run in runs}}
    seeds = f"{min(n_seeds)}" if len(n_seeds) == 1 else f"{min(n_seeds)} to {max(n_seeds)}"
    said = [
        f"Mean over {seeds} seed(s) +- standard deviation; found: the ranks of the first seed. {NOTE}",
    ]
    null = [run for run in runs if run.way == NULL]
    if null:
        gone = sum(len(run.removed) == len(run.ranks) for run in null)
        judged = "as it should be" if gone == len(null) else "but it should be in all: what it keeps says nothing about the data"
        said.append(f"Null model (the same search without data): everything removed in {gone} of {len(null)} runs, {judged}.")
    unstable = [f"{run.format} (seed {run.seed})" for run in runs if run.is_stable is False]
    if unstable:
        said.append(f"Ranks still changed in the last evaluations before the decision: {', '.join(unstable)}.")
    return tuple(said)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _data(one: RankRow) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "removed": list(one.removed)}
