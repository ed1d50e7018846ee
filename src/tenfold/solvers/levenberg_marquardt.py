"""CP by Levenberg-Marquardt with a penalty on the sensitivity: all factors at once, from strong to weak penalties.

Minimises ||T - [[X_1, .., X_N]]||^2 + rho x sensitivity (or ridge). Steps come from a few conjugate gradients with a block-Jacobi
preconditioner, see `cp_gauss_newton`. A strong solver without a penalty finds degenerate fits faster than ALS does; with one, error
and sensitivity are both lower than those of a fit that is corrected afterwards. The stationary points are those of `epc`, with rho for
the multiplier.

Source: Tichavsky, Phan, Cichocki, Krylov-Levenberg-Marquardt algorithm for structured Tucker tensor decompositions; Nielsen 1999, Damping
parameter in Marquardt's method; Phan et al. 2020, arXiv 2008.05441 (sensitivity). Deviations: a preconditioner in place of plain Krylov
steps, the penalty in place of a bound, and the cross terms of the penalty's Hessian left out, which keeps it positive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.als import norms
from tenfold.solvers.axes import ordered, per_tensor
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.cp_gauss_newton import CPProblem, System
from tenfold.solvers.epc import check_delta, epc
from tenfold.solvers.sensitivity import rebalance
from tenfold.solvers.solution import Solution, check_target, finish
from tenfold.solvers.tt_svd import truncated_svd

Penalty = Literal["sensitivity", "ridge"]

SCHEDULE = (2e-3, 2e-4, 2e-5)  # of the penalty, relative to its natural size
DECAY = 0.2  # of the penalty from one stage to the next while a bound on the error is not met
RANGE = (1e-10, 1e2)  # penalties outside do not help to meet a bound, or are not needed
CLOSE = 1e-2  # an error within this part below its bound is close enough: a few sweeps of epc use up the rest
STAGES, SECANTS, CORRECTIONS = 20, 3, 10  # of a search for a bound: stages in all, with a bracket, and sweeps of epc at the end
DAMPING = 1e-2  # at the start, relative to the mean of the diagonal of J'J
MOST = 1e12
RESIDUAL = 1e-2  # of a linear system: solved no better than this part of its right-hand side
SETTLED = 2e-3  # a fit counts as converged where its last step lowered the objective by less than this part of it


def levenberg_marquardt(
    target: Tensor,
    network: Network,
    *,
    penalty: Penalty = "sensitivity",
    schedule: Sequence[float] = SCHEDULE,
    delta: float | Tensor | None = None,
    steps: int = 12,
    products: int = 10,
    sweeps: int = 100,
    tolerance: float = 1e-5,
    start: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> Solution:
    """Factors of a CP network of any order for a batch of tensors (batch, *network.shape). A matrix goes to the SVD.

    Args:
        schedule: the penalties, one stage each, for a tensor of norm 1: rho = value / (number of entries)^(1/N) for the sensitivity, and
            the value itself for the ridge.
        delta: relative errors to reach, a number or (batch,): each tensor gets the strongest penalty that reaches it, and a short `epc`
            to the bound itself. The schedule is then where to begin, and goes on below its last value where it must.
        steps: in a stage; products: conjugate gradients in a step. A stage ends where a step gains less than `tolerance` of the objective.
        sweeps: of ALS, where to begin; unless `start` has factors, (batch, *shape) each.

    Raises:
        ValueError: not a CP network, a rank that adds nothing, another shape, values that are not finite, a delta that is NaN or below 0,
            or an error out of reach.
    """
    check_target(target, network)
    if penalty not in ("sensitivity", "ridge"):
        raise ValueError(f"the penalty is {penalty!r}; it must be 'sensitivity' or 'ridge': choose one of them")
    if delta is not None:
        check_delta(delta)
    layout = CPLayout.of(network)
    if len(layout.legs) == 2:
        return truncated_svd(target, network)
    target = target.double()
    if start is None:
        start = cp_als(target, network, sweeps=sweeps, seed=seed).factors
    scale = norms(target)
    unit = layout.flat(target / per_tensor(scale, target))
    x = layout.stacked(start) / scale[:, None, None] ** (1 / len(layout.legs))
    fit = _Fit(CPProblem(unit, penalty == "ridge"), steps, products, tolerance)
    if delta is None:
        for value in schedule:
            x = fit.stage(x, x.new_full((len(x),), value))
    else:
        wanted = torch.as_tensor(delta, dtype=x.dtype, device=x.device).expand(len(x))
        x = _reach(fit, x, torch.where(unit.flatten(1).norm(dim=1) > 0, wanted, torch.inf), schedule)
    factors = layout.unstacked(x * scale[:, None, None] ** (1 / len(layout.legs)))
    if delta is not None:
        factors = epc(target, network, factors, delta=torch.as_tensor(delta, dtype=x.dtype), sweeps=CORRECTIONS).factors
    history = torch.stack(fit.errors).cummin(0).values
    return finish("levenberg_marquardt", target, network, rebalance(network, factors), history, fit.is_settled)


@dataclass(frozen=True)
class CPLayout:
    """How the factors of a CP network become one stack of matrices, the largest leg last."""

    network: Network
    rank: str
    legs: tuple[tuple[str, ...], ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, network: Network) -> "CPLayout":
        """Raises ValueError where the network is not CP or its rank is above the largest useful one."""
        rank = next(iter(network.ranks), "")
        is_cp = len(network.ranks) == 1 and len(network.carriers(rank)) == len(network.factors) and not network.term_lengths
        if not is_cp or any(len(network.carriers(mode)) > 1 for mode in network.modes) or any(len(f) == 1 for f in network.factors):
            raise ValueError(
                f"{network.statement!r} is not a CP network; one rank on all factors, with modes of their own, is needed: "
                "use als and epc for other networks"
            )
        if network.sizes[rank] > (most := network.useful_rank(rank)):
            raise ValueError(
                f"the rank {rank!r} of {network.statement!r} is {network.sizes[rank]}, but ranks above {most} add nothing; choose "
                "at most that"
            )
        legs = tuple(tuple(i for i in indices if i != rank) for indices in network.factors)
        order = tuple(sorted(range(len(legs)), key=lambda k: math.prod(network.sizes[i] for i in legs[k])))
        return cls(network, rank, legs, order)

    def flat(self, target: Tensor) -> Tensor:
        """(batch, one axis for each leg)."""
        moved = ordered(target, self.network.modes, [i for k in self.order for i in self.legs[k]])
        sizes = [math.prod(self.network.sizes[i] for i in self.legs[k]) for k in self.order]
        return moved.reshape(-1, *sizes).contiguous()

    def stacked(self, factors: Sequence[Tensor]) -> Tensor:
        """(batch, sum of the legs' sizes, R)."""
        axes = [self.network.factors[k].index(self.rank) + 1 for k in self.order]
        return torch.cat([factors[k].double().movedim(axis, -1).flatten(1, -2) for k, axis in zip(self.order, axes, strict=True)], 1)

    def unstacked(self, x: Tensor) -> list[Tensor]:
        """The factors of the network."""
        result = [x] * len(self.legs)
        row = 0
        for k in self.order:
            shape = [self.network.sizes[i] for i in self.legs[k]]
            part = x[:, row : row + math.prod(shape)].reshape(len(x), *shape, -1)
            result[k] = part.movedim(-1, self.network.factors[k].index(self.rank) + 1).contiguous()
            row += math.prod(shape)
        return result


@dataclass
class _Fit:
    """Stages of steps at a given penalty; errors are kept from one stage to the next."""

    problem: CPProblem
    steps: int
    products: int
    tolerance: float
    errors: list[Tensor] = field(default_factory=list)
    is_settled: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def stage(self, x: Tensor, value: Tensor) -> Tensor:
        """X after at most `steps` steps with the penalties `value` (batch,)."""
        problem = self.problem
        rho = value if problem.is_ridge else value / math.prod(problem.sizes) ** (1 / len(problem.sizes))
        x = x if problem.is_ridge else problem.balanced(x)
        residual = problem.residual(x)
        squared = residual.flatten(1).square().sum(1)
        objective = squared + rho * problem.penalty(x)
        mu, growth = self._first_damping(x), torch.full_like(rho, 2.0)
        slope = self._slope(x, residual, rho)
        gain = torch.full_like(rho, torch.inf)
        for _ in range(self.steps):
            system = System.at(problem, x, rho, mu)
            step, along = system.solve(slope, self.products, RESIDUAL)
            trial = x + step
            left = problem.residual(trial)
            missed = left.flatten(1).square().sum(1)
            total = missed + rho * problem.penalty(trial)
            expected = along + mu * step.square().sum((1, 2))
            ratio = torch.where(expected > 0, (objective - total) / expected, 0.0)
            is_better = total < objective
            gain = torch.where(is_better, objective - total, torch.where(mu > 1e3, torch.zeros_like(gain), gain))
            mu = torch.where(is_better, mu * (1 - (2 * ratio - 1) ** 3).clamp(1 / 3, 2), mu * growth).clamp(1e-14, MOST)
            growth = torch.where(is_better, 2.0, growth * 2)
            x = torch.where(is_better[:, None, None], trial, x)
            residual = torch.where(per_tensor(is_better, left), left, residual)
            squared, objective = torch.where(is_better, missed, squared), torch.where(is_better, total, objective)
            self.errors.append(squared.sqrt())
            if bool((gain <= self.tolerance * objective).all()):
                break
            slope = self._slope(x, residual, rho)
        self.is_settled = gain <= SETTLED * objective
        return x

    def _slope(self, x: Tensor, residual: Tensor, rho: Tensor) -> Tensor:
        """Minus half of the gradient."""
        weights = [w[:, None].expand(-1, n, -1) for w, n in zip(self.problem.weights(x), self.problem.sizes, strict=True)]
        return self.problem.right(residual, x) - rho[:, None, None] * x * torch.cat(weights, 1)

    def _first_damping(self, x: Tensor) -> Tensor:
        squares = [factor.square().sum(1) for factor in self.problem.split(x)]
        means = [math.prod(squares[:k] + squares[k + 1 :], start=1.0).mean(1) for k in range(len(squares))]  # type: ignore[union-attr]
        return (DAMPING * torch.stack(means).amax(0)).clamp_min(1e-12)


@dataclass
class _Bracket:
    """For each tensor the strongest penalty that met its bound and the weakest that did not, with their errors, as logarithms.

    met, missed: (2, batch), the penalty and the error; not a number where there is none yet.
    """

    wanted: Tensor
    met: Tensor
    missed: Tensor
    done: Tensor
    n_secants: int = 0

    def add(self, value: Tensor, error: Tensor) -> Tensor:
        """Takes in one stage; returns where it is the best so far, (batch,)."""
        point = torch.stack([value, error]).clamp_min(1e-300).log()
        is_met = error <= self.wanted
        is_best = is_met & ~self.done & ~(point[0] < self.met[0])
        self.met = torch.where(is_best, point, self.met)
        self.missed = torch.where(is_met | self.done, self.missed, point)
        known, lost = self.met[0].isfinite(), self.missed[0].isfinite()
        is_closed = known & lost & ((self.met[0] > self.missed[0] - 1e-3) | (self.n_secants >= SECANTS))
        is_out = (~known & (value <= RANGE[0])) | (~lost & (value >= RANGE[1]))
        self.n_secants += int(bool((known & lost).any()))
        self.done = self.done | is_closed | is_out | (is_met & (error >= self.wanted * (1 - CLOSE)))
        return is_best

    def next(self, value: Tensor, below: float | None) -> Tensor:
        """The penalties to try: a secant inside the bracket; where an end of it is not known, `below` or a step further out."""
        width = self.missed[0] - self.met[0]
        slope = (self.missed[1] - self.met[1]) / width
        aim = (self.wanted.log() + math.log(1 - CLOSE / 2) - self.met[1]) / slope
        between = self.met[0] + torch.minimum(torch.maximum(aim, 0.1 * width), 0.9 * width)
        lower = value * DECAY if below is None else torch.full_like(value, below)
        out = torch.where(self.met[0].isfinite(), value / DECAY, lower)
        return torch.where(between.isfinite(), between.exp(), out)


def _reach(fit: _Fit, x: Tensor, wanted: Tensor, schedule: Sequence[float]) -> Tensor:
    """X at the strongest penalties whose errors are at most `wanted` (batch,); where that is infinite X stays."""
    value = x.new_full((len(x),), float(schedule[0]))
    unknown = x.new_full((2, len(x)), torch.nan)
    bracket = _Bracket(wanted, unknown, unknown, wanted.isinf())
    best = x
    for stage in range(1, STAGES + 1):
        x = fit.stage(x, value)
        best = torch.where(bracket.add(value, fit.errors[-1])[:, None, None], x, best)
        if bool(bracket.done.all()):
            break
        value = bracket.next(value, float(schedule[stage]) if stage < len(schedule) else None)
    if bool((lost := ~bracket.met[0].isfinite() & wanted.isfinite()).any()):
        worst = int(lost.nonzero()[0])
        raise ValueError(
            f"delta is {float(wanted[worst]):.6g} for tensor {worst}, but the relative error reached is "
            f"{float(torch.stack(fit.errors)[:, worst].amin()):.6g}; an error within reach is needed: raise the rank or "
            "delta, or allow more steps"
        )
    return best
