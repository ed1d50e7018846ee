"""STR: a tensor ring with semi-tensor products. Zhao, Liu, Huang and Zhu 2021, arXiv 2109.15200 (abstract).

    W[o1, .., k, i1, ..] = trace(G_1[o1] G_2[o2] .. G_n[i_last]),  the G as in STT, all of them (rank before / t, t, n / t, rank after / t)

The t in a core's row belongs to the mode before it, that of the first core to the last mode; the kernel has none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from golden.stt import digits, step

Index = tuple[int, ...]

PLANTED_ERROR = 1e-3  # relative; rings are no closed set, and a fit may stop in a swamp
VARIANTS: list[dict[str, Any]] = [{"t": 3}]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, t: int = 2) -> float:
    heads, tails = digits(o, i, k)
    sizes = _inner(factors, tails)
    assert set(sizes) <= {1, t}
    matrices = []
    for m, (core, head, tail) in enumerate(zip(factors, heads, tails, strict=True)):
        stored = core.reshape(core.shape[0] * sizes[m - 1], *core.shape[1 + bool(tails[m - 1]) :])
        matrices.append(step(stored, head, tail, sizes[m]))
    total = 0.0
    for start in range(matrices[0].shape[0]):
        row = [1.0 if a == start else 0.0 for a in range(matrices[0].shape[0])]
        for matrix in matrices:
            row = [sum(row[a] * matrix[a, b] for a in range(len(row))) for b in range(matrix.shape[1])]
        total += row[start]
    return float(total)


def _inner(factors: Sequence[np.ndarray], tails: Sequence[Index]) -> list[int]:
    """The size of the identity of each core, which stands on the core after it."""
    after = [*factors[1:], factors[0]]
    return [core.shape[1] if tail else 1 for core, tail in zip(after, tails, strict=True)]


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], t: int = 2) -> int:
    """The sum of (nominal rank before) x (n / t) x (nominal rank after / t)."""
    positions = 1
    for size in k:
        positions *= size
    heads = [*o[::2], *([positions] if k else []), *i[::2]]
    tails = [*o[1::2], *([1] if k else []), *i[1::2]]
    total = 0
    for m, head in enumerate(heads):
        total += ranks[m] * tails[m - 1] * head * ranks[(m + 1) % len(ranks)]
    return total
