"""STR: a tensor ring whose cores are joined by semi-tensor products."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.fold import Fold
from tenfold.format import PenalisedFormat
from tenfold.formats.stt import shifted, with_identity
from tenfold.formats.tr import ring


@dataclass(frozen=True)
class STR(PenalisedFormat):
    """Semi-tensor-product tensor ring: ``r1 i2 o1 r2, r2 o2 i1 r1 -> o1 o2 i1 i2``.

    As `STT`, closed to a ring: every mode n is (n / t, t) in the fold, and the inner part of a mode passes through its own core to the
    next one, from the last to the first. `rank` counts what is stored, R / t; the parameters of every core fall by t^2 against `TR` of
    nominal rank R. The rank of the matrix is bounded as in TR, with nominal ranks. Fits are penalised, as for all rings. Prefer it to TR
    where the ranks needed are so large that the bonds dominate.

    Source: Zhao, Liu, Huang and Zhu 2021, arXiv 2109.15200 (abstract); where in a core the identity stands is our choice.
    """

    n_modes = 2
    n_kernel_modes = 1

    t: int = 2

    def fold(self, fold: Fold) -> Fold:
        return with_identity(fold, self.t, "STR", "TR")

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return ring(shifted(fold.legs, is_ring=True))

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        return self.equal_choices(fold)
