"""Bounded least squares: the factor of least objective whose error is within a bound.

With the other factors fixed, both the squared error and the objective are quadratic in one factor X, so its update is

    min tr(X W X')  with  ||T - L(X)||^2 <= delta^2.

The solution is ridge regression X = F (G + mu W)^-1, with G, F the Gram matrix and the right-hand side of least squares, and mu such that
the bound is met (the discrepancy principle). In the eigenbasis of the pencil (G, W) that is one scalar equation.

Source: Phan, Tichavsky, Cichocki 2019, arXiv 1709.08349 (the problem, there a quadratic programme on the sphere). Deviation: the
ridge, which has the same solutions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.contract.pairs import BATCH
from tenfold.network import Network
from tenfold.solvers.axes import ordered, per_tensor
from tenfold.solvers.contractions import contract, split_indices
from tenfold.solvers.quadratic import Form

FLOOR = 1e-13  # of the largest eigenvalue of a pencil: below it a direction does nothing for the error


def bounded_step(
    network: Network,
    factors: Sequence[Tensor],
    number: int,
    forms: Sequence[Form],
    target: Tensor,
    bound: Tensor,
    *,
    is_residual: bool = True,
) -> tuple[Tensor, Tensor]:
    """The factor that minimises the sum of `forms` with a squared error of at most `bound` (batch,), and its multiplier (batch,).

    Where the bound cannot be met the factor stays as it is and the multiplier is not a number.

    Args:
        target: where `is_residual`, what is left of it without the tensor of the factors: the error is counted from that to full
            accuracy, however small it is. The target itself does where the bound is far above rounding, and takes less time.
    """
    shared, own, ranks = split_indices(network, number)
    order, mine = [*shared, *own, *ranks], network.factors[number]
    old = ordered(factors[number], mine, order)
    gram = Form().matrix(network, factors, number)
    weight = torch.stack([form.matrix(network, factors, number) for form in forms if form.without != number] or [gram]).sum(0)
    others = [k for k in range(len(factors)) if k != number]
    operands = [(BATCH, *network.modes), *((BATCH, *network.factors[k]) for k in others)]
    right = contract([target, *(factors[k] for k in others)], operands, tuple(order), network, len(target), target)
    size = (len(target), gram.shape[1], -1, gram.shape[-1])
    slope, rows, error = right.reshape(size), old.reshape(size), target.flatten(1).square().sum(1)
    if not is_residual:
        both, slope = slope, slope - rows @ gram
        error = error - (rows * (both + slope)).flatten(1).sum(1)
    values, basis, inverse = _pencil(gram, weight)
    coordinates, mu = secular(values, slope @ basis, rows @ inverse, error, bound)
    new = ordered((coordinates @ basis.mT).reshape(old.shape), order, mine)
    is_usable = mu.isfinite() & new.flatten(1).isfinite().all(1)
    return torch.where(per_tensor(is_usable, new), new, factors[number]), torch.where(is_usable, mu, torch.nan)


def bounded_scales(parts: Tensor, charges: Tensor, residual: Tensor, bound: Tensor) -> Tensor:
    """(batch, terms): what to multiply each term of a sum with, so that the sum of charge x scale^2 is least within the bound.

    Updates of single factors cannot move error from one term to another; this does. All are 1 where the bound cannot be met.

    Args:
        parts: the terms, (batch, terms, entries), which sum to target - residual. charges: (batch, terms), not negative.
    """
    gram = parts @ parts.mT
    slope = (parts @ residual.flatten(1)[:, :, None]).mT[:, None]
    values, basis, inverse = _pencil(gram[:, None], torch.diag_embed(charges)[:, None])
    old = torch.ones_like(slope) @ inverse
    coordinates, mu = secular(values, slope @ basis, old, residual.flatten(1).square().sum(1), bound)
    scales = (coordinates @ basis.mT)[:, 0, 0]
    is_usable = mu.isfinite() & scales.isfinite().all(1)
    return torch.where(is_usable[:, None], scales, 1.0)


def _pencil(gram: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues s (.., R), a basis B (.., R, R) with B' W B = 1 and B' G B = diag(s), and the inverse of B'."""
    mean = weight.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp_min(torch.finfo(weight.dtype).tiny)
    diagonal = weight.diagonal(dim1=-2, dim2=-1)
    if torch.equal(weight, torch.diag_embed(diagonal)):  # as for CP
        scale = (diagonal[..., None] + FLOOR * mean).sqrt()
        values, vectors = torch.linalg.eigh(torch.nan_to_num(gram / scale / scale.mT, 0.0, 0.0, 0.0))
        return values.clamp_min(0), vectors / scale, vectors * scale
    eye = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)
    root = torch.linalg.cholesky_ex(weight / mean + FLOOR * eye).L * mean.sqrt()
    half = torch.linalg.solve_triangular(root, gram, upper=False)
    reduced = torch.linalg.solve_triangular(root, half.mT, upper=False)
    if not bool(reduced.isfinite().all()):
        reduced = torch.nan_to_num(reduced, 0.0, 0.0, 0.0)
    values, vectors = torch.linalg.eigh((reduced + reduced.mT) / 2)
    return values.clamp_min(0), torch.linalg.solve_triangular(root.mT, vectors, upper=True), root @ vectors


def secular(values: Tensor, slope: Tensor, old: Tensor, error: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of least norm whose squared error is `bound`, and the multiplier (batch,).

    In the eigenbasis the error is rho0 + sum |f_r|^2 / s_r (mu / (s_r + mu))^2, with f = s old + slope. In t = 1/mu that is a norm
    sum |f_r|^2 / s_r / (1 + t s_r)^2 = bound - rho0, whose inverse root is concave: Newton from t = 0 rises to the root without
    safeguards.

    Args:
        values: s, (batch, blocks, R). slope, old: (batch, blocks, rows, R), the right-hand side for the residual, and the factor now.
        error: the squared error now, (batch,).
    """
    is_seen = values > FLOOR * values.flatten(1).amax(1)[:, None, None]
    safe = torch.where(is_seen, values, 1.0)
    gain = torch.where(is_seen, slope.square().sum(2) / safe, 0.0)
    left = bound - (error - gain.flatten(1).sum(1))  # what the bound leaves above the least squares
    right = torch.where(is_seen[:, :, None], safe[:, :, None] * old + slope, 0.0)
    weights = torch.where(is_seen, right.square().sum(2) / safe, 0.0).flatten(1)
    s = torch.where(is_seen, values, 0.0).flatten(1)
    # in units of the largest eigenvalue, t is a pure number
    unit = s.amax(1, keepdim=True).clamp_min(torch.finfo(s.dtype).tiny)
    s, goal = s / unit, left.clamp_min(0).rsqrt()
    t = torch.zeros_like(bound)
    for _ in range(200):
        spread = 1 + t[:, None] * s
        square = (weights / spread.square()).sum(1)
        height = square.rsqrt()
        pull = (weights * s / spread**3).sum(1) * height**3
        step = (goal - height) / pull
        t = torch.where(step.isfinite(), (t + step).clamp_min(0), t)
        if bool((~step.isfinite() | (step.abs() <= 1e-13 * t)).all()):
            break
    mu = unit[:, 0] / t
    is_met = (left > 0) & (weights.sum(1) > left) & mu.isfinite()
    coordinates = right / (values + torch.where(is_met, mu, 1.0)[:, None, None])[:, :, None]
    return coordinates, torch.where(is_met, mu, torch.nan)
