"""CP: a sum of rank-one tensors. Kolda and Bader 2009, doi:10.1137/07070111X, section 3.

    W[o1, .., k, i1, ..] = sum_r prod_m A_m[o_m, r] * K[r, k] * prod_m C_m[r, i_m]

Factors: A_m (o_m, R) for each output mode, K (R, *k) where there is a kernel, C_m (R, i_m) for each input mode.
"""

from collections.abc import Sequence

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-5  # relative; the solver's least ridge keeps a fit from being exact


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, stable: bool = False) -> float:
    total = 0.0
    for r in range(factors[0].shape[-1]):
        term = 1.0
        for m, index in enumerate(o):
            term *= factors[m][index, r]
        if k:
            term *= factors[len(o)][(r, *k)]
        for m, index in enumerate(i):
            term *= factors[len(o) + bool(k) + m][r, index]
        total += term
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], stable: bool = False) -> int:
    """R times the sum of all modes, the kernel positions being one mode."""
    (rank,) = ranks
    positions = 1
    for size in k:
        positions *= size
    return rank * (sum(o) + sum(i) + (positions if k else 0))
