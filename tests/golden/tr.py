"""TR: a ring of cores over separate modes. Zhao et al. 2016, arXiv 1606.05535, eq. (1).

    W[o1, .., k, i1, ..] = trace(G_1[o1] G_2[o2] .. G[k] .. G_n[i_last]),  each G[.] a matrix (rank before, rank after)

Factors: G (rank before, mode, rank after), the kernel's positions being one mode.
"""

from collections.abc import Sequence

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-3  # relative; rings are no closed set, and a fit may stop in a swamp


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    modes: list[Index] = [(index,) for index in o] + ([k] if k else []) + [(index,) for index in i]
    return ring(factors, modes)


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """The sum of rank before x mode x rank after."""
    positions = 1
    for size in k:
        positions *= size
    modes = [*o, *([positions] if k else []), *i]
    return sum(left * mode * right for left, mode, right in zip(ranks, modes, [*ranks[1:], ranks[0]], strict=True))


def ring(cores: Sequence[np.ndarray], modes: Sequence[Index]) -> float:
    """The trace of the product of the matrices that the modes choose, by loops."""
    total = 0.0
    for start in range(cores[0].shape[0]):
        row = [1.0 if a == start else 0.0 for a in range(cores[0].shape[0])]
        for core, mode in zip(cores, modes, strict=True):
            after = [0.0] * core.shape[-1]
            for a in range(len(row)):
                for b in range(len(after)):
                    after[b] += row[a] * core[(a, *mode, b)]
            row = after
        total += row[start]
    return total
