"""Correction of factorised weights: the same weights within a bound, from factors that are less sensitive."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.decompose import batched_factors, check_weight, group_tensors, unbatched_factors
from tenfold.diagnosis import UNBALANCED, diagnose, weights_of
from tenfold.recurrent.opened import opened_view
from tenfold.solvers.epc import Objective, check_slack, epc
from tenfold.solvers.sensitivity import rebalance
from tenfold.solvers.solution import INTENSITY_LIMIT
from tenfold.survey import survey
from tenfold.weight import FactorizedWeight

OWN_DELTA = 0.01  # how far a weight may move where the dense one is not known


def correct(model: nn.Module, dense: nn.Module | None = None, *, slack: float = 1.01, sweeps: int = 100) -> list[str]:
    """The names of the layers that `diagnose` flagged and that are corrected now, in place; no other layer is touched.

    A layer whose terms cancel gets the factors of `corrected`. One whose factors are only out of balance is scaled, which leaves its
    weight as it is. Parameters stay the same objects, so an optimiser goes on with them.

    Args:
        dense: the model before compression; the bound is then `slack` times the error that each layer has. Left out, and where that
            bound is the norm of the dense weight or more, no weight moves by more than OWN_DELTA of itself.

    Raises:
        ValueError: the model has no factorised weight, `dense` has no layer of a name, or the slack is below 1.

    Warns where a layer cannot be corrected, and leaves it as it is.
    """
    check_slack(slack)
    originals: dict[str, Any] = {} if dense is None else {name: one for one in survey(opened_view(dense)) for name in one.names}
    weights, found, done = weights_of(model), diagnose(model), []
    for one in found:
        if one.intensity_ratio > INTENSITY_LIMIT and dense is not None and one.name not in originals:
            raise ValueError(
                f"{type(dense).__name__} has no layer {one.name!r}; the bound on a layer's error needs the weight that it stands for: "
                "give the model before compression, or leave `dense` out"
            )
    for one in found:
        weight = weights[one.name]
        if one.intensity_ratio > INTENSITY_LIMIT:
            original = originals[one.name].weight if dense is not None else None
            try:
                if original is not None and not _is_bounded(weight, original, slack):
                    original = None
                better = corrected(weight, original, slack=slack, sweeps=sweeps)
            except (RuntimeError, ArithmeticError, ValueError, TypeError) as error:
                warnings.warn(
                    f"{one.name or 'the model'} could not be corrected ({error}) and stays as it is; its terms cancel: "
                    "give the model before compression, or choose another format or rank for it",
                    stacklevel=2,
                )
                continue
            factors = [factor.detach() for factor in better.factors]
        elif one.imbalance > UNBALANCED:
            network, batched = batched_factors(weight, torch.float64)
            factors = unbatched_factors(weight.network, weight.fold, rebalance(network, [factor.detach() for factor in batched]))
        else:
            continue
        with torch.no_grad():
            for old, new in zip(weight.factors, factors, strict=True):
                old.copy_(new)
        done.append(one.name)
    return done


def _is_bounded(weight: FactorizedWeight, dense: Tensor, slack: float) -> bool:
    """Whether the bound on the error is below the norm in every group; zero factors meet any other."""
    with torch.no_grad():
        target, own = (group_tensors(weight.fold, one.detach().double()).flatten(1) for one in (dense, weight.dense()))
    norms = target.norm(dim=1)
    return bool(((slack * (own - target).norm(dim=1) < norms) | (norms == 0)).all())


def corrected(
    weight: FactorizedWeight,
    dense: Tensor | None = None,
    *,
    slack: float = 1.01,
    delta: float | None = None,
    objective: Objective = "sensitivity",
    sweeps: int = 100,
) -> FactorizedWeight:
    """A new weight with the least sensitivity, or intensity, among those of the same ranks that stay within a bound.

    Args:
        dense: what the weight approximates. Left out, the bound is on how far the weight moves from itself.
        slack: the bound is this times the error that each group of the weight has; not used without `dense`.
        delta: the bound itself, relative; left out without `dense`, OWN_DELTA.
        objective, sweeps: as in `epc`.

    Raises:
        TypeError: `dense` is not real floating-point.
        ValueError: `dense` has another shape or values that are not finite, or the bound is below what the factors reach.
    """
    fold = weight.fold
    with torch.no_grad():
        if dense is None:
            dense, delta = weight.dense(), OWN_DELTA if delta is None else delta
        check_weight(dense, "the dense weight")
        target = group_tensors(fold, dense.detach().double())
    network, batched = batched_factors(weight, torch.float64)
    batched = [factor.detach() for factor in batched]
    found = epc(target, network, batched, slack=slack, delta=delta, objective=objective, sweeps=sweeps).factors
    like = weight.factors[0]
    made = FactorizedWeight(
        weight.network, fold, unbatched_factors(weight.network, fold, found), device=like.device, dtype=like.dtype
    ).train(weight.training)
    for new, old in zip(made.factors, weight.factors, strict=True):
        new.requires_grad_(old.requires_grad)
    return made
