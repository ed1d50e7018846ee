"""SVD: a product of two matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.solution import Solution
from tenfold.solvers.tt_svd import truncated_svd


@dataclass(frozen=True)
class SVD(Format):
    """Low-rank matrix: ``o1 r, r i1 k1 k2 -> o1 i1 k1 k2``.

    Kernel positions go with the input, so a convolution becomes k x k to `rank` channels, then 1x1. Parameters:
    rank x (out + in x kernel). The best approximation of a matrix at its rank (Eckart and Young 1936). Prefer it for
    linear layers, 1x1 convolutions and as the plain baseline.
    """

    rank_step = 0.9  # all ranks come from one decomposition

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return [(*fold.role("o"), "r"), ("r", *fold.role("i"), *fold.role("k"))]

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return truncated_svd(target, network)

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        n_out = len([mode for mode in networks[0].modes if mode[0] == "o"])
        order = sorted(range(len(networks[0].modes)), key=lambda k: networks[0].modes[k][0] != "o")
        matrix = target.double().permute(0, *(k + 1 for k in order)).flatten(n_out + 1).flatten(1, n_out)
        tails = torch.linalg.svdvals(matrix).square().flip(-1).cumsum(-1).flip(-1)
        norm = tails[:, :1].clamp_min(1e-300)
        tails = torch.nn.functional.pad(tails / norm, (0, max(0, *(next(iter(n.ranks.values())) for n in networks))))
        return torch.stack([tails[:, next(iter(n.ranks.values()))] for n in networks]).clamp_min(0).sqrt()
