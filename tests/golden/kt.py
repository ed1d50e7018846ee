"""KT: sums of Kronecker products of tensors. Phan et al. 2012, arXiv 1203.2719, eq. (2); groups as in the authors' TensorBox (ktdo.m).

    W[(o1, .., od), (i1, .., id), k] = sum over groups g, sum_r  prod_f A_grf[the pairs (o_m, i_m) of factor f], k with the last factor

Factors, group after group: A_gf (R_g, o_a, i_a, o_b, i_b, ..) of the pairs that a factor takes, the last one with *k behind.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-3  # relative, of three factors and more; the solver's least ridge keeps a fit from being exact
VARIANTS: list[dict[str, Any]] = [{"groups": ((2, 1), (1, 2))}]
Groups = tuple[tuple[int, ...], ...]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, groups: Groups = ()) -> float:
    waiting = list(factors)
    total = 0.0
    for group in groups or ((1,) * len(o),):
        mine, waiting = waiting[: len(group)], waiting[len(group) :]
        for r in range(mine[0].shape[0]):
            term, m = 1.0, 0
            for factor, n_pairs in zip(mine, group, strict=True):
                index: Index = ()
                for _ in range(n_pairs):
                    index += (o[m], i[m])
                    m += 1
                term *= factor[(r, *index, *(k if m == len(o) else ()))]
            total += term
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], groups: Groups = ()) -> int:
    """The sum over groups of R_g times the sizes of their factors."""
    total = 0
    for rank, group in zip(ranks, groups or ((1,) * len(o),), strict=True):
        m = 0
        for n_pairs in group:
            size = 1
            for _ in range(n_pairs):
                size *= o[m] * i[m]
                m += 1
            if m == len(o):
                for positions in k:
                    size *= positions
            total += rank * size
    return total


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any], groups: Groups = ()) -> list[list[Any]] | None:
    """Two factors are fitted by an SVD (Van Loan and Pitsianis 1993), so the error is the tail of this unfolding; no bound otherwise."""
    return [[o[0], i[0]]] if len(o) == 2 and not groups else None
