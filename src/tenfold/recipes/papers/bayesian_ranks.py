"""Ranks found by training (arXiv 2010.08689): its parameter counts, then trainings with their controls on the data that are there.

Command: `tenfold reproduce bayesian-ranks --data DATA --out OUT`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from tenfold.recipes import names, recipe, run
from tenfold.recipes.options import Options, look
from tenfold.recipes.papers import bayesian_counts
from tenfold.recipes.papers.bayesian_counts import TableCounts
from tenfold.recipes.reproduction import Request, Table, markdown_file
from tenfold.recipes.shown import Shown

TITLE = "Ranks found by training (arXiv 2010.08689)"
IMAGES = ("mnist-mlp", "fashion-mlp")
RECOMMENDATION = ("dlrm", "dlrm-avazu", "ml100k", "frappe")
LONG = ("cifar-resnet",)  # hours without a GPU: only where they are asked for
QUICK_FORMATS = ("ttm",)
QUICK_EPOCHS = 1
QUICK_NOTE = "--quick: these accuracies say that everything works, nothing more"
CONTROLS = (
    "Beside every training with automatic ranks: the dense network, the found ranks trained from scratch, and the same prior without data; "
    "for recommendation data also the tables removed, and hashed tables of equal size, with AUC and log loss."
)


@dataclass(frozen=True)
class RankReproduction:
    """The numbers of the paper as found here.

    results: of the recipes whose data are there.
    missing: for each other recipe, why it was not trained.
    """

    counts: tuple[TableCounts, ...]
    results: tuple[Shown, ...]
    missing: tuple[tuple[str, str], ...]
    is_quick: bool = False

    def data(self) -> dict[str, Any]:
        return {
            "paper": "bayesian-ranks",
            "counts": [
                {**dataclasses.asdict(row), "weights": row.weights, "ratio": row.ratio, "model_ratio": row.model_ratio}
                for row in self.counts
            ],
            "results": [result.data() for result in self.results],
            "missing": dict(self.missing),
        }

    def markdown(self) -> str:
        return markdown_file(TITLE, self.tables(), self.notes())

    def tables(self) -> list[Table]:
        rows = tuple(row.cells() for row in self.counts)
        words = ("prior", "ranks", "published")
        counts = Table("Weights of the five tables of Criteo Kaggle", bayesian_counts.COLUMNS, rows, (bayesian_counts.NOTE,), words)
        trained = [
            Table(result.recipe, result.columns, tuple(tuple(one) for one in result.cells()), result.notes(), ("ranks", "found"))
            for result in self.results
        ]
        return [counts, *trained]

    def notes(self) -> list[str]:
        missing = [f"{name}: not trained, {why}." for name, why in self.missing]
        return [CONTROLS, *missing, *([QUICK_NOTE] if self.is_quick and self.results else [])]


def reproduce(request: Request) -> RankReproduction:
    """The counts, and the recipes on the data that are there; quick: one seed, one epoch, and one format on images.

    Raises:
        ValueError: a recipe is asked for that is none of the paper's, or budgets are given.
    """
    if request.budgets:
        raise ValueError("bayesian-ranks got budgets; its ranks are found by training and it needs none: leave --budgets out")
    parts = tuple(name for name in (*IMAGES, *RECOMMENDATION, *LONG) if name in names())
    results, missing = [], []
    for name in request.chosen(parts):
        wanted = recipe(name).DATA
        place = None if request.data is None else look(request.data, wanted)
        if place is None:
            missing.append((name, f"its data are not there ({' or '.join(wanted)})"))
        elif name in LONG and not request.only:
            missing.append((name, f"it takes hours without a GPU: ask for it with --only {name}"))
        else:
            results.append(run(name, dataclasses.replace(options(request, name), data=place)))
    return RankReproduction(bayesian_counts.ROWS, tuple(results), tuple(missing), request.is_quick)


def options(request: Request, name: str) -> Options:
    """What a recipe is asked for."""
    all_of_it = Options(seeds=request.seeds, out=request.out, progress=request.progress)
    if not request.is_quick:
        return all_of_it
    quick = dataclasses.replace(all_of_it, seeds=request.seeds[:1], epochs=QUICK_EPOCHS)
    return dataclasses.replace(quick, formats=QUICK_FORMATS) if name in (*IMAGES, *LONG) else quick
