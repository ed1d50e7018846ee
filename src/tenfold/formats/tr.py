"""TR: a ring of cores over separate output and input modes."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.fold import Fold
from tenfold.format import PenalisedFormat


@dataclass(frozen=True)
class TR(PenalisedFormat):
    """Tensor ring with separate modes: ``r1 o1 r2, r2 o2 r3, r3 k1 k2 r4, r4 i1 r5, r5 i2 r1 -> o1 o2 i1 i2 k1 k2``.

    The chain of `TT`, closed to a ring by `r1`. Parameters: sum of rank before x mode x rank after. The matrix has at most the
    rank `r1` x (the bond between output and input): narrow like TT, where `TRM` is not. The rings of given ranks are not a closed
    set (arXiv 2203.02617), so fits are penalised; keep the ranks small. Prefer it to TT where the first and the last mode belong
    together.

    Source: Zhao et al. 2016, arXiv 1606.05535, eq. (1); in LSTM layers Pan et al. 2019, arXiv 1811.07503.
    """

    n_modes = 2
    n_kernel_modes = 1

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return ring(fold.legs)

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        return self.equal_choices(fold)


def ring(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """One core for each group of modes, between two bonds; the last bond is the first one. A single group stays without a bond."""
    if len(groups) == 1:
        return [tuple(groups[0])]
    bonds = [f"r{number}" for number in range(1, len(groups) + 1)]
    return [(left, *group, right) for left, group, right in zip(bonds, groups, (*bonds[1:], bonds[0]), strict=True)]
