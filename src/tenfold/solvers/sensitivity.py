"""How much a factorised weight moves when its factors do, and how far its terms cancel: for any network, from planned contractions.

Sensitivity is the expected squared change of the dense tensor for each unit of variance of noise on every entry of the factors. To
first order the noise of one factor adds the trace of the Gram matrix of all other factors, so the sensitivity is the sum of these
traces. With n_k entries of a mode for factor k of CP it is sum_k n_k sum_r prod of |x_jr|^2 over j != k.

Source: Tichavsky, Phan, Cichocki 2019 and Phan et al. 2020, arXiv 2008.05441, for CP; for loops arXiv 2203.02617. Deviation: no factor 1/R.
All functions take batched factors (batch, *shape), also where the network is a sum of terms.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import per_tensor
from tenfold.solvers.contractions import split_indices, twin
from tenfold.solvers.quadratic import Form, inner, sensitivity_forms

GRAM_LIMIT = 2048  # entries of all ranks of a factor up to which its Gram matrix is built


def sensitivity(network: Network, factors: Sequence[Tensor]) -> Tensor:
    """(batch,): E ||T(factors + noise) - T(factors)||^2 / variance for small noise; differentiable.

    >>> import torch
    >>> cp = Network.parse("o r, r k, r i -> o k i", {"o": 4, "k": 9, "i": 5, "r": 2})
    >>> sensitivity(cp, [torch.ones(1, *shape) for shape in cp.shapes]).item()
    1080.0
    """
    total = factors[0].new_zeros(len(factors[0]))
    for term, part in zip(network.terms, network.term_slices, strict=True):
        for form in sensitivity_forms(term):
            total = total + form.value(term, factors[part])
    return total


def normalised_sensitivity(network: Network, factors: Sequence[Tensor]) -> Tensor:
    """(batch,): the sensitivity after `rebalance`, relative to that of a rank-one tensor of the same norm and shape.

    For C factors that is C n^(1/C) ||T||^(2 - 2/C), with n entries in the dense tensor. 0 where the tensor is zero.
    """
    length = len(network.factors) / len(network.terms)
    squared = inner(network, factors, factors).clamp_min(0)
    unit = length * math.prod(network.shape) ** (1 / length) * squared ** (1 - 1 / length)
    least = torch.finfo(unit.dtype).tiny
    return torch.where(unit > least, sensitivity(network, rebalance(network, factors)) / unit.clamp_min(least), torch.zeros_like(unit))


def rebalance(network: Network, factors: Sequence[Tensor], *, sweeps: int = 20) -> list[Tensor]:
    """Factors of the same tensor with the least sensitivity that scaling can reach.

    Every index on several factors may be scaled on one and unscaled on another. Along one index the best scaling is closed: the parts
    of the sensitivity that its carriers have become equal. For CP one sweep is exact, and all factors of a term get the same root mean
    square; other networks repeat it over their indices, which never raises the sensitivity.
    """
    result: list[Tensor] = []
    for term, part in zip(network.terms, network.term_slices, strict=True):
        one = list(factors[part])
        indices: list[str | None] = [i for i in term.sizes if len(term.carriers(i)) > 1]
        if not any(len(term.carriers(i)) == len(one) for i in term.sizes):
            indices.append(None)
        last = torch.full_like(one[0].flatten(1)[:, 0], torch.inf)
        for sweep in range(sweeps if len(one) > 1 else 0):
            for index in indices:
                one = _scaled(term, one, index)
            if len(indices) == 1 or sweep == sweeps - 1:
                break
            now = sum((form.value(term, one) for form in sensitivity_forms(term)), torch.zeros_like(last))
            if bool((now >= last * (1 - 1e-6)).all()):
                break
            last = now
        result += one
    return result


def _scaled(network: Network, factors: list[Tensor], index: str | None) -> list[Tensor]:
    """Factors scaled along one index that several carry, or each as a whole."""
    forms = sensitivity_forms(network)
    carriers = [(k, -1) for k in range(len(factors))] if index is None else network.carriers(index)
    kept = () if index is None else (index,)
    parts = torch.stack([forms[k].value(network, factors, kept) for k, _ in carriers])
    is_usable = ((parts > 0) & parts.isfinite()).all(0)
    logs = torch.where(is_usable, parts, torch.ones_like(parts)).log()
    scales = ((logs - logs.mean(0)) / 2).exp()
    result = list(factors)
    for scale, (k, axis) in zip(scales, carriers, strict=True):
        shape = [1] * result[k].dim()
        shape[0] = len(scale)
        if index is not None:
            shape[axis + 1] = -1
        result[k] = result[k] * scale.reshape(shape)
    return result


def component_gram(network: Network, factors: Sequence[Tensor], rank: str) -> Tensor:
    """(batch, R, R): inner products of the components of a rank, where component r is the tensor of slice r of that rank alone.

    For CP the components are its rank-one terms. The sum of all entries is the squared norm of the rank's term of the network.
    """
    term, part = next((term, part) for term, part in zip(network.terms, network.term_slices, strict=True) if rank in term.ranks)
    return Form().value(term, factors[part], (rank, twin(rank)))


def intensities(network: Network, factors: Sequence[Tensor], rank: str) -> Tensor:
    """(batch, R): the norms of the components of a rank; for CP the norms of its rank-one terms."""
    return component_gram(network, factors, rank).diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()


def intensity_ratio(network: Network, factors: Sequence[Tensor]) -> Tensor:
    """(batch,): the largest sum over a rank's components of their squared norms / ||T||^2. Healthy: up to about 3; above 10 they cancel.

    1 without ranks.
    """
    squared = inner(network, factors, factors)
    sums = [intensities(network, factors, rank).square().sum(1) for rank in network.ranks]
    most = torch.stack(sums or [squared]).amax(0)
    return torch.where(most > 0, most / squared.clamp_min(1e-16 * most.clamp_min(1e-290)), torch.ones_like(most))


def worst_congruence(network: Network, factors: Sequence[Tensor]) -> Tensor:
    """(batch,): the smallest cosine between two components of a rank; near -1 two terms cancel. 0 where no rank has two components."""
    worst = factors[0].new_zeros(len(factors[0]))
    for rank, size in network.ranks.items():
        if size > 1:
            gram = component_gram(network, factors, rank)
            norms = gram.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
            product = norms[:, :, None] * norms[:, None, :]
            cosine = torch.where(product > 0, gram / product.clamp_min(1e-290), torch.zeros_like(gram))
            worst = torch.minimum(worst, cosine.flatten(1).amin(1))
    return worst.clamp_min(-1)


def condition_numbers(network: Network, factors: Sequence[Tensor]) -> Tensor:
    """(batch, factors): the condition number of the least-squares problem of each factor, the Gram matrix of all others.

    Infinite where it is singular; not a number where it would be larger than GRAM_LIMIT, or the factor has no rank.
    """
    columns = []
    for term, part in zip(network.terms, network.term_slices, strict=True):
        for number in range(len(term.factors)):
            size = math.prod(term.sizes[i] for i in split_indices(term, number)[2])
            if size > GRAM_LIMIT or not term.ranks:
                columns.append(factors[0].new_full((len(factors[0]),), torch.nan))
                continue
            values = torch.linalg.eigvalsh(Form().matrix(term, factors[part], number))
            least, most = values[..., 0], values[..., -1]
            floor = size * torch.finfo(values.dtype).eps * most
            columns.append(torch.where(least > floor, most / least, torch.inf).amax(1))
    return torch.stack(columns, 1)


def gauss_newton_product(network: Network, factors: Sequence[Tensor], vectors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """J'J v for the Jacobian J of the dense tensor by all factors, from contractions of factors alone."""
    point = tuple(factors)

    def along(left: tuple[Tensor, ...]) -> Tensor:
        found: Any = torch.func.vjp(lambda *right: inner(network, left, right), *point)  # not jvp: that compiles for a while first
        slopes = found[1](torch.ones_like(found[0]))
        return torch.stack([(slope * vector).sum() for slope, vector in zip(slopes, vectors, strict=True)]).sum()

    return torch.func.grad(along)(point)


def largest_eigenvalue(network: Network, factors: Sequence[Tensor], *, iterations: int = 100, tolerance: float = 1e-3) -> Tensor:
    """(batch,): the largest eigenvalue of J'J by power iteration, from below, to about `tolerance` of it.

    Gradient descent on ||T - T~||^2 is stable near a fit for steps below its inverse.
    """
    generator = torch.Generator().manual_seed(0)
    point = [factor.detach() for factor in factors]
    vector = [torch.randn(factor.shape, generator=generator, dtype=torch.float64).to(factor) for factor in point]
    value = _norm(vector)
    for _ in range(iterations):
        vector = [part / per_tensor(value.clamp_min(1e-290), part) for part in vector]
        vector = list(gauss_newton_product(network, point, vector))
        last, value = value, _norm(vector)
        if bool(((value - last).abs() <= 0.1 * tolerance * value).all()):
            break
    return value


def _norm(vectors: Sequence[Tensor]) -> Tensor:
    return torch.stack([vector.flatten(1).square().sum(1) for vector in vectors]).sum(0).sqrt()


def is_swamp(errors: Tensor, squares: Tensor, *, window: int = 10, tolerance: float = 1e-5) -> Tensor:
    """(batch,): whether a fit is in a swamp: its error hardly falls while its terms grow.

    Args:
        errors: relative errors after every sweep, (sweeps, batch).
        squares: the sum of the squared intensities after every sweep, (sweeps, batch).
        window: so many last sweeps are looked at; fewer than that are no swamp.
        tolerance: a relative change of the error in a sweep below this is next to nothing.
    """
    if errors.shape != squares.shape:
        raise ValueError(
            f"the errors have shape {tuple(errors.shape)} and the squared intensities {tuple(squares.shape)}; give one of "
            "each for every sweep"
        )
    if len(errors) <= window:
        return torch.zeros(errors.shape[1:], dtype=torch.bool, device=errors.device)
    errors, squares = errors[-window - 1 :], squares[-window - 1 :]
    is_slow = (errors.diff(dim=0).abs() <= tolerance * errors[:-1]).all(0)
    return is_slow & (squares.diff(dim=0) > 0).all(0) & (errors[-1] > 0)
