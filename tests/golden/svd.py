"""SVD: a matrix product. Eckart and Young 1936, doi:10.1007/BF02288367.

    W[o, (i, k)] = sum_r U[o, r] V[r, (i, k)]

Factors: U (*o, R), V (R, *i, *k).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    u, v = factors
    total = 0.0
    for r in range(v.shape[0]):
        total += u[(*o, r)] * v[(r, *i, *k)]
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """R (M + N) with the kernel counted on the input side."""
    (rank,) = ranks
    rows = columns = 1
    for size in o:
        rows *= size
    for size in (*i, *k):
        columns *= size
    return rank * (rows + columns)


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any]) -> list[list[Any]]:
    """The modes on one side of each rank: the error is the tail of this unfolding's singular values, exactly."""
    return [list(o)]
