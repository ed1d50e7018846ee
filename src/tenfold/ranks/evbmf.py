"""EVBMF: the rank of a matrix seen through noise, by empirical variational Bayesian matrix factorisation in closed form.

A baseline for the ranks of SVD and Tucker-2: the matrix is taken for a low-rank one plus white noise of unknown variance, and the rank
is the number of singular values that stand out of the noise. The kernels of a trained network are no such sum; the ranks it gives know
nothing of the data, the loss or a budget.

Letters: V is L x M with L <= M, alpha = L / M, gamma_h its singular values, s2 the variance of the noise.

Source: Nakajima, Sugiyama, Babacan, Tomioka 2013, JMLR 14, "Global analytic solution of fully-observed variational Bayesian matrix
factorization"; threshold and noise variance in the form of Nakajima, Tomioka, Sugiyama, Babacan 2015, JMLR 16, "Condition for perfect
dimensionality recovery by variational Bayesian PCA".
Deviations: tau is computed to machine precision instead of as 2.5129 sqrt(alpha); the noise variance is searched on a grid first, for
the free energy may have several minima.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.decompose import group_tensors
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.formats import SVD, Tucker, format_text
from tenfold.plan import Plan, plan
from tenfold.ranks.offers import plan_of_rows, row_of
from tenfold.recurrent.opened import opened_view
from tenfold.selection import Choice, Filter, select
from tenfold.survey import survey
from tenfold.trace import trace
from tenfold.wrappers import unwrapped

GRID = 256  # noise variances, in equal ratios, at which the free energy is looked at before the best place is refined
NOT_SMALLER = "with the ranks that EVBMF finds it has as many values or more"
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Estimate:
    """What EVBMF says of a matrix: its rank (it may be 0), the variance of the noise, and the singular values of the estimate."""

    rank: int
    noise_variance: float
    singular_values: Tensor


def evbmf(matrix: Tensor, *, noise_variance: float | None = None) -> Estimate:
    """The global solution for a matrix (rows, columns); left out, the noise variance is estimated.

    Raises:
        ValueError: it is no matrix, has no values or values that are not finite, or the noise variance is not above 0.

    >>> generator = torch.Generator().manual_seed(0)
    >>> u, v, noise = (torch.randn(*shape, generator=generator) for shape in ((60, 5), (5, 200), (60, 200)))
    >>> evbmf(u @ v + 0.5 * noise).rank
    5
    """
    if matrix.dim() != 2 or not matrix.numel():
        raise ValueError(f"evbmf got a tensor of shape {tuple(matrix.shape)}; a matrix with values is needed: unfold it")
    if noise_variance is not None and not 0 < noise_variance < math.inf:
        raise ValueError(f"the noise variance is {noise_variance}; a number above 0 is needed: leave it out to have it estimated")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("the matrix has values that are NaN or infinite; finite ones are needed: mend it")
    v = matrix.detach().double()
    n_rows, n_columns = sorted(v.shape)
    gamma = torch.linalg.svdvals(v)
    if float(gamma[0]) == 0:
        return Estimate(0, noise_variance or 0.0, gamma[:0])
    alpha = n_rows / n_columns
    tau = _tau(alpha)
    x_least = (1 + tau) * (1 + alpha / tau)
    s2 = _noise_variance(gamma, n_columns, alpha, x_least) if noise_variance is None else noise_variance
    kept = gamma[gamma > math.sqrt(s2 * n_columns * x_least)]
    part = 1 - (n_rows + n_columns) * s2 / kept.square()
    shrunk = kept / 2 * (part + (part.square() - 4 * n_rows * n_columns * s2**2 / kept**4).clamp_min(0).sqrt())
    return Estimate(len(kept), s2, shrunk)


def evbmf_plan(
    model: nn.Module, format: Format | None = None, *, weakening: float = 1.0, inputs: Any = None, filter: Filter = None, seed: int = 0
) -> Plan:
    """The plan with the ranks that EVBMF finds in every layer's unfoldings; layers that do not get smaller stay dense.

    A rank is never 0: of a layer in which nothing stands out of the noise one component is kept. With weakening w it is
    R0 - w (R0 - R), with R0 the largest useful rank and R that of EVBMF: 1 is EVBMF itself, 0 keeps all ranks.

    Args:
        format: SVD(), or Tucker() for Tucker-2 on the channels of convolutions, where linear layers get an SVD; the default.
        inputs: an example, to count FLOP.

    Raises:
        ValueError: the format is another one or has a rank, or weakening is not in 0..1.
    """
    format = format or Tucker()
    if not isinstance(format, SVD | Tucker) or format.rank is not None or (isinstance(format, Tucker) and format.all_modes):
        raise ValueError(
            f"evbmf_plan got {format_text(format)}; it finds the ranks of SVD() and of Tucker(), without ranks: give one of them"
        )
    if not 0 <= weakening <= 1:
        raise ValueError(f"weakening is {weakening}; it needs 0 (all ranks are kept) to 1 (those of EVBMF): give one in between")
    view = opened_view(unwrapped(model))
    chosen, reasons = select(found := survey(view), format, filter)
    formats: dict[str, Format | None] = {}
    for one in found:
        if one.name not in chosen:
            continue
        own: Format = format if one.weight.dim() > 2 else SVD()
        fold = Choice(own).fold(one)
        ranks = weakened_ranks(own, fold, one.weight, weakening)
        made = replace(own, rank=ranks[0] if len(ranks) == 1 else ranks)
        formats[one.name] = made if made.network(fold).numel < one.n_values else None
        if formats[one.name] is None:
            reasons[one.name] = NOT_SMALLER
    if any(formats.values()):
        whole = plan(model, formats, inputs=inputs, seed=seed)
    else:  # `plan` would find nothing to do
        steps = trace(view, inputs, [one for one in found if one.name in chosen]) if inputs is not None else None
        whole = plan_of_rows(view, [row_of(one, None, "", steps) for one in found], None, steps, "weight", seed)
    rows = (replace(row, reason=reasons.get(row.name, row.reason)) for row in whole.layers)
    return replace(whole, layers=tuple(rows))


def weakened_ranks(format: Format, fold: Fold, weight: Tensor, weakening: float) -> tuple[int, ...]:
    """The ranks of SVD (one) or of Tucker-2 (output, input) for a weight, at least 1; of a grouped layer the largest of its groups'."""
    groups = group_tensors(fold, weight.detach().double())
    widest = format.widest(fold)
    most = tuple(format.free_ranks(widest).values())
    modes = [mode for mode in fold.modes if mode != "g"]
    n_out, n_in = (sum(mode[0] == role for mode in modes) for role in "oi")
    order = sorted(range(len(modes)), key=lambda k: "oik".index(modes[k][0]))
    ranks = []
    for group in groups:
        moved = group.permute(order)
        by_out = moved.flatten(n_out).flatten(0, n_out - 1)
        by_in = moved.movedim(tuple(range(n_out, n_out + n_in)), tuple(range(n_in))).flatten(n_in).flatten(0, n_in - 1)
        ranks.append([evbmf(matrix).rank for matrix in (by_out, by_in)[: len(most)]])
    found = [max(values) for values in zip(*ranks, strict=True)]
    return tuple(max(1, round(full - weakening * (full - min(rank, full)))) for full, rank in zip(most, found, strict=True))


def _tau(alpha: float) -> float:
    """The zero of Phi(t) + Phi(t / alpha) with Phi(z) = log(z + 1) / z - 1/2, by bisection; about 2.5129 sqrt(alpha)."""

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    low, high = 1e-6 * math.sqrt(alpha), 4.0 * math.sqrt(alpha)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if phi(middle) + phi(middle / alpha) > 0 else (low, middle)
    return (low + high) / 2


def _noise_variance(gamma: Tensor, n_columns: int, alpha: float, x_least: float) -> float:
    """The variance with the smallest free energy, within its bounds."""
    n_rows = len(gamma)
    most_rank = max(0, min(math.ceil(n_rows / (1 + alpha)) - 1, n_rows - 1))
    squared = gamma.square()
    upper = float(squared.sum()) / (n_rows * n_columns)
    lower = max(float(squared[most_rank]) / (n_columns * x_least), float(squared[most_rank:].sum()) / (n_columns * (n_rows - most_rank)))
    lower = min(max(lower, 1e-14 * upper), upper)  # a matrix of exactly low rank has no noise
    step = (upper / lower) ** (1 / (GRID - 1))
    if step <= 1:
        return upper

    def energy(log_s2: float) -> float:
        return _free_energy(squared / (n_columns * math.exp(log_s2)), alpha, x_least)

    logs = [math.log(lower) + k * math.log(step) for k in range(GRID)]
    best = min(range(GRID), key=lambda k: energy(logs[k]))
    return math.exp(_golden(energy, logs[max(0, best - 1)], logs[min(GRID - 1, best + 1)]))


def _free_energy(x: Tensor, alpha: float, x_least: float) -> float:
    """Free energy, up to constants, of x_h = gamma_h^2 / (M s2)."""
    x = x.clamp_min(1e-300)
    shifted = x - (1 + alpha)
    tau = (shifted + (shifted.square() - 4 * alpha).clamp_min(0).sqrt()) / 2
    gain = torch.log1p(tau) + alpha * torch.log1p(tau / alpha) - tau
    return float((x - x.log() + torch.where(x > x_least, gain, 0.0)).sum())


def _golden(function: Callable[[float], float], low: float, high: float, steps: int = 60) -> float:
    """A minimum of a function between two places, by golden-section search."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(steps):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2
