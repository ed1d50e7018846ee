"""TT: a chain of cores over separate modes. Oseledets 2011, doi:10.1137/090752286, eq. (1.2).

    W[o1, .., k, i1, ..] = G_1[o1] G_2[o2] ... G[k] ... G_n[i_last],  each G[.] a matrix (rank before, rank after)

Factors: G (rank before, mode, rank after); the core of the kernel is (rank before, rank after, *k); the first core has no rank before
and the last none after.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    modes: list[Index] = [(index,) for index in o] + ([k] if k else []) + [(index,) for index in i]
    row = [1.0]
    for position, (core, mode) in enumerate(zip(factors, modes, strict=True)):
        is_first, is_last, is_kernel = position == 0, position == len(factors) - 1, bool(k) and position == len(o)
        n_after = 1 if is_last else core.shape[1 if is_kernel else -1]
        after = [0.0] * n_after
        for a in range(len(row)):
            for b in range(n_after):
                left = () if is_first else (a,)
                right = () if is_last else (b,)
                after[b] += row[a] * (core[(*left, *right, *mode)] if is_kernel else core[(*left, *mode, *right)])
        row = after
    return row[0]


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """The sum of rank before x mode x rank after."""
    positions = 1
    for size in k:
        positions *= size
    modes = [*o, *([positions] if k else []), *i]
    bonds = [1, *ranks, 1]
    return sum(bonds[n] * mode * bonds[n + 1] for n, mode in enumerate(modes))


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any]) -> list[list[Any]]:
    """The squared error is at most the sum of the tails of these unfoldings (Oseledets 2011, theorem 2.2)."""
    groups = [[mode] for mode in o] + ([list(k)] if k else []) + [[mode] for mode in i]
    return [[mode for group in groups[:n] for mode in group] for n in range(1, len(groups))]
