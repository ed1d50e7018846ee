"""Monarch: a product of block-diagonal matrices, in the general form of a block tensor train (BTT)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.block_svd import block_svd
from tenfold.solvers.solution import Solution


@dataclass(frozen=True)
class Monarch(Format):
    """Block tensor train: ``o1 o2 i1 r1, r1 o2 i1 i2 k1 k2 -> o1 o2 i1 i2 k1 k2``; Monarch matrices are those of rank 1.

    Core k carries the first k input modes and all output modes from the k-th on: each is a batch of small matrices, and between
    two of them the features are regrouped. Parameters for two pairs of modes and the rank r: r x o2 x i1 x (o1 + i2), so r x 2 n^1.5
    for an n x n matrix. At rank 1 the matrix can have full rank already. The best fit is one SVD for each block. Prefer it for square
    linear layers on hardware that is good at batched products: few steps, all of them dense.

    Source: Dao et al. 2022, arXiv 2204.00595, section 3 (Monarch, and its projection); Qiu et al. 2024, arXiv 2406.06248 (BTT).
    """

    n_modes = 2

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        pairs = [pair for pair in fold.pairs if pair[0][0] != "k"]
        out, inp = [[tuple(mode for mode in pair if mode[0] == role) for pair in pairs] for role in "oi"]
        bonds = [(), *((f"r{number}",) for number in range(1, len(pairs))), ()]
        cores = []
        for number, (left, right) in enumerate(itertools.pairwise(bonds)):
            own = [mode for group in (*out[number:], *inp[: number + 1]) for mode in group]
            kernel = fold.role("k") if number == len(pairs) - 1 else ()
            cores.append((*left, *own, *kernel, *right))
        return cores

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return block_svd(target, network)
