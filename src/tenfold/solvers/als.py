"""Alternating least squares for any network.

The dense tensor is linear in each factor, so each factor has a closed-form update from two contractions: the Gram matrix of all
other factors and the right-hand side, see `update`. `descent` says how sweeps of such updates are driven.

Source: Kolda and Bader 2009, doi:10.1137/07070111X, section 3.4, there for CP.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import per_tensor
from tenfold.solvers.descent import Descent, Sweep, first_ridge
from tenfold.solvers.solution import Solution, check_target, equalise, finish, rebuild
from tenfold.solvers.update import Update

NEXT_SEED = 7919  # from one start to the next, so that neighbouring seeds share none


def als(
    target: Tensor,
    network: Network,
    *,
    sweeps: int = 100,
    seed: int = 0,
    ridge: float = 0.0,
    share: float = 0.0,
    tolerance: float = 1e-7,
    dtype: torch.dtype = torch.float32,
    start: Sequence[Tensor] | None = None,
    starts: int = 1,
) -> Solution:
    """Factors that minimise ||T - T~||^2 + ridge ||T||^(2 - 2/C) sum of ||factor||^2 (C factors), for each tensor of a batch.

    Args:
        target: (batch, *network.shape), any float dtype.
        sweeps: at most so many; stops where sweeps lower the objective by less than `tolerance` of it each.
        share: the ridge of a tensor is this part of its squared error after half of the sweeps, if that is more than `ridge`.
        dtype: of the first sweeps; the last ones run in float64.
        start: batched factors to start from; left out, they are drawn from `seed`.
        starts: so many random starts, all fitted as one batch; the best fit of each tensor counts.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    check_target(target, network)
    target = target.double()
    scale = norms(target)
    unit = target / per_tensor(scale, target)
    batch = len(target)
    if start is not None:
        first = {part.start for part in network.term_slices}
        factors = [factor.double() / (per_tensor(scale, factor) if number in first else 1) for number, factor in enumerate(start)]
    else:
        draws = [random_factors(network, batch, seed + NEXT_SEED * number, target.device) for number in range(starts)]
        factors = [torch.cat(same) for same in zip(*draws, strict=True)]
        unit = torch.cat([unit] * starts)
    descent = Descent(ridge, share, first_ridge(network.terms[0]) if start is None else 0.0, sweeps, tolerance, dtype)
    make_sweep = _sum_sweep if network.term_lengths else _general_sweep
    factors, history, done = descent.run(lambda kind: make_sweep(unit.to(kind), network), factors)
    if len(unit) > batch:
        best = history[-1].reshape(-1, batch).argmin(0) * batch + torch.arange(batch, device=target.device)
        factors, history, done = [factor[best] for factor in factors], history[:, best], done[best]
    restored = [factor for part in network.term_slices for factor in restore(factors[part], scale)]
    return finish("als", target, network, restored, history, done)


def random_factors(network: Network, batch: int, seed: int, device: torch.device) -> list[Tensor]:
    """Normal factors whose product has about unit norm."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(batch, *shape, generator=generator, dtype=torch.float64) / (torch.tensor(shape).prod().double() ** 0.5)).to(device)
        for shape in network.shapes
    ]


def norms(target: Tensor) -> Tensor:
    """The norm of each tensor of a batch; 1 where it is zero."""
    norm = target.flatten(1).norm(dim=1)
    return torch.where(norm > 0, norm, torch.ones_like(norm))


def restore(factors: list[Tensor], scale: Tensor) -> list[Tensor]:
    """The factors of the unscaled tensor, with equal root mean squares."""
    return equalise([factors[0] * per_tensor(scale, factors[0]), *factors[1:]])


def _general_sweep(target: Tensor, network: Network) -> Sweep:
    """One update of every factor, the smallest one last: it also tells the error."""
    updates = [update.laid_out(target) for update in _updates(network)]
    squared = target.flatten(1).square().sum(1)

    def sweep(factors: list[Tensor], ridge: Tensor) -> tuple[list[Tensor], Tensor]:
        factors, error = list(factors), squared
        for update, own in updates:
            factors[update.number], gain = update.solve(own, factors, ridge)
            error = squared - gain
        return factors, error

    return sweep


def _sum_sweep(target: Tensor, network: Network) -> Sweep:
    """One update of every factor of every term of a sum: each term in turn is fitted to what the others leave."""
    terms = list(zip(network.terms, network.term_slices, map(_updates, network.terms), strict=True))

    def sweep(factors: list[Tensor], ridge: Tensor) -> tuple[list[Tensor], Tensor]:
        factors = list(factors)
        parts = [rebuild(term, factors[part]) for term, part, _ in terms]
        left = target - torch.stack(parts).sum(0)
        for (term, part, updates), old in zip(terms, parts, strict=True):
            wanted, mine = left + old, factors[part]
            for update in updates:
                mine[update.number], _ = update.solve(wanted, mine, ridge)
            factors[part] = mine
            left = wanted - rebuild(term, mine)
        return factors, left.flatten(1).square().sum(1)

    return sweep


def _updates(network: Network) -> list[Update]:
    order = sorted(range(len(network.factors)), key=lambda k: math.prod(network.shapes[k]), reverse=True)
    return [Update.of(network, number) for number in order]
