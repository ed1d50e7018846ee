"""KCP: a sum of Kronecker products. Reconstructed from Wang et al. 2020, arXiv 2008.09342 (abstract), and Phan et al. 2012, arXiv 1203.2719.

    W[(o1, .., od), (i1, .., id), k] = sum_r prod_m A_rm[o_m, i_m] * K_r[k];  with an inner rank  A_rm = sum_s P_rm[o_m, s] Q_rm[s, i_m]

Factors: A_m (R, o_m, i_m), or P_m (R, o_m, S_m) and Q_m (R, S_m, i_m); then K (R, *k) where there is a kernel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-3  # relative, of three factors and more; the solver's least ridge keeps a fit from being exact
VARIANTS: list[dict[str, Any]] = [{"inner_rank": 2}]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, inner_rank: int | None = None) -> float:
    total = 0.0
    for r in range(factors[0].shape[0]):
        term = 1.0
        for m, pair in enumerate(zip(o, i, strict=True)):
            if inner_rank is None:
                term *= factors[m][(r, *pair)]
                continue
            inner = 0.0
            for s in range(factors[2 * m].shape[2]):
                inner += factors[2 * m][r, pair[0], s] * factors[2 * m + 1][r, s, pair[1]]
            term *= inner
        if k:
            term *= factors[-1][(r, *k)]
        total += term
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], inner_rank: int | None = None) -> int:
    """R times the sum of o_m i_m, or of S_m (o_m + i_m) with S_m = min(inner rank, o_m, i_m); the kernel adds its positions."""
    positions = 1
    for size in k:
        positions *= size
    total = positions if k else 0
    for a, b in zip(o, i, strict=True):
        total += a * b if inner_rank is None else min(inner_rank, a, b) * (a + b)
    return ranks[0] * total


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any], inner_rank: int | None = None) -> list[list[Any]] | None:
    """Two factors are fitted by an SVD (Van Loan and Pitsianis 1993), so the error is the tail of this unfolding; no bound otherwise."""
    groups = [[a, b] for a, b in zip(o, i, strict=True)] + ([list(k)] if k else [])
    return [groups[0]] if len(groups) == 2 and inner_rank is None else None
