"""LoKr: one Kronecker product of a small matrix and a low-rank one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.inner_start import inner_start
from tenfold.solvers.solution import Solution
from tenfold.solvers.stable_als import stable_als
from tenfold.solvers.tt_svd import truncated_svd


@dataclass(frozen=True)
class LoKr(Format):
    """Low-rank Kronecker product: ``o1 i1, o2 r, r i2 k1 k2 -> o1 o2 i1 i2 k1 k2``.

    W = C (x) (A B): the first pair of modes has a full matrix, all others together a product of rank `rank`; with `both` the first
    one is a product too, ``o1 s, s i1``. Parameters: o1 x i1 + rank x (o2 + i2 x kernel). The matrix has at most the rank
    min(o1, i1) x rank. It is `KCP(rank=1)` of order 2 with one factor of low rank. Prefer it for small additions to a trained weight.

    Source: the adapters of LyCORIS, Yeh et al. 2024, arXiv 2309.14859, section 3.2.
    """

    n_modes = 2

    both: bool = False

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        first, *others = (pair for pair in fold.pairs if pair[0][0] != "k")
        if not others:
            return [(*first, *fold.role("k"))]
        out, inp = [[mode for pair in others for mode in pair if mode[0] == role] for role in "oi"]
        head, tail = [[mode for mode in first if mode[0] == role] for role in "oi"]
        small = [(*head, "s"), ("s", *tail)] if self.both else [tuple(first)]
        return [*small, (*out, "r"), ("r", *inp, *fold.role("k"))]

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        start = inner_start(target, network, truncated_svd)  # the nearest Kronecker product of two full matrices
        return stable_als(target, network, sweeps=sweeps, seed=seed, start=start, starts=0)
