"""Refit: factors of a network with smaller ranks to a weight that is itself factors. No dense tensor is built.

Alternating least squares as in `solvers.als`, with a right-hand side that contracts the old factors with the new ones; so a table of 10^9
entries costs what its factors cost.
"""

from collections.abc import Sequence

from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.contractions import planned, split_indices
from tenfold.solvers.descent import solve_gram
from tenfold.solvers.quadratic import Form

RIDGE = 1e-12  # of the mean diagonal of a Gram matrix
STALLED = 0.005  # a refit that lowers its squared error by less than this part of it in a sweep will not reach a tolerance


def overlap(old: Network, old_factors: Sequence[Tensor], new: Network, new_factors: Sequence[Tensor], without: int | None = None) -> Tensor:
    """<T, S> of the tensors of two networks over the same modes, each of one term; or its derivative by factor `without` of the second."""
    first = tuple(tuple(i if i in old.modes else f"{i}<" for i in indices) for indices in old.factors)
    numbers = [k for k in range(len(new.factors)) if k != without]
    second = tuple(new.factors[k] for k in numbers)
    output = () if without is None else new.factors[without]
    sizes = {**{f"{rank}<": size for rank, size in old.ranks.items()}, **new.sizes}
    contraction = planned((*first, *second), output, tuple(sorted(sizes.items())))
    return contraction.run([*old_factors, *(new_factors[k] for k in numbers)])


def squared_norm(network: Network, factors: Sequence[Tensor]) -> float:
    """||W||^2 of the dense tensor, also of a sum of terms."""
    return _inner(network, factors, network, factors)


def relative_change(old: Network, old_factors: Sequence[Tensor], new: Network, new_factors: Sequence[Tensor]) -> float:
    """||W - W~|| / ||W|| of two weights over the same modes; 0 where both are zero. Changes below 1e-8 are lost in rounding."""
    before, after = squared_norm(old, old_factors), squared_norm(new, new_factors)
    between = _inner(old, old_factors, new, new_factors)
    return (max(0.0, before - 2 * between + after) / before) ** 0.5 if before > 0 else 0.0


def _inner(old: Network, old_factors: Sequence[Tensor], new: Network, new_factors: Sequence[Tensor]) -> float:
    left, right = [one.double() for one in old_factors], [one.double() for one in new_factors]
    total = 0.0
    for term, part in zip(old.terms, old.term_slices, strict=True):
        for other, piece in zip(new.terms, new.term_slices, strict=True):
            total += float(overlap(term, left[part], other, right[piece]))
    return total


def refit(
    old: Network, old_factors: Sequence[Tensor], new: Network, start: Sequence[Tensor], *, sweeps: int, goal: float = 0.0
) -> tuple[list[Tensor], float]:
    """New factors closest to the old weight and their squared error; both networks of one term, all tensors in float64.

    Args:
        sweeps: at most so many.
        goal: a squared error at which to stop; without one, or far from it, sweeps end where they gain next to nothing.
    """
    factors = [one.clone() for one in start]
    norm = float(overlap(old, old_factors, old, old_factors))
    order = sorted(range(len(factors)), key=lambda k: factors[k].numel(), reverse=True)
    error = float("inf")
    for _ in range(sweeps):
        before = error
        for number in order:
            factors[number], gain = _updated(old, old_factors, new, factors, number)
            error = max(0.0, norm - gain)
        if error <= goal or (before - error <= STALLED * before and before < float("inf")):
            break
    return factors, error


def _updated(old: Network, old_factors: Sequence[Tensor], new: Network, factors: Sequence[Tensor], number: int) -> tuple[Tensor, float]:
    """The best factor for the others, and by how much the squared error is then below the squared norm of the old weight."""
    gram = Form().matrix(new, [one[None] for one in factors], number)
    right = overlap(old, old_factors, new, factors, number)
    indices = new.factors[number]
    shared, own, ranks = split_indices(new, number)
    order = (*shared, *own, *ranks)
    right = right.permute([indices.index(i) for i in order]).reshape(1, gram.shape[1], -1, gram.shape[-1])
    scale = gram.diagonal(dim1=-2, dim2=-1).mean().clamp_min(1e-300)
    solved = solve_gram(gram, right, RIDGE * scale.reshape(1))
    shaped = solved.reshape([new.sizes[i] for i in order]).permute([order.index(i) for i in indices])
    return shaped.contiguous(), float((solved * (2 * right - solved @ gram)).sum())
