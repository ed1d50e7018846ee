"""compress: Plan + model (+ calibration data) -> a model with factorised layers. Also `factorize`: the same layers, fresh parameters."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from tenfold.calibrate import calibration_batch, input_moments, reestimate_norms, rereadable
from tenfold.decompose import Job, check_weight, decompose_each
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.layers.base import FactorizedLayer
from tenfold.network import Network
from tenfold.places import replace_all
from tenfold.plan import LayerPlan, Plan, explicit_plan
from tenfold.plan_data import use_text
from tenfold.progress import Progress, silent
from tenfold.recurrent.opened import close_recurrent, open_recurrent, opened_view
from tenfold.second_moments import is_calibrated
from tenfold.selection import Choice, Formats
from tenfold.sequential import Goal, call_order, paired_goals, stages
from tenfold.solvers.whitening import Whitening, output_mean
from tenfold.survey import Found, survey
from tenfold.weight import FactorizedWeight
from tenfold.wrappers import unwrapped


def compress(
    model: nn.Module,
    plan: Plan | Formats,
    *,
    calibration: Any = None,
    sequential: bool = False,
    inplace: bool = False,
    seed: int | None = None,
    sweeps: int = 200,
    progress: Progress | None = None,
) -> nn.Module:
    """A new model with the layers of the plan factorised, on the same device and in the same dtype; the old one is untouched.

    What else belongs to a layer goes on to its factors: training mode, forward and backward hooks, and whether its weight is trained.

    Args:
        plan: from `tenfold.plan` or a file; or a format, or a mapping from names, patterns or layer types to formats, with ranks.
        calibration: a data set, loader or batches of real inputs: decompositions then minimise the error of the layers' outputs, and
            BatchNorm statistics and biases follow what changed.
        sequential: calibrate layers in the order of their calls on inputs from the layers already compressed, to the outputs of the dense
            ones, see `tenfold.sequential`: errors do not add up, for some more runs of the model.
        inplace: change the model itself, which saves the memory of a copy. (A model that is a layer itself comes back as a new one.)
        seed: of solvers that start at random; left out, the plan's, whose errors are those of its seed, or 0.
        sweeps: at most so many sweeps of iterative solvers.

    Raises:
        ValueError: the plan is for another model, a rank or modes do not fit a layer, a weight is not finite, or the data are empty or
            reach none of the layers.
        RuntimeError: the model does not run on the calibration data.

    Warns where a layer cannot be decomposed, and leaves it dense, and where a table has a row of padding that is not zero and will be.
    """
    progress = progress or silent
    model = unwrapped(model)
    calibration = rereadable(calibration)
    if not isinstance(plan, Plan):
        plan = explicit_plan(model, plan, seed=seed or 0)
    seed = plan.seed if seed is None else seed
    view = opened_view(model)
    reference: nn.Module | None = view
    if inplace and calibration is not None and (reference := _sharing(view)) is not None:
        view = reference
    work = _check(survey(view), plan)
    if sequential and (calibration is None or reference is None):
        lacks = "no calibration data" if calibration is None else "a model that cannot be copied"
        raise ValueError(
            f"sequential=True has {lacks}; layers are calibrated one after another, on inputs that the dense model gets too: give "
            "calibration=, and leave out inplace=True for a model that cannot be copied"
        )
    for found, _ in work:
        check_weight(found.weight, found.name or type(found.module).__name__)
        if found.layer is not None and (lost := found.layer.lost(found.module)):
            warnings.warn(f"{found.name or 'the model'} {lost}", stacklevel=2)
    moments: Mapping[str, Whitening] = {}
    layers = [found for found, _ in work]
    if calibration is not None:
        moments = input_moments(view, layers, calibration, progress=progress)
        _check_reached(layers, moments)
    if not inplace:
        model = _copy_without(model, [found.module for found in layers])
    model, opened = open_recurrent(model)
    partly = _Partly(model, {one.name: one.module for one in survey(model)}, not inplace)
    order = call_order(view, layers, calibration_batch(calibration, 2)) if sequential else []
    rows = {found.name: row for found, row in work}
    for number, stage in enumerate(stages(order, layers) if sequential else [layers]):
        goals = {one.name: Goal.of_dense(one, moments.get(one.name)) for one in stage}
        if number > 0:
            assert reference is not None
            goals = paired_goals(stage, reference, partly.model, partly.modules, order, calibration, moments, progress)
        partly.put(stage, _decompose([(found, rows[found.name]) for found in stage], goals, sweeps, seed, progress))
    model = close_recurrent(partly.model, opened)
    if calibration is not None:
        reestimate_norms(model, calibration, reference=reference, progress=progress)
    return model


def stayed_dense(small: nn.Module, plan: Plan) -> list[str]:
    """The names of the layers of a plan that a model made from it has as dense ones: they could not be decomposed."""
    made = {name for one in survey(opened_view(small)) if isinstance(one.module, FactorizedLayer) for name in one.names}
    return [row.name for row in plan.layers if row.format is not None and row.name not in made]


@dataclass
class _Partly:
    """A model on its way: some layers are dense still. has_borrowed: their weights are those of the model that it was copied from."""

    model: nn.Module
    modules: dict[str, nn.Module]
    has_borrowed: bool

    def put(self, stage: Sequence[Found], layers: Mapping[str, FactorizedLayer]) -> None:
        """Puts layers in their places; those of the stage that are not there stay dense."""
        for one in stage:
            if one.name not in layers and self.has_borrowed:
                old: Any = self.modules[one.name]
                old.weight = nn.Parameter(old.weight.detach().clone(), old.weight.requires_grad)
        self.model = replace_all(self.model, {self.modules[name]: layer for name, layer in layers.items()})


def _sharing(model: nn.Module) -> nn.Module | None:
    """A copy of a model with the same parameters and buffers of its own, None where it cannot be copied."""
    try:
        return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    except (RuntimeError, TypeError):
        return None


def _check_reached(layers: Sequence[Found], moments: Mapping[str, Whitening]) -> None:
    """Warns about layers that no calibration input reached; raises ValueError where that is all of them."""
    # attention reads the weight of its out_proj and never calls it: no data can reach that
    usable = [one.name for one in layers if is_calibrated(one) and not isinstance(one.module, NonDynamicallyQuantizableLinear)]
    missed = [name for name in usable if name not in moments]
    if not missed:
        return
    text = f"the calibration data never reach {', '.join(missed)}"
    advice = "give data that run every layer of the plan, or leave those layers dense"
    if len(missed) == len(usable):
        raise ValueError(f"{text}, which is all of the layers to be calibrated; at least one has to see inputs: {advice}")
    warnings.warn(f"{text}; only the errors of their weights could be made small: {advice}", stacklevel=3)


def factorize(model: nn.Module, formats: Formats) -> nn.Module:
    """The model with the layers of a mapping replaced in place by factorised ones with fresh parameters, for training from scratch.

    Args:
        formats: a format with a rank for all layers, or a mapping from names, patterns or layer types to formats.
    """
    model = unwrapped(model)
    plan = explicit_plan(model, formats)
    model, opened = open_recurrent(model)
    layers: dict[nn.Module, nn.Module] = {}
    for found, row in _check(survey(model), plan):
        assert found.layer is not None
        fold, network, _ = _network(found, row)
        like: Any = found.module.weight
        weight = FactorizedWeight(network, fold, device=like.device, dtype=like.dtype).requires_grad_(like.requires_grad)
        layer: Any = found.layer.around(found.module, weight)
        layer.reset_parameters()
        layers[found.module] = layer.train(found.module.training)
    return close_recurrent(replace_all(model, layers), opened)


def _check(found: Sequence[Found], plan: Plan) -> list[tuple[Found, LayerPlan]]:
    """The layers to be factorised with their rows; of rows that name a shared layer by several names and agree, the first.

    Raises:
        ValueError: the plan names a layer that the model does not have, or one of another type or shape, or rows of one layer differ.
    """
    by_name = {name: one for one in found for name in one.names}
    work, rows = [], dict[str, LayerPlan]()
    for row in plan.layers:
        one = by_name.get(row.name)
        if one is None:
            raise ValueError(
                f"the plan is for another model: it has a layer {row.name!r}, but this model has {', '.join(by_name) or 'none'}; "
                "make a plan for this model, or give the model that the plan was made for"
            )
        if row.shape and (row.shape != one.shape or row.kind != type(one.module).__name__):
            raise ValueError(
                f"the plan is for another model: its layer {row.name!r} is a {row.kind} of shape {row.shape}, but here it is a "
                f"{type(one.module).__name__} of shape {one.shape}; make a plan for this model"
            )
        first = rows.setdefault(one.name, row)
        if (uses := [use_text(first), use_text(row)])[0] != uses[1]:
            raise ValueError(
                f"the plan says {first.name!r} = {uses[0]} and {row.name!r} = {uses[1]}, but both are names of one layer, which gets one "
                "format: take one of the lines out, or let both say the same"
            )
        if row.format is None or first is not row:
            continue
        if one.layer is None:
            raise ValueError(f'the plan factorises {row.name!r}, but {one.reason}; set it to "dense" in the plan')
        work.append((one, row))
    return work


def _network(found: Found, row: LayerPlan) -> tuple[Fold, Network, Format]:
    assert row.format is not None
    return *Choice(row.format, row.in_modes, row.out_modes).network(found), row.format


def _decompose(
    work: Sequence[tuple[Found, LayerPlan]], goals: Mapping[str, Goal], sweeps: int, seed: int, progress: Progress
) -> dict[str, FactorizedLayer]:
    """A factorised layer for each name. Warns about those that cannot be decomposed, and leaves them out."""
    found, jobs = {one.name: one for one, _ in work}, []
    for one, row in work:
        fold, network, format = _network(one, row)
        goal = goals[one.name]
        jobs.append(Job(one.name, goal.weight, fold, network, format, None if fold.axis("i").padding else goal.metric))
    layers: dict[str, FactorizedLayer] = {}
    for done, (job, result) in enumerate(decompose_each(jobs, sweeps=sweeps, seed=seed, warn=True)):
        progress("decomposing", done, len(jobs))
        if isinstance(result, Exception):
            warnings.warn(
                f"{job.name or 'the model'} could not be decomposed as {job.format} ({result}) and stays dense; every layer of the plan "
                "was to become smaller: choose another format or rank for it",
                stacklevel=3,
            )
            continue
        one = found[job.name]
        assert one.layer is not None
        result.weight.requires_grad_(one.weight.requires_grad)
        layers[job.name] = one.layer.around(one.module, result.weight).train(one.module.training)
        _correct_bias(layers[job.name], goals[job.name])
    progress("decomposing", len(jobs), len(jobs))
    return layers


def _correct_bias(layer: FactorizedLayer, goal: Goal) -> None:
    """Moves the bias by the mean that the approximation takes from the outputs."""
    if layer.bias is None or goal.mean_output is None or goal.metric is None or goal.metric.mean is None:
        return
    with torch.no_grad():
        layer.bias.add_((goal.mean_output - output_mean(layer.weight.detach(), goal.metric.mean)).to(layer.bias))


def _copy_without(model: nn.Module, modules: Sequence[nn.Module]) -> nn.Module:
    """A deep copy in which the weights of some modules are not copied: they are about to be replaced."""
    memo: dict[int, Any] = {}
    for module in modules:
        weight: Any = module.weight
        memo[id(weight)] = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise type(error)(
            f"{type(model).__name__} cannot be copied ({error}); a model is needed that copy.deepcopy takes: remove weight_norm and the "
            "like from it, or give inplace=True"
        ) from error
