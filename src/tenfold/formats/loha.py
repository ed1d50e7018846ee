"""LoHa: the entrywise product of two low-rank matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.hadamard_start import hadamard_start
from tenfold.solvers.solution import Solution
from tenfold.solvers.stable_als import stable_als


@dataclass(frozen=True)
class LoHa(Format):
    """Low-rank Hadamard product: ``o1 r, r i1 k1 k2, o1 s, s i1 k1 k2 -> o1 i1 k1 k2``.

    W = (A1 B1) * (A2 B2), entry by entry. Parameters: (r + s) x (out + in x kernel). The matrix has at most the rank r x s, where a
    product of two matrices of as many parameters has r + s: prefer it to `SVD` where a high rank matters more than speed, for its
    cheapest product with an input takes r x s channels. It is fitted by iteration only, from a start that its SVD gives no hint of.

    Source: Hyeon-Woo et al. 2022, arXiv 2108.06098 (FedPara), Proposition 1; named LoHa in the adapters that made it popular.
    """

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        out, inp = fold.role("o"), (*fold.role("i"), *fold.role("k"))
        return [(*out, "r"), ("r", *inp), (*out, "s"), ("s", *inp)]

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        start = hadamard_start(target, network, seed=seed)
        return stable_als(target, network, sweeps=sweeps, seed=seed, start=start, starts=32)
