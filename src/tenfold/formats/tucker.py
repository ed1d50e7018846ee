"""Tucker: a small core with one matrix for each channel mode."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format, round_rank
from tenfold.network import Network
from tenfold.solvers.hosvd import hosvd, tucker2_errors
from tenfold.solvers.solution import Solution


@dataclass(frozen=True)
class Tucker(Format):
    """Tucker decomposition: on channels (Tucker-2) ``o1 r1, r1 r2 k1 k2, r2 i1 -> o1 i1 k1 k2``.

    With `all_modes=True` the kernel positions get a factor too: ``o1 r1, r1 r2 r3, r3 k1 k2, r2 i1``. A convolution becomes 1x1,
    k x k on fewer channels, 1x1. Parameters: prod(ranks) x kernel + sum(mode x rank). The core grows with the product of all
    ranks: keep to few modes. Prefer it for wide convolutions, where its k x k core runs at the full rate of the machine.

    Source: Tucker 1966; for convolutions Kim et al. 2016, arXiv 1511.06530, section 3.1.
    """

    is_svd_of_matrices = True

    all_modes: bool = False

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        out, inp, kernel = fold.role("o"), fold.role("i"), fold.role("k")
        ranks = {mode: f"r{number}" for number, mode in enumerate((*out, *inp), 1)}
        core = tuple(ranks.values())
        spatial: list[tuple[str, ...]] = []
        if kernel and self.all_modes:
            last = f"r{len(ranks) + 1}"
            core, spatial = (*core, last), [(last, *kernel)]
        elif kernel:
            core = (*core, *kernel)
        return [*((mode, ranks[mode]) for mode in out), core, *spatial, *((ranks[mode], mode) for mode in inp)]

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        most = tuple(self.widest(fold).ranks.values())
        if self.rank is not None or len(most) != 2:
            return super().rank_choices(fold)
        # one decomposition tells the error of every pair of ranks, so unequal pairs are tried too
        sides = [sorted({round_rank(size * 0.8**k, size) for k in range(12)}) for size in most]
        # beyond the other rank times the kernel a rank adds values and no weights
        n_kernel = math.prod(fold.sizes[mode] for mode in fold.role("k"))
        return sorted({(min(r1, r2 * n_kernel), min(r2, r1 * n_kernel)) for r1, r2 in itertools.product(*sides)})

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        if len(networks[0].ranks) != 2:
            return super().errors(target, networks, sweeps=sweeps, seed=seed)
        return torch.stack(tucker2_errors(target, networks))

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return hosvd(target, network, sweeps=min(sweeps, 10))
