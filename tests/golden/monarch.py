"""Monarch, BTT: a product of block-diagonal matrices. Dao et al. 2022, arXiv 2204.00595, section 3.1; Qiu et al. 2024, arXiv 2406.06248.

    W[(o1, .., od), (i1, .., id), k] = G_1[o1 .. od, i1] G_2[o2 .. od, i1 i2] .. G_d[od, i1 .. id, k],  each G[.] a matrix (before, after)

Factors: G_m (rank before, o_m .. o_d, i_1 .. i_m, rank after), the last one with *k behind; no rank before the first, none after the last.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    row = [1.0]
    for m, core in enumerate(factors):
        is_first, is_last = m == 0, m == len(factors) - 1
        mode = (*o[m:], *i[: m + 1], *(k if is_last else ()))
        after = [0.0] * (1 if is_last else core.shape[-1])
        for a in range(len(row)):
            for b in range(len(after)):
                left = () if is_first else (a,)
                right = () if is_last else (b,)
                after[b] += row[a] * core[(*left, *mode, *right)]
        row = after
    return row[0]


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """The sum of rank before x (o_m .. o_d) x (i_1 .. i_m) x rank after; the kernel's positions on the last core."""
    bonds = [1, *ranks, 1]
    total = 0
    for m in range(len(o)):
        size = bonds[m] * bonds[m + 1]
        for mode in (*o[m:], *i[: m + 1], *(k if m == len(o) - 1 else ())):
            size *= mode
        total += size
    return total


def blocks(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any]) -> list[tuple[list[Any], list[Any]]]:
    """For each bond the modes that both sides have, and the rows of a block: modes that only the side before has.

    The squared error is at most the sum over bonds and blocks of the tails; for one bond it is that sum (Dao et al. 2022, theorem 1).
    """
    return [([*o[m:], *i[:m]], list(o[:m])) for m in range(1, len(o))]
