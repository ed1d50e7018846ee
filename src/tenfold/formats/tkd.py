"""TKD: CP between a basis for the output channels and one for the input channels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format, round_rank
from tenfold.network import Network
from tenfold.solvers.als import als
from tenfold.solvers.solution import Solution
from tenfold.solvers.tkd import is_tkd, tkd, tkd_errors
from tenfold.solvers.tt_svd import chain_errors, is_chain, tt_svd

SHARES = (0.85, 0.6, 0.4)  # of a channel mode, for its basis


@dataclass(frozen=True)
class TKD(Format):
    """TKD-CPD, CP of a Tucker-2 core: ``o1 a1, a1 r, r k1 k2, r b1, b1 i1 -> o1 i1 k1 k2``.

    A convolution becomes 1x1, 1x1, depthwise, 1x1, 1x1, or fewer where merged ones are cheaper. `rank` is (a1, r, b1), in the order of the
    statement. Parameters: sum of mode x a + r x (sum of all a, kernel positions counted once). Smaller than CP of the same rank where
    a < mode x r / (mode + r), and fitted faster, because CP sees the small core only; its factors are corrected as those of
    `CP(stable=True)`, but not again after a fit to outputs. Prefer it for wide convolutions whose channels are redundant; of a
    matrix it is the SVD, in four factors.

    Source: Phan et al. 2020, arXiv 2008.05441, section 4.
    """

    is_svd_of_matrices = True

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        out, inp, kernel = fold.role("o"), fold.role("i"), fold.role("k")
        before = [one for n, mode in enumerate(out, 1) for one in ((mode, f"a{n}"), (f"a{n}", "r"))]
        after = [one for n, mode in enumerate(inp, 1) for one in (("r", f"b{n}"), (f"b{n}", mode))]
        return [*before, *([("r", *kernel)] if kernel else []), *after]

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        most = self.free_ranks(self.widest(fold))
        if self.rank is not None or len(most) != 3 or not fold.role("k"):
            return super().rank_choices(fold)
        a, r, b = most.values()
        tops = sorted({round_rank(r * 0.7**k, r) for k in range(40)})
        pairs = [(round_rank(share * a, a), round_rank(share * b, b)) for share in SHARES]
        # a core needs no rank above the product of its two smaller sides
        kernel = math.prod(fold.sizes[mode] for mode in fold.role("k"))
        return sorted({(left, min(rank, left * right, kernel * min(left, right)), right) for left, right in pairs for rank in tops})

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        if is_chain(networks[0]):
            return chain_errors(target, networks)
        if not is_tkd(networks[0]):
            return super().errors(target, networks, sweeps=sweeps, seed=seed)
        return tkd_errors(target, networks, sweeps=sweeps, seed=seed)

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        if is_chain(network):
            return tt_svd(target, network)
        if not is_tkd(network):
            return als(target, network, sweeps=sweeps, seed=seed)
        return tkd(target, network, sweeps=sweeps, seed=seed)
