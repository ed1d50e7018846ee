"""Correction of a factorised weight: the same weight within a bound, from factors that are less sensitive."""

import torch
from torch import Tensor

from tenfold.decompose import batched_factors, check_weight, group_tensors
from tenfold.solvers.epc import Objective, epc
from tenfold.weight import FactorizedWeight

OWN_DELTA = 0.01  # how far a weight may move where the dense one is not known


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
    axes = [indices.index("g") for indices in weight.network.factors] if fold.groups > 1 else []
    found = [factor.movedim(0, axis) for factor, axis in zip(found, axes, strict=True)] if axes else [factor[0] for factor in found]
    like = weight.factors[0]
    return FactorizedWeight(weight.network, fold, found, device=like.device, dtype=like.dtype).train(weight.training)
