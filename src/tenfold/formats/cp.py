"""CP: a sum of rank-one tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als, cp_errors
from tenfold.solvers.solution import Solution
from tenfold.solvers.stable_cp import SLACK, stable_cp


@dataclass(frozen=True)
class CP(Format):
    """Canonical polyadic decomposition: ``o1 r, r k1 k2, r i1 -> o1 i1 k1 k2``.

    One factor for each mode and one for all kernel positions together, so a convolution becomes 1x1, depthwise, 1x1.
    Parameters: rank x (sum of all modes, kernel positions counted once). The matrix between input and output has at most
    that rank. Prefer it for convolutions with kernels larger than 1x1. Unregularised fits degenerate: see `cp_als`.

    With `stable=True` the factors are the least sensitive ones within 1 % of the error, on weights or on outputs: they stand rounding to
    few bits and a higher learning rate; a decomposition takes up to a few times as long.

    Source: Hitchcock 1927; for convolutions Lebedev et al. 2015, arXiv 1412.6553, section 3.2; stable: Phan et al. 2020, arXiv 2008.05441.
    """

    rank_step = 0.75
    is_svd_of_matrices = True

    stable: bool = False

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return [("r", *leg) if leg[0][0] in "ik" else (*leg, "r") for leg in fold.legs]

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        errors = cp_errors(target, networks, sweeps=sweeps, seed=seed)
        return errors * self.slack(networks[0])

    def slack(self, network: Network) -> float:
        return SLACK if self.stable and len(network.factors) > 2 else 1.0

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        solver = stable_cp if self.stable else cp_als
        return solver(target, network, sweeps=sweeps, seed=seed)
