"""KCP: a sum of Kronecker products of small matrices."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.inner_start import inner_start
from tenfold.solvers.solution import Solution
from tenfold.solvers.stable_als import stable_als


@dataclass(frozen=True)
class KCP(Format):
    """Kronecker CP decomposition: ``r o1 i1, r o2 i2, r o3 i3 -> o1 o2 o3 i1 i2 i3``.

    W = sum over r of A_r1 (x) A_r2 (x) .. , that is CP of the tensor of merged modes (o_k i_k). Parameters: rank x sum of o_k x i_k,
    with no core and no bonds: at equal rank the smallest of the merged formats. One term has at most the rank prod_k min(o_k, i_k),
    so even rank 1 can have full rank. With `inner_rank` each small matrix is a product itself: ``r o1 s1, r s1 i1, ..``. Factors of a term
    act on different modes, so they are applied in any order, two halves can be multiplied out first, and terms do not wait for each
    other. Prefer it for the widest layers and where a whole map shall have a few hundred parameters. Like CP it can degenerate when
    fitted: see `cp_als`.

    Source: the name and the aim are those of Wang et al. 2020, arXiv 2008.09342; the definition is reconstructed from its abstract and
    from the Kronecker tensor decomposition (Phan et al. 2012, arXiv 1203.2719) that it derives from, as the body was not at hand.
    """

    n_modes = 3
    rank_step = 0.75

    inner_rank: int | None = None

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        if self.inner_rank is None:
            return fold.pairs if len(fold.pairs) == 1 else [("r", *pair) for pair in fold.pairs]
        factors: list[tuple[str, ...]] = []
        for number, pair in enumerate(fold.pairs, 1):
            if pair[0][0] == "k":
                factors.append(("r", *pair))
                continue
            out, inp = [[mode for mode in pair if mode[0] == role] for role in "oi"]
            factors += [("r", *out, f"s{number}"), ("r", f"s{number}", *inp)]
        return factors

    def other_ranks(self, network: Network) -> Mapping[str, int]:
        if self.inner_rank is None:
            return {}
        return {rank: min(self.inner_rank, network.useful_rank(rank)) for rank in network.ranks if rank[0] == "s"}

    def max_ranks(self, network: Network) -> dict[str, int]:
        most = super().max_ranks(network)
        if self.inner_rank is None:
            return most
        terms = math.prod(-(-size // max(1, self.inner_rank)) for rank, size in most.items() if rank[0] == "s")
        return {**most, "r": most["r"] * terms}  # a full matrix is a sum of so many of the inner rank

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        if self.inner_rank is None:
            return cp_als(target, network, sweeps=sweeps, seed=seed)
        start = inner_start(target, network, lambda tensor, coarse: cp_als(tensor, coarse, sweeps=sweeps, seed=seed))
        return stable_als(target, network, sweeps=sweeps, seed=seed, start=start)
