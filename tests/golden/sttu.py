"""STTu: Tucker on channels with semi-tensor products. Zhao, Liu, Huang and Zhu 2021, arXiv 2109.15200 (abstract).

    W[o, i, k] = sum over p, q of  prod_m (U_m (x) I)[o_m, p_m] * G[p, q, k] * prod_m (V_m (x) I)[q_m, i_m]

with the identity of size t where t divides the mode, else 1. A mode comes as two, (n / t, t), and so does each index p, q of the core.
Factors: U_m (o_m / t, p_m / t), then G (p_1 / t, t, .., q_1 / t, t, .., *k), then V_m (q_m / t, i_m / t).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]

VARIANTS: list[dict[str, Any]] = [{"t": 3}]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, t: int = 2) -> float:
    n_out, n_legs = len(o) // 2, (len(o) + len(i)) // 2
    core = factors[n_out]
    inner = core.shape[1 : 2 * n_legs : 2]
    assert set(inner) <= {1, t}
    nominal = [core.shape[2 * m] * core.shape[2 * m + 1] for m in range(n_legs)]
    core = core.reshape(*nominal, *core.shape[2 * n_legs :])
    legs = [*factors[:n_out], *(leg.T for leg in factors[n_out + 1 :])]
    matrices = [np.kron(leg, np.eye(size)) for leg, size in zip(legs, inner, strict=True)]
    rows = [head * size + tail for head, tail, size in zip((*o, *i)[::2], (*o, *i)[1::2], inner, strict=True)]
    total = 0.0
    for ranks in itertools.product(*map(range, nominal)):
        product = core[(*ranks, *k)]
        for matrix, row, rank in zip(matrices, rows, ranks, strict=True):
            product *= matrix[row, rank]
        total += product
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], t: int = 2) -> int:
    """The sum of (n / t)(R / t) and prod R x kernel, R the nominal ranks; t is 1 for a mode that it does not divide."""
    heads, inner = (*o, *i)[::2], (*o, *i)[1::2]
    core = 1
    for size in k:
        core *= size
    for rank, size in zip(ranks, inner, strict=True):
        core *= rank * size
    return core + sum(head * rank for head, rank in zip(heads, ranks, strict=True))


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any], t: int = 2) -> list[list[Any]]:
    """A Tucker decomposition in the modes n / t: the bound of De Lathauwer et al. 2000, property 10."""
    return [[mode] for mode in (*o, *i)[::2]]
