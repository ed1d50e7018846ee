"""SVD: a product of two matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.solution import Solution
from tenfold.solvers.tt_svd import chain_errors, truncated_svd


@dataclass(frozen=True)
class SVD(Format):
    """Low-rank matrix: ``o1 r, r i1 k1 k2 -> o1 i1 k1 k2``.

    Kernel positions go with the input, so a convolution becomes k x k to `rank` channels, then 1x1. Parameters:
    rank x (out + in x kernel). The best approximation of a matrix at its rank (Eckart and Young 1936). Prefer it for
    linear layers, 1x1 convolutions and as the plain baseline.
    """

    rank_step = 0.9  # all ranks come from one decomposition

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return [(*fold.role("o"), "r"), ("r", *fold.role("i"), *fold.role("k"))]

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return truncated_svd(target, network)

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        return chain_errors(target, networks)
