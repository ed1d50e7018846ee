"""plan: model -> Plan. Which layers are factorised, in which format, with which ranks, under a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from tenfold.budget import Budget, as_budget
from tenfold.calibrate import calibration_batch, calibration_pair, input_moments, rereadable
from tenfold.decompose import check_weight
from tenfold.messages import PLAN
from tenfold.plan_data import LayerPlan as LayerPlan
from tenfold.plan_data import Plan as Plan
from tenfold.progress import Progress, silent
from tenfold.ranks.candidates import Candidate, explicit
from tenfold.ranks.effect import Effect, effects
from tenfold.ranks.latency import LATENCIES, timed_plan
from tenfold.ranks.latency import Latency as Latency
from tenfold.ranks.offers import Offers, find_candidates, plan_of_rows, row_of
from tenfold.recurrent.opened import opened_view
from tenfold.running import EXAMPLES
from tenfold.selection import Choice, Filter, Formats, select
from tenfold.survey import Found, survey
from tenfold.trace import trace
from tenfold.wrappers import unwrapped

PROBE_FLOPS = 30_000_000_000  # a run of the model for each layer: about a second on two cores
PROBE_SAMPLES = (16, 256)  # at least and at most


def plan(
    model: nn.Module,
    format: Formats = "auto",
    *,
    budget: Budget | float | dict[str, Any] | str | None = None,
    inputs: Any = None,
    filter: Filter = None,
    calibration: Any = None,
    latency: Latency = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """The plan for a model, which is only read.

    Args:
        format: one for all layers; "auto": the best of CP, Tucker and SVD for each layer; or a mapping from names, patterns (`*`)
            or layer types to formats, where None leaves a layer dense (a full name counts first, then the first key that matches).
            A format with a rank keeps it; without one the ranks are chosen, and for a format that splits axes also the sizes and the
            order of the modes. A text such as "ttm:rank=4,in=8x8" may give modes too.
        budget: what to keep: a fraction of parameters, or `Budget(params=.., flops=.., bytes=..)`. For a loss of accuracy there is
            `tenfold.search`.
        inputs: an example for the model: a tensor, a tuple of arguments or a mapping of keyword arguments. Needed to count FLOP.
        filter: a name pattern or layer type, several, or a function (module, name) -> bool; other layers stay dense.
        calibration: a data set, loader or batches of real inputs. Errors are then measured on the layers' outputs, weighted by what
            they cost the whole model; else on the weights, all layers alike. Targets that are classes, or outputs called "logits", say
            that outputs are classes; without them they count as values.
        latency: "measured": whatever the plan picks is timed beside the dense layer on this machine, on `inputs` (give one sample for a
            model that gets one at a time), and what is slower is not used: the layer gets another rank or format, or stays dense.
            "ignored": nothing is timed, the budget is met with the smallest error, and a layer may run slower than dense although it
            has fewer FLOP. "auto": as "measured" where the budget counts FLOP, but where it cannot be met so, or only at a much larger
            loss, without regard to times, with a warning.

    Raises:
        ValueError: no layer can be factorised, a pattern matches nothing, the budget is impossible (the message names the
            smallest reachable), a weight is not finite, or FLOP or times are asked for without inputs.
        TypeError: a weight is not real floating-point.
    """
    goal = None if budget is None else as_budget(budget)
    if goal is not None and goal.accuracy_drop is not None:
        raise ValueError(
            f"the budget {goal} asks for a loss of accuracy, which a plan cannot know; models have to be made and validated: "
            "use tenfold.search (tenfold compress on the command line), or give fractions such as flops=0.5"
        )
    calibration = rereadable(calibration)
    offers = offers_for(
        model, format, goal=goal, inputs=inputs, filter=filter, calibration=calibration, latency=latency, seed=seed, progress=progress
    )
    return timed_plan(offers, goal, latency, example_of(inputs, calibration), progress or silent)[1]


def offers_for(
    model: nn.Module,
    format: Formats = "auto",
    *,
    goal: Budget | None,
    inputs: Any = None,
    filter: Filter = None,
    calibration: Any = None,
    latency: Latency = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Offers:
    """All that plans for a model choose from, computed once; the arguments and errors of `plan`. A goal of None means given ranks."""
    progress = progress or silent
    if latency not in LATENCIES:
        raise ValueError(f"there is no latency {latency!r}; one of {', '.join(LATENCIES)} is needed: choose one of them")
    model = opened_view(unwrapped(model))
    calibration = rereadable(calibration)
    inputs = example_of(inputs, calibration)
    if inputs is None and goal is not None and goal.counts_flops:
        raise ValueError(f"the budget {goal} counts FLOP, which needs an example input: give inputs=, e.g. a batch of the data")
    if inputs is None and latency == "measured":
        raise ValueError(f'latency="{latency}" times layers, which needs an example input: give inputs=, e.g. a batch of the data')
    found = survey(model)
    chosen, reasons = select(found, format, filter)
    layers = [one for one in found if one.name in chosen]
    _check(found, layers, chosen, goal)
    steps = trace(model, inputs, layers) if inputs is not None else None
    moments = input_moments(model, layers, calibration, progress=progress) if calibration is not None else {}
    found_candidates, failed = find_candidates(layers, chosen, steps, moments, seed, progress)
    layers, reasons = [one for one in layers if one.name not in failed], reasons | failed
    costs = [Effect(1.0)] * len(layers)
    if moments and goal is not None:
        probes = [(one, found_candidates[one.name], moments.get(one.name)) for one in layers]
        samples = min(PROBE_SAMPLES[1], max(PROBE_SAMPLES[0], PROBE_FLOPS // max(1, steps.flops if steps else 1)))
        costs = effects(model, probes, calibration_pair(calibration, samples), seed=seed, progress=progress)
    return Offers(model, found, layers, reasons, found_candidates, costs, steps, moments, seed)


def explicit_plan(model: nn.Module, format: Formats, *, seed: int = 0) -> Plan:
    """The plan for formats with ranks. Nothing is decomposed and no error is known; weights may be on "meta".

    Raises:
        TypeError: the format is the path of a plan file.
        ValueError: a format has no rank, or does not fit a layer, or no layer can be factorised.
    """
    if isinstance(format, Path) or (isinstance(format, str) and format.endswith(".toml")):
        raise TypeError(f"the plan is the path {format}; {PLAN}")
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
        rows.append(replace(row_of(one, candidate, reasons.get(one.name, ""), None), error=None))
    return plan_of_rows(model, rows, None, None, "weight", seed)


def example_of(inputs: Any, calibration: Any) -> Any:
    """The inputs given, else a few of the calibration data; None where there is neither."""
    return calibration_batch(calibration, EXAMPLES) if inputs is None and calibration is not None else inputs


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
