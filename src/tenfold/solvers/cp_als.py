"""CP by alternating least squares with two shared matrix products in each sweep, for tensors of order 3.

For factors A (largest leg), C, B (smallest leg: kernel positions), the product T x_3 C serves the update of A, and T x_1 A those of
C and B. The small B comes last: it converges best so, and its update tells the error for next to nothing. A ridge keeps the fit
away from degenerate solutions, in which huge terms cancel: at its minimum all factors of a term have the same norm.

Source: normal equations of Kolda and Bader 2009, doi:10.1137/07070111X, section 3.4; `descent` says how sweeps are driven.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.als import als, norms, random_factors, restore
from tenfold.solvers.axes import ordered, per_tensor, shaped
from tenfold.solvers.descent import Descent, Sweep, first_ridge, solve_gram
from tenfold.solvers.resizing import resized
from tenfold.solvers.solution import Solution, check_target, finish
from tenfold.solvers.tt_svd import truncated_svd

SHARE = 5e-4  # ridge relative to the squared error: lowers the sensitivity by an order of magnitude for about 1 % of the error
LEAST_RIDGE = 1e-7  # relative to ||T||^2; a fit that is almost exact keeps this much


def cp_als(
    target: Tensor,
    network: Network,
    *,
    sweeps: int = 100,
    seed: int = 0,
    ridge: float | None = None,
    tolerance: float = 1e-6,
    dtype: torch.dtype = torch.float32,
    start: Sequence[Tensor] | None = None,
) -> Solution:
    """Factors of a CP network for a batch of tensors. A matrix goes to the SVD, orders above 3 to `als`.

    Args:
        sweeps, tolerance, dtype: as in `als`.
        ridge: as in `als`; left out, SHARE of the squared error that the first half of the sweeps reaches.
        start: batched factors in the order of the network to start from; left out, they are drawn from `seed`.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    check_target(target, network)
    rank = next(iter(network.ranks))
    least, share = (LEAST_RIDGE, SHARE) if ridge is None else (ridge, 0.0)
    if len(network.factors) == 2:
        return truncated_svd(target, network)
    if len(network.factors) != 3 or len(network.ranks) != 1:
        return als(target, network, sweeps=sweeps, seed=seed, ridge=least, share=share, tolerance=tolerance, dtype=dtype, start=start)
    target = target.double()
    scale = norms(target)
    legs = [[i for i in indices if i != rank] for indices in network.factors]
    sizes = [math.prod(network.sizes[i] for i in leg) for leg in legs]
    order = sorted(range(3), key=lambda k: sizes[k], reverse=True)
    abc = (order[0], order[2], order[1])
    unit = ordered(target / per_tensor(scale, target), network.modes, [i for k in abc for i in legs[k]])
    unit = unit.reshape(-1, *(sizes[k] for k in abc))
    first = random_factors(network, target.shape[0], seed, target.device) if start is None else [factor.double() for factor in start]
    moved = [first[k].movedim(network.factors[k].index(rank) + 1, -1).flatten(1, -2) for k in order]
    if start is not None:
        moved[0] = moved[0] / scale[:, None, None]
    descent = Descent(least, share, first_ridge(network) if start is None else 0.0, sweeps, tolerance, dtype)
    factors, history, done = descent.run(lambda kind: _shared_sweep(unit.to(kind), network.sizes[rank]), moved)
    result: list[Tensor] = [torch.empty(0)] * 3
    for k, factor in zip(order, factors, strict=True):
        result[k] = shaped(factor, network, [*legs[k], rank], network.factors[k])
    return finish("cp_als", target, network, restore(result, scale), history, done)


def _shared_sweep(unit: Tensor, rank: int) -> Sweep:
    """The sweep A, C, B over T (batch, a, b, c)."""
    batch, n_a, n_b, n_c = unit.shape
    by_a, by_c = unit.reshape(batch, n_a, n_b * n_c).mT, unit.reshape(batch, n_a * n_b, n_c)
    squared = unit.flatten(1).square().sum(1)
    # both products take turns in the same memory: page faults on fresh temporaries would cost a tenth of a sweep
    space, scratch = unit.new_empty(2, batch * max(n_a, n_c) * n_b * rank)
    with_c, scratch_c = (part[: batch * n_a * n_b * rank].view(batch, n_a, n_b, rank) for part in (space, scratch))
    with_a, scratch_a = (part[: batch * n_b * n_c * rank].view(batch, n_b, n_c, rank) for part in (space, scratch))
    flat_c, flat_a = with_c.view(batch, -1, rank), with_a.view(batch, -1, rank)

    def sweep(factors: list[Tensor], ridge: Tensor) -> tuple[list[Tensor], Tensor]:
        a, c, b = factors
        gram_b = torch.bmm(b.mT, b)
        torch.bmm(by_c, c, out=flat_c)
        right = torch.mul(with_c, b.unsqueeze(1), out=scratch_c).sum(2)
        a = solve_gram(gram_b * torch.bmm(c.mT, c), right, ridge)
        gram_a = torch.bmm(a.mT, a)
        torch.bmm(by_a, a, out=flat_a)
        right = torch.mul(with_a, b.unsqueeze(2), out=scratch_a).sum(1)
        c = solve_gram(gram_a * gram_b, right, ridge)
        gram, right = gram_a * torch.bmm(c.mT, c), with_a.mul_(c.unsqueeze(1)).sum(2)
        b = solve_gram(gram, right, ridge)
        return [a, c, b], squared - (b * torch.baddbmm(right, b, gram, beta=2, alpha=-1)).sum((1, 2))

    return sweep


def cp_errors(target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
    """Relative errors (len(networks), batch) of CP at several ranks, from one descent: a plan needs them all, roughly.

    The largest rank is solved first; each smaller one starts from its largest terms and is refitted for a few sweeps.
    """
    rank = next(iter(networks[0].ranks))
    errors: dict[int, Tensor] = {}
    last: Network | None = None
    start: list[Tensor] | None = None
    for number in sorted(range(len(networks)), key=lambda k: networks[k].sizes[rank], reverse=True):
        network = networks[number]
        if last is not None and start is not None:
            start = resized(last, start, network)
        solution = cp_als(
            target, network, sweeps=sweeps if start is None else max(3, sweeps // 4), seed=seed, dtype=torch.float32, start=start
        )
        errors[number], last, start = solution.errors, network, solution.factors
    return torch.stack([errors[number] for number in range(len(networks))])
