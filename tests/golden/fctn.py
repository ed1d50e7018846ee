"""FCTN: every two cores share a bond. Zheng et al. 2021, doi:10.1609/aaai.v35i12.17321, eq. (2), over merged modes.

    W[(o1, .., od), (i1, .., id), k] = sum over all bonds q_ab of  prod_m G_m[q_1m, .., o_m, i_m, .., q_md]

Factors: G_m (bonds to all other cores in their order, o_m, i_m), the last one (.., *k) where there is a kernel.
"""

import itertools
from collections.abc import Sequence

import numpy as np

Index = tuple[int, ...]

PLANTED_ERROR = 1e-3  # relative; networks with loops are no closed set, and a fit may stop in a swamp


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index) -> float:
    return connected(factors, [*zip(o, i, strict=True), *([k] if k else [])])


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int]) -> int:
    """The sum of o_m i_m x all bonds of core m, the kernel positions being one mode."""
    positions = 1
    for size in k:
        positions *= size
    return size_of([a * b for a, b in zip(o, i, strict=True)] + ([positions] if k else []), ranks)


def connected(cores: Sequence[np.ndarray], modes: Sequence[Index]) -> float:
    """The contraction of all cores at some modes, by loops over all bonds; core m has its bonds first."""
    n = len(cores)
    sizes = {pair: cores[pair[0]].shape[pair[1] - 1] for pair in itertools.combinations(range(n), 2)}
    total = 0.0
    for values in itertools.product(*map(range, sizes.values())):
        bond = dict(zip(sizes, values, strict=True))
        product = 1.0
        for m, (core, mode) in enumerate(zip(cores, modes, strict=True)):
            product *= core[(*(bond[min(m, other), max(m, other)] for other in range(n) if other != m), *mode)]
        total += product
    return total


def size_of(modes: Sequence[int], bonds: Sequence[int]) -> int:
    """The sum over the cores of mode x its bonds; bonds in the order (1, 2), (1, 3), .., (2, 3), .."""
    total = 0
    for m, size in enumerate(modes):
        for pair, bond in zip(itertools.combinations(range(len(modes)), 2), bonds, strict=True):
            size *= bond if m in pair else 1
        total += size
    return total
