"""LMTN: latent matrices outside a fully-connected network. Yang et al. 2022 (abstract), read as Tucker matrices at the cores of an FCTN.

    W[(o1, .., od), (i1, .., id), k] = sum over p of  prod_m U_m[o_m, i_m, p_m] * FCTN(G_1, .., G_n)[p_1, .., p_n],  U_n[k, p_n] for the kernel

Factors: U_m (o_m, i_m, L_m), (*k, L_n) for the kernel, then G_m (bonds to all other cores in their order, L_m).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from golden.fctn import connected, size_of

Index = tuple[int, ...]

PLANTED_ERROR = 1e-3  # relative; networks with loops are no closed set, and a fit may stop in a swamp
VARIANTS: list[dict[str, Any]] = [{"latent_rank": 2}]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, latent_rank: int | None = None) -> float:
    modes: list[Index] = [*zip(o, i, strict=True), *([k] if k else [])]
    matrices, cores = factors[: len(modes)], factors[len(modes) :]
    total = 0.0
    for latent in itertools.product(*(range(matrix.shape[-1]) for matrix in matrices)):
        product = 1.0
        for matrix, mode, p in zip(matrices, modes, latent, strict=True):
            product *= matrix[(*mode, p)]
        total += product * connected(cores, [(p,) for p in latent])
    return total


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], latent_rank: int | None = None) -> int:
    """The sum of o_m i_m L_m and of an FCTN over the sizes L_m, the kernel positions being one mode."""
    positions = 1
    for size in k:
        positions *= size
    modes = [a * b for a, b in zip(o, i, strict=True)] + ([positions] if k else [])
    latent = ranks[: len(modes)]
    return sum(mode * size for mode, size in zip(modes, latent, strict=True)) + size_of(latent, ranks[len(modes) :])
