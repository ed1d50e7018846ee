"""LoHa: the entrywise product of two low-rank matrices. Hyeon-Woo et al. 2022, arXiv 2108.06098, proposition 1.

    W[o, (i, k)] = (sum_r A1[o, r] B1[r, (i, k)]) * (sum_s A2[o, s] B2[s, (i, k)])

Factors: A1 (*o, R), B1 (R, *i, *k), A2 (*o, S), B2 (S, *i, *k).
"""

from collections.abc import Sequence

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-3  # relative; four factors on the same two axes make many local minima


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    result = 1.0
    for left, right in (factors[:2], factors[2:]):
        product = 0.0
        for r in range(right.shape[0]):
            product += left[(*o, r)] * right[(r, *i, *k)]
        result *= product
    return result


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """(R + S)(M + N) with the kernel counted on the input side."""
    rows = columns = 1
    for size in o:
        rows *= size
    for size in (*i, *k):
        columns *= size
    r, s = ranks
    return (r + s) * (rows + columns)
