"""Smaller ranks for networks without a rounding theorem: CP, KCP, BT, rings, and all others with loops or hyper-edges.

The weight is a sum over the slices of each rank. Their Gram matrix C tells what dropping slice r costs when the others are rescaled:
1 / (C^-1)_rr. That is small for a slice of small norm, and for one of two that are nearly collinear, which are so merged. Slices go
one rank at a time, the largest rank first, and all factors are refitted to the weight that was there at the start; a step
that leaves an error above the tolerance is taken back. Ranks of two factors are first put into the basis in which the product of these
two is diagonal: in any other, no slice is small.

It is greedy: it finds ranks that suffice, and not provably the smallest ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tenfold.bayes.reduction import AxisMap, selection
from tenfold.bayes.refit import overlap, refit
from tenfold.bayes.rounding import triangle_of
from tenfold.network import Network
from tenfold.solvers.contractions import twin
from tenfold.solvers.quadratic import Form

SWEEPS = 30  # of a refit after slices were dropped
POLISH = 10  # sweeps at the end
TRIES = 4  # slices that are tried when the last ones are hard to drop
SAFE = 0.03  # of the tolerance: slices that cost less together are dropped at once
MARGIN = 0.5  # of the squared tolerance: a refit stops there
CONDITION = 1e-12  # added to the diagonal of a Gram matrix, relative to its largest value


@dataclass
class _State:
    network: Network
    factors: list[Tensor]
    maps: list[AxisMap] = field(default_factory=list)


def reduce_components(
    network: Network, factors: Sequence[Tensor], tolerance: float
) -> tuple[dict[str, int], list[Tensor], list[AxisMap], float]:
    """Ranks, refitted factors, the maps of their gauge and selection, and the relative error; one term that is not zero, in float64."""
    norm = float(overlap(network, factors, network, factors))
    goal = tolerance**2 * norm
    state, error = _State(network, list(factors)), 0.0
    open_ranks = {rank: 1 for rank, size in network.ranks.items() if size > 1}  # how many slices to try next
    while open_ranks:
        sizes = state.network.ranks
        rank = max(open_ranks, key=lambda name: (sizes[name], -list(open_ranks).index(name)))
        others = [sizes[name] for name in open_ranks if name != rank]
        count = min(open_ranks[rank], sizes[rank] - max(others, default=2) + 1)  # ranks that can stand in for each other fall together
        found = _smaller(network, factors, state, rank, count, goal)
        if found is not None:
            open_ranks[rank] = 2 * (state.network.ranks[rank] - found[0].network.ranks[rank])
            state, error = found
        elif count > 1:
            open_ranks[rank] = count // 2
        if (found is None and count == 1) or state.network.ranks[rank] == 1:
            del open_ranks[rank]
    if state.maps:
        state.factors, error = refit(network, factors, state.network, state.factors, sweeps=POLISH)
    return dict(state.network.ranks), state.factors, state.maps, math.sqrt(error / norm)


def _smaller(network: Network, factors: Sequence[Tensor], state: _State, rank: str, count: int, goal: float) -> tuple[_State, float] | None:
    """A refitted state with fewer slices of a rank and its squared error, if one is found that does not exceed `goal`.

    Which slice is the cheapest to leave out before the refit need not be the best one after it: a single slice is chosen among several.
    """
    state = _diagonal(state, rank)
    gram = slice_gram(state.network, state.factors, rank)
    for first in _removal_costs(gram).argsort()[: TRIES if count == 1 else 1].tolist():
        trial = _without(state, rank, gram, first, count, SAFE**2 * goal)
        refitted, error = refit(network, factors, trial.network, trial.factors, sweeps=SWEEPS, goal=MARGIN * goal)
        if error <= goal:
            return replace(trial, factors=refitted), error
    return None


def slice_gram(network: Network, factors: Sequence[Tensor], rank: str) -> Tensor:
    """(R, R): <T_r, T_s>, where the weight of one term is the sum over the slices r of a rank of T_r."""
    return Form().value(network, [one[None] for one in factors], (rank, twin(rank)))[0]


def _without(state: _State, rank: str, gram: Tensor, first: int, count: int, free: float) -> _State:
    """The state without one slice and without `count` in all, or more of them where these cost no more than `free`; others rescaled."""
    keep = [number for number in range(len(gram)) if number != first]
    spent = float(_removal_costs(gram)[first])
    while len(keep) > 1:
        costs = _removal_costs(gram[keep][:, keep])
        cheapest = int(costs.argmin())
        spent += float(costs[cheapest])
        if len(gram) - len(keep) >= count and spent > free:
            break
        del keep[cheapest]
    maps = selection(state.network, rank, keep, state.factors[0])
    maps[0] = replace(maps[0], value=maps[0].value * _scales(gram, keep))
    return _applied(state, {rank: len(keep)}, maps)


def _regular(gram: Tensor) -> Tensor:
    return gram + CONDITION * gram.diagonal().max().clamp_min(1e-300) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def _removal_costs(gram: Tensor) -> Tensor:
    """(R,): the squared error of leaving a slice out when the others are rescaled."""
    return 1 / torch.linalg.inv(_regular(gram)).diagonal().clamp_min(1e-300)


def _scales(gram: Tensor, keep: Sequence[int]) -> Tensor:
    """(slices kept,): the factors by which the slices that stay come closest to the sum of all."""
    return torch.linalg.solve(_regular(gram[keep][:, keep]), gram[keep].sum(1))


def _applied(state: _State, sizes: dict[str, int], maps: Sequence[AxisMap]) -> _State:
    factors = list(state.factors)
    for one in maps:
        factors[one.factor] = one.apply(factors[one.factor], one.value).contiguous()
    return _State(state.network.resized(sizes), factors, [*state.maps, *maps])


def _diagonal(state: _State, rank: str) -> _State:
    """The same weight with a rank of two factors in the basis of the singular vectors of their product, others as they are.

    Indices that both factors carry are held fixed: there is one basis for each of their values.
    """
    network = state.network
    if len(network.carriers(rank)) != 2:
        return state
    (left, left_axis), (right, right_axis) = network.carriers(rank)
    common = [i for i in network.factors[left] if i in network.factors[right] and i != rank]
    a, b = (_matrices(state.factors[k], network.factors[k], common, rank) for k in (left, right))
    u, s, v = torch.linalg.svd(triangle_of(a) @ triangle_of(b).mT, full_matrices=False)
    if s.shape[-1] < network.ranks[rank]:
        missing = network.ranks[rank] - s.shape[-1]
        u, s, v = (torch.nn.functional.pad(one, pad) for one, pad in ((u, (0, missing)), (s, (0, missing)), (v, (0, 0, 0, missing))))
    root = torch.where(s > 1e-12 * s.max().clamp_min(1e-300), s.clamp_min(1e-300).rsqrt(), torch.zeros_like(s))[:, None, :]
    x, y = triangle_of(b).mT @ v.mT * root, triangle_of(a).mT @ u * root
    sizes = [network.sizes[i] for i in common]
    x, y = x.reshape(*sizes, *x.shape[1:]), y.reshape(*sizes, *y.shape[1:])
    axes = [tuple(network.factors[k].index(i) for i in common) for k in (left, right)]
    return _applied(state, {}, [AxisMap(left, left_axis, x, y, axes[0]), AxisMap(right, right_axis, y, x, axes[1])])


def _matrices(factor: Tensor, indices: Sequence[str], common: Sequence[str], rank: str) -> Tensor:
    """(values of the common indices, everything else, rank)."""
    rest = [i for i in indices if i not in common and i != rank]
    order = [list(indices).index(i) for i in (*common, *rest, rank)]
    moved = factor.permute(order)
    return moved.reshape(math.prod(moved.shape[: len(common)]), -1, moved.shape[-1])
