"""Tucker: a core with a matrix for each mode. Tucker 1966; on channels only (Tucker-2) Kim et al. 2016, arXiv 1511.06530, eq. (2).

    W[o, i, k] = sum over p, q of  prod_m U_m[o_m, p_m] * G[p, q, k] * prod_m V_m[q_m, i_m]
    with a factor for the kernel too:           ... G[p, q, s] * K[s, k] ...

Factors: U_m (o_m, p_m), then G, then K where it is asked for, then V_m (q_m, i_m).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, all_modes: bool = False) -> float:
    core = factors[len(o)]
    has_kernel_factor = all_modes and bool(k)
    first_in = len(o) + 1 + has_kernel_factor
    n_ranks = len(o) + len(i)
    total = 0.0
    for ranks in itertools.product(*(range(size) for size in core.shape[:n_ranks])):
        p, q = ranks[: len(o)], ranks[len(o) :]
        term = 1.0
        for m, index in enumerate(o):
            term *= factors[m][index, p[m]]
        for m, index in enumerate(i):
            term *= factors[first_in + m][q[m], index]
        if has_kernel_factor:
            inner = 0.0
            for s in range(core.shape[-1]):
                inner += core[(*ranks, s)] * factors[len(o) + 1][(s, *k)]
        else:
            inner = core[(*ranks, *k)]
        total += term * inner
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], all_modes: bool = False) -> int:
    """prod(ranks) x kernel (or its rank) + sum of mode x rank."""
    positions = 1
    for size in k:
        positions *= size
    core = 1
    for rank in ranks:
        core *= rank
    matrices = sum(size * rank for size, rank in zip((*o, *i), ranks[: len(o) + len(i)], strict=True))
    if k and all_modes:
        return core + matrices + positions * ranks[-1]
    return core * positions + matrices


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any], all_modes: bool = False) -> list[list[Any]]:
    """The squared error is at most the sum of the tails of these unfoldings (De Lathauwer et al. 2000, property 10)."""
    return [[mode] for mode in (*o, *i)] + ([list(k)] if k and all_modes else [])
