"""Solution: what a solver returns, as data."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.contract import dense, plan_dense
from tenfold.network import Network
from tenfold.solvers.axes import per_tensor

INTENSITY_LIMIT = 10.0  # sum of squared terms / squared norm; healthy fits stay below 3, degenerate ones far above 10


@dataclass(frozen=True)
class Solution:
    """Factors for a batch of tensors.

    factors: one tensor (batch, *shape) for each factor of the network.
    errors: relative errors ||T - T~|| / ||T||, of shape (batch,); 0 where T is zero.
    history: relative errors after every sweep, (sweeps, batch); one row for direct methods. It never rises, and ends at `errors`.
    is_converged, is_degenerate: of shape (batch,).
    """

    algorithm: str
    factors: list[Tensor]
    errors: Tensor
    history: Tensor
    is_converged: Tensor
    is_degenerate: Tensor

    def warn(self, names: list[str]) -> None:
        """Warns about fits that did not converge or are degenerate, with the layers' names (one for each tensor) and what to do."""
        for flags, problem, remedy in (
            (self.is_converged.logical_not(), "did not converge", "allow more sweeps, or use what it found: the error is in the plan"),
            (
                self.is_degenerate,
                "is degenerate: its terms cancel each other",
                "fine-tuning may be unstable: lower the rank, correct it with tenfold.correction, or take CP(stable=True) for CP",
            ),
        ):
            if hit := dict.fromkeys(name for name, flag in zip(names, flags.tolist(), strict=True) if flag):  # once for all of its groups
                warnings.warn(f"{self.algorithm} for {', '.join(hit)} {problem}; {remedy}", stacklevel=3)


def finish(
    algorithm: str,
    target: Tensor,
    network: Network,
    factors: list[Tensor],
    history: Tensor | None = None,
    is_converged: Tensor | None = None,
) -> Solution:
    """The solution with its errors measured on the explicit residual."""
    errors = relative_errors(target, network, factors)
    done = torch.ones_like(errors, dtype=torch.bool) if is_converged is None else is_converged
    # a solver's own count of its error is rounded; below what was measured it is wrong
    history = errors[None] if history is None else torch.cat([history[:-1].clamp_min(errors), errors[None]])
    return Solution(algorithm, factors, errors, history, done, _intensity(target, network, factors) > INTENSITY_LIMIT)


def best_of(solutions: Sequence[Solution]) -> Solution:
    """For each tensor the solution with the least error; the histories are as long as the longest one."""
    if len(solutions) == 1:
        return solutions[0]
    best = torch.stack([one.errors for one in solutions]).argmin(0)
    each = torch.arange(len(best), device=best.device)
    length = max(len(one.history) for one in solutions)
    histories = [torch.cat([one.history, one.history[-1:].expand(length - len(one.history), -1)]) for one in solutions]
    return Solution(
        solutions[int(best[0])].algorithm,
        [torch.stack(same)[best, each] for same in zip(*(one.factors for one in solutions), strict=True)],
        torch.stack([one.errors for one in solutions])[best, each],
        torch.stack(histories)[best, :, each].T,
        torch.stack([one.is_converged for one in solutions])[best, each],
        torch.stack([one.is_degenerate for one in solutions])[best, each],
    )


def rebuild(network: Network, factors: list[Tensor]) -> Tensor:
    """(batch, *network.shape) from batched factors."""
    total = torch.zeros(())
    for term, part in zip(network.terms, network.term_slices, strict=True):
        plan, mine = plan_dense(term), factors[part]
        total = total + torch.stack([dense(plan, [factor[b] for factor in mine]) for b in range(mine[0].shape[0])])
    return total


def relative_errors(target: Tensor, network: Network, factors: list[Tensor]) -> Tensor:
    """||T - T~|| / ||T|| for each tensor of the batch, 0 for a zero tensor that is met exactly."""
    residual = (rebuild(network, factors) - target).flatten(1).norm(dim=1)
    norm = target.flatten(1).norm(dim=1)
    return torch.where(norm > 0, residual / norm.clamp_min(torch.finfo(norm.dtype).tiny), residual)


def _intensity(target: Tensor, network: Network, factors: list[Tensor]) -> Tensor:
    """Sum over the terms of a hyper-edge of their squared norms / ||T||^2: what cancellation costs. 0 where no hyper-edge is."""
    hyper = [rank for rank in network.ranks if len(network.carriers(rank)) > 2]
    squared = target.flatten(1).square().sum(1)
    if len(hyper) != 1 or len(network.carriers(hyper[0])) != len(network.factors):
        return torch.zeros_like(squared)
    terms = torch.ones(1, dtype=target.dtype, device=target.device)
    for factor, (_, axis) in zip(factors, network.carriers(hyper[0]), strict=True):
        terms = terms * factor.square().movedim(axis + 1, -1).flatten(1, -2).sum(1)
    return terms.sum(-1) / squared.clamp_min(torch.finfo(squared.dtype).tiny)


def equalise(factors: list[Tensor]) -> list[Tensor]:
    """The factors scaled so that all have the same root mean square, for each tensor of the batch; their product is unchanged.

    Equal sizes for each entry minimise the sensitivity to perturbations among all scalings (arXiv 2008.05441).
    """
    sizes = torch.stack([factor.flatten(1).square().mean(1).sqrt() for factor in factors])
    is_zero = (sizes == 0).any(0)
    safe = torch.where(is_zero, torch.ones_like(sizes), sizes)
    common = safe.log().mean(0).exp()
    return [factor * per_tensor(common / size, factor) for factor, size in zip(factors, safe, strict=True)]


def check_target(target: Tensor, network: Network) -> None:
    """Raises ValueError where a batch of tensors does not fit the network or is not finite."""
    if tuple(target.shape[1:]) != network.shape:
        raise ValueError(
            f"the tensors have shape {tuple(target.shape[1:])}, but {network.statement!r} needs {network.shape}; fold them first"
        )
    if not torch.isfinite(target).all():
        count = int((~torch.isfinite(target)).sum())
        raise ValueError(
            f"the tensor has {count} values that are NaN or infinite of {math.prod(target.shape)}; all must be finite: repair the weight"
        )
