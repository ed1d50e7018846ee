"""TKD: CP of a Tucker core. Phan et al. 2020, arXiv 2008.05441, section 4.

    W[o1, .., k, i1, ..] = sum_r prod_m (sum_p U_m[o_m, p] A_m[p, r]) * K[r, k] * prod_m (sum_q B_m[r, q] V_m[q, i_m])

Factors: U_m (o_m, a_m) and A_m (a_m, R) for each output mode, K (R, *k) where there is a kernel, B_m (R, b_m) and V_m (b_m, i_m) for each
input mode.
"""

from collections.abc import Sequence

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-2  # relative; the weakest of the planted terms may be missed by a little


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    first_in = 2 * len(o) + bool(k)
    total = 0.0
    for r in range(factors[1].shape[-1]):
        term = 1.0
        for m, index in enumerate(o):
            basis, part = factors[2 * m], factors[2 * m + 1]
            term *= sum(basis[index, p] * part[p, r] for p in range(basis.shape[1]))
        if k:
            term *= factors[2 * len(o)][(r, *k)]
        for m, index in enumerate(i):
            part, basis = factors[first_in + 2 * m], factors[first_in + 2 * m + 1]
            term *= sum(part[r, q] * basis[q, index] for q in range(basis.shape[0]))
        total += term
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """The bases, mode x a; then R times the sum of all a and b, the kernel positions being one mode."""
    first, rank, *others = ranks
    bases = [first, *others]
    positions = 1
    for size in k:
        positions *= size
    return sum(mode * a for mode, a in zip((*o, *i), bases, strict=True)) + rank * (sum(bases) + (positions if k else 0))
