"""compress: Plan + model (+ calibration data) -> a model with factorised layers. Also `factorize`: the same layers, fresh parameters."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tenfold.calibrate import input_moments, reestimate_norms, rereadable
from tenfold.decompose import decompose
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.layers.base import FactorizedLayer
from tenfold.network import Network
from tenfold.plan import LayerPlan, Plan, explicit_plan
from tenfold.progress import Progress, silent
from tenfold.recurrent.opened import close_recurrent, open_recurrent, opened_view
from tenfold.selection import Choice, Formats
from tenfold.solvers.whitening import Whitening
from tenfold.survey import Found, replace, survey, unwrapped
from tenfold.weight import FactorizedWeight


def compress(
    model: nn.Module,
    plan: Plan | Formats,
    *,
    calibration: Any = None,
    inplace: bool = False,
    seed: int = 0,
    sweeps: int = 200,
    progress: Progress | None = None,
) -> nn.Module:
    """A new model with the layers of the plan factorised, on the same device and in the same dtype; the old one is untouched.

    What else belongs to a layer goes on to its factors: training mode, hooks, and whether its weight is trained.

    Args:
        plan: from `tenfold.plan` or a file; or a format, or a mapping from names, patterns or layer types to formats, with ranks.
        calibration: a data set, loader or batches of real inputs: decompositions then minimise the error of the layers' outputs, and
            BatchNorm statistics are re-estimated.
        inplace: change the model itself, which saves the memory of a copy. (A model that is a layer itself comes back as a new one.)
        sweeps: at most so many sweeps of iterative solvers.

    Raises:
        ValueError: the plan is for another model, a rank or modes do not fit a layer, a weight is not finite, or the data are empty.
    """
    progress = progress or silent
    model = unwrapped(model)
    calibration = rereadable(calibration)
    if not isinstance(plan, Plan):
        plan = explicit_plan(model, plan, seed=seed)
    view = opened_view(model)
    work = _check(survey(view), plan)
    moments: Mapping[str, Whitening] = {}
    if calibration is not None:
        moments = input_moments(view, [found for found, _ in work], calibration, progress=progress)
    layers = _decompose(work, moments, sweeps, seed, progress)
    if not inplace:
        model = _copy_without(model, [found.module for found, _ in work])
    model, opened = open_recurrent(model)
    targets = {one.name: one.module for one in survey(model)}
    for name, layer in layers.items():
        model = replace(model, targets[name], layer)
    model = close_recurrent(model, opened)
    if calibration is not None:
        reestimate_norms(model, calibration, progress=progress)
    return model


def factorize(model: nn.Module, formats: Formats) -> nn.Module:
    """The model with the layers of a mapping replaced in place by factorised ones with fresh parameters, for training from scratch.

    Args:
        formats: a format with a rank for all layers, or a mapping from names, patterns or layer types to formats.
    """
    model = unwrapped(model)
    plan = explicit_plan(model, formats)
    model, opened = open_recurrent(model)
    for found, row in _check(survey(model), plan):
        assert found.layer is not None
        fold, network, _ = _network(found, row)
        like: Any = found.module.weight
        weight = FactorizedWeight(network, fold, device=like.device, dtype=like.dtype).requires_grad_(like.requires_grad)
        layer: Any = found.layer.around(found.module, weight)
        layer.reset_parameters()
        model = replace(model, found.module, layer.train(found.module.training))
    return close_recurrent(model, opened)


def _check(found: Sequence[Found], plan: Plan) -> list[tuple[Found, LayerPlan]]:
    """The layers to be factorised with their rows.

    Raises:
        ValueError: the plan names a layer that the model does not have, or one of another type or shape.
    """
    by_name = {name: one for one in found for name in one.names}
    work = []
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
        if row.format is None:
            continue
        if one.layer is None:
            raise ValueError(f'the plan factorises {row.name!r}, but {one.reason}; set it to "dense" in the plan')
        work.append((one, row))
    return work


def _network(found: Found, row: LayerPlan) -> tuple[Fold, Network, Format]:
    assert row.format is not None
    return *Choice(row.format, row.in_modes, row.out_modes).network(found), row.format


def _decompose(
    work: Sequence[tuple[Found, LayerPlan]], moments: Mapping[str, Whitening], sweeps: int, seed: int, progress: Progress
) -> dict[str, FactorizedLayer]:
    """A factorised layer for each name; layers of the same shape and network are solved together."""
    jobs: dict[tuple[Any, ...], list[Found]] = {}
    for found, row in work:
        fold, network, format = _network(found, row)
        usable = found.name in moments and fold.axis("i").padding == 0
        jobs.setdefault((fold, network, format, usable), []).append(found)
    done = 0
    layers: dict[str, FactorizedLayer] = {}
    for (fold, network, format, usable), members in jobs.items():
        progress("decomposing", done, len(work))
        weights: list[Any] = [one.module.weight for one in members]
        metrics = [moments[one.name] if usable else None for one in members]
        names = [one.name for one in members]
        made = decompose(weights, fold, network, format, names=names, whitenings=metrics, sweeps=sweeps, seed=seed)
        for one, result in zip(members, made, strict=True):
            assert one.layer is not None
            result.weight.requires_grad_(one.weight.requires_grad)
            layers[one.name] = one.layer.around(one.module, result.weight).train(one.module.training)
        done += len(members)
    progress("decomposing", len(work), len(work))
    return layers


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
