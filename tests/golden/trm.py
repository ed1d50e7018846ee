"""TRM: a ring of cores over merged modes. Zhao et al. 2016, arXiv 1606.05535, eq. (1), for the modes (o_m, i_m).

    W[(o1, .., od), (i1, .., id), k] = trace(G_1[o1, i1] .. G_d[od, id] G[k]),  each G[.] a matrix (rank before, rank after)

Factors: G (rank before, o, i, rank after); the core of the kernel, the last, is (rank before, *k, rank after).
"""

from collections.abc import Sequence

import numpy as np

from golden.tr import ring

Index = tuple[int, ...]

PLANTED_ERROR = 1e-3  # relative; rings are no closed set, and a fit may stop in a swamp


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    return ring(factors, [*zip(o, i, strict=True), *([k] if k else [])])


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """The sum of rank before x o x i x rank after; the kernel core has its positions as mode."""
    positions = 1
    for size in k:
        positions *= size
    modes = [a * b for a, b in zip(o, i, strict=True)] + ([positions] if k else [])
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, [*ranks[1:], ranks[0]], strict=True))
