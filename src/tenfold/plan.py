"""plan: model -> Plan. Which layers are factorised, in which format, with which ranks, under a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from tenfold.budget import Budget, as_budget
from tenfold.calibrate import calibration_batch, input_moments, rereadable
from tenfold.decompose import check_weight
from tenfold.fold import Fold
from tenfold.formats import CP, Tucker
from tenfold.plan_data import LayerPlan as LayerPlan
from tenfold.plan_data import Plan as Plan
from tenfold.progress import Progress, silent
from tenfold.ranks.allocate import Option, allocate
from tenfold.ranks.candidates import Candidate, candidates, explicit
from tenfold.ranks.effect import Effect, effects
from tenfold.ranks.folds import screened
from tenfold.recurrent.opened import opened_view
from tenfold.selection import Choice, Filter, Formats, select
from tenfold.solvers.whitening import Whitening
from tenfold.survey import Found, n_bytes, n_parameters, survey, unwrapped
from tenfold.trace import Trace, trace

PROBE_FLOPS = 30_000_000_000  # a run of the model for each layer: about a second on two cores
PROBE_SAMPLES = (16, 256)  # at least and at most
PLAN_SWEEPS = 60  # sweeps of iterative solvers for an estimate of the error


def plan(
    model: nn.Module,
    format: Formats = "auto",
    *,
    budget: Budget | float | dict[str, float] | str | None = None,
    inputs: Any = None,
    filter: Filter = None,
    calibration: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """The plan for a model, which is only read.

    Args:
        format: one for all layers; "auto": the best of CP, Tucker and SVD for each layer; or a mapping from names, patterns (`*`)
            or layer types to formats, where None leaves a layer dense (a full name counts first, then the first key that matches).
            A format with a rank keeps it; without one the ranks are chosen, and for a format that splits axes also the sizes and the
            order of the modes. A text such as "ttm:rank=4,in=8x8" may give modes too.
        budget: what to keep: a fraction of parameters, or `Budget(params=.., flops=.., bytes=..)`.
        inputs: an example for the model: a tensor, a tuple of arguments or a mapping of keyword arguments. Needed to count FLOP.
        filter: a name pattern or layer type, several, or a function (module, name) -> bool; other layers stay dense.
        calibration: a data set, loader or batches of real inputs. Errors are then measured on the layers' outputs, weighted by what
            they cost the whole model; else on the weights, all layers alike.

    Raises:
        ValueError: no layer can be factorised, a pattern matches nothing, the budget is impossible (the message names the
            smallest reachable), a weight is not finite, or FLOP are asked for without inputs.
        TypeError: a weight is not real floating-point.
    """
    progress = progress or silent
    model = opened_view(unwrapped(model))
    calibration = rereadable(calibration)
    if inputs is None and calibration is not None:
        inputs = calibration_batch(calibration)
    goal = None if budget is None else as_budget(budget)
    if goal is not None and goal.flops is not None and inputs is None:
        raise ValueError(f"the budget {goal} counts FLOP, which needs an example input: give inputs=, e.g. a batch of the data")
    found = survey(model)
    chosen, reasons = select(found, format, filter)
    open_layers = [one for one in found if one.name in chosen]
    _check(found, open_layers, chosen, goal)
    steps = trace(model, inputs, open_layers) if inputs is not None else None
    moments = input_moments(model, open_layers, calibration, progress=progress) if calibration is not None else {}
    offers = _offers(open_layers, chosen, steps, moments, seed, progress)
    costs = [Effect(1.0)] * len(open_layers)
    if moments and goal is not None:
        probes = [(one, offers[one.name], moments.get(one.name)) for one in open_layers]
        samples = min(PROBE_SAMPLES[1], max(PROBE_SAMPLES[0], PROBE_FLOPS // max(1, steps.flops if steps else 1)))
        costs = effects(model, probes, calibration_batch(calibration, samples), seed=seed, progress=progress)
    picked = _pick(model, open_layers, offers, costs, goal, steps)
    reasons |= {one.name: _why_dense(offers[one.name], goal, steps, one) for one in open_layers}
    rows = tuple(_row(one, picked.get(one.name), reasons[one.name], steps) for one in found)
    return _plan_of(model, rows, goal, steps, "output" if moments else "weight", seed)


def explicit_plan(model: nn.Module, format: Formats, *, seed: int = 0) -> Plan:
    """The plan for formats with ranks. Nothing is decomposed and no error is known; weights may be on "meta".

    Raises:
        ValueError: a format has no rank, or does not fit a layer, or no layer can be factorised.
    """
    model = opened_view(unwrapped(model))
    found = survey(model)
    chosen, reasons = select(found, format)
    _check(found, [], chosen, None)
    rows = []
    for one in found:
        candidate = None
        for choice in chosen.get(one.name, ()):
            fold, network = choice.network(one)
            candidate = Candidate(explicit(choice.format, network), network.numel, 0, 0.0, fold)
        rows.append(replace(_row(one, candidate, reasons.get(one.name, ""), None), error=None))
    return _plan_of(model, rows, None, None, "weight", seed)


def _plan_of(model: nn.Module, rows: Sequence[LayerPlan], goal: Budget | None, steps: Trace | None, metric: str, seed: int) -> Plan:
    before = n_parameters(model)
    after = before - sum(row.params_before - row.params_after for row in rows)
    flops = flops_after = None
    if steps is not None:
        flops = steps.flops
        flops_after = flops - sum((row.flops_before or 0) - (row.flops_after or 0) for row in rows)
    return Plan(tuple(rows), type(model).__name__, goal, before, after, flops, flops_after, metric, seed)


def _check(found: Sequence[Found], layers: Sequence[Found], chosen: Mapping[str, Sequence[Choice]], goal: Budget | None) -> None:
    """Raises ValueError or TypeError where a plan cannot be made, before anything is computed."""
    if lazy := [one.name for one in found if any(map(is_lazy, one.module.parameters(recurse=False)))]:
        raise ValueError(f"the weights of {', '.join(lazy)} have no shape yet; all shapes are needed: run the model once on an example")
    for name, choices in chosen.items():
        if goal is None and (len(choices) > 1 or choices[0].format.rank is None):
            raise ValueError(
                f"there is no budget and no rank for {name or 'the model'}; one of them is needed to choose: "
                "give budget=0.5, or a format with rank="
            )
    for one in layers:
        check_weight(one.weight, one.name or type(one.module).__name__)


def _offers(
    layers: Sequence[Found],
    chosen: Mapping[str, Sequence[Choice]],
    steps: Trace | None,
    moments: Mapping[str, Whitening],
    seed: int,
    progress: Progress,
) -> dict[str, list[Candidate]]:
    """The candidates of every layer; layers of the same shape are decomposed together."""
    offers: dict[str, list[Candidate]] = {one.name: [] for one in layers}
    shapes: dict[tuple[Any, ...], list[Found]] = {}
    for one in layers:
        load = steps.workload(one) if steps else None
        for choice in chosen[one.name]:
            folds = tuple(choice.folds(one))
            if isinstance(choice.format, CP | Tucker) and len(chosen[one.name]) > 1 and _n_kernel(folds[0]) == 1:
                continue  # for a matrix neither is better than its SVD, which is also tried
            shapes.setdefault((choice.format, folds, load, one.name in moments), []).append(one)
    jobs: dict[tuple[Any, ...], list[Found]] = {}
    for number, ((format, folds, load, has_moment), members) in enumerate(shapes.items()):
        if len(folds) > 1:
            progress("trying modes", number, len(shapes))
        for one, kept in zip(members, screened(members, format, folds, load, seed=seed), strict=True):
            for fold in kept:
                jobs.setdefault((format, fold, load, has_moment), []).append(one)
    for number, ((format, fold, load, has_moment), members) in enumerate(jobs.items()):
        progress("trying ranks", number, len(jobs))
        usable = has_moment and fold.axis("i").padding == 0
        metrics = [moments[one.name] if usable else None for one in members]
        for one, found in zip(members, candidates(members, format, load, fold, metrics, sweeps=PLAN_SWEEPS, seed=seed), strict=True):
            offers[one.name] += found
    progress("trying ranks", len(jobs), len(jobs))
    return offers


def _n_kernel(fold: Fold) -> int:
    size = 1
    for mode in fold.role("k"):
        size *= fold.sizes[mode]
    return size


def _pick(
    model: nn.Module,
    layers: Sequence[Found],
    offers: Mapping[str, list[Candidate]],
    costs: Sequence[Effect],
    goal: Budget | None,
    steps: Trace | None,
) -> dict[str, Candidate]:
    """One candidate for each layer that does not stay dense."""
    if goal is None:
        return {one.name: offers[one.name][0] for one in layers}
    dense = [Candidate(None, one.n_values, _dense_flops(steps, one), 0.0) for one in layers]
    lists = [[base, *offers[one.name]] for base, one in zip(dense, layers, strict=True)]
    size = [one.weight.element_size() for one in layers]
    options = [
        [Option(effect.loss * one.error, {"params": one.params, "flops": one.flops, "bytes": one.params * width}) for one in choices]
        for choices, effect, width in zip(lists, costs, size, strict=True)
    ]
    totals = {"params": n_parameters(model), "flops": steps.flops if steps else 0, "bytes": n_bytes(model)}
    fixed = {name: total - sum(choices[0].costs[name] for choices in options) for name, total in totals.items()}
    numbers = allocate(options, totals, fixed, goal)
    return {
        one.name: replace(choices[k], error=choices[k].error * effect.scale)
        for one, choices, k, effect in zip(layers, lists, numbers, costs, strict=True)
        if k
    }


def _dense_flops(steps: Trace | None, one: Found) -> int:
    load = steps.workload(one) if steps else None
    return load.dense_flops if load else 0


def _why_dense(offers: Sequence[Candidate], goal: Budget | None, steps: Trace | None, one: Found) -> str:
    if not offers:
        return "no rank makes it smaller or cheaper"
    if goal is not None and list(goal.limits) == ["flops"] and steps is not None and steps.workload(one) is None:
        return "the example does not run it, so no FLOP can be saved"
    return "dense is the better use of the budget"


def _row(one: Found, candidate: Candidate | None, reason: str, steps: Trace | None) -> LayerPlan:
    flops = None
    if steps is not None and one.layer is not None:
        flops = _dense_flops(steps, one)
    base = LayerPlan(
        one.name, type(one.module).__name__, one.shape, None, None, None, reason, one.n_values, one.n_values, flops, flops, None,
    )  # fmt: skip
    if candidate is None or candidate.format is None:
        return base
    fold = candidate.fold
    assert fold is not None
    return replace(
        base,
        format=candidate.format,
        in_modes=_modes(fold, "i"),
        out_modes=_modes(fold, "o"),
        reason="",
        params_after=candidate.params,
        flops_after=None if flops is None else candidate.flops,
        error=candidate.error**0.5,
    )


def _modes(fold: Fold, role: str) -> tuple[int, ...] | None:
    """The modes of an axis where it is split or padded, without that of gates; None where it is one mode as it is."""
    axis = fold.axis(role)
    modes = axis.modes[1:] if role == "o" and fold.gate is not None else axis.modes
    return modes if len(modes) > 1 or axis.padding else None
