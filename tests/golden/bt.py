"""BT: a sum of Tucker terms over merged modes. De Lathauwer 2008, doi:10.1137/070690729; Ye et al. 2018, arXiv 1712.05134, eq. (2).

    W[(o1, .., od), (i1, .., id), k] = sum_b sum over q of  G_b[q_1, .., q_n] prod_m A_bm[o_m, i_m, q_m] * K_b[k, q_n]

Factors: A_m (B, o_m, i_m, R_m), K (B, *k, R_n) where there is a kernel, then G (B, R_1, .., R_n).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-2  # relative; the weakest of the planted terms may be missed by a little
VARIANTS: list[dict[str, Any]] = [{"blocks": 3}]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, blocks: int = 2) -> float:
    modes: list[Index] = [*zip(o, i, strict=True), *([k] if k else [])]
    *legs, core = factors
    total = 0.0
    for b in range(blocks):
        for ranks in itertools.product(*(range(size) for size in core.shape[1:])):
            product = core[(b, *ranks)]
            for leg, mode, rank in zip(legs, modes, ranks, strict=True):
                product *= leg[(b, *mode, rank)]
            total += product
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], blocks: int = 2) -> int:
    """B (sum of o_m i_m R_m + prod R_m), the kernel positions being one mode."""
    positions = 1
    for size in k:
        positions *= size
    modes = [a * b for a, b in zip(o, i, strict=True)] + ([positions] if k else [])
    core = 1
    for rank in ranks[1:]:
        core *= rank
    return blocks * (sum(mode * rank for mode, rank in zip(modes, ranks[1:], strict=True)) + core)
