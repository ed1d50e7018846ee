"""STTu: Tucker whose matrices are applied by semi-tensor products."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.formats.stt import with_identity
from tenfold.network import Network
from tenfold.solvers.hosvd import hosvd
from tenfold.solvers.solution import Solution


@dataclass(frozen=True)
class STTu(Format):
    """Semi-tensor-product Tucker: ``o1 r1, r1 o2 r2 i2 k1 k2, r2 i1 -> o1 o2 i1 i2 k1 k2``.

    Every mode n is two, (n / t, t), in the fold: o1 o2 here are one. The matrix of a mode in `Tucker`, n x R, is stored as n / t x R / t
    and used as U (x) I_t, so the inner part o2 stands on the core. `rank` counts what is stored, R / t: a matrix has t^2 times fewer
    parameters than in Tucker of nominal rank R, the core as many. A mode that t does not divide is kept whole. The matrix of the weight
    has at most the rank of the smaller side of its core. Prefer it to Tucker where the matrices of the channels dominate.

    Source: Zhao, Liu, Huang and Zhu 2021, arXiv 2109.15200 (abstract).
    """

    t: int = 2

    def fold(self, fold: Fold) -> Fold:
        return with_identity(fold, self.t, "STTu", "Tucker")

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        out, inp = [[leg for leg in fold.legs if leg[0][0] == role] for role in "oi"]
        ranks = [f"r{number}" for number in range(1, len(out) + len(inp) + 1)]
        legs = [(*leg[:-1], rank) for leg, rank in zip((*out, *inp), ranks, strict=True)]
        core = [name for leg, rank in zip((*out, *inp), ranks, strict=True) for name in (rank, leg[-1])]
        return [*legs[: len(out)], (*core, *fold.role("k")), *(leg[::-1] for leg in legs[len(out) :])]

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return hosvd(target, network, sweeps=min(sweeps, 10))
