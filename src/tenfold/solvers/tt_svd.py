"""Chains of factors from successive truncated SVDs: a matrix in two or more factors, TT and TTM.

Source: Oseledets 2011, Alg. 1, doi:10.1137/090752286. The squared error is at most the sum of the squared singular values cut at
all bonds, so at most (number of bonds) times the best. Deviation: the singular values of every bond are shared equally by its two
sides, so that no factor is much larger than the others when training goes on.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered, shaped
from tenfold.solvers.solution import Solution, check_target, equalise, finish


def tt_svd(target: Tensor, network: Network) -> Solution:
    """Factors of a chain network (neighbours share one rank) for a batch of tensors; float64.

    Raises:
        ValueError: another shape, values that are not finite, or a network that is not a chain.
    """
    check_target(target, network)
    target = target.double()
    own, bonds = _chain(network)
    batch = target.shape[0]
    rest = ordered(target, network.modes, [mode for modes in own for mode in modes]).reshape(batch, 1, -1)
    cores: list[Tensor] = []
    values: list[Tensor] = []
    for modes, bond in zip(own[:-1], bonds, strict=True):
        matrix = rest.reshape(batch, rest.shape[1] * math.prod(network.sizes[m] for m in modes), -1)
        u, s, v = svd_of(matrix, network.sizes[bond])
        cores.append(u)
        values.append(s)
        rest = s[..., None] * v
    cores.append(rest)
    for number, s in enumerate(values):
        root = torch.where(s > 1e-12 * s[:, :1], s, torch.ones_like(s)).sqrt()
        cores[number] = cores[number].reshape(batch, -1, root.shape[1]) * root[:, None, :]
        cores[number + 1] = cores[number + 1].reshape(batch, root.shape[1], -1) / root[..., None]
    factors = []
    for number, indices in enumerate(network.factors):
        left, right = bonds[number - 1 : number] if number else [], bonds[number : number + 1]
        factors.append(shaped(cores[number], network, (*left, *own[number], *right), indices))
    return finish("tt_svd", target, network, equalise(factors))


def truncated_svd(target: Tensor, network: Network) -> Solution:
    """The best approximation of a matrix at its rank (Eckart and Young 1936): a chain of two factors."""
    return tt_svd(target, network)


def is_chain(network: Network) -> bool:
    """Whether neighbours share one rank and nothing else holds the factors together: what `tt_svd` takes."""
    try:
        _chain(network)
    except ValueError:
        return False
    return True


def chain_errors(target: Tensor, networks: Sequence[Network]) -> Tensor:
    """Relative errors (len(networks), batch) of chains that differ in their ranks only; of a matrix from one spectrum for all."""
    network = networks[0]
    own, bonds = _chain(network)
    if any(own[1:-1]):
        return torch.stack([tt_svd(target, one).errors for one in networks])
    rows = math.prod(network.sizes[mode] for mode in own[0])
    matrix = ordered(target.double(), network.modes, [mode for modes in own for mode in modes]).reshape(len(target), rows, -1)
    tails = torch.linalg.svdvals(matrix).square().flip(-1).cumsum(-1).flip(-1)
    shares = tails / tails[:, :1].clamp_min(1e-300)
    ranks = [min(one.sizes[bond] for bond in bonds) for one in networks]
    return torch.stack([shares[:, rank] if rank < shares.shape[1] else torch.zeros_like(shares[:, 0]) for rank in ranks]).sqrt()


def svd_of(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V of the leading `rank` singular triples of (batch, m, n); zero columns where the matrix has fewer.

    A Gram matrix is never used here: it would lose singular values below 1e-8 of the largest.
    """
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    u, s, v = u[..., :rank], s[..., :rank], v[..., :rank, :]
    if (missing := rank - s.shape[-1]) > 0:
        pad = torch.nn.functional.pad
        u, s, v = pad(u, (0, missing)), pad(s, (0, missing)), pad(v, (0, 0, 0, missing))
    return u, s, v


def _chain(network: Network) -> tuple[list[tuple[str, ...]], list[str]]:
    """The modes of each factor and the bond between each factor and the next."""
    own = [tuple(i for i in indices if i in network.modes) for indices in network.factors]
    bonds = []
    for left, right in zip(network.factors, network.factors[1:], strict=False):
        common = [i for i in left if i in right and i in network.ranks]
        if len(common) != 1 or len(network.carriers(common[0])) != 2:
            raise ValueError(f"{network.statement!r} is not a chain: neighbours share {common}; use als for other networks")
        bonds.append(common[0])
    if set(bonds) != set(network.ranks) or sum(map(len, own)) != len(network.modes):
        raise ValueError(f"{network.statement!r} is not a chain; use als for other networks")
    return own, bonds
