"""Error-preserving correction (EPC): factors of any network with the same error and the least sensitivity, or the least intensity.

Sweeps over the factors, each the solution of a bounded least-squares problem (`bounded_step`). Every update is a global minimum over a set
that holds the current factor, hence the objective never rises and the error never exceeds delta. At the end of the way the same
multiplier holds for every factor: that is the stopping rule.

Source: Phan, Tichavsky, Cichocki 2019, arXiv 1709.08349, and Phan et al. 2020, arXiv 2008.05441; for loops arXiv 2203.02617. Deviations:
the multipliers as certificate, and extrapolation between sweeps, which is taken back where it does not help.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import per_tensor
from tenfold.solvers.bounded_step import bounded_scales, bounded_step
from tenfold.solvers.contractions import split_indices
from tenfold.solvers.quadratic import Form, assemble, intensity_forms, sensitivity_forms
from tenfold.solvers.sensitivity import rebalance
from tenfold.solvers.solution import check_target

Objective = Literal["sensitivity", "intensity"]

GRAM_LIMIT = 768  # a factor with several ranks, of more entries together, stays as it is: its Gram matrix would be too large
EXACT = 1e-5  # squared relative errors below it are counted from residuals, others from products as long as these are accurate
SLACK = 1e-9  # relative to delta^2: rounding that is not a violation
GROWTH, SHRINK, FIRST_PUSH, LAST_PUSH = 1.2, 0.5, 0.5, 4.0  # of the extrapolation between sweeps


@dataclass(frozen=True)
class Correction:
    """What `epc` returns, for a batch of tensors.

    factors: (batch, *shape) each, of equal sensitivity along every index.
    delta: the bound on ||T - T~|| / ||T||, (batch,).
    errors, objectives: relative errors, and the objective, before and after every sweep: (sweeps + 1, batch).
    multipliers: mu of every factor in the last sweep, (batch, factors); not a number where a factor could not be updated.
    certificate: the largest multiplier / the smallest - 1, (batch,); at a minimum 0.
    """

    factors: list[Tensor]
    delta: Tensor
    errors: Tensor
    objectives: Tensor
    multipliers: Tensor
    certificate: Tensor
    is_converged: Tensor


def epc(
    target: Tensor,
    network: Network,
    factors: Sequence[Tensor],
    *,
    slack: float = 1.0,
    delta: float | Tensor | None = None,
    objective: Objective = "sensitivity",
    sweeps: int = 200,
    tolerance: float = 1e-3,
) -> Correction:
    """Factors with the least objective among those that are within a bound of the target.

    Args:
        target: (batch, *network.shape).
        factors: of a fit, (batch, *shape) each.
        slack: the bound is this times the error of `factors`. At 1.0 the way is long; 1.01 gives most of the gain in few sweeps.
        delta: the bound relative to ||T||, a number or (batch,), in place of `slack`.
        objective: "sensitivity", or "intensity": the sum of the squared norms of the components of every rank (for CP of the terms).
        sweeps: at most so many; stops where the certificates are below `tolerance`.

    Raises:
        ValueError: the target does not fit, delta is below the error of `factors` or not below 1, an unknown objective.
    """
    check_target(target, network)
    if objective not in ("sensitivity", "intensity"):
        raise ValueError(f"the objective is {objective!r}; it must be 'sensitivity' or 'intensity': choose one of them")
    target = target.double()
    problem = _Problem.of(target, network, objective)
    now = problem.state(rebalance(network, [factor.double() for factor in factors]))
    bound = _bound(problem, now, slack, delta)
    limit = bound * (1 + SLACK)
    before, push = now, torch.full_like(bound, FIRST_PUSH)
    errors, objectives = [now.squared], [now.objective]
    is_residual = len(network.terms) > 1 or bool((bound < EXACT * problem.norm).any())
    for _ in range(sweeps):
        trial = problem.state(*problem.sweep(now.moved_from(before, push), bound, is_residual))
        is_better = (trial.objective < now.objective) & (trial.squared <= limit) & problem.is_whole(trial)
        if not bool(is_better.all()):
            plain = problem.state(*problem.sweep(now, bound, is_residual))
            if not is_residual and bool((plain.squared > limit).any()):
                is_residual = True  # terms that cancel each other leave products too few digits
                plain = problem.state(*problem.sweep(now, bound, is_residual))
            # rounding may turn the last steps of a converged tensor into losses: it stays where it is
            stays = (plain.objective > now.objective) | (plain.squared > limit)
            plain = now.with_multipliers(plain.multipliers).where(stays, plain)
            push = torch.where(is_better, push, push * SHRINK)
            trial = trial.where(is_better, plain)
        push = torch.where(is_better, (push * GROWTH).clamp_max(LAST_PUSH), push)
        before, now = now, trial
        errors.append(now.squared)
        objectives.append(now.objective)
        if bool(((problem.certificate(now) < tolerance) | (now.objective >= before.objective)).all()):
            break  # at a minimum, or no sweep changes anything any more
    norm = torch.where(problem.norm > 0, problem.norm, 1.0)
    certificate = problem.certificate(now)
    return Correction(
        now.factors,
        (bound / norm).sqrt(),
        (torch.stack(errors) / norm).sqrt(),
        torch.stack(objectives),
        now.multipliers,
        certificate,
        certificate < tolerance,
    )


@dataclass(frozen=True)
class _State:
    """Factors with their squared error and objective (batch,), and the multipliers that led to them (batch, factors)."""

    factors: list[Tensor]
    squared: Tensor
    objective: Tensor
    multipliers: Tensor

    def where(self, mask: Tensor, other: "_State") -> "_State":
        """This state where the mask is true, the other elsewhere."""
        factors = [torch.where(per_tensor(mask, a), a, b) for a, b in zip(self.factors, other.factors, strict=True)]
        return _State(
            factors,
            torch.where(mask, self.squared, other.squared),
            torch.where(mask, self.objective, other.objective),
            torch.where(mask[:, None], self.multipliers, other.multipliers),
        )

    def with_multipliers(self, multipliers: Tensor) -> "_State":
        return replace(self, multipliers=multipliers)

    def moved_from(self, before: "_State", push: Tensor) -> "_State":
        """Further along the last step."""
        pairs = zip(self.factors, before.factors, strict=True)
        return replace(self, factors=[now + per_tensor(push, now) * (now - last) for now, last in pairs])


@dataclass(frozen=True)
class _Problem:
    """The target with the forms of the objective for every term of the network."""

    target: Tensor
    norm: Tensor
    network: Network
    forms: tuple[tuple[Form, ...], ...]
    is_fixed: Tensor

    @classmethod
    def of(cls, target: Tensor, network: Network, objective: Objective) -> "_Problem":
        make = sensitivity_forms if objective == "sensitivity" else intensity_forms
        terms = network.terms
        ranks = [[term.sizes[i] for i in split_indices(term, k)[2]] for term in terms for k in range(len(term.factors))]
        is_fixed = torch.tensor([len(sizes) > 1 and math.prod(sizes) > GRAM_LIMIT for sizes in ranks], device=target.device)
        return cls(target, target.flatten(1).square().sum(1), network, tuple(make(term) for term in terms), is_fixed)

    def state(self, factors: list[Tensor], multipliers: Tensor | None = None) -> _State:
        """The factors, rebalanced, with their explicit error."""
        factors = rebalance(self.network, factors, sweeps=1)
        squared = (self.target - assemble(self.network, factors)).flatten(1).square().sum(1)
        objective = torch.zeros_like(squared)
        for term, part, forms in zip(self.network.terms, self.network.term_slices, self.forms, strict=True):
            for form in forms:
                objective = objective + form.value(term, factors[part])
        if multipliers is None:
            multipliers = squared.new_full((len(squared), len(factors)), torch.nan)
        return _State(factors, squared, objective, multipliers)

    def is_whole(self, state: _State) -> Tensor:
        """(batch,): whether every factor could be updated."""
        return (state.multipliers.isfinite() | self.is_fixed).all(1)

    def certificate(self, state: _State) -> Tensor:
        """The largest multiplier over the smallest, minus 1; infinite where a factor could not be updated."""
        most = torch.where(self.is_fixed, -torch.inf, state.multipliers).amax(1)
        least = torch.where(self.is_fixed, torch.inf, state.multipliers).amin(1)
        return torch.where(self.is_whole(state) & (least > 0) & most.isfinite(), most / least - 1, torch.inf)

    def sweep(self, state: _State, bound: Tensor, is_residual: bool) -> tuple[list[Tensor], Tensor]:
        """One update of every factor, and the multipliers. is_residual: see `bounded_step`."""
        factors, multipliers = list(state.factors), []
        for term, part, forms in zip(self.network.terms, self.network.term_slices, self.forms, strict=True):
            for number in range(len(term.factors)):
                if bool(self.is_fixed[part.start + number]):
                    multipliers.append(torch.full_like(bound, torch.nan))
                    continue
                target = self.target - assemble(self.network, factors) if is_residual else self.target
                step, mu = bounded_step(term, factors[part], number, forms, target, bound, is_residual=is_residual)
                factors[part.start + number] = step
                multipliers.append(mu)
        return self._shared_out(factors, bound), torch.stack(multipliers, 1)

    def _shared_out(self, factors: list[Tensor], bound: Tensor) -> list[Tensor]:
        """The factors with the first of every term scaled as is best for the sum."""
        if len(self.network.terms) == 1:
            return factors
        parts, charges = [], []
        for term, part, forms in zip(self.network.terms, self.network.term_slices, self.forms, strict=True):
            parts.append(assemble(term, factors[part]).flatten(1))
            charges.append(torch.stack([form.value(term, factors[part]) for form in forms if form.without != 0]).sum(0))
        tensors = torch.stack(parts, 1)
        residual = self.target.flatten(1) - tensors.sum(1)
        scales = bounded_scales(tensors, torch.stack(charges, 1), residual, bound)
        for part, scale in zip(self.network.term_slices, scales.unbind(1), strict=True):
            factors[part.start] = factors[part.start] * per_tensor(scale, factors[part.start])
        return factors


def check_delta(delta: float | Tensor) -> None:
    """Raises ValueError where a bound on the relative error is NaN or below 0."""
    values = torch.as_tensor(delta).flatten()
    if bool((bad := ~(values >= 0)).any()):
        raise ValueError(
            f"delta is {float(values[bad][0]):.6g}; a relative error of at least 0 and below 1 is needed: give for instance 0.1, or leave "
            "delta out"
        )


def check_slack(slack: float) -> None:
    """Raises ValueError where the error of a fit, times the slack, is no bound on it."""
    if not 1 <= slack < math.inf:
        raise ValueError(f"the slack is {slack}; the bound is slack x the error of the fit, so it must be at least 1: give 1.01, say")


def _bound(problem: _Problem, start: _State, slack: float, delta: float | Tensor | None) -> Tensor:
    """The bound on the squared error, (batch,)."""
    is_zero = problem.norm == 0  # nothing is to be met: such factors stay as they are
    reached = torch.where(is_zero, 0.0, start.squared / torch.where(is_zero, 1.0, problem.norm)).sqrt()
    if delta is None:
        check_slack(slack)
        wanted = slack * reached
    else:
        check_delta(delta)
        wanted = torch.as_tensor(delta, dtype=reached.dtype, device=reached.device).expand_as(reached)
        if bool((wanted < reached * (1 - SLACK)).any()):
            worst = int((wanted / reached.clamp_min(1e-290)).argmin())
            raise ValueError(
                f"delta is {float(wanted[worst]):.6g}, but the factors of tensor {worst} have the relative error "
                f"{float(reached[worst]):.6g}; correction keeps an error and cannot lower it: give a delta of at least that, "
                "fit longer, or raise the rank"
            )
    if bool(((wanted >= 1) & ~is_zero).any()):
        worst = int(torch.where(is_zero, 0.0, wanted).argmax())
        raise ValueError(
            f"the bound of tensor {worst} is {float(wanted[worst]):.6g} of its norm, and zero factors meet a bound of 1 or more; "
            "it must be below 1: give a smaller slack or delta"
        )
    return torch.maximum(wanted.square() * problem.norm, start.squared)
