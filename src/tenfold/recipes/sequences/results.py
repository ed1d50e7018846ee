"""Results: what runs found, as mean and spread over seeds, for JSON and for people."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tenfold.json_text import json_text
from tenfold.recipes.measure import StepCost
from tenfold.recipes.shown import markdown_table as markdown_table
from tenfold.recipes.shown import section

Metric = Literal["accuracy", "bits per character"]
COLUMNS = (
    "format",
    "{metric}",
    "map",
    "map ratio",
    "model",
    "model ratio",
    "MFLOP/step",
    "ms/step",
    "peak MB",
)


@dataclass(frozen=True)
class Run:
    """One network, trained with one seed on one fold, and tested after its last epoch.

    accuracy: ratio of right predictions on the test data, None without classes.
    loss: mean cross-entropy there, in nats.
    n_test: predictions counted.
    """

    format: str
    seed: int
    fold: int
    accuracy: float | None
    loss: float
    n_test: int
    n_steps: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """All runs of one format.

    score: mean over seeds of the metric, that of a seed being over all test data of its folds; spread: its standard deviation over
        seeds, None for one seed.
    map_parameters, map_ratio: of the input-to-hidden maps: stored values, and how many times fewer than dense.
    recurrent_parameters: of the hidden-to-hidden maps.
    model_parameters, model_ratio: of the whole model, biases and head included.
    cost: of one training step.
    """

    format: str
    score: float
    spread: float | None
    n_seeds: int
    n_folds: int
    map_parameters: int
    map_ratio: float
    recurrent_parameters: int
    model_parameters: int
    model_ratio: float
    cost: StepCost

    def cells(self, metric: Metric) -> tuple[str, ...]:
        """Texts for the columns of a table."""
        return (
            self.format,
            score_text(self.score, self.spread, metric),
            f"{self.map_parameters:,}",
            f"{self.map_ratio:,.0f}x",
            f"{self.model_parameters:,}",
            f"{self.model_ratio:,.1f}x",
            f"{self.cost.flops / 1e6:,.1f}",
            f"{self.cost.seconds * 1e3:,.1f}",
            f"{self.cost.peak_bytes / 1e6:,.1f}",
        )


@dataclass(frozen=True)
class Result:
    """What a recipe found, one row for each format."""

    recipe: str
    protocol: str
    metric: Metric
    settings: dict[str, Any]
    environment: dict[str, str]
    rows: tuple[Row, ...]
    runs: tuple[Run, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The heads of the columns of `Row.cells`."""
        return tuple(column.format(metric=self.metric) for column in COLUMNS)

    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The rows of the table."""
        return tuple(row.cells(self.metric) for row in self.rows)

    def data(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    def json(self) -> str:
        """The result as the text of a JSON file."""
        return json_text(self.data())

    def notes(self) -> tuple[str, ...]:
        """What has to be said with the table."""
        first = self.rows[0]
        runs = f"{first.n_seeds} seed{'s' * (first.n_seeds > 1)} x {first.n_folds} fold{'s' * (first.n_folds > 1)}"
        spread = "mean over seeds +- standard deviation" if first.n_seeds > 1 else "one seed, so no spread"
        test = f"tested once after the last epoch ({self.settings['epochs']} epochs, batch {self.settings['batch_size']})"
        words = (
            "map: input-to-hidden weights; model: all of it, with the recurrent map, biases and head; ratios: how many times fewer than "
            "dense. A step is forward, backward and update of one batch: median of steps run in turns; peak: tensors beyond those that "
            "were there."
        )
        return f"{self.protocol}. {runs}, {spread}; {test}.", words

    def markdown(self) -> str:
        """The result as a section of a Markdown file."""
        return section(self)

    def __str__(self) -> str:
        return self.markdown()


def summarize(runs: Sequence[Run], metric: Metric) -> tuple[float, float | None]:
    """Mean and standard deviation over seeds; each seed's score is over all test data of its folds."""
    scores: list[float] = []
    for seed in sorted({run.seed for run in runs}):
        mine = [run for run in runs if run.seed == seed]
        n = sum(run.n_test for run in mine)
        scores.append(math.fsum(_score(run, metric) * run.n_test for run in mine) / n)
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None


def _score(run: Run, metric: Metric) -> float:
    if metric == "bits per character":
        return run.loss / math.log(2)
    assert run.accuracy is not None
    return run.accuracy


def score_text(score: float, spread: float | None, metric: Metric) -> str:
    """A score as people read it: 83.2 % +- 1.1."""
    value, width, unit = (100 * score, 1, " %") if metric == "accuracy" else (score, 3, "")
    extra = "" if spread is None else f" +- {100 * spread:.1f}" if metric == "accuracy" else f" +- {spread:.3f}"
    return f"{value:.{width}f}{unit}{extra}"
