"""KT: a sum of Kronecker products of tensors, in one or in several groups of factor sizes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.solution import Solution
from tenfold.solvers.stable_als import stable_als


@dataclass(frozen=True)
class KT(Format):
    """Kronecker tensor decomposition: ``r o1 i1, r o2 i2 k1 k2 -> o1 o2 i1 i2 k1 k2``.

    W = sum over r of A_r (x) B_r, with the kernel positions in the last factor. Parameters: rank x sum of the factors' sizes. One term
    has at most the rank prod_k min(o_k, i_k). With two factors the best fit is an SVD (Van Loan and Pitsianis 1993).

    `groups` makes it a sum of several such sums whose factors differ in size: each group says how many neighbouring pairs of
    modes every factor of it takes. ``KT(rank=(4, 4), groups=((2, 1), (1, 2)))`` on three pairs of modes is
    ``r1 o1 i1 o2 i2, r1 o3 i3 + r2 o1 i1, r2 o2 i2 o3 i3``. Ranks of different groups add, and a group reaches what another cannot.
    Prefer one group of two for linear layers and convolutions of middling size; `KCP` is one group of many small factors.

    Source: Phan et al. 2012, arXiv 1203.2719, eq. (2) (two factors); groups as in the authors' TensorBox; for convolutions Hameed et al.
    2022, arXiv 2109.14710; the SVD: Van Loan and Pitsianis 1993.
    """

    n_modes = 2
    rank_step = 0.75

    groups: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(group, tuple) and group for group in self.groups):
            raise TypeError(
                f"KT got the groups {self.groups}; a tuple with a tuple of whole numbers for each group is needed: write for instance "
                "groups=((2, 1),)"
            )
        if self.groups:
            object.__setattr__(self, "n_modes", sum(self.groups[0]))  # where nothing else is asked for, as many pairs as the groups take

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        groups = self._split(fold)
        if len(groups) == 1:
            return groups[0] if len(groups[0]) == 1 else [("r", *modes) for modes in groups[0]]
        return [(f"r{number}", *modes) for number, group in enumerate(groups, 1) for modes in group]

    def term_lengths(self, fold: Fold) -> Sequence[int]:
        groups = self._groups(fold)
        return [len(group) for group in groups] if len(groups) > 1 else ()

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        solver = stable_als if network.term_lengths else cp_als
        return solver(target, network, sweeps=sweeps, seed=seed)

    def _groups(self, fold: Fold) -> tuple[tuple[int, ...], ...]:
        return self.groups or ((1,) * len([pair for pair in fold.pairs if pair[0][0] != "k"]),)

    def _split(self, fold: Fold) -> list[list[tuple[str, ...]]]:
        """The modes of each factor of each group."""
        pairs = [pair for pair in fold.pairs if pair[0][0] != "k"]
        kernel = fold.role("k")
        result = []
        for group in self._groups(fold):
            if sum(group) != len(pairs) or min(group) < 1 or (self.groups and len(group) < 2):
                raise ValueError(
                    f"KT got the group {group} for {len(pairs)} pairs of modes; a group needs two factors or more that take all pairs "
                    f"together: write for instance groups=(({len(pairs) - 1}, 1),)"
                )
            ends = [sum(group[:n]) for n in range(len(group) + 1)]
            parts = [tuple(mode for pair in pairs[a:b] for mode in pair) for a, b in itertools.pairwise(ends)]
            result.append([*parts[:-1], (*parts[-1], *kernel)])
        return result
