"""TTM: a chain of cores over merged output and input modes (a matrix product operator, MPO)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.solution import Solution
from tenfold.solvers.tt_svd import chain_errors, tt_svd


@dataclass(frozen=True)
class TTM(Format):
    """Tensor-train matrix: ``o1 i1 r1, r1 o2 i2 r2, r2 k1 k2 -> o1 o2 i1 i2 k1 k2``.

    Core k carries the k-th output and the k-th input mode. Parameters: sum of rank x o_k x i_k x rank. Even at rank 1 the matrix
    can have full rank. Prefer it for very wide linear layers and for embeddings.

    Source: Oseledets 2010, doi:10.1137/090757861; Novikov et al. 2015, arXiv 1509.06569.
    """

    n_modes = 2

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        pairs = fold.pairs
        bonds = [(), *((f"r{number}",) for number in range(1, len(pairs))), ()]
        return [(*left, *pair, *right) for pair, left, right in zip(pairs, bonds, bonds[1:], strict=False)]

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return tt_svd(target, network)

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        return chain_errors(target, networks)
