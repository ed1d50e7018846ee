"""TRM: a ring of cores over merged output and input modes."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.fold import Fold
from tenfold.format import PenalisedFormat
from tenfold.formats.tr import ring


@dataclass(frozen=True)
class TRM(PenalisedFormat):
    """Tensor-ring matrix: ``r1 o1 i1 r2, r2 o2 i2 r3, r3 k1 k2 r1 -> o1 o2 i1 i2 k1 k2``.

    The chain of `TTM`, closed to a ring by `r1`. Parameters: sum of rank before x o_k x i_k x rank after. Even at rank 1 the matrix
    can have full rank. Rings are not a closed set (arXiv 2203.02617), so fits are penalised. Prefer it to TTM where no mode is the
    natural end of a chain; two cores make a ring that is a chain with a bond of r1 x r2.

    Source: Zhao et al. 2016, arXiv 1606.05535, eq. (1), with the merged modes of Oseledets 2010, doi:10.1137/090757861.
    """

    n_modes = 3

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return ring(fold.pairs)

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        return self.equal_choices(fold)
