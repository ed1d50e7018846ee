"""Factors to start from for an entrywise product of two low-rank matrices: SVDs of the signed and the plain root of the target.

T = (sign T |T|^(1/2)) * |T|^(1/2) is such a product already, of full ranks. On trained weights ALS ends a little lower from here than
from random factors; planted products of small rank are rather found from one of many random starts. For ranks above 2 most starts of either
kind end in local minima.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered
from tenfold.solvers.solution import equalise
from tenfold.solvers.tt_svd import svd_of

DUST = 0.02  # of the root mean square of a factor: noise, without which equal parts of both products would stay equal


def hadamard_start(target: Tensor, network: Network, *, seed: int = 0) -> list[Tensor]:
    """Factors (batch, *shape) of a network "rows r, r columns, rows s, s columns" for a batch of tensors (batch, *network.shape)."""
    rows, columns = ([i for i in network.factors[k] if i in network.modes] for k in (0, 1))
    moved = ordered(target.double(), network.modes, (*rows, *columns))
    matrix = moved.reshape(len(target), math.prod(network.sizes[i] for i in rows), -1)
    root = matrix.abs().sqrt()
    factors: list[Tensor] = []
    for part, (rank,) in zip((matrix.sign() * root, root), _ranks(network), strict=True):
        u, s, v = svd_of(part, network.sizes[rank])
        factors += [u * s.sqrt()[:, None], s.sqrt()[..., None] * v]
    generator = torch.Generator().manual_seed(seed)
    shaped = [factor.reshape(-1, *shape) for factor, shape in zip(factors, network.shapes, strict=True)]
    noise = [torch.randn(factor.shape[1:], generator=generator, dtype=torch.float64).to(factor.device) for factor in shaped]
    return equalise([factor + DUST * factor.square().mean().sqrt() * dust for factor, dust in zip(shaped, noise, strict=True)])


def _ranks(network: Network) -> Sequence[list[str]]:
    """The rank of each product."""
    return [[i for i in network.factors[k] if i in network.ranks] for k in (0, 2)]
