"""Descent by sweeps over the factors: what `als` and `cp_als` share.

Three things make it fast:

- Between sweeps the factors are extrapolated. A sweep that raises the objective stops the extrapolation, and the descent goes on
  from it; the best factors so far are kept apart.
- The first half of the sweeps has a ridge that falls to the one asked for. It keeps the descent out of the long valleys in which
  huge terms cancel each other. Terms that die of it get a little noise to come back from.
- The first sweeps run in float32, until what they gain comes near its rounding; the last ones always in float64.

On the kernels of ResNet-20 the first two reach in about 20 sweeps the error of 100 plain ones (benchmarks/als_vs_tensorly.py).

Source: extrapolation with restart after Ang, Cohen, Gillis, Hien 2021, arXiv 2001.04321 (deviations: between sweeps instead of
inside them, and no sweep is discarded); the falling ridge is a continuation, tried first on CP kernels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tenfold.network import Network

GROWTH, SHRINK, START, LIMIT = 1.1, 0.5, 1.0, 3.0  # of the extrapolation step; found by trying on the kernels of ResNet-20
FIRST = 0.2  # what the falling ridge charges at first for up to three factors, relative to ||T||^2 ...
FALL = 1e-3  # ... and to what part of it the ridge falls within half of the sweeps
CAUTION = 0.25  # times FIRST for each factor above three: a weak term dies more easily where it has more factors
FIRST_BOND = 1.0  # instead of both where every rank joins two factors: at this strength planted rings are found from most starts
LOWERED = 0.25  # the last ridge follows the error down once its share has fallen to this part of it
DUST = 1e-2  # noise added to the factors every WINDOW sweeps while the ridge falls, relative to their root mean square
WINDOW = 5  # sweeps over which a gain is measured: a single sweep may gain nothing where the extrapolation swings back
SETTLED = 2e-3  # a fit counts as converged where its last sweeps lowered the objective by less than this part of it each
NOISE = {torch.float32: 1e-6, torch.float64: 0.0}  # of the objective, relative to ||T||^2: smaller gains are not seen
FLOOR = {torch.float32: 1e-5, torch.float64: 1e-16}  # squared relative error that counts as exact
JITTER = {torch.float32: 2e-6, torch.float64: 1e-13}  # relative, added to the diagonal of a Gram matrix

Sweep = Callable[[list[Tensor], Tensor], tuple[list[Tensor], Tensor]]
"""Factors and ridges (batch,) -> updated factors and squared errors (batch,), relative to ||T||^2."""


@dataclass(frozen=True)
class _Point:
    """All factors of each tensor in one row (batch, values), their squared errors, and the sums of their squares (batch,)."""

    row: Tensor
    error: Tensor
    square: Tensor

    def total(self, ridge: Tensor) -> Tensor:
        """The objective (batch,)."""
        return torch.addcmul(self.error, self.square, ridge)

    def where(self, mask: Tensor, other: "_Point") -> "_Point":
        """This point where the mask is true, the other elsewhere."""
        return _Point(
            torch.where(mask[:, None], self.row, other.row),
            torch.where(mask, self.error, other.error),
            torch.where(mask, self.square, other.square),
        )


@dataclass
class Descent:
    """Minimises squared error + ridge x (sum of the squared norms of all factors), for a batch of tensors of norm 1.

    Args:
        ridge: the least ridge.
        share: the ridge of a tensor is this part of its squared error, if that is more: when the ridge stops falling, and again when the
            error has become much lower since.
        first_ridge: where the ridge begins; 0 for factors that are good already, then it does not fall.
        sweeps: at most so many; stops where sweeps lower the objective by less than `tolerance` of it each.
        dtype: of the first sweeps; the last ones run in float64.
    """

    ridge: float
    share: float
    first_ridge: float
    sweeps: int
    tolerance: float
    dtype: torch.dtype
    last_ridge: Tensor | None = field(default=None, init=False)
    errors: list[Tensor] = field(default_factory=list, init=False)

    def run(self, make_sweep: Callable[[torch.dtype], Sweep], factors: list[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Factors, the lowest relative error after each sweep (sweeps, batch) and which tensors converged (batch,)."""
        done = torch.zeros(factors[0].shape[0], dtype=torch.bool, device=factors[0].device)
        for kind in dict.fromkeys((self.dtype, torch.float64)):
            if len(self.errors) < self.sweeps:
                factors, done = self._descend(make_sweep(kind), [factor.to(kind) for factor in factors])
        history = torch.stack([error.double() for error in self.errors]).cummin(0).values.clamp_min(0).sqrt()
        return [factor.double() for factor in factors], history, done

    def _descend(self, sweep: Sweep, factors: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The best factors and which tensors converged."""
        shapes, kind = [factor.shape for factor in factors], factors[0].dtype

        def after(row: Tensor, ridge: Tensor) -> _Point:
            new, error = sweep(_split(row, shapes), ridge)
            row = torch.cat([factor.flatten(1) for factor in new], 1)
            return _Point(row, error, row.square().sum(1))

        least = factors[0].new_full((factors[0].shape[0],), max(self.ridge, torch.finfo(kind).tiny))
        last_ridge = least if self.last_ridge is None else self.last_ridge.to(kind)
        now = after(torch.cat([factor.flatten(1) for factor in factors], 1), last_ridge)
        best, before, push = now, now.row, torch.full_like(now.error, START)
        self.errors.append(best.error)
        totals = [best.total(last_ridge)]
        while len(self.errors) < self.sweeps:
            if self.last_ridge is None and self._fall() == 0:
                self.last_ridge = last_ridge = torch.maximum(least, self.share * best.error)
                now, before, totals = best, best.row, [best.total(last_ridge)]
            elif len(totals) % WINDOW == 0:
                lower = torch.maximum(least, self.share * best.error)
                if self.last_ridge is not None and bool((lower < LOWERED * last_ridge).any()):
                    self.last_ridge = last_ridge = torch.where(lower < LOWERED * last_ridge, lower, last_ridge)
                    totals = [best.total(last_ridge)]
                elif self._is_finished(best.error, totals, kind):
                    break
                now, before = self._tended(now, before, shapes)
            ridge = last_ridge if self.last_ridge is not None else least.clamp_min(self._fall())
            new = after(torch.addcmul(now.row, push[:, None], now.row - before), ridge)
            last, total, final = now.total(ridge), new.total(ridge), new.total(last_ridge)
            better, fell = final < totals[-1], total <= last
            best = new if bool(better.all()) else new.where(better, best)
            before, now, push = now.row, new, (push * GROWTH).clamp_max_(LIMIT)
            if not bool(fell.all()):
                now = new.where(total <= 2 * last, best)  # far off, or not a number: back to the best
                before, push = torch.where(fell[:, None], before, now.row), torch.where(fell, push, push * (SHRINK / GROWTH))
            self.errors.append(best.error)
            totals.append(torch.where(better, final, totals[-1]))
        is_settled = _gain(totals) <= SETTLED * totals[-1]
        return [part.contiguous() for part in _split(best.row, shapes)], (best.error <= FLOOR[kind]) | is_settled

    def _fall(self) -> float:
        """The falling ridge of the next sweep, 0 when it has fallen."""
        progress = len(self.errors) / max(1, self.sweeps // 2)
        return self.first_ridge * FALL**progress if progress < 1 else 0.0

    def _tended(self, now: _Point, before: Tensor, shapes: Sequence[torch.Size]) -> tuple[_Point, Tensor]:
        """The last two points with factors of equal norms, and with noise while the ridge falls.

        Equal norms cost the least ridge; without them the extrapolation drives the scales of the factors apart.
        """
        scales = _scales(now.row, shapes)
        row, before = now.row * scales, before * scales
        if self.last_ridge is None:
            dust = torch.randn(row.shape[1], generator=torch.Generator().manual_seed(len(self.errors)), dtype=torch.float64)
            noise = dust.to(row) * (DUST * row.square().mean(1, keepdim=True).sqrt())
            row, before = row + noise, before + noise
        return _Point(row, now.error, row.square().sum(1)), before

    def _is_finished(self, error: Tensor, totals: list[Tensor], kind: torch.dtype) -> bool:
        """Whether every fit is exact or gains next to nothing at the last ridge."""
        stopped = error <= FLOOR[kind]
        if self.last_ridge is not None:
            stopped = stopped | (_gain(totals) <= (self.tolerance * totals[-1]).clamp_min(NOISE[kind]))
        return bool(stopped.all())


def first_ridge(network: Network) -> float:
    """A ridge that charges FIRST for random factors of equal norms whose product has norm 1."""
    log_norm = sum(math.log(math.prod(shape)) for shape in network.shapes) - sum(math.log(size) for _, size in network.index_sizes)
    n_factors = len(network.factors)
    has_hyper_edge = any(len(network.carriers(rank)) > 2 for rank in network.ranks)
    first = FIRST * CAUTION ** max(0, n_factors - 3) if has_hyper_edge else FIRST_BOND
    return first / (n_factors * math.exp(log_norm / n_factors))


def _gain(totals: list[Tensor]) -> Tensor:
    """What each of the last sweeps gained on average; infinite where there were too few to tell."""
    if len(totals) < WINDOW:
        return torch.full_like(totals[-1], torch.inf)
    return (totals[-WINDOW] - totals[-1]) / (WINDOW - 1)


def _split(row: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """(batch, all values) -> the factors."""
    return [part.view(shape) for part, shape in zip(row.split([shape[1:].numel() for shape in shapes], 1), shapes, strict=True)]


def _scales(row: Tensor, shapes: Sequence[torch.Size]) -> Tensor:
    """Like `row`: what gives all factors the same norm and keeps their product."""
    sizes = torch.stack([part.flatten(1).norm(dim=1) for part in _split(row, shapes)], 1).clamp_min(torch.finfo(row.dtype).tiny).log()
    scales = (sizes.mean(1, keepdim=True) - sizes).exp()
    return scales.repeat_interleave(torch.tensor([shape[1:].numel() for shape in shapes], device=row.device), 1)


def solve_gram(gram: Tensor, right: Tensor, ridge: Tensor) -> Tensor:
    """X with X (gram + ridge) = right, for positive semi-definite gram (batch, ..., R, R), right (batch, ..., N, R), ridge (batch,) > 0.

    Not a number where the Gram matrix is not finite.
    """
    jitter, ridge = JITTER[gram.dtype], ridge.view(-1, *[1] * (gram.dim() - 2))
    while jitter < 1:
        regular = gram.clone()
        regular.diagonal(dim1=-2, dim2=-1).mul_(1 + jitter).add_(ridge)
        try:
            return torch.cholesky_solve(right.mT, torch.linalg.cholesky(regular)).mT
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            jitter *= 100
    return torch.full_like(right, torch.nan)
