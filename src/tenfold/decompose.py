"""Dense weights -> FactorizedWeights: the one place where a solver meets a fold, for one weight or for many of the same shape."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.output_fit import STEPS, fit_outputs
from tenfold.solvers.solution import Solution, rebuild
from tenfold.solvers.whitening import Whitening
from tenfold.weight import FactorizedWeight

SWEEPS = 200  # of iterative solvers at most, for a single layer as for a model
BATCH_LIMIT = 1 << 16  # values in a tensor up to which tensors of the same shape are solved together; above, one by one is faster


@dataclass(frozen=True)
class Decomposition:
    """One factorised weight, its relative error ||W - dense||_F / ||W||_F, and what its solver said."""

    weight: FactorizedWeight
    error: float
    solution: Solution

    def error_of(self, metric: Whitening | None, dense: Tensor) -> float:
        """The relative error on the layer's outputs where a metric is given, else on the weight."""
        if metric is None:
            return self.error
        fold = self.weight.fold
        pair = [group_tensors(fold, tensor.detach().double()) for tensor in (dense, self.weight.dense())]
        return float(metric.error(*(metric.matrices(fold, tensor) for tensor in pair)).clamp_min(0).sqrt())


@dataclass(frozen=True)
class Job:
    """A weight of a model, how it is to be factorised, and the metric of its inputs, if any."""

    name: str
    weight: Tensor
    fold: Fold
    network: Network
    format: Format
    metric: Whitening | None


def check_weight(weight: Tensor, name: str) -> None:
    """Raises TypeError or ValueError where a weight cannot be decomposed."""
    if weight.is_complex() or not weight.is_floating_point():
        raise TypeError(f"{name} has the dtype {weight.dtype}; real floating-point values are needed: convert it, or leave the layer dense")
    if weight.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(weight.shape)} and no values; leave the layer dense")
    if weight.is_meta:
        raise ValueError(f"{name} is on the meta device, without values; a decomposition needs them: load the model's weights first")
    if not bool(torch.isfinite(weight).all()):
        count = int((~torch.isfinite(weight)).sum())
        raise ValueError(
            f"{name} has {count} values that are NaN or infinite among {weight.numel()}; all must be finite: repair or retrain it"
        )


def decompose(
    weights: Sequence[Tensor],
    fold: Fold,
    network: Network,
    format: Format,
    *,
    names: Sequence[str] | None = None,
    whitenings: Sequence[Whitening | None] | None = None,
    sweeps: int = SWEEPS,
    seed: int = 0,
    warn: bool = True,
    fit_steps: int = STEPS,
    correct: bool = True,
) -> list[Decomposition]:
    """Factors for dense weights of the same shape, in their own dtype and on their own device; solved in float64.

    Args:
        names: of the weights, for messages; "weight 0" and so on where left out.
        sweeps: of iterative solvers, at most.
        seed: of start values.
        warn: say where factors are degenerate or a solver has not converged.
        whitenings: for each weight the metric of its inputs (see `Whitening`); None measures the error on the weight itself.
        fit_steps: steps of `output_fit` at most, for what whitening leaves of the metric; 0 for none.
        correct: whether a format whose factors are to be insensitive corrects them after that fit.

    Raises:
        TypeError: a weight is not real floating-point.
        ValueError: a weight has another shape than the fold, or values that are not finite.
    """
    names = list(names) if names is not None else [f"weight {number}" for number in range(len(weights))]
    whitenings = list(whitenings) if whitenings is not None else [None] * len(weights)
    for weight, name in zip(weights, names, strict=True):
        check_weight(weight, name)
    if len(weights) > 1 and weights[0].numel() > BATCH_LIMIT:
        options: Any = {"sweeps": sweeps, "seed": seed, "warn": warn, "fit_steps": fit_steps, "correct": correct}
        return [
            decompose([w], fold, network, format, names=[n], whitenings=[m], **options)[0]
            for w, n, m in zip(weights, names, whitenings, strict=True)
        ]
    single = without_groups(network)
    plain = [group_tensors(fold, weight.detach().double()) for weight in weights]
    roots = [[] if metric is None else metric.roots(fold, single) for metric in whitenings]
    white = torch.cat(
        [tensor if one is None else one.whiten(fold, single, tensor, r) for one, tensor, r in zip(whitenings, plain, roots, strict=True)]
    )
    solution = format.solve(white, single, sweeps=sweeps, seed=seed)
    if warn:
        solution.warn([name for name in names for _ in range(fold.groups)])
    fitted = None
    if fit_steps and fold.axis("i").padding == 0:
        left = [None if one is None else one.left_over(fold, r) for one, r in zip(whitenings, roots, strict=True)]
        if any(one is not None for one in left):
            slack = format.slack(single) if correct else 1.0
            fitted = fit_outputs(fold, single, white, solution.factors, left, fit_steps, slack)
    results = []
    for number, (weight, tensor) in enumerate(zip(weights, plain, strict=True)):
        part = slice(number * fold.groups, (number + 1) * fold.groups)
        factors = [factor[part] for factor in fitted or solution.factors]
        if (metric := whitenings[number]) is not None:
            factors = metric.unwhiten(fold, single, factors, tensor, roots[number], is_refitted=fit_steps == 0)
        error = _error(weight.detach().double(), fold, rebuild(single, factors))
        factorized = FactorizedWeight(network, fold, unbatched_factors(network, fold, factors), device=weight.device, dtype=weight.dtype)
        results.append(Decomposition(factorized, error, _select(solution, part)))
    return results


def decompose_each(jobs: Sequence[Job], *, sweeps: int, seed: int, warn: bool) -> Iterator[tuple[Job, Decomposition | Exception]]:
    """All jobs with their results, or with why one cannot be solved, in the groups of `solved_together`."""
    for members in solved_together(jobs):
        yield from _results(members, {"sweeps": sweeps, "seed": seed, "warn": warn})


def solved_together(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups: small weights of the same shape, network and kind of metric.

    An iterative solver has other start values and ends elsewhere for a weight with others than for it alone, within its tolerance.
    """
    same: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        alone = job.name if job.weight.numel() > BATCH_LIMIT else None
        same.setdefault((job.fold, job.network, job.format, job.metric is None, alone), []).append(job)
    return list(same.values())


def _results(members: Sequence[Job], options: dict[str, Any]) -> list[tuple[Job, Decomposition | Exception]]:
    """One by one where all together fail, so that the one that cannot be solved is found."""
    first, names = members[0], [one.name for one in members]
    weights, metrics = [one.weight for one in members], [one.metric for one in members]
    try:
        made = decompose(weights, first.fold, first.network, first.format, names=names, whitenings=metrics, **options)
        if bad := [name for name, one in zip(names, made, strict=True) if not math.isfinite(one.error)]:
            raise ArithmeticError(f"the factors of {', '.join(bad)} are not finite")
    except (RuntimeError, ArithmeticError, ValueError) as error:
        if len(members) == 1:
            return [(first, error)]
        return [pair for one in members for pair in _results([one], options)]
    return list(zip(members, made, strict=True))


def _select(solution: Solution, part: slice) -> Solution:
    return replace(
        solution,
        factors=[],
        errors=solution.errors[part],
        history=solution.history[:, part],
        is_converged=solution.is_converged[part],
        is_degenerate=solution.is_degenerate[part],
    )


def _error(weight: Tensor, fold: Fold, parts: Tensor) -> float:
    """The relative error of a weight whose groups were rebuilt as (groups, *modes without g)."""
    dense = fold.unfold(parts.movedim(0, fold.modes.index("g")) if fold.groups > 1 else parts[0])
    return float((weight - dense).norm() / weight.norm().clamp_min(1e-300))


def group_tensors(fold: Fold, weight: Tensor) -> Tensor:
    """(groups, *modes without g): every group is a tensor of its own."""
    tensor = fold.fold(weight)
    return tensor.movedim(fold.modes.index("g"), 0) if fold.groups > 1 else tensor[None]


def without_groups(network: Network) -> Network:
    """The network of one group."""
    factors = [[i for i in indices if i != "g"] for indices in network.factors]
    return Network.of(factors, [m for m in network.modes if m != "g"], network.sizes, network.term_lengths)


def batched_factors(weight: FactorizedWeight, dtype: torch.dtype | None = None) -> tuple[Network, list[Tensor]]:
    """The network of one group, and factors with one entry for each group in front."""
    factors = [factor if dtype is None else factor.to(dtype) for factor in weight.factors]
    if weight.fold.groups == 1:
        return weight.network, [factor[None] for factor in factors]
    axes = [indices.index("g") for indices in weight.network.factors]
    return without_groups(weight.network), [factor.movedim(axis, 0) for factor, axis in zip(factors, axes, strict=True)]


def unbatched_factors(network: Network, fold: Fold, factors: Sequence[Tensor]) -> list[Tensor]:
    """Factors of a network, from factors with one entry for each group in front: the reverse of `batched_factors`."""
    if fold.groups == 1:
        return [factor[0] for factor in factors]
    return [factor.movedim(0, indices.index("g")) for factor, indices in zip(factors, network.factors, strict=True)]
