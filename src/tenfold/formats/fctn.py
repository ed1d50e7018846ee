"""FCTN: every pair of cores shares a bond."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.fold import Fold
from tenfold.format import PenalisedFormat


@dataclass(frozen=True)
class FCTN(PenalisedFormat):
    """Fully-connected tensor network, merged modes: ``r1_2 r1_3 o1 i1, r1_2 r2_3 o2 i2, r1_3 r2_3 o3 i3 -> o1 o2 o3 i1 i2 i3``.

    Parameters: sum over the cores of o_k x i_k x product of the bonds of core k, so d l r^(d-1) for d equal cores: keep to four pairs of
    modes. Three cores are a ring. Even at rank 1 the matrix can have full rank. It couples every pair of modes directly, so no order of
    the modes is better than another; networks with loops are not closed sets (arXiv 2203.02617), so fits are penalised. Prefer it
    to TRM where no order of the modes is natural.

    Source: Zheng et al. 2021, doi:10.1609/aaai.v35i12.17321, eq. (2).
    """

    n_modes = 3

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return connected(fold.pairs)

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        return self.equal_choices(fold)


def connected(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """One core for each group of modes, with a bond to every other core; r1_2 joins the first two."""
    numbers = range(1, len(groups) + 1)
    return [(*(f"r{min(k, m)}_{max(k, m)}" for m in numbers if m != k), *group) for k, group in zip(numbers, groups, strict=True)]
