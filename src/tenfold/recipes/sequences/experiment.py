"""Experiment: what a recipe trains, and all its runs: formats x seeds x folds. Finished runs are kept and not repeated."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from tenfold.augment import Augment
from tenfold.formats import format_text, parse_format
from tenfold.recipes.finished_runs import kept_place, read_kept, write_kept
from tenfold.recipes.measure import StepCost, step_costs
from tenfold.recipes.options import DENSE, Options
from tenfold.recipes.sequences.models import Head, Rnn
from tenfold.recipes.sequences.results import Metric, Result, Row, Run, summarize
from tenfold.recipes.sequences.training import Step, Training, train_run
from tenfold.recipes.shown import write_result
from tenfold.report.environment import environment

Fold: TypeAlias = Callable[[], tuple[Any, Any]]

VERSION = 1  # of what a run is: kept runs of another version are not used


@dataclass(frozen=True)
class Experiment:
    """What a recipe trains and how.

    name: of the recipe.
    protocol: which frames, which splits, in words; results of different protocols are never mixed.
    data: what the data are, in words and numbers.
    digest: of the data: runs on other data are other runs.
    folds: from a seed, one function for every fold, which gives fresh (training data, test data) as `tenfold.batches` takes them.
    formats: texts with modes, of the recipe's own choice.
    head: the model around a recurrent network.
    """

    name: str
    protocol: str
    data: str
    rnn: Rnn
    head: Head
    folds: Callable[[int], Sequence[Fold]]
    formats: tuple[str, ...]
    training: Training
    augment: Augment | None = None
    metric: Metric = "accuracy"
    digest: str = ""

    def run(self, options: Options) -> Result:
        """All runs, those that are there from before included.

        Raises:
            ValueError: a format does not fit, or there are not so many folds.
            OSError: the folder for results cannot be written.
        """
        return _Runs(self, options).result()


class _Runs:
    """The runs of an experiment with the choices of a user."""

    def __init__(self, experiment: Experiment, options: Options) -> None:
        self.experiment = experiment
        self.options = options
        chosen = {name: value for name in ("epochs", "batch_size", "lr", "dense_lr") if (value := getattr(options, name)) is not None}
        self.training = dataclasses.replace(experiment.training, **chosen)
        given = [_plain(text) for text in (experiment.formats if options.formats is None else options.formats)]
        self.formats = list(dict.fromkeys([DENSE, *given] if options.has_dense_twin else given))
        self.recurrent = None if options.recurrent_format is None else _plain(options.recurrent_format)
        self.models = {
            format: self.model(format, options.seeds[0]) for format in self.formats
        }  # what does not fit is said before any training

    def model(self, format: str, seed: int) -> nn.Module:
        """A fresh model; all formats have the same head."""
        rnn = self.experiment.rnn.build(format, self.recurrent, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.experiment.head(rnn)

    def result(self) -> Result:
        """All runs and their summary."""
        runs: list[Run] = []
        first: Fold | None = None
        for seed in self.options.seeds:
            folds = list(self.experiment.folds(seed))
            wanted = len(folds) if self.options.folds is None else self.options.folds
            if wanted > len(folds):
                raise ValueError(f"{wanted} folds are asked for; the protocol {self.experiment.protocol!r} has {len(folds)}: ask for fewer")
            first = first or folds[0]
            for number, fold in enumerate(folds[:wanted]):
                runs += [self.kept_run(format, seed, number, fold) for format in self.formats]
        assert first is not None
        costs = self.costs(first()[0])
        settings = {**dataclasses.asdict(self.training), "hidden": self.experiment.rnn.hidden, "cell": self.experiment.rnn.cell}
        settings |= {"recurrent_format": self.recurrent, "data": self.experiment.data, "seeds": list(self.options.seeds)}
        found = Result(
            recipe=self.experiment.name,
            protocol=self.experiment.protocol,
            metric=self.experiment.metric,
            settings=settings,
            environment=environment(self.models[self.formats[0]], torch.device("cpu")),
            rows=tuple(self.row(format, [run for run in runs if run.format == format], costs[format]) for format in self.formats),
            runs=tuple(runs),
        )
        write_result(found, self.options.out)
        return found

    def row(self, format: str, runs: list[Run], cost: StepCost) -> Row:
        """The summary of one format."""
        rnn, model = self.experiment.rnn, self.models[format]
        network: Any = model.get_submodule("rnn")
        n_map, n_recurrent = rnn.map_parameters(network, "ih"), rnn.map_parameters(network, "hh")
        n_model = sum(p.numel() for p in model.parameters())
        dense = n_model - n_map - n_recurrent + rnn.dense_map + rnn.dense_recurrent
        score, spread = summarize(runs, self.experiment.metric)
        n_seeds, n_folds = len({run.seed for run in runs}), len({run.fold for run in runs})
        return Row(format, score, spread, n_seeds, n_folds, n_map, rnn.dense_map / n_map, n_recurrent, n_model, dense / n_model, cost)

    # -- finished runs --------------------------------------------------------------------------------------------------

    def kept_run(self, format: str, seed: int, number: int, fold: Fold) -> Run:
        """A run: the file of it where it is finished, else trained, from its checkpoint where there is one."""
        key = {"format": format, "seed": seed, "fold": number, **self.key(format)}
        place = self.place(f"{format}-seed{seed}-fold{number}", key)
        if (kept := read_kept(place, key)) is not None:
            return Run(**kept)
        model = self.model(format, seed)
        label = f"{self.experiment.name} {format}, seed {seed}, fold {number + 1}"
        trained = train_run(
            model,
            *fold(),
            self.training,
            self.lr(format),
            seed=seed,
            augment=self.experiment.augment,
            checkpoint=None if place is None else place.with_suffix(".ckpt"),
            progress=lambda _, done, total: self.options.progress(label, done, total),
        )
        run = Run(
            format, seed, number, trained.test.accuracy, trained.test.loss, trained.test.n, trained.n_steps, round(trained.seconds, 3)
        )
        write_kept(place, key, dataclasses.asdict(run))
        return run

    def costs(self, data: Any) -> dict[str, StepCost]:
        """What a step costs, of all formats in turns, on the first batch of the data."""
        key = {
            "formats": self.formats,
            **{format: self.key(format) for format in self.formats},
            "threads": torch.get_num_threads(),
            "turns": self.options.turns,
        }
        place = self.place("costs", key)
        if (kept := read_kept(place, key)) is not None:
            return {format: StepCost(**cost) for format, cost in kept.items()}
        self.options.progress(f"{self.experiment.name}: measuring steps", 0, 1)
        steps = {format: Step(self.model(format, self.options.seeds[0]), data, self.training, self.lr(format)) for format in self.formats}
        costs = step_costs(steps, self.options.turns)
        self.options.progress(f"{self.experiment.name}: measuring steps", 1, 1)
        write_kept(place, key, {format: dataclasses.asdict(cost) for format, cost in costs.items()})
        return costs

    def lr(self, format: str) -> float:
        """The highest learning rate of a format."""
        return self.training.dense_lr if format == DENSE else self.training.lr

    def key(self, format: str) -> dict[str, Any]:
        """All that the numbers of a format depend on, but seed and fold; as JSON gives it back."""
        experiment = self.experiment
        training = {name: value for name, value in dataclasses.asdict(self.training).items() if not name.endswith("lr")}
        return {
            "version": VERSION,
            "recipe": experiment.name,
            "protocol": experiment.protocol,
            "data": experiment.data,
            "digest": experiment.digest,
            "rnn": dataclasses.asdict(experiment.rnn),
            "recurrent": None if format == DENSE else self.recurrent,
            "training": {**training, "lr": self.lr(format)},
            "augment": None if experiment.augment is None else repr(experiment.augment),
        }

    def place(self, name: str, key: dict[str, Any]) -> Path | None:
        """Where numbers are kept; None where nothing is written."""
        return kept_place(self.options.out, self.experiment.name, name, key)


def _plain(text: str) -> str:
    """The text of a format as this package writes it, so that two spellings are one format."""
    if text == DENSE:
        return text
    format, modes = parse_format(text)
    return format_text(format, modes.get("in_modes"), modes.get("out_modes"))
