"""Chains whose neighbours share modes, from truncated SVDs of every block: Monarch matrices and block tensor trains.

For fixed values of the modes that two neighbours share, the tensor is a matrix between the modes before the bond and those behind it;
each such block is cut on its own. Between two cores this is the best fit. For longer chains the squared error is at most the sum of
what the ranks cut from the blocks of the tensor itself at all bonds, as for `tt_svd`, which this is where nothing is shared: the bases
of a block are orthonormal, so what is cut further on counts as much as in the tensor. As there, singular values are shared by both sides.

Source: Dao et al. 2022, arXiv 2204.00595, section 3.2 and Alg. 1 (two cores); the chain as in Oseledets 2011, Alg. 1,
doi:10.1137/090752286.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered, shaped
from tenfold.solvers.solution import Solution, check_target, equalise, finish
from tenfold.solvers.tt_svd import svd_of


def block_svd(target: Tensor, network: Network) -> Solution:
    """Factors of a chain (neighbours share one rank, and may share modes) for a batch of tensors (batch, *network.shape); float64.

    Raises:
        ValueError: another shape, values that are not finite, or a network that is not such a chain.
    """
    check_target(target, network)
    rest, names = target.double(), list(network.modes)
    factors: list[Tensor] = []
    roots: list[tuple[list[str], Tensor]] = []
    for number, (indices, bond) in enumerate(zip(network.factors, _bonds(network), strict=False)):
        later = {i for behind in network.factors[number + 1 :] for i in behind}
        shared = [i for i in names if i in indices and i in later]
        rows = [i for i in names if i in indices and i not in later]
        columns = [i for i in names if i not in indices]
        u, s, v = svd_of(_blocks(rest, names, network, (shared, rows, columns)), network.sizes[bond])
        factors.append(shaped(u, network, (*shared, *rows, bond), indices))
        names = [*shared, bond, *columns]
        rest = shaped(s[..., None] * v, network, names, names)
        largest = s.flatten(1).amax(1).clamp_min(1e-300)[:, None, None]
        roots.append(([*shared, bond], torch.where(s > 1e-12 * largest, s, torch.zeros_like(s)).sqrt()))
    last = network.factors[-1]
    factors.append(ordered(rest, names, last).contiguous())
    for number, (have, root) in enumerate(roots):
        left, right = network.factors[number : number + 2]
        factors[number] = factors[number] * _aligned(root, network, have, left)
        factors[number + 1] = factors[number + 1] * _aligned(torch.where(root > 0, 1 / root, root), network, have, right)
    return finish("block_svd", target, network, equalise(factors))


def _blocks(tensor: Tensor, names: list[str], network: Network, groups: tuple[list[str], list[str], list[str]]) -> Tensor:
    """(batch, shared, rows, columns)."""
    order = [i for group in groups for i in group]
    shape = [math.prod(network.sizes[i] for i in group) for group in groups]
    return ordered(tensor, names, order).reshape(-1, *shape)


def _aligned(tensor: Tensor, network: Network, have: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """The tensor with one axis for each wanted index, of size 1 for those that it does not have."""
    moved = shaped(tensor, network, have, [i for i in wanted if i in have])
    return moved.reshape(tensor.shape[0], *(network.sizes[i] if i in have else 1 for i in wanted))


def _bonds(network: Network) -> list[str]:
    """The rank between each factor and the next; a mode stands on neighbours only."""
    bonds = []
    for mode in network.modes:
        carriers = [k for k, _ in network.carriers(mode)]
        if len(carriers) != carriers[-1] - carriers[0] + 1:
            raise ValueError(
                f"{network.statement!r} is not a chain: {mode!r} stands on the factors {carriers}, which are no neighbours; "
                "use als for other networks"
            )
    for left, right in zip(network.factors, network.factors[1:], strict=False):
        common = [i for i in left if i in right and i in network.ranks]
        if len(common) != 1 or len(network.carriers(common[0])) != 2:
            raise ValueError(f"{network.statement!r} is not a chain: neighbours share the ranks {common}; use als for other networks")
        bonds.append(common[0])
    if set(bonds) != set(network.ranks):
        raise ValueError(f"{network.statement!r} is not a chain: its ranks are {list(network.ranks)}; use als for other networks")
    return bonds
