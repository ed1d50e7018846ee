"""HT: frames and transfer tensors of a binary tree over merged modes. Grasedyck 2010, doi:10.1137/090764189, eq. (3.1) and (4.1).

    U_t[., p] = sum over q, s of  B_t[p, q, s] U_left[., q] U_right[., s];   W = U_root,   U_leaf m [(o_m, i_m), q] given

Factors: U_m (o_m, i_m, rank) for each pair, (*k, rank) for the kernel, then B_t stored (rank left, rank right, rank of t) of the inner
nodes, children first; the root's has no rank of its own. Without `tree`, halves, the first one larger.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Index = tuple[int, ...]

VARIANTS: list[dict[str, Any]] = [{"inner_rank": 2}, {"tree": "1 (2 3)"}]


def entry(factors: Sequence[np.ndarray], o: Index, i: Index, k: Index, inner_rank: int | None = None, tree: str | None = None) -> float:
    modes: list[Index] = [*zip(o, i, strict=True), *([k] if k else [])]
    frames = [[leaf[(*mode, q)] for q in range(leaf.shape[-1])] for leaf, mode in zip(factors, modes, strict=False)]
    (value,) = _frame(_tree(len(modes), tree), frames, iter(factors[len(modes) :]))
    return value


def _frame(node: Any, frames: Sequence[list[float]], joints: Iterator[np.ndarray]) -> list[float]:
    """U_t at the entry's modes, for every p."""
    if isinstance(node, int):
        return frames[node - 1]
    left, right = _frame(node[0], frames, joints), _frame(node[1], frames, joints)
    joint = next(joints)
    joint = joint.reshape(len(left), len(right), -1)
    result = []
    for p in range(joint.shape[2]):
        total = 0.0
        for q in range(len(left)):
            for s in range(len(right)):
                total += joint[q, s, p] * left[q] * right[s]
        result.append(total)
    return result


def numel(
    o: Sequence[int], i: Sequence[int], k: Sequence[int], ranks: Sequence[int], inner_rank: int | None = None, tree: str | None = None
) -> int:
    """The sum of o_m i_m r_m, and over inner nodes of r_left r_right r_node, the root's own being 1."""
    positions = 1
    for size in k:
        positions *= size
    modes = [a * b for a, b in zip(o, i, strict=True)] + ([positions] if k else [])
    rank_of = dict(zip(_nodes(len(modes), tree), ranks, strict=True))
    total = sum(mode * rank_of[number] for number, mode in enumerate(modes, 1))
    root = _tree(len(modes), tree)
    for left, right in [node for node in (*rank_of, root) if not isinstance(node, int)]:
        total += rank_of[left] * rank_of[right] * rank_of.get((left, right), 1)
    return total


def cuts(o: Sequence[Any], i: Sequence[Any], k: Sequence[Any], inner_rank: int | None = None, tree: str | None = None) -> list[list[Any]]:
    """The squared error is at most the sum of the tails of the unfoldings of all nodes (Grasedyck 2010, theorem 3.11)."""
    groups = [[a, b] for a, b in zip(o, i, strict=True)] + ([list(k)] if k else [])
    return [[mode for leaf in _leaves(node) for mode in groups[leaf - 1]] for node in _nodes(len(groups), tree)]


def _tree(n_leaves: int, text: str | None) -> Any:
    """Nested pairs of leaf numbers."""
    if text is not None:
        return ast.literal_eval(text.replace(" ", ","))
    return _halves(list(range(1, n_leaves + 1)))


def _halves(leaves: list[int]) -> Any:
    half = len(leaves) - len(leaves) // 2
    return leaves[0] if len(leaves) == 1 else (_halves(leaves[:half]), _halves(leaves[half:]))


def _leaves(node: Any) -> list[int]:
    return [node] if isinstance(node, int) else [*_leaves(node[0]), *_leaves(node[1])]


def _nodes(n_leaves: int, text: str | None) -> list[Any]:
    """All nodes but the root: the leaves by number, then the inner ones, children first."""

    def inner(node: Any) -> list[Any]:
        return [] if isinstance(node, int) else [*inner(node[0]), *inner(node[1]), node]

    return [*range(1, n_leaves + 1), *inner(_tree(n_leaves, text))[:-1]]
