"""The experiment on click data: a DLRM whose ranks are found by training, and always the controls beside it.

For each seed: dense tables; factorised ones at the ranks that they start with; ranks found; the found ranks trained from scratch; hashed
tables that store as many values; the same tables left out; and the prior without data, whose ranks show what the prior does alone.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tenfold.bayes.guards import root_mean_square
from tenfold.bayes.surgery import resize
from tenfold.data.ctr_batches import Clicks
from tenfold.data.ctr_file import ClickFiles
from tenfold.data.ids import IdVocabulary, build_vocabulary
from tenfold.formats import parse_format
from tenfold.mode_sizes import balanced_modes
from tenfold.recipes.clicks.metrics import ClickScores, click_scores
from tenfold.recipes.clicks.model import BOTTOM, DIM, DLRM, TOP, TableSpec, largest, with_tables
from tenfold.recipes.clicks.rows import counted
from tenfold.recipes.clicks.sizes import DlrmSizes, dlrm_sizes
from tenfold.recipes.clicks.training import ClickTraining, predict_scores, train_clicks
from tenfold.recipes.finished_runs import kept_place, read_kept, write_kept
from tenfold.recipes.options import Options
from tenfold.recipes.shown import Table, write_result

DENSE, START, FOUND, SCRATCH, HASHED, REMOVED, NULL, CONSTANT = (
    "dense", "start ranks", "ranks found", "found ranks from scratch", "hashed to that size", "tables removed", "prior without data",
    "constant",
)  # fmt: skip
KINDS = (DENSE, START, FOUND, SCRATCH, HASHED, REMOVED, NULL)
COLUMNS = ("network", "AUC", "log loss", "accuracy", "ranks", "table values", "tables", "model", "training bytes")
LARGE = 1_000_000  # rows from which the reference's sizes are used
SMALL_DIM, SMALL_BOTTOM, SMALL_TOP = 16, (64, 32), (64, 32)
TEST_PART = 0.2
N_FACTORIZED = 5
N_MODES = 3  # of the rows of a table
VERSION = 2  # of what a run is: kept runs of another version are not used


@dataclass(frozen=True)
class ClickExperiment:
    """What is trained. TEST_PART of the rows, the last ones, are for the test; the order of the file is kept, as clicks come in time.

    min_count: of values of the training rows that get an id; rarer ones share one.
    """

    name: str
    files: ClickFiles
    n_numbers: int
    format: str
    training: ClickTraining
    dim: int | None = None

    def run(self, options: Options) -> Table:
        """All runs, those that are there from before included."""
        return _Runs(self, options).result()


@dataclass(frozen=True)
class _Found:
    """What a run gave. scores: None of the null model, which predicts nothing."""

    kind: str
    seed: int
    scores: ClickScores | None
    sizes: DlrmSizes
    ranks: dict[str, dict[str, int]]
    n_steps: int
    seconds: float

    @staticmethod
    def of(values: dict[str, Any]) -> "_Found":
        scores = None if values["scores"] is None else ClickScores(**values["scores"])
        return _Found(**{**values, "scores": scores, "sizes": DlrmSizes(**values["sizes"])})


class _Runs:
    """The runs of an experiment with the choices of a user."""

    def __init__(self, experiment: ClickExperiment, options: Options) -> None:
        self.experiment, self.options = experiment, options
        self.format, modes = parse_format(experiment.format)
        if "in_modes" in modes:
            raise ValueError(
                f"the format {experiment.format!r} has modes of the rows, but {N_FACTORIZED} tables of different sizes are factorised; "
                "modes are chosen for each: leave in= out"
            )
        self.n_rows, self.digest = counted(experiment.files)
        if self.n_rows < 2:
            raise ValueError(
                f"{experiment.files.name} has {self.n_rows} good row; at least 2 are needed, the last one for the test: give more rows"
            )
        self.cut = self.n_rows - max(1, int(TEST_PART * self.n_rows))
        self.is_large = self.n_rows >= LARGE
        self.min_count = 10 if self.is_large else 2
        self.ids: IdVocabulary = build_vocabulary(experiment.files, min_count=self.min_count, n_rows=self.cut)
        self.chosen = largest(self.ids.sizes, N_FACTORIZED)
        self.dim = experiment.dim or (DIM if self.is_large else SMALL_DIM)
        self.bottom, self.top = (BOTTOM, TOP) if self.is_large else (SMALL_BOTTOM, SMALL_TOP)
        self.dense = [TableSpec(rows) for rows in self.ids.sizes]
        self.out_modes = modes.get("out_modes")
        for number in self.chosen:
            self.check(number)

    def result(self) -> Table:
        """All runs and their summary."""
        runs: list[_Found] = []
        for seed in self.options.seeds:
            found: _Found | None = None
            for kind in KINDS:
                runs.append(self.kept_run(kind, seed, found))
                found = runs[-1] if kind == FOUND else found
        rows = [self.row(kind, [run for run in runs if run.kind == kind]) for kind in KINDS]
        rows.append(self.constant_row())
        values = {
            "settings": {**dataclasses.asdict(self.experiment.training), **self.about()},
            "runs": [dataclasses.asdict(run) for run in runs],
        }
        result = Table(self.experiment.name, COLUMNS, tuple(rows), self.notes(), values)
        write_result(result, self.options.out)
        return result

    def kept_run(self, kind: str, seed: int, found: _Found | None) -> _Found:
        """A run: from its file where it is finished, else trained."""
        key = {"version": VERSION, "kind": kind, "seed": seed, "training": self.training(seed), **self.about()}
        if kind in (SCRATCH, HASHED):
            assert found is not None
            key["of"] = [found.ranks, found.sizes.table_values]
        key = _plain(key)
        place = kept_place(self.options.out, self.experiment.name, f"{kind}-seed{seed}", key)
        if (kept := read_kept(place, key)) is not None:
            return _Found.of(kept)
        run = self.train(kind, seed, found, None if place is None else place.with_suffix(".ckpt"))
        write_kept(place, key, dataclasses.asdict(run))
        return run

    def train(self, kind: str, seed: int, found: _Found | None, checkpoint: Any) -> _Found:
        """One network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.model(kind, found)
        training = dataclasses.replace(self.experiment.training, seed=seed)
        run = train_clicks(
            model,
            self.stream((0, self.cut)),
            training,
            self.cut,
            has_prior=kind in (FOUND, NULL),
            is_null=kind == NULL,
            checkpoint=checkpoint,
            progress=self.options.progress,
            label=f"{self.experiment.name} {kind}, seed {seed}",
        )
        scores = None if kind == NULL else predict_scores(model, self.stream((self.cut, self.n_rows)))
        ranks = {str(number): dict(weight.network.ranks) for number, weight in model.factorized().items()}
        if run.decision is not None:
            ranks = {name.rpartition(".")[2]: found for name, found in run.decision.ranks.items()}
        sizes = dlrm_sizes(model, self.dense, self.chosen, run.training_bytes)
        return _Found(kind, seed, scores, sizes, ranks, run.n_steps, round(run.seconds, 3))

    def stream(self, rows: tuple[int, int]) -> Clicks:
        """Batches of some rows."""
        return Clicks(self.experiment.files, self.ids, self.experiment.training.batch_size, rows=rows)

    def model(self, kind: str, found: _Found | None) -> DLRM:
        """A network of a kind."""
        tables = self.dense
        if kind in (START, FOUND, SCRATCH, NULL):
            tables = list(tables)
            for number in self.chosen:
                tables[number] = self.start(number)
        if kind == REMOVED:
            tables = with_tables(tables, self.chosen, is_removed=True)
        if kind == HASHED:
            assert found is not None
            tables = with_tables(tables, self.chosen, hashed=max(1, round(found.sizes.table_values / self.dim / len(self.chosen))))
        if kind == SCRATCH:
            assert found is not None
            tables = with_tables(tables, [int(n) for n, ranks in found.ranks.items() if not all(ranks.values())], is_removed=True)
        model = DLRM(tables, self.experiment.n_numbers, dim=self.dim, bottom=self.bottom, top=self.top)
        if kind == SCRATCH:
            assert found is not None
            for number, weight in model.factorized().items():
                std = root_mean_square(weight.network, list(weight.factors))
                resize(weight, found.ranks[str(number)])
                weight.init_normal_(std)
        return model

    def start(self, number: int) -> TableSpec:
        """A factorised table at the ranks that it starts with."""
        rows = self.ids.sizes[number]
        return TableSpec(rows, self.format, balanced_modes(rows, N_MODES), self.out_modes)

    def check(self, number: int) -> None:
        """Raises ValueError where the format does not fit a table, before anything is trained."""
        try:
            self.start(number).layer(self.dim, is_sparse=False)
        except ValueError as error:
            raise ValueError(
                f"the format {self.experiment.format!r} does not fit the table {self.ids.tables[number]} of {self.ids.sizes[number]} ids, "
                f"with vectors of {self.dim}: {error}"
            ) from error

    # -- what is said ---------------------------------------------------------------------------------------------------

    def row(self, kind: str, runs: Sequence[_Found]) -> tuple[str, ...]:
        """The cells of one kind: means over seeds, with the standard deviation of the scores."""
        scored = [run.scores for run in runs if run.scores is not None]
        ratios = [run.sizes.ratios for run in runs]
        values = statistics.fmean(run.sizes.table_values for run in runs)
        name = kind if kind not in (START, FOUND) else f"{kind} ({self.experiment.format})"
        return (
            name,
            _spread(scored, lambda one: one.auc, 4),
            _spread(scored, lambda one: one.log_loss, 4),
            _spread(scored, lambda one: 100 * one.accuracy, 2),
            _ranks(runs) if kind in (START, FOUND, SCRATCH, NULL) else "-",
            f"{values:,.0f}",
            *(_ratio(statistics.fmean(ratio[k] for ratio in ratios)) for k in range(3)),
        )

    def constant_row(self) -> tuple[str, ...]:
        """The scores of the rate of the training labels: what a network has to beat."""
        train = torch.cat([labels for _, labels in self.stream((0, self.cut))])
        labels = torch.cat([labels for _, labels in self.stream((self.cut, self.n_rows))])
        rate = train.double().mean().clamp(1e-6, 1 - 1e-6)
        one = click_scores(torch.logit(rate).expand(len(labels)), labels)
        return (CONSTANT, f"{one.auc:.4f}", f"{one.log_loss:.4f}", f"{100 * one.accuracy:.2f}", *("-" for _ in COLUMNS[4:]))

    def notes(self) -> tuple[str, ...]:
        """What has to be said with the table."""
        about, n_seeds = self.about(), len(self.options.seeds)
        tables = ", ".join(f"{self.experiment.files.layout.tables[n]} ({self.ids.sizes[n]:,})" for n in self.chosen)
        spread = f"mean and standard deviation over {n_seeds} seeds of the start values" if n_seeds > 1 else "one seed, so no spread"
        rows = (
            f"{self.cut:,} rows for training, in the order of the file, in batches of {self.experiment.training.batch_size}, "
            f"{self.experiment.training.epochs} time(s); the last {self.n_rows - self.cut:,} for the test; {spread}."
        )
        chosen = f"Factorised, hashed or removed: {tables} of {len(self.dense)} tables, with their numbers of ids; {about['ids']}."
        ratios = (
            "Ratios: how many times fewer than dense: values of these tables, values of the whole model, bytes of values and optimiser "
            "state where training held most. No claim about the tables holds where the row without them is as good."
        )
        ranks = (
            "Ranks: of each table in turn; 0 is a table that the method has removed. The prior without data shows what it does alone: "
            "ranks that are equal to its ranks say nothing about the data."
        )
        return rows, chosen, ratios, ranks

    def about(self) -> dict[str, Any]:
        """The settings that are not those of the training."""
        return {
            "data": self.experiment.files.name,
            "digest": self.digest,
            "rows": [self.cut, self.n_rows],
            "ids": f"values seen at least {self.min_count} times in the training rows, others share one id",
            "format": self.experiment.format,
            "tables": list(self.chosen),
            "sizes": list(self.ids.sizes),
            "dim": self.dim,
            "bottom": list(self.bottom),
            "top": list(self.top),
        }

    def training(self, seed: int) -> dict[str, Any]:
        """The training's settings with a seed."""
        return {**dataclasses.asdict(self.experiment.training), "seed": seed}


def _spread(scores: Sequence[ClickScores], get: Callable[[ClickScores], float], digits: int) -> str:
    if not scores:
        return "-"
    values = [get(one) for one in scores]
    return f"{statistics.fmean(values):.{digits}f}" + (f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def _ranks(runs: Sequence[_Found]) -> str:
    """The ranks of each table, of the first seed, and a mark where other seeds have others."""
    text = " ".join("[" + ",".join(map(str, ranks.values())) + "]" for ranks in runs[0].ranks.values()) or "none left"
    return text if all(run.ranks == runs[0].ranks for run in runs) else f"{text} (seed {runs[0].seed})"


def _ratio(value: float) -> str:
    return f"{value:,.1f}x" if value else "all"


def _plain(key: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(key))
