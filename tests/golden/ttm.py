"""TTM: a chain of cores over merged modes. Oseledets 2010, doi:10.1137/090757861; Novikov et al. 2015, arXiv 1509.06569, eq. (3).

    W[(o1, .., od), (i1, .., id), k] = G_1[o1, i1] G_2[o2, i2] ... G_d[od, id] G[k],  each G[.] a matrix (rank before, rank after)

Factors: G (rank before, o, i, rank after); the core of the kernel, the last, is (rank before, *k).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    modes: list[Index] = [*zip(o, i, strict=True), *([k] if k else [])]
    row = [1.0]
    for position, (core, mode) in enumerate(zip(factors, modes, strict=True)):
        is_first, is_last = position == 0, position == len(factors) - 1
        n_after = 1 if is_last else core.shape[-1]
        after = [0.0] * n_after
        for a in range(len(row)):
            for b in range(n_after):
                left = () if is_first else (a,)
                right = () if is_last else (b,)
                after[b] += row[a] * core[(*left, *mode, *right)]
        row = after
    return row[0]


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """The sum of rank before x o x i x rank after; the kernel core adds rank x positions."""
    positions = 1
    for size in k:
        positions *= size
    modes = [a * b for a, b in zip(o, i, strict=True)] + ([positions] if k else [])
    bonds = [1, *ranks, 1]
    return sum(bonds[n] * mode * bonds[n + 1] for n, mode in enumerate(modes))


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any]) -> list[list[Any]]:
    """The squared error is at most the sum of the tails of these unfoldings (Oseledets 2011, theorem 2.2, for merged modes)."""
    groups = [[a, b] for a, b in zip(o, i, strict=True)] + ([list(k)] if k else [])
    return [[mode for group in groups[:n] for mode in group] for n in range(1, len(groups))]
