"""Factors to start from where pairs of factors are products themselves, as in KCP with an inner rank and in LoKr.

Each pair is taken for one factor, that coarser network is solved, and then its factors are split by truncated SVDs. From random factors
such networks lose most of their terms: a product of many small factors dies early.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered, shaped
from tenfold.solvers.solution import Solution, equalise
from tenfold.solvers.tt_svd import svd_of

ONE = "_"  # the rank, of size 1, of a coarse network that has no other


def inner_start(target: Tensor, network: Network, solve: Callable[[Tensor, Network], Solution]) -> list[Tensor]:
    """Batched factors of a network; `solve` solves the one in which factors that share a rank of their own are one factor."""
    groups = _groups(network)
    merged = [tuple(i for i in _union(network, group) if i not in _inner(network, group)) for group in groups]
    if not any(i in network.ranks for indices in merged for i in indices):
        merged = [(*indices, ONE) for indices in merged]
    coarse = Network.of(merged, network.modes, {**network.sizes, ONE: 1})
    factors: list[Tensor] = [target] * len(network.factors)
    for group, indices, factor in zip(groups, merged, solve(target, coarse).factors, strict=True):
        have = [i for i in indices if i != ONE]
        factor = factor.reshape(len(factor), *(coarse.sizes[i] for i in have))
        if len(group) == 1:
            factors[group[0]] = ordered(factor, have, network.factors[group[0]]).contiguous()
        else:
            left, right = group
            factors[left], factors[right] = _split(factor, have, network, left, right)
    return equalise(factors)


def _split(factor: Tensor, have: list[str], network: Network, left: int, right: int) -> tuple[Tensor, Tensor]:
    """The two factors of a merged one: for each value of the indices that both have, a truncated SVD."""
    sides = network.factors[left], network.factors[right]
    (inner,) = _inner(network, (left, right))
    shared = [i for i in have if i in sides[0] and i in sides[1]]
    rows, columns = ([i for i in have if i in side and i not in shared] for side in sides)
    matrix = ordered(factor, have, (*shared, *rows, *columns))
    count, n_rows = (math.prod(network.sizes[i] for i in group) for group in (shared, rows))
    u, s, v = svd_of(matrix.reshape(len(factor), count, n_rows, -1), network.sizes[inner])
    root = s.sqrt()
    names = [*shared, *rows, inner], [*shared, inner, *columns]
    left_part, right_part = (
        shaped(values, network, have, side)
        for values, have, side in zip((u * root[..., None, :], root[..., None] * v), names, sides, strict=True)
    )
    return left_part, right_part


def _groups(network: Network) -> list[tuple[int, ...]]:
    """Pairs of factors that share a rank which no third one has, and all others by themselves; in the order of the statement."""
    groups: list[tuple[int, ...]] = []
    for number in range(len(network.factors)):
        if groups and len(groups[-1]) == 1 and len(_inner(network, (groups[-1][0], number))) == 1:
            groups[-1] = (groups[-1][0], number)
        else:
            groups.append((number,))
    return groups


def _inner(network: Network, group: Sequence[int]) -> set[str]:
    """The ranks that two factors share with no third one."""
    if len(group) < 2:
        return set()
    return {i for i in network.ranks if [k for k, _ in network.carriers(i)] == list(group)}


def _union(network: Network, group: Sequence[int]) -> list[str]:
    return list(dict.fromkeys(i for k in group for i in network.factors[k]))
