"""STT: a tensor train with semi-tensor products. Zhao, Liu, Huang and Zhu 2021, arXiv 2109.15200 (abstract).

    W[o1, .., k, i1, ..] = G_1[o1] G_2[o2] .. G_n[i_last],  each G[.] a matrix (nominal rank before, nominal rank after)

where for a fixed row of G_m its mode x rank matrix is U (x) I, the identity of size t where t divides the mode, else 1. A mode comes
as two, (n / t, t), and the t of a core is part of the row of the next. Factors: U (rank before / t, t, n / t, rank after / t), without
the first two for the first core; the last one has its mode whole, the kernel's core all its positions and no identity.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]

VARIANTS: list[dict[str, Any]] = [{"t": 3}]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, t: int = 2) -> float:
    heads, tails = digits(o, i, k)
    row = np.ones(1)
    for m, (core, head, tail) in enumerate(zip(factors, heads, tails, strict=True)):
        n_before = 1 + bool(tails[m - 1])  # axes: the rank before, and the t of the mode before
        stored = core[None] if m == 0 else core.reshape(-1, *core.shape[n_before:])
        if m == len(factors) - 1:
            row = _times(row, stored[(slice(None), *head, *tail)][:, None])
            break
        size = factors[m + 1].shape[1] if tail else 1
        assert size in (1, t)
        row = _times(row, step(stored, head, tail, size))
    return float(row[0])


def step(stored: np.ndarray, head: Index, tail: Index, size: int) -> np.ndarray:
    """G[mode]: rows of the core x columns (rank after / t, t), entry by entry from U (x) I_t."""
    matrix = np.zeros((stored.shape[0], stored.shape[-1] * size))
    for a in range(stored.shape[0]):
        if tail:
            both = np.kron(stored[a], np.eye(size))  # (n / t, rank after / t) -> (n, rank after)
            matrix[a] = both[head[0] * size + tail[0]]
        else:
            matrix[a] = stored[(a, *head)]
    return matrix


def _times(row: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    after = np.zeros(matrix.shape[1])
    for a in range(len(row)):
        for b in range(len(after)):
            after[b] += row[a] * matrix[a, b]
    return after


def digits(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The n / t and the t of each mode in the order of the chain; the kernel has only the former."""
    heads = [(mode,) for mode in o[::2]] + ([tuple(k)] if k else []) + [(mode,) for mode in i[::2]]
    tails = [(mode,) for mode in o[1::2]] + ([()] if k else []) + [(mode,) for mode in i[1::2]]
    return heads, tails


def numel(o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], t: int = 2) -> int:
    """The sum of (nominal rank before) x (n / t) x (nominal rank after / t); the last core has its mode whole."""
    positions = 1
    for size in k:
        positions *= size
    heads = [*o[::2], *([positions] if k else []), *i[::2]]
    tails = [*o[1::2], *([1] if k else []), *i[1::2]]
    total, before = 0, 1
    for m, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        if m == len(heads) - 1:
            return total + before * head * tail
        total += before * head * ranks[m]
        before = ranks[m] * tail
    return total


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any], t: int = 2) -> list[list[Any]]:
    """A tensor train in the modes that each core stores: the bound of Oseledets 2011, theorem 2.2."""
    heads, tails = digits(o, i, k)
    groups = [[*before, *head] for before, head in zip([(), *tails], heads, strict=False)]
    return [[mode for group in groups[:n] for mode in group] for n in range(1, len(groups))]
