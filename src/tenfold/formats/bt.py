"""BT: a sum of Tucker terms over merged output and input modes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenfold.fold import Fold
from tenfold.format import PenalisedFormat
from tenfold.network import Network


@dataclass(frozen=True)
class BT(PenalisedFormat):
    """Block-term decomposition: ``b o1 i1 r1, b o2 i2 r2, b r1 r2 -> o1 o2 i1 i2``.

    A sum of `blocks` Tucker terms, each with a core. Parameters: blocks x (sum of o_k x i_k x r_k + product of all r_k). Even at
    rank 1 the matrix can have full rank; rank 1 is `KCP(rank=blocks)` with one scale for each term. Core and arithmetic grow with
    the product of the ranks: keep to ranks of 4 or less. Prefer it to TTM where several small couplings of all modes are wanted.

    Source: De Lathauwer 2008, doi:10.1137/070690729; in LSTM layers Ye et al. 2018, arXiv 1712.05134.
    """

    n_modes = 2

    blocks: int = 2

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        ranks = [f"r{number}" for number in range(1, len(fold.pairs) + 1)]
        return [*(("b", *pair, rank) for pair, rank in zip(fold.pairs, ranks, strict=True)), ("b", *ranks)]

    def other_ranks(self, network: Network) -> Mapping[str, int]:
        return {"b": self.blocks}

    def max_ranks(self, network: Network) -> dict[str, int]:
        most = super().max_ranks(network)
        legs = {f[-1]: math.prod(network.sizes[i] for i in f if i in network.modes and i != "g") for f in network.factors[:-1]}
        legs = {rank: min(size, most[rank]) for rank, size in legs.items()}
        return {**legs, "b": max(most["b"], self.blocks)}  # more blocks than are needed for one tensor can still train better

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        return self.equal_choices(fold)
