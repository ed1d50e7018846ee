"""FmExperiment: a factorisation machine on one data set, its table dense, with ranks found by training, and all controls.

The rows are split by a fixed seed into training, validation and test rows. For each network the same number of settings is tried: trained
on the training rows and compared on the validation rows, with the first seed. With the best setting each seed is trained on training and
validation rows, and tested once. Controls: the ranks that were found, from scratch, hashing of equal size, linear weights alone, no table,
and the prior without data. Finished runs are kept and not repeated.
"""

import dataclasses
import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tenfold.bayes import RanksWarning
from tenfold.data.feature_rows import FeatureRows, joined
from tenfold.formats import parse_format
from tenfold.recipes.clicks.metrics import click_scores
from tenfold.recipes.finished_runs import digest_of, kept_place, read_kept, write_kept
from tenfold.recipes.options import DENSE, Options
from tenfold.recipes.recommenders.models import FactorizationMachine, FeatureTable
from tenfold.recipes.recommenders.ranking import rating_scores
from tenfold.recipes.recommenders.training import FmTraining, Task, predictions, settings_of, train_fm
from tenfold.recipes.shown import Table, write_result

VERSION = 3
LEAST_RATIO = 10  # of found tables: among the settings that give it, the one with the best validation loss is taken
METRICS: dict[str, tuple[str, str]] = {"ratings": ("RMSE", "AUC"), "clicks": ("log loss", "AUC")}


@dataclass(frozen=True)
class FmExperiment:
    """What is compared.

    rows: reads the data.
    dim: size of the vectors of the dense table.
    formats: of the tables whose ranks are found; with the largest ranks and, where wanted, with modes.
    grid: settings that are tried for networks without a prior; found_grid: as many for those whose ranks are found.
    """

    name: str
    task: Task
    data: str
    rows: FeatureRows
    dim: int
    formats: tuple[str, ...]
    grid: tuple[FmTraining, ...]
    found_grid: tuple[FmTraining, ...]

    def run(self, options: Options) -> Table:
        """All networks, with the runs that are there from before."""
        return _Comparison(self, options).table()


@dataclass(frozen=True)
class Found:
    """The numbers of one run: its two metrics, the lower the better and the higher the better, and what it stores."""

    network: str
    seed: int
    loss: float
    auc: float
    numel: int
    ranks: dict[str, list[int]]
    settings: dict[str, Any]
    n_steps: int
    seconds: float


class _Comparison:
    def __init__(self, experiment: FmExperiment, options: Options) -> None:
        self.experiment, self.options = experiment, options
        self.train, self.valid, self.test = experiment.rows.split(seed=0)
        self.every = joined(self.train, self.valid)
        self.digest = digest_of(experiment.rows.ids, experiment.rows.targets)
        self.constant = float(self.train.targets.mean())
        if experiment.task == "clicks":
            self.constant = float(torch.logit(self.train.targets.mean()))

    def table(self) -> Table:
        """The comparison as a table; `data()` holds every run and what was tried."""
        found: list[Found] = []
        tried: dict[str, list[Found]] = {}
        for name, runs, trials in self.networks():
            found += runs
            tried[name] = trials
        e, (loss, area) = self.experiment, METRICS[self.experiment.task]
        dense = [run for run in found if run.network == DENSE]
        rows = []
        for name in tried:
            mine = [run for run in found if run.network == name]
            size = statistics.fmean(run.numel for run in mine)
            ratio = f"{dense[0].numel / size:,.1f}x" if size else "-"
            rows.append((name, _spread([r.loss for r in mine]), _spread([r.auc for r in mine]), f"{size:,.0f}", ratio, _ranks(mine)))
        protocol = (
            f"{e.data} {len(self.train):,} training, {len(self.valid):,} validation and {len(self.test):,} test rows by a fixed split; "
            f"factorisation machine, vectors of {e.dim}; mean +- standard deviation over {len(self.options.seeds)} seeds of start values "
            f"and order. {len(e.grid)} settings were tried for each network on the validation rows; tested once, after training on both."
        )
        words = (
            "values: stored in the tables, linear weights included; ratio: how many times fewer than dense. The constant is not counted."
        )
        values = {
            "settings": {"seeds": list(self.options.seeds), "dim": e.dim, "data": e.data},
            "runs": [dataclasses.asdict(run) for run in found],
            "tried": {name: [dataclasses.asdict(run) for run in runs] for name, runs in tried.items()},
        }
        made = Table(e.name, ("network", loss, area, "values", "ratio", "ranks"), tuple(rows), (protocol, words), values)
        write_result(made, self.options.out)
        return made

    def networks(self) -> Iterator[tuple[str, list[Found], list[Found]]]:
        """Each network: its name, its runs, and what was tried for it."""
        e, first = self.experiment, self.options.seeds[0]
        yield self.compared(DENSE, lambda seed: FeatureTable("dense", e.dim), e.grid)
        for text in self.options.formats or e.formats:
            start = self.factorized(text, None)
            name = f"found {text}"
            yield (answer := self.compared(name, lambda seed, start=start: start, e.found_grid))
            sizes = {run.seed: run for run in answer[1]}
            yield self.compared(
                f"hashed, as {name}",
                lambda seed, sizes=sizes: FeatureTable("hashed", e.dim, rows=max(1, sizes[seed].numel // (1 + e.dim))),
                e.grid,
            )
            yield self.compared(
                f"fixed, as {name}",
                lambda seed, text=text, sizes=sizes: self.factorized(text, sizes[seed].ranks),
                e.grid,
            )
            null = dataclasses.replace(e.found_grid[0], is_null=True)
            yield f"no data, {text}", [self.one(f"no data, {text}", start, null, first, is_trial=False)], []
        yield self.compared("linear weights alone", lambda seed: FeatureTable("linear"), e.grid)
        removed = e.grid[0]
        yield "no table", [self.one("no table", FeatureTable("removed"), removed, first, is_trial=False)], []

    def factorized(self, text: str, ranks: dict[str, list[int]] | None) -> FeatureTable:
        """Tables in a format as text, with its ranks or with those that are given."""
        format, modes = parse_format(text)
        if any(modes.values()):
            raise ValueError(
                f"the format {text!r} has modes; the tables of {self.experiment.name} differ in size, so their modes follow from it: leave "
                "modes out"
            )
        given = tuple((name, tuple(sizes)) for name, sizes in (ranks or {}).items())
        return FeatureTable("factorized", self.experiment.dim, format, given)

    def compared(
        self, name: str, table: Callable[[int], FeatureTable], grid: tuple[FmTraining, ...]
    ) -> tuple[str, list[Found], list[Found]]:
        """A network with the best of its settings, and all that were tried."""
        first = self.options.seeds[0]
        tried = [self.one(name, table(first), self.chosen(one), first, is_trial=True) for one in grid]
        best = self.chosen(grid[min(range(len(grid)), key=lambda n: (not self.is_small(name, tried[n]), tried[n].loss))])
        return name, [self.one(name, table(seed), best, seed, is_trial=False) for seed in self.options.seeds], tried

    def is_small(self, name: str, run: Found) -> bool:
        """Whether a table is as small as it is to be, which is asked of those whose ranks are found."""
        return not name.startswith("found") or run.numel * LEAST_RATIO <= self.experiment.rows.n_features * (1 + self.experiment.dim)

    def chosen(self, training: FmTraining) -> FmTraining:
        """Settings with what the user has chosen in place of the recipe's own."""
        given = {name: value for name in ("epochs", "batch_size") if (value := getattr(self.options, name)) is not None}
        return dataclasses.replace(training, **given)

    def one(self, name: str, table: FeatureTable, training: FmTraining, seed: int, *, is_trial: bool) -> Found:
        """One run, read where it is finished."""
        e = self.experiment
        training = self.chosen(training)
        settings = settings_of(training)
        key = {"version": VERSION, "data": e.data, "n": len(e.rows), "table": repr(table), "training": settings, "seed": seed}
        key |= {"trial": is_trial, "network": name, "digest": self.digest}
        place = kept_place(self.options.out, e.name, f"{name}-{'trial' if is_trial else 'test'}-seed{seed}", key)
        if (kept := read_kept(place, key)) is not None:
            return Found(**kept)
        label = f"{e.name} {name}, seed {seed}{', trial' if is_trial else ''}"
        torch_state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        model = FactorizationMachine(table.layer(e.rows.n_features, e.rows.groups), constant=self.constant)
        torch.random.set_rng_state(torch_state)
        learned, judged = (self.train, self.valid) if is_trial else (self.every, self.test)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RanksWarning)  # the row says how many values are left
            run = train_fm(model, learned, training, e.task, seed=seed, progress=lambda d, n: self.options.progress(label, d, n))
        output = predictions(model, judged)
        if e.task == "ratings":
            ratings = rating_scores(output, judged.targets)
            loss, area = ratings.rmse, ratings.auc
        else:
            clicks = click_scores(output, judged.targets)
            loss, area = clicks.log_loss, clicks.auc
        layers = () if run.decision is None else run.decision.layers
        ranks = {one.name.rpartition(".")[2]: [0 if one.is_removed else r for r in one.after.values()] for one in layers}
        numel = sum(one.numel_after for one in layers) if layers else model.table_numel()
        found = Found(name, seed, loss, area, numel, ranks, settings, run.n_steps, round(run.seconds, 2))
        write_kept(place, key, dataclasses.asdict(found))
        return found


def _spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.4f}" + (f" +- {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def _ranks(runs: list[Found]) -> str:
    texts = [" ".join(f"{name} {','.join(map(str, sizes))}" for name, sizes in run.ranks.items()) for run in runs if run.ranks]
    return "; ".join(dict.fromkeys(texts)) or "-"
