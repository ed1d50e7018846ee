"""Accuracy against FLOP: every method, budget and metric on one network, before and after fine-tuning. Finished cells are kept."""

import copy
import dataclasses
import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

import tenfold
from tenfold.evaluate import evaluate
from tenfold.plan import Plan
from tenfold.recipes.finished_runs import kept_place, read_kept, write_kept
from tenfold.recipes.papers.stable_cpd.methods import METHODS, METRICS, Compressor, Method, Metric
from tenfold.recipes.papers.stable_cpd.networks import Case
from tenfold.recipes.reproduction import Request, Table

VERSION = 2  # of what a cell is: kept cells of another version are not used
DENSE = "dense"


@dataclass(frozen=True)
class Effort:
    """How much is done.

    n_train: images for calibration and for fine-tuning, which passes over them `epochs` times.
    budgets: fractions of FLOP that are kept; empty: those of the network.
    """

    n_train: int = 12_800
    n_test: int = 5_000
    epochs: int = 3
    budgets: tuple[float, ...] = ()
    methods: tuple[str, ...] = tuple(method.name for method in METHODS)
    metrics: tuple[Metric, ...] = METRICS


QUICK = Effort(n_train=64, n_test=50, epochs=1, methods=("CP", "CP-EPC", "SVD"), metrics=("output",))


@dataclass(frozen=True)
class Cell:
    """A method on a network at a budget, with ranks and factors found in one metric.

    flops, params: what is kept of the whole network.
    before: top-1 accuracy without fine-tuning, but with BatchNorm corrected; before_agreement: with the dense network.
    after, after_agreement: after fine-tuning, one number for each seed.
    note: why there is no network, where there is none.
    """

    network: str
    method: str
    budget: float
    metric: str
    flops: float | None = None
    params: float | None = None
    before: float | None = None
    before_agreement: float | None = None
    after: tuple[float, ...] = ()
    after_agreement: tuple[float, ...] = ()
    note: str = ""


def cells(case: Case, request: Request, effort: Effort) -> list[Cell]:
    """All cells of a network, those that are there from before included, and the dense network fine-tuned alike as the first."""
    compressor = Compressor(case)
    methods = [method for method in METHODS if method.name in effort.methods]
    budgets = effort.budgets or case.network.budgets
    wanted: list[tuple[Method, float, Metric]] = [
        (method, budget, metric) for budget in budgets for metric in effort.metrics for method in methods
    ]
    label, total = f"{case.network.name}: accuracy", len(wanted) + 1
    request.progress(label, 0, total)
    found = [_dense(case, request, effort)]
    for number, (method, budget, metric) in enumerate(wanted, 1):
        request.progress(label, number, total)
        found.append(_cell(compressor, method, budget, metric, request, effort))
    request.progress(label, total, total)
    return found


def _dense(case: Case, request: Request, effort: Effort) -> Cell:
    """The control: the dense network, fine-tuned with the same steps and the same teacher."""
    start = Cell(case.network.name, DENSE, 1.0, "", 1.0, 1.0)
    before = _kept(case, request, effort, start, "before", lambda: _scores(case.model, case))
    after = [_kept(case, request, effort, start, f"seed{seed}", lambda: _tuned(case.model, case, effort, seed)) for seed in request.seeds]  # noqa: B023
    return _filled(start, before, after)


def _cell(compressor: Compressor, method: Method, budget: float, metric: Metric, request: Request, effort: Effort) -> Cell:
    case = compressor.case
    start = Cell(case.network.name, method.name, budget, metric)
    plan = functools.cache(lambda: compressor.plan(method, budget, metric))  # what is kept needs neither
    small = functools.cache(lambda: compressor.small(plan(), metric))
    before = _kept(case, request, effort, start, "before", lambda: _first(plan, small, case))
    if before["note"]:
        return dataclasses.replace(start, note=before["note"])
    after = [_kept(case, request, effort, start, f"seed{seed}", lambda: _tuned(small(), case, effort, seed)) for seed in request.seeds]  # noqa: B023
    return _filled(start, before, after)


def _first(plan: Any, small: Any, case: Case) -> dict[str, Any]:
    """What a method reaches without fine-tuning; a note where its plan cannot meet the budget."""
    try:
        made: Plan = plan()
    except ValueError as error:
        if "budget" not in str(error):
            raise
        return {"note": str(error).partition(";")[0]}
    assert made.flops_before is not None and made.flops_after is not None
    kept = {"flops": made.flops_after / made.flops_before, "params": made.params_after / made.params_before}
    return {"note": "", **kept, **_scores(small(), case)}


def _scores(model: nn.Module, case: Case) -> dict[str, float | None]:
    found = evaluate(model, case.test, reference=case.model)
    return {"accuracy": found.accuracy, "agreement": found.agreement}


def _tuned(model: nn.Module, case: Case, effort: Effort, seed: int) -> dict[str, float | None]:
    """What a copy of a model reaches after fine-tuning with the dense network as its teacher."""
    trained = copy.deepcopy(model)
    tenfold.finetune(
        trained,
        case.train,
        epochs=effort.epochs,
        teacher=case.model,
        batch_size=case.network.batch_size,
        augment="flip",
        precision="auto",
        rebuild=True,
        channels_last=True,
        seed=seed,
    )
    return _scores(trained, case)


def _kept(case: Case, request: Request, effort: Effort, cell: Cell, what: str, compute: Any) -> dict[str, Any]:
    """Numbers of a cell: from the file of them where they are finished, else computed."""
    settings = {"n_train": effort.n_train, "n_test": effort.n_test} | ({} if what == "before" else {"epochs": effort.epochs})
    key = {"version": VERSION, "tenfold": tenfold.__version__, "network": cell.network, "weights": case.digest, "what": what}
    key |= {"method": cell.method, "budget": cell.budget, "metric": cell.metric, **settings}
    place = kept_place(request.out, "accuracy", f"{cell.network}-{cell.method}-{cell.budget}-{cell.metric or 'none'}-{what}", key)
    if (found := read_kept(place, key)) is None:
        found = compute()
        write_kept(place, key, found)
    return found


def _filled(start: Cell, before: dict[str, Any], after: Sequence[dict[str, Any]]) -> Cell:
    return dataclasses.replace(
        start,
        flops=before.get("flops", start.flops),
        params=before.get("params", start.params),
        before=before["accuracy"],
        before_agreement=before["agreement"],
        after=tuple(one["accuracy"] for one in after),
        after_agreement=tuple(one["agreement"] for one in after),
    )


def table(cells: Sequence[Cell], effort: Effort) -> Table:
    """One row for each cell of one network."""
    columns = ("method", "metric", "budget", "FLOP", "parameters", "top-1", "agreement", "tuned top-1", "tuned agreement")
    rows = tuple(
        (
            cell.method,
            cell.metric or "-",
            f"{cell.budget:g}x",
            _ratio(cell.flops),
            _ratio(cell.params),
            "none" if cell.note else _percent([cell.before]),
            _percent([cell.before_agreement]),
            _percent(cell.after),
            _percent(cell.after_agreement),
        )
        for cell in cells
    )
    images = (
        f"top-1 on at most {effort.n_test:,} images, the same for every row; agreement: with the dense network's predictions; FLOP and "
        "parameters: what is kept of the whole network. Linear layers stay dense."
    )
    tuning = (
        f"tuned: after {effort.epochs} passes over at most {effort.n_train:,} training images with the dense network as teacher, in "
        "bfloat16 where the machine computes with it, mean over seeds +- standard deviation. The row dense is the control: the dense "
        "network itself, trained alike."
    )
    metric = (
        "metric: weight: errors of weights; output: errors of outputs on training images, with one last penalised fit for the factors of "
        "every method, plain CP too. BatchNorm is corrected in both. CP and CP-EPC have the same ranks."
    )
    missing = [f"none: {cell.method}, {cell.metric}, {cell.budget:g}x: {cell.note}." for cell in cells if cell.note]
    return Table(f"Accuracy against FLOP: {cells[0].network}", columns, rows, (images, tuning, metric, *missing), words=("metric",))


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _percent(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.fmean(known):.1%}" + (f" +- {100 * statistics.stdev(known):.1f}" if len(known) > 1 else "")
