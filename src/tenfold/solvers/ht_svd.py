"""Frames and transfer tensors of a binary tree from successive truncated SVDs, from the leaves to the root.

Source: Grasedyck 2010, doi:10.1137/090764189, section 4 (leaves-to-root truncation). The squared error is at most the sum of the squared
singular values cut at all nodes, so at most (2 x leaves - 3) times the best. Deviation: an inner node's basis is taken from the
core that is left when its children are projected, not from the whole tensor: the same bound, on a far smaller matrix.
"""

import math

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered, shaped
from tenfold.solvers.solution import Solution, check_target, equalise, finish
from tenfold.solvers.tt_svd import svd_of


def ht_svd(target: Tensor, network: Network) -> Solution:
    """Factors of a tree network (leaves with modes and one rank, joints of two ranks and their own, a root of two) for a batch of tensors.

    Raises:
        ValueError: another shape, values that are not finite, or a network that is no such tree.
    """
    check_target(target, network)
    core, names = target.double(), list(network.modes)
    factors: list[Tensor] = [core] * len(network.factors)
    for number, own in _steps(network):
        indices = network.factors[number]
        below = [i for i in indices if i != own]
        if own is None:
            factors[number] = ordered(core, names, indices).contiguous()
            break
        basis, core, names = _truncated(core, names, below, own, network.sizes[own])
        factors[number] = shaped(basis, network, (*below, own), indices)
    return finish("ht_svd", target, network, equalise(factors))


def _truncated(core: Tensor, names: list[str], below: list[str], own: str, rank: int) -> tuple[Tensor, Tensor, list[str]]:
    """The leading basis of the indices `below`, and the core in which `own` stands for them."""
    rest = [i for i in names if i not in below]
    sizes = dict(zip(names, core.shape[1:], strict=True))
    matrix = ordered(core, names, (*below, *rest)).reshape(len(core), math.prod(sizes[i] for i in below), -1)
    square = matrix
    if matrix.shape[2] > 4 * matrix.shape[1]:  # the small triangle has the same left vectors, at full accuracy
        square = torch.linalg.qr(matrix.mT, mode="r").R.mT
    basis = svd_of(square, rank)[0]
    core = (basis.mT @ matrix).reshape(core.shape[0], rank, *(sizes[i] for i in rest))
    return basis, core, [own, *rest]


def _steps(network: Network) -> list[tuple[int, str | None]]:
    """The factors from the leaves to the root, each with the rank above it."""
    steps: list[tuple[int, str | None]] = []
    known = set(network.modes)
    waiting = list(range(len(network.factors)))
    while waiting:
        ready = [k for k in waiting if sum(i not in known for i in network.factors[k]) <= 1]
        open_ranks = {k: [i for i in network.factors[k] if i not in known] for k in ready}
        if not ready or any(not ranks and len(waiting) > 1 for ranks in open_ranks.values()):
            raise ValueError(f"{network.statement!r} is not a tree with a root; use als for other networks")
        number = ready[0]
        own = open_ranks[number][0] if open_ranks[number] else None
        steps.append((number, own))
        waiting.remove(number)
        known |= {own} if own else set()
    if steps[-1][1] is not None or any(len(network.carriers(index)) != 2 for index in network.ranks):
        raise ValueError(f"{network.statement!r} is not a tree with a root; use als for other networks")
    return steps
