"""Exact mean and variance of every entry of a weight whose factors have independent entries.

The mean is the contraction of the means. The second moment is the contraction of the factors' own second moments, each rank index
doubled: E[a_r a_s] = mean_r mean_s + (r = s) variance_r. It is built factor by factor and keeps only ranks that are still open, which for
chains is the recursion P_k = M_k' P_(k-1) M_k + diag(..). Where all factors carry the same ranks (CP, KCP) only equal indices differ from
the squared mean, and R numbers do the work of R^2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.bayes.refit import squared_norm
from tenfold.contract.pairs import BATCH
from tenfold.contract.run import digits_of
from tenfold.fold import Fold
from tenfold.network import Network
from tenfold.solvers.contractions import Indices, contract, twin


def weight_moments(network: Network, fold: Fold, means: Sequence[Tensor], variances: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the dense weight, in torch's shape and axis order."""
    mean, variance = tensor_moments(network, means, variances)
    return fold.unfold(mean), fold.unfold(variance)


def tensor_moments(network: Network, means: Sequence[Tensor], variances: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the dense tensor, one axis for each mode; terms of a sum are independent."""
    first, second = [], []
    for term, part in zip(network.terms, network.term_slices, strict=True):
        one, two = _moments(list(term.factors), term.modes, term, means[part], variances[part])
        first.append(one)
        second.append(two)
    return torch.stack(first).sum(0), torch.stack(second).sum(0)


def row_moments(network: Network, fold: Fold, means: Sequence[Tensor], variances: Sequence[Tensor], ids: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (ids, out) of the rows `ids` of an embedding, whose table is not built."""
    modes = fold.role("i")
    digits = dict(zip(modes, digits_of(ids.reshape(-1), [fold.sizes[mode] for mode in modes]), strict=True))
    first, second = [], []
    for term, part in zip(network.terms, network.term_slices, strict=True):
        picked = [_picked(indices, digits) for indices in term.factors]
        pairs = [
            [_pick(one, indices, digits) for indices, one in zip(term.factors, side[part], strict=True)] for side in (means, variances)
        ]
        output = (BATCH, *(mode for mode in term.modes if mode not in digits))
        one, two = _moments(picked, output, term, *pairs)
        first.append(one)
        second.append(two)
    size = fold.axis("o").size
    return tuple(torch.stack(one).sum(0).flatten(1)[:, :size].reshape(*ids.shape, size) for one in (first, second))  # pyright: ignore


def sampled_rows(
    network: Network,
    fold: Fold,
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    ids: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(ids, out): rows of an embedding, each drawn on its own from a normal distribution with its exact mean and variance.

    The gradient varies less than with factors drawn once for a batch; correlations between rows and columns are not kept.
    """
    mean, variance = row_moments(network, fold, means, variances, ids)
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32).to(mean)
    return mean + variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt() * noise


def _pick(tensor: Tensor, indices: Indices, digits: dict[str, Tensor]) -> Tensor:
    """The slices of a factor at the digits of each id, the ids being its first axis; itself where it carries no input mode."""
    mine = [i for i in indices if i in digits]
    if not mine:
        return tensor
    moved = tensor.permute([indices.index(i) for i in (*mine, *(i for i in indices if i not in digits))])
    return moved[tuple(digits[i] for i in mine)]


def _picked(indices: Indices, digits: dict[str, Tensor]) -> Indices:
    rest = tuple(i for i in indices if i not in digits)
    return (BATCH, *rest) if len(rest) < len(indices) else rest


def _moments(
    factors: Sequence[Indices], output: Indices, network: Network, means: Sequence[Tensor], variances: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    dtype = means[0].dtype
    means, variances = ([one.double() for one in side] for side in (means, variances))  # a variance is a small difference of large sums
    mean, variance = _wide_moments(factors, output, network, means, variances)
    return mean.to(dtype), variance.to(dtype)


def _wide_moments(
    factors: Sequence[Indices], output: Indices, network: Network, means: Sequence[Tensor], variances: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    mean = _einsum(means, factors, output)
    ranks = [frozenset(i for i in indices if i in network.ranks) for indices in factors]
    if len(set(ranks)) == 1:
        squares = [one.square() for one in means]
        whole = _einsum([square + one for square, one in zip(squares, variances, strict=True)], factors, output)
        return mean, (whole - _einsum(squares, factors, output)).clamp_min(0)
    return mean, (_second_moment(factors, output, network, means, variances) - mean.square()).clamp_min(0)


def _second_moment(
    factors: Sequence[Indices], output: Indices, network: Network, means: Sequence[Tensor], variances: Sequence[Tensor]
) -> Tensor:
    """E[W^2]: the factors are taken in one by one; ranks that later factors carry stay open, doubled."""
    state, have = torch.ones((), dtype=means[0].dtype, device=means[0].device), ()
    for number, indices in enumerate(factors):
        later = {i for behind in factors[number + 1 :] for i in behind}
        closed = {i for i in (*have, *indices) if i in network.ranks and i not in later}
        twins = tuple(twin(i) if i in network.ranks else i for i in indices)
        everything = tuple(dict.fromkeys((*have, *indices, *twins)))
        kept = tuple(i for i in everything if i not in closed and i not in map(twin, closed))
        pair = _einsum([state, means[number], means[number]], [have, indices, twins], kept)
        # the same entry twice adds its variance: where all its ranks equal their twins
        mine = [i for i in indices if i in network.ranks]
        single = tuple(i for i in kept if i not in map(twin, mine))
        state, have = _diagonal(state, have, mine)
        equal = _einsum([state, variances[number]], [have, indices], single)
        state = pair + _spread(equal, single, kept, mine)
        have = kept
    return _einsum([state], [have], output)


def _diagonal(state: Tensor, have: Indices, ranks: Sequence[str]) -> tuple[Tensor, Indices]:
    """The state where some open ranks equal their twins, and its indices."""
    for rank in ranks:
        if rank in have:
            state = state.diagonal(dim1=have.index(rank), dim2=have.index(twin(rank)))
            have = (*(i for i in have if i not in (rank, twin(rank))), rank)
    return state, have


def _spread(tensor: Tensor, have: Indices, wanted: Indices, ranks: Sequence[str]) -> Tensor:
    """The tensor on the diagonal of the ranks that are doubled in `wanted`, zero elsewhere."""
    for rank in ranks:
        if twin(rank) in wanted:
            tensor = torch.diag_embed(tensor.movedim(have.index(rank), -1))
            have = (*(i for i in have if i != rank), rank, twin(rank))
    return tensor.permute([have.index(i) for i in wanted])


def _einsum(tensors: Sequence[Tensor], operands: Sequence[Indices], output: Indices) -> Tensor:
    """torch.einsum by names; an index of the output that no operand has is not allowed."""
    numbers = {name: n for n, name in enumerate(dict.fromkeys(i for indices in operands for i in indices))}
    arguments = [part for tensor, indices in zip(tensors, operands, strict=True) for part in (tensor, [numbers[i] for i in indices])]
    return torch.einsum(*arguments, [numbers[i] for i in output])


def relative_spread(network: Network, means: Sequence[Tensor], variances: Sequence[Tensor]) -> float:
    """sqrt(sum of the variances of all entries of the weight) / its norm, to leading order; no dense tensor is built.

    The variance of each factor by itself counts, the others being at their means, and that of all together: for small variances what
    is left out is of second order. Infinite where the mean weight is zero.
    """
    total, norm = 0.0, squared_norm(network, means)
    for term, part in zip(network.terms, network.term_slices, strict=True):
        mine = [one.double()[None] for one in means[part]]
        summed, kept = _without_own_modes(term, variances[part])
        for number in range(len(mine)):
            others = [k for k in range(len(mine)) if k != number]
            copies = [tuple(twin(i) if i in term.ranks and i not in kept[number] else i for i in term.factors[k]) for k in others]
            operands = [(BATCH, *i) for i in (kept[number], *(term.factors[k] for k in others), *copies)]
            total += float(
                contract([summed[number], *(mine[k] for k in others), *(mine[k] for k in others)], operands, (), term, 1, mine[0])
            )
        total += float(contract(summed, [(BATCH, *i) for i in kept], (), term, 1, mine[0]))
    return math.sqrt(total / norm) if norm > 0 else math.inf


def _without_own_modes(network: Network, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Indices]]:
    """The factors (1, ..) in float64 summed over the modes that no other factor carries, and the indices that are left."""
    found, left = [], []
    for indices, tensor in zip(network.factors, tensors, strict=True):
        own = [axis for axis, i in enumerate(indices) if i in network.modes and len(network.carriers(i)) == 1]
        found.append((tensor.double().sum(own) if own else tensor.double())[None])
        left.append(tuple(i for axis, i in enumerate(indices) if axis not in own))
    return found, left
