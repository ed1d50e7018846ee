"""HT: a tree of small tensors over merged output and input modes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.ht_svd import ht_svd
from tenfold.solvers.solution import Solution

Tree: TypeAlias = int | tuple["Tree", "Tree"]
"""A leaf by its number, from 1, or two subtrees."""


@dataclass(frozen=True)
class HT(Format):
    """Hierarchical Tucker, merged modes: ``o1 i1 r1, o2 i2 r2, o3 i3 r3, r1 r2 r1_2, r1_2 r3 -> o1 o2 o3 i1 i2 i3``.

    A frame for each pair of modes, and for every inner node of a binary tree a tensor that joins its two children; the root has
    no bond above it. Parameters: sum of o_k x i_k x r_k + sum over inner nodes of r_left x r_right x r_node. Even at rank 1 the
    matrix can have full rank. Prefer it to TTM for four pairs of modes and more, where the ranks in the middle of a chain grow.

    `inner_rank` sizes the bonds of inner nodes, `rank` is then that of the frames alone. `tree` is any binary tree over the pairs,
    for instance ``"((1 2) 3) (4 5)"``, the default for five: halves, the first one larger.

    Source: Hackbusch and Kuehn 2009, doi:10.1007/s00041-009-9094-9; Grasedyck 2010, doi:10.1137/090764189; in LSTM layers
    Yin et al. 2021, arXiv 2005.04366.
    """

    n_modes = 3

    inner_rank: int | None = None
    tree: str | None = None

    def __post_init__(self) -> None:
        if self.tree is not None:
            leaves = len(re.findall(r"\d+", str(self.tree)))
            if not leaves or not isinstance(self.tree, str):
                raise TypeError(f"HT got the tree {self.tree!r}; a text with numbers and brackets is needed: write it as '((1 2) 3) (4 5)'")
            object.__setattr__(self, "n_modes", leaves)  # where nothing else is asked for, as many pairs as the tree has leaves

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        pairs = fold.pairs
        tree = balanced(range(1, len(pairs) + 1)) if self.tree is None else parse_tree(self.tree, len(pairs))
        if len(pairs) == 1:
            return pairs
        return [*((*pair, f"r{number}") for number, pair in enumerate(pairs, 1)), *_joints(tree, is_root=True)]

    def other_ranks(self, network: Network) -> Mapping[str, int]:
        if self.inner_rank is None:
            return {}
        return {rank: min(self.inner_rank, network.useful_rank(rank)) for rank in network.ranks if "_" in rank}

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return ht_svd(target, network)


def balanced(leaves: Sequence[int]) -> Tree:
    """The tree of halves, the first one larger."""
    if len(leaves) == 1:
        return leaves[0]
    half = (len(leaves) + 1) // 2
    return balanced(leaves[:half]), balanced(leaves[half:])


def parse_tree(text: str, n_leaves: int) -> Tree:
    """A tree from its text; brackets around all of it may be left out.

    >>> parse_tree("((1 2) 3) (4 5)", 5)
    (((1, 2), 3), (4, 5))
    """
    found: list[list[Tree]] = [[]]
    for token in re.findall(r"[()]|[^()\s]+", text):
        if token == "(":
            found.append([])
        elif token == ")" and len(found) > 1:
            found[-2].append(_joined(text, found.pop()))
        elif token.isdecimal():
            found[-1].append(int(token))
        else:
            raise ValueError(f"the tree {text!r} has a {token!r} that does not fit; write numbers and brackets, as in '((1 2) 3) (4 5)'")
    tree = _joined(text, found[0]) if len(found) == 1 else None
    if tree is None or sorted(_leaves(tree)) != list(range(1, n_leaves + 1)):
        raise ValueError(
            f"the tree {text!r} does not hold each of the pairs of modes 1 to {n_leaves} once; write it as in '((1 2) 3) (4 5)'"
        )
    return tree


def _joined(text: str, children: list[Tree]) -> Tree:
    if len(children) == 1:
        return children[0]
    if len(children) != 2:
        raise ValueError(f"the tree {text!r} joins {len(children)} nodes at once; a binary tree joins two: add brackets")
    return children[0], children[1]


def _leaves(tree: Tree) -> list[int]:
    return [tree] if isinstance(tree, int) else [*_leaves(tree[0]), *_leaves(tree[1])]


def _bond(tree: Tree) -> str:
    return "r" + "_".join(map(str, _leaves(tree)))


def _joints(tree: Tree, *, is_root: bool = False) -> list[tuple[str, ...]]:
    """The tensor of every inner node, children first."""
    if isinstance(tree, int):
        return []
    left, right = tree
    own = () if is_root else (_bond(tree),)
    return [*_joints(left), *_joints(right), (_bond(left), _bond(right), *own)]
