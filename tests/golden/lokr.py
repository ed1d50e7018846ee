"""LoKr: one Kronecker product with a low-rank factor. Yeh et al. 2024, arXiv 2309.14859, section 3.2.

    W = C (x) (A B):  W[(o1, o'), (i1, i', k)] = C[o1, i1] * sum_r A[o', r] B[r, (i', k)];  with `both`  C = sum_s D[o1, s] E[s, i1]

o' and i' are all modes but the first. Factors: C (o1, i1), or D (o1, S) and E (S, i1); then A (*o', R), B (R, *i', *k).
"""

from collections.abc import Sequence

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-5  # relative; the solver's least ridge keeps a fit from being exact


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, both: bool = False) -> float:
    *first, a, b = factors
    if both:
        small = 0.0
        for s in range(first[0].shape[1]):
            small += first[0][o[0], s] * first[1][s, i[0]]
    else:
        small = first[0][o[0], i[0]]
    large = 0.0
    for r in range(b.shape[0]):
        large += a[(*o[1:], r)] * b[(r, *i[1:], *k)]
    return small * large


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], both: bool = False) -> int:
    """o1 i1, or S (o1 + i1), and R (M / o1 + N / i1) with the kernel counted on the input side."""
    rows = columns = 1
    for size in o[1:]:
        rows *= size
    for size in (*i[1:], *k):
        columns *= size
    small = ranks[0] * (o[0] + i[0]) if both else o[0] * i[0]
    return small + ranks[-1] * (rows + columns)
