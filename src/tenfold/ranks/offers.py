"""Offers: all that a plan chooses from, found out once and good for any number of budgets."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from tenfold.budget import Budget
from tenfold.flops import fused_note, read_by_fused_kernel
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.plan_data import LayerPlan, Plan
from tenfold.progress import Progress
from tenfold.ranks.allocate import Option, allocate
from tenfold.ranks.candidates import Candidate, candidates
from tenfold.ranks.effect import LEAST, Effect
from tenfold.ranks.folds import screened
from tenfold.selection import Choice
from tenfold.sizes import n_bytes, n_parameters
from tenfold.solvers.whitening import Whitening
from tenfold.survey import Found
from tenfold.trace import Trace, Workloads

PLAN_SWEEPS = 60  # sweeps of iterative solvers for an estimate of the error
UNSOLVED = "it could not be decomposed"
SLOWER = "what would be chosen ran slower than dense here"


@dataclass(frozen=True)
class Offers:
    """The layers of a model, what each may become at which cost and error, and what a unit of its error costs the model.

    found are all layers with a weight, `layers` those that may change; reasons say why others stay dense. speeds are measured
    speed-ups by (layer, candidate): of those that were timed. moments: of the inputs of layers by name; none without calibration.
    reached: squared errors of candidates that were decomposed, by layer, which count for their neighbours too (`ranks.reached`).
    decomposed: the same of all that ever were, a memo that budgets share: by the names of layers that were solved together and what they
    became, an error for each, NaN where it failed.
    """

    model: nn.Module
    found: Sequence[Found]
    layers: Sequence[Found]
    reasons: Mapping[str, str]
    candidates: Mapping[str, Sequence[Candidate]]
    effects: Sequence[Effect]
    steps: Trace | None
    moments: Mapping[str, Whitening]
    seed: int
    speeds: Mapping[tuple[str, Candidate], float] = field(default_factory=dict)
    reached: Mapping[str, Mapping[Candidate, float]] = field(default_factory=dict)
    decomposed: dict[tuple[tuple[str, ...], Format, Fold], list[float]] = field(default_factory=dict)

    def pick(self, goal: Budget | None) -> dict[str, Candidate]:
        """The candidate of each layer that does not stay dense: the smallest loss under a budget, the first one where there is none.

        Raises:
            ValueError: the budget is impossible; the message names the smallest that can be reached.
        """
        if goal is None:
            return {one.name: self.candidates[one.name][0] for one in self.layers if self.candidates[one.name]}
        dense = [Candidate(None, one.n_values, dense_flops(self.steps, one), 0.0) for one in self.layers]
        lists = [[base, *self.candidates[one.name]] for base, one in zip(dense, self.layers, strict=True)]
        size = [one.weight.element_size() for one in self.layers]
        options = [
            [
                Option(self._loss(layer, effect, one), {"params": one.params, "flops": one.flops, "bytes": one.params * width})
                for one in choices
            ]
            for layer, choices, effect, width in zip(self.layers, lists, self.effects, size, strict=True)
        ]
        totals = self.totals
        fixed = {name: total - sum(choices[0].costs[name] for choices in options) for name, total in totals.items()}
        numbers = allocate(options, totals, fixed, goal)
        return {one.name: choices[k] for one, choices, k in zip(self.layers, lists, numbers, strict=True) if k}

    def loss(self, picked: Mapping[str, Candidate]) -> float:
        """What candidates cost the model, in `loss_unit`."""
        effects = zip(self.layers, self.effects, strict=True)
        return sum(self._loss(one, effect, picked[one.name]) for one, effect in effects if one.name in picked)

    def _loss(self, layer: Found, effect: Effect, one: Candidate) -> float:
        return effect.loss_of(self._error(layer, effect, one))

    def _error(self, layer: Found, effect: Effect, one: Candidate) -> float:
        """The squared error of a candidate: what it reached, else what it names, scaled as the nearest of its format was, or the probe."""
        known = self.reached.get(layer.name, {})
        if one in known:
            return known[one]
        least = max(LEAST, torch.finfo(layer.weight.dtype).eps ** 2)  # what rounding makes of an exact fit tells nothing of the others
        same = [pair for pair in known.items() if type(pair[0].format) is type(one.format) and pair[0].error > least]
        if not same:
            return one.error * effect.scale
        other, error = min(same, key=lambda pair: abs(math.log(pair[0].error / max(one.error, LEAST))))
        return one.error * error / other.error

    @property
    def loss_unit(self) -> str:
        """What losses are, in words: the divergence of `ranks.effect` where effects were measured, else a sum over layers."""
        if self.moments:
            return "divergence of the outputs: nats where they are classes, else their relative squared error"
        return "sum of the layers' relative squared errors"

    @property
    def totals(self) -> dict[str, float]:
        """What the whole dense model costs."""
        flops = self.steps.flops if self.steps else 0
        return {"params": n_parameters(self.model), "flops": flops, "bytes": n_bytes(self.model)}

    def plan_of(self, picked: Mapping[str, Candidate], goal: Budget | None) -> Plan:
        """The plan with the candidates given by layer name; all other layers stay dense."""
        effects = {one.name: effect for one, effect in zip(self.layers, self.effects, strict=True)}
        reasons = {**self.reasons, **{one.name: self._why_dense(goal, one) for one in self.layers}}
        rows = []
        for one in self.found:
            candidate = picked.get(one.name)
            row = row_of(one, candidate, reasons[one.name], self.steps)
            if candidate is not None:
                error = self._error(one, effects[one.name], candidate) ** 0.5
                metric = "weight" if self.moments and not has_metric(one, candidate.fold, self.moments) else ""
                row = replace(row, error=error, metric=metric, measured_speedup=self.speeds.get((one.name, candidate)))
            rows.append(row)
        return plan_of_rows(self.model, rows, goal, self.steps, "output" if self.moments else "weight", self.seed)

    def _why_dense(self, goal: Budget | None, one: Found) -> str:
        if any(name == one.name and speed < 1 for (name, _), speed in self.speeds.items()):
            return SLOWER
        if not self.candidates[one.name]:
            return "no rank makes it smaller or cheaper"
        if goal is not None and list(goal.limits) == ["flops"] and self.steps is not None and self.steps.workload(one) is None:
            return "the example does not run it, so no FLOP can be saved"
        return "dense is the better use of the budget"

    def without(self, is_left_out: Callable[[Found, Candidate], bool]) -> "Offers":
        """The offers without some candidates."""
        left = {one.name: [c for c in self.candidates[one.name] if not is_left_out(one, c)] for one in self.layers}
        return replace(self, candidates=left)

    def without_layers(self, reasons: Mapping[str, str]) -> "Offers":
        """The offers in which more layers stay dense, by name with the reason."""
        kept = [pair for pair in zip(self.layers, self.effects, strict=True) if pair[0].name not in reasons]
        layers, effects = [layer for layer, _ in kept], [effect for _, effect in kept]
        return replace(self, layers=layers, effects=effects, reasons={**self.reasons, **reasons})


def find_candidates(
    layers: Sequence[Found],
    chosen: Mapping[str, Sequence[Choice]],
    steps: Trace | None,
    moments: Mapping[str, Whitening],
    seed: int,
    progress: Progress,
) -> tuple[dict[str, list[Candidate]], dict[str, str]]:
    """The candidates of every layer, and the reasons why layers have none that should; layers of the same shape are decomposed together.

    Warns where a layer cannot be decomposed in a format, and goes on without it.
    """
    offers: dict[str, list[Candidate]] = {one.name: [] for one in layers}
    failed: set[str] = set()
    shapes: dict[tuple[Any, ...], list[Found]] = {}
    for one in layers:
        load = steps.workload(one) if steps else None
        for choice in chosen[one.name]:
            folds = tuple(choice.folds(one))
            if choice.format.is_svd_of_matrices and len(chosen[one.name]) > 1 and _n_kernel(folds[0]) == 1:
                continue  # for a matrix it is no better than its SVD, which is also tried
            shapes.setdefault((choice.format, folds, load, one.name in moments), []).append(one)
    jobs: dict[tuple[Any, ...], list[Found]] = {}
    for number, ((format, folds, load, has_moment), members) in enumerate(shapes.items()):
        if len(folds) > 1:
            progress("trying modes", number, len(shapes))
        for one, kept in zip(members, screened(members, format, folds, load, seed=seed), strict=True):
            for fold in kept:
                jobs.setdefault((format, fold, load, has_moment), []).append(one)
    for number, ((format, fold, load, _), members) in enumerate(jobs.items()):
        progress("trying ranks", number, len(jobs))
        for one, found in zip(members, _tried(members, format, load, fold, moments, seed), strict=True):
            offers[one.name] += found or []
            failed |= {one.name} if found is None else set()
    progress("trying ranks", len(jobs), len(jobs))
    return offers, {name: UNSOLVED for name in failed if not offers[name]}


def _tried(
    members: Sequence[Found], format: Format, load: Workloads | None, fold: Fold, moments: Mapping[str, Whitening], seed: int
) -> list[list[Candidate] | None]:
    """The candidates of layers in one format; one by one where all together fail, and None for a layer that cannot be decomposed."""
    metrics = [moments[one.name] if has_metric(one, fold, moments) else None for one in members]
    try:
        return [*candidates(members, format, load, fold, metrics, sweeps=PLAN_SWEEPS, seed=seed)]
    except (RuntimeError, ArithmeticError, ValueError) as error:
        if len(members) > 1:
            return [_tried([one], format, load, fold, moments, seed)[0] for one in members]
        name = type(format).__name__
        warnings.warn(
            f"{members[0].name or 'the model'} could not be decomposed as {name} ({error}) and is planned without it; errors have to be "
            "known to choose ranks: choose another format for it, or leave it out",
            stacklevel=2,
        )
        return [None]


def has_metric(one: Found, fold: Fold | None, moments: Mapping[str, Whitening]) -> bool:
    """Whether errors of a layer are those of its outputs: its inputs were seen to vary, and no mode of them is padded."""
    return one.name in moments and fold is not None and fold.axis("i").padding == 0 and moments[one.name].is_varied


def _n_kernel(fold: Fold) -> int:
    return math.prod(fold.sizes[mode] for mode in fold.role("k"))


def plan_of_rows(model: nn.Module, rows: Sequence[LayerPlan], goal: Budget | None, steps: Trace | None, metric: str, seed: int) -> Plan:
    """The plan with the totals of its rows."""
    before = n_parameters(model)
    after = before - sum(row.params_before - row.params_after for row in rows)
    flops = flops_after = None
    if steps is not None:
        flops = steps.flops
        flops_after = flops - sum((row.flops_before or 0) - (row.flops_after or 0) for row in rows)
    fused = [name for name in read_by_fused_kernel(model) if any(row.name == name and row.format for row in rows)]
    notes = (fused_note(fused),) if fused else ()
    return Plan(tuple(rows), type(model).__name__, goal, before, after, flops, flops_after, metric, seed, notes)


def dense_flops(steps: Trace | None, one: Found) -> int:
    """FLOP of the dense layer for one sample; 0 where the example does not run it."""
    load = steps.workload(one) if steps else None
    return load.dense_flops if load else 0


def row_of(one: Found, candidate: Candidate | None, reason: str, steps: Trace | None) -> LayerPlan:
    """The row of a layer with a candidate, or of one that stays dense for a reason."""
    flops = None
    if steps is not None and one.layer is not None:
        flops = dense_flops(steps, one)
    base = LayerPlan(
        one.name, type(one.module).__name__, one.shape, None, None, None, reason, one.n_values, one.n_values, flops, flops, None,
    )  # fmt: skip
    if candidate is None or candidate.format is None:
        return base
    fold = candidate.fold
    assert fold is not None
    load = steps.workload(one) if steps else None
    return replace(
        base,
        format=candidate.format,
        in_modes=_modes(fold, "i"),
        out_modes=_modes(fold, "o"),
        reason="",
        params_after=candidate.params,
        flops_after=None if flops is None else candidate.flops,
        error=candidate.error**0.5,
        predicted_speedup=load.speedup(candidate.format.network(fold), steps.batch) if load and steps else None,
    )


def _modes(fold: Fold, role: str) -> tuple[int, ...] | None:
    """The modes of an axis where it is split or padded, without that of gates; None where it is one mode as it is."""
    axis = fold.axis(role)
    modes = axis.modes[1:] if role == "o" and fold.gate is not None else axis.modes
    return modes if len(modes) > 1 or axis.padding else None
