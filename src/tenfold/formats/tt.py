"""TT: a chain of cores over separate output and input modes (a matrix product state, MPS)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.solution import Solution
from tenfold.solvers.tt_svd import chain_errors, tt_svd


@dataclass(frozen=True)
class TT(Format):
    """Tensor train with separate modes: ``o1 r1, r1 o2 r2, r2 r3 k1 k2, r3 i1 r4, r4 i2 -> o1 o2 i1 i2 k1 k2``.

    Output modes first, then the kernel positions together, then input modes. Parameters: sum of rank x mode x rank. The matrix
    has at most the rank of the bond between output and input: very cheap and very narrow; TTM has no such bottleneck.
    Prefer it for very small maps whose matrix is of low rank.

    Source: Oseledets 2011, doi:10.1137/090752286.
    """

    n_modes = 2
    n_kernel_modes = 1

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        legs = fold.legs
        bonds = [(), *((f"r{number}",) for number in range(1, len(legs))), ()]
        return [
            (*left, *right, *leg) if leg[0][0] == "k" else (*left, *leg, *right)
            for leg, left, right in zip(legs, bonds, bonds[1:], strict=False)
        ]

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return tt_svd(target, network)

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        return chain_errors(target, networks)
