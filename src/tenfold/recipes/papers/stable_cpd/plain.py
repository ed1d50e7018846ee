"""Plain CP: the baseline, alternating least squares without a penalty, as the field does it; and its factors after correction."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from tenfold.correction import corrected
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.formats import CP
from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.solution import Solution
from tenfold.weight import FactorizedWeight

SWEEPS = 1000
RIDGE = 1e-14  # relative to the squared norm: what float64 needs, no penalty


@dataclass(frozen=True)
class PlainCP(Format):
    """CP fitted by alternating least squares without a penalty, with many sweeps: its terms grow and cancel each other.

    Source: as `tenfold.CP`; that such fits degenerate: Krijnen, Dijkstra, Stegeman 2008, doi:10.1007/s11336-008-9056-1.
    """

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return CP().factors(fold)

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return cp_als(target, network, sweeps=SWEEPS, seed=seed, ridge=RIDGE, tolerance=0.0)


def correct(small: nn.Module, dense: nn.Module, *, slack: float, sweeps: int) -> nn.Module:
    """A copy of a compressed model whose factors are less sensitive, each weight within `slack` times the error that it has."""
    result = copy.deepcopy(small)
    for name, module in result.named_modules():
        if isinstance(module, FactorizedWeight):
            original = dense.get_parameter(f"{name.removesuffix('.factorized')}.weight").detach()
            better = corrected(module, original, slack=slack, sweeps=sweeps)
            for factor, new in zip(module.factors, better.factors, strict=True):
                factor.data.copy_(new)
    return result
