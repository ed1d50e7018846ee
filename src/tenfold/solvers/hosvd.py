"""Tucker factors: higher-order SVD, improved by orthogonal iteration.

Source: De Lathauwer, De Moor, Vandewalle 2000, doi:10.1137/S0895479896305696 (HOSVD) and doi:10.1137/S0895479898346995 (HOOI).
The squared error is at most (number of truncated modes) times the best.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered, shaped
from tenfold.solvers.solution import Solution, check_target, equalise, finish


def hosvd(target: Tensor, network: Network, *, sweeps: int = 10, tolerance: float = 1e-9) -> Solution:
    """Factors of a Tucker network: one core that carries all ranks, and for each rank one factor with modes of its own.

    Raises:
        ValueError: another shape, values that are not finite, or a network of another form.
    """
    check_target(target, network)
    target = target.double()
    core, legs = _parts(network)
    kept = [i for i in network.factors[core] if i in network.modes]
    groups = [[i for i in network.factors[k] if i in network.modes] for k in legs]
    flat = _flat(target, network, groups, kept)
    ranks = [next(network.sizes[i] for i in network.factors[k] if i in network.ranks) for k in legs]
    bases: list[Tensor] = [_leading(flat, axis + 1, rank) for axis, rank in enumerate(ranks)]
    squared = flat.flatten(1).square().sum(1)
    history = [_error(flat, bases, squared)]
    done = torch.zeros_like(squared, dtype=torch.bool)
    for _ in range(sweeps if len(legs) > 1 else 0):
        trial = list(bases)
        for axis, rank in enumerate(ranks):
            trial[axis] = _leading(_project(flat, trial, skip=axis), axis + 1, rank)
        error = _error(flat, trial, squared)
        better = (error <= history[-1]).reshape(-1, 1, 1)
        bases = [torch.where(better, new, old) for new, old in zip(trial, bases, strict=True)]
        done = history[-1] - error < tolerance
        history.append(torch.minimum(error, history[-1]))
        if bool(done.all()):
            break
    names = [next(i for i in network.factors[k] if i in network.ranks) for k in legs] + kept
    factors: list[Tensor] = [torch.empty(0)] * len(network.factors)
    factors[core] = shaped(_project(flat, bases), network, names, network.factors[core])
    for k, basis, group, name in zip(legs, bases, groups, names, strict=False):
        factors[k] = shaped(basis, network, [*group, name], network.factors[k])
    # a Tucker fit has no swamp: after a few sweeps the error is within the theorem's bound whether it still moves or not
    return finish("hosvd", target, network, equalise(factors), torch.stack(history))


def _parts(network: Network) -> tuple[int, list[int]]:
    """The number of the core, and of each leg, in the order of the core's ranks."""
    core = max(range(len(network.factors)), key=lambda k: sum(i in network.ranks for i in network.factors[k]))
    if len(network.factors) == 2 and len(network.ranks) == 1:
        core = 1
    legs = []
    for rank in (i for i in network.factors[core] if i in network.ranks):
        found = [k for k, _ in network.carriers(rank) if k != core]
        if len(found) != 1 or sum(i in network.ranks for i in network.factors[found[0]]) != 1:
            raise ValueError(f"{network.statement!r} is not a Tucker network at rank {rank!r}; use als for other networks")
        legs.append(found[0])
    if len(legs) + 1 != len(network.factors):
        raise ValueError(f"{network.statement!r} is not a Tucker network; use als for other networks")
    return core, legs


def _flat(target: Tensor, network: Network, groups: list[list[str]], kept: list[str]) -> Tensor:
    """(batch, one axis for each group, kept)."""
    moved = ordered(target, network.modes, [i for group in (*groups, kept) for i in group])
    return moved.reshape(len(target), *(math.prod(network.sizes[i] for i in group) for group in groups), -1)


def _leading(tensor: Tensor, axis: int, rank: int) -> Tensor:
    """(batch, size, rank): the leading left singular vectors of the unfolding along `axis`."""
    unfolded = tensor.movedim(axis, 1).flatten(2)
    if unfolded.shape[2] < rank:
        unfolded = torch.nn.functional.pad(unfolded, (0, rank - unfolded.shape[2]))
    if unfolded.shape[2] > 4 * unfolded.shape[1]:  # QR first: the small triangle has the same left vectors, at full accuracy
        unfolded = torch.linalg.qr(unfolded.mT, mode="r").R.mT
    return torch.linalg.svd(unfolded, full_matrices=False).U[..., :rank]


def _project(tensor: Tensor, bases: list[Tensor], skip: int | None = None) -> Tensor:
    for axis, basis in enumerate(bases):
        if axis != skip:
            moved = tensor.movedim(axis + 1, -1)
            flat = moved.reshape(moved.shape[0], -1, moved.shape[-1]) @ basis
            tensor = flat.reshape(*moved.shape[:-1], -1).movedim(-1, axis + 1)
    return tensor


def _error(tensor: Tensor, bases: list[Tensor], squared: Tensor) -> Tensor:
    kept = _project(tensor, bases).flatten(1).square().sum(1)
    return ((squared - kept).clamp_min(0) / squared.clamp_min(1e-300)).sqrt()


def tucker2_errors(target: Tensor, networks: Sequence[Network]) -> list[Tensor]:
    """Relative errors (batch,) of the plain HOSVD for networks that differ in their two ranks only, from one decomposition.

    With orthonormal bases the squared error is ||T||^2 minus the squared norm of the kept corner of the full core.
    """
    network = networks[0]
    core, legs = _parts(network)
    groups = [[i for i in network.factors[k] if i in network.modes] for k in legs]
    kept = [i for i in network.factors[core] if i in network.modes]
    flat = _flat(target.double(), network, groups, kept)
    sizes = flat.shape[1:-1]
    full = _project(flat, [_leading(flat, axis + 1, size) for axis, size in enumerate(sizes)])
    corners = full.square().sum(-1).cumsum(1).cumsum(2)
    total = corners[:, -1, -1].clamp_min(1e-300)
    names = [next(i for i in network.factors[k] if i in network.ranks) for k in legs]
    ranks = [[min(one.sizes[name], size) - 1 for name, size in zip(names, sizes, strict=True)] for one in networks]
    return [(1 - corners[:, a, b] / total).clamp_min(0).sqrt() for a, b in ranks]
