"""Training of factorisation machines on feature rows, and of their ranks.

Parts of the steps where ranks are found: no prior (a tenth), the prior grows (to four tenths), the learning rate decays to 1 % (to
`decided`), ranks are decided, by what the rows that occur lose, and factors made smaller, and the rest goes on at a part of the rate. The
prior stays to the end: it is what keeps a machine with few rows for each feature from learning them by heart. All other networks take as
many steps, at a rate that decays from the first step to the last.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from tenfold import bayes
from tenfold.bayes.report import Decision
from tenfold.data.feature_rows import FeatureRows
from tenfold.recipes.rank_steps import check_ratio, raised
from tenfold.recipes.recommenders.models import FactorizationMachine, GroupTables

START, FULL = 0.1, 0.4
LOWEST = 0.01

Task = Literal["ratings", "clicks"]


@dataclass(frozen=True)
class FmTraining:
    """How a factorisation machine is trained, with Adam.

    penalty: times the squared entries of the rows that a batch looks up, added to its mean loss; the weight decay of recommendation.
        Where ranks are found, after the decision; search_penalty: until then, beside the prior.
    temperature: of the weight temperature / rows of the prior, where ranks are to be found; None: the ranks stay.
    tolerance: of the rounding that decides ranks; least_ratio: where above 0, it is raised until the tables have so many times fewer
        values than if dense. The spread of a table plays no part in it: rows with few examples are uncertain, the slices that no row
        needs have gone to zero.
    decided: part of the steps after which ranks are decided.
    after: the highest rate from there on, relative to `lr`.
    is_null: the model sees no data; with a prior alone nothing must be left.
    """

    lr: float = 3e-3
    penalty: float = 0.0
    search_penalty: float = 0.0
    epochs: int = 20
    batch_size: int = 512
    temperature: float | None = None
    tolerance: float = 0.01
    least_ratio: float = 0.0
    decided: float = 0.8
    after: float = 0.1
    is_null: bool = False

    def rate(self, step: int, n_steps: int) -> float:
        """The part of the highest rate at a step."""
        if self.temperature is None:
            return _cosine(step / n_steps)
        half, decided = FULL * n_steps, self.decision(n_steps)
        if step < decided:
            return 1.0 if step < half else _cosine((step - half + 1) / (decided - half))
        return self.after * _cosine((step - decided) / (n_steps - decided))

    def decision(self, n_steps: int) -> int:
        """The step before which ranks are decided."""
        return int(self.decided * n_steps)


@dataclass
class FmRun:
    """What a run did: its steps and seconds, the ranks that it decided on, and their spectra over time."""

    n_steps: int = 0
    seconds: float = 0.0
    decision: Decision | None = None
    report: str = ""


def train_fm(
    model: FactorizationMachine,
    rows: FeatureRows,
    training: FmTraining,
    task: Task,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> FmRun:
    """Trains a model in place.

    Raises:
        ValueError: the loss is not finite, ranks of 1 are not small enough for `least_ratio`, or there are too few steps to find ranks.
    """
    started = time.perf_counter()
    n_steps = training.epochs * math.ceil(len(rows) / training.batch_size)
    if training.temperature is not None and training.decision(n_steps) - 1 < FULL * n_steps:
        raise ValueError(
            f"{len(rows)} rows in batches of {training.batch_size} are {n_steps} steps; at least 5 are needed, in which the learning rate "
            "falls before ranks are decided: take smaller batches or more epochs"
        )
    run, generator = FmRun(n_steps), torch.Generator().manual_seed(seed)
    posterior = None
    if training.temperature is not None:
        warmup = (int(START * n_steps), int(FULL * n_steps))
        posterior = bayes.attach(model, n_examples=len(rows), temperature=training.temperature, warmup=warmup, seed=seed)
        check_ratio(posterior, training.least_ratio)
    optimizer = Adam(model.parameters(), lr=training.lr)
    if posterior is not None:
        posterior.watch(optimizer)
    step = 0
    for _ in range(training.epochs):
        for chosen in torch.randperm(len(rows), generator=generator).split(training.batch_size):
            if posterior is not None and step == training.decision(n_steps):
                rule = bayes.Rounding(training.tolerance, n_spreads=0.0, moments=table_frequencies(model, rows))
                run.decision = posterior.shrink(raised(rule, posterior, training.least_ratio))
                run.report = str(posterior.report())
            for group in optimizer.param_groups:
                group["lr"] = training.lr * training.rate(step, n_steps)
            if posterior is not None:
                posterior.step()
            optimizer.zero_grad()
            penalty = training.penalty if posterior is None or run.decision is not None else training.search_penalty
            loss = _loss(model, rows.ids[chosen], rows.targets[chosen], penalty, task, is_null=training.is_null)
            if posterior is not None:
                loss = posterior.loss(loss)
            _check(loss, step)
            if loss.requires_grad:
                loss.backward()
            optimizer.step()
            step += 1
        if progress is not None:
            progress(step, n_steps)
    if posterior is not None:
        posterior.finish()
    run.seconds = time.perf_counter() - started
    return run


def table_frequencies(model: FactorizationMachine, rows: FeatureRows) -> dict[str, dict[str, Tensor]]:
    """How often the rows of each factorised table are looked up, see `IdFrequencies`."""
    assert isinstance(model.table, GroupTables)
    tables = model.table.tables
    counted = bayes.IdFrequencies({f"table.tables.{name}": one.factorized.fold for name, one in tables.items()})  # pyright: ignore
    for group in model.table.groups:
        if group.name in tables:
            counted.add(f"table.tables.{group.name}", rows.ids[:, group.first : group.last] - group.start)
    return counted.moments


def predictions(model: FactorizationMachine, rows: FeatureRows) -> Tensor:
    """(n) in eval, without gradients."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(ids) for ids in rows.ids.split(1 << 13)])
    model.train(was_training)
    return found


def _loss(model: FactorizationMachine, ids: Tensor, targets: Tensor, penalty: float, task: Task, *, is_null: bool) -> Tensor:
    if is_null:
        return torch.zeros(())
    rows = model.rows(ids)
    output = model.combine(rows)
    loss = F.binary_cross_entropy_with_logits(output, targets) if task == "clicks" else F.mse_loss(output, targets) / 2
    return loss + penalty * rows.square().sum((1, 2)).mean() if penalty else loss


def _check(loss: Tensor, step: int) -> None:
    if not math.isfinite(float(loss.detach())):
        raise ValueError(f"the loss is {float(loss.detach())} after {step} steps; a finite one is needed: lower the learning rate")


def _cosine(part: float) -> float:
    return LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * min(1.0, part))) / 2


def settings_of(training: FmTraining) -> dict[str, Any]:
    """The settings as JSON values."""
    return {name: getattr(training, name) for name in training.__dataclass_fields__}
