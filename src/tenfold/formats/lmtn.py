"""LMTN: a fully-connected network with a latent matrix at each core."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenfold.fold import Fold
from tenfold.format import PenalisedFormat
from tenfold.formats.fctn import FCTN, connected
from tenfold.network import Network

LATENT_PARTS = (0.35, 0.7)  # of o_k x i_k, that a plan tries for m_k


@dataclass(frozen=True)
class LMTN(PenalisedFormat):
    """Latent-matrix tensor network: ``o1 i1 m1, .., r1_2 r1_3 m1, r1_2 r2_3 m2, r1_3 r2_3 m3 -> o1 o2 o3 i1 i2 i3``.

    An `FCTN` of small latent sizes m_k, with one matrix o_k i_k x m_k outside of each core, as in Tucker. Parameters: sum of
    o_k x i_k x m_k + sum of m_k x product of the bonds of core k. Even at rank 1 the matrix can have full rank. `latent_rank` sizes the
    m_k, `rank` then the bonds alone. Prefer it to FCTN where modes are large: bonds multiply the small latent sizes only.

    Source: the abstract of Yang et al. 2022 (matrix factorisation outside an FCTN); the layer's form is our reading of it, see
    docs/terms.md.
    """

    n_modes = 3

    latent_rank: int | None = None

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        pairs = fold.pairs
        if len(pairs) == 1:
            return pairs
        latent = [f"m{number}" for number in range(1, len(pairs) + 1)]
        return [*((*pair, name) for pair, name in zip(pairs, latent, strict=True)), *connected([(name,) for name in latent])]

    def other_ranks(self, network: Network) -> Mapping[str, int]:
        if self.latent_rank is None:
            return {}
        return {rank: min(self.latent_rank, network.useful_rank(rank)) for rank in network.ranks if rank[0] == "m"}

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        if self.rank is not None or self.latent_rank is not None:
            return self.equal_choices(fold)
        widest = self.widest(fold)
        latent = {rank: size for rank, size in widest.ranks.items() if rank[0] == "m"}
        found = set()
        for bonds in FCTN().equal_choices(fold):
            for part in LATENT_PARTS:
                # a core joins no more latent values than the product of its bonds
                sizes = [max(1, min(round(part * size), max(bonds) ** (len(latent) - 1))) for size in latent.values()]
                found.add((*sizes, *bonds))
        numel = {ranks: widest.resized(dict(zip(widest.ranks, ranks, strict=True))).numel for ranks in found}
        return sorted((ranks for ranks in found if numel[ranks] <= math.prod(fold.shape)), key=lambda ranks: (numel[ranks], ranks))
