"""Start values of factorised weights beyond the normal one, and the balance of their factors. Named and used as torch.nn.init.

Measured consequences of each choice are in docs/initialisation.md.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.weight import FactorizedWeight, check_std


def normal_(weight: FactorizedWeight, std: float, *, generator: torch.Generator | None = None) -> FactorizedWeight:
    """The weight, filled so that every entry of `dense()` has mean 0 and standard deviation `std`; exact for every format and any ranks."""
    weight.init_normal_(std, generator=generator)
    return weight


def orthogonal_(
    weight: FactorizedWeight, std: float | None = None, *, gates: int = 1, generator: torch.Generator | None = None
) -> FactorizedWeight:
    """The weight, a tree network or a sum of Kronecker products, filled with semi-orthogonal matrices.

    Tree networks (SVD, Tucker, TT, TTM, HT): the largest factor is normal, every other one maps its rank towards that factor by a matrix
    with orthonormal columns, so that the dense weight is as spread over its ranks as a dense start is.

    Kronecker products (KCP, KT): with one term the matrix is semi-orthogonal itself (times a scale): all its singular values are equal,
    which no product of normal factors comes near. With more terms it is close to that.

    Args:
        std: root mean square of the entries of `dense()`; left out, 1 / sqrt(inputs of an output): outputs vary as inputs do, and a
            square matrix of one Kronecker term is orthogonal.
        gates: the output of a Kronecker product holds so many matrices one after another as its first mode (`Fold.gate`); each is
            semi-orthogonal.

    Raises:
        ValueError: the format is neither a tree network nor a sum of Kronecker products, such as TR.

    Source: deviation from independent normal factors as derived in docs/initialisation.md; orthogonal Kronecker factors for
    recurrent layers: Jose, Cisse, Fleuret 2018, arXiv 1705.10142.
    """
    network, fold = weight.network, weight.fold
    gate = ("o1",) if gates > 1 and len(fold.axis("o").modes) > 1 and fold.axis("o").modes[0] == gates else ()
    if std is None:
        std = 1 / math.sqrt(math.prod(axis.size // axis.groups for axis in fold.axes if axis.role != "o"))
    check_std(std)
    for term, part in zip(network.terms, network.term_slices, strict=True):
        factors, share = list(weight.factors[part]), std / math.sqrt(len(network.terms))
        if _is_kronecker(term) and (_has_matrices(term) or not term.is_tree):
            n_in = math.prod(term.sizes[mode] for mode in term.modes if mode[0] not in "og")
            scale = (share * math.sqrt(n_in / math.prod(term.ranks.values()))) ** (1 / len(term.factors))
            for factor, indices in zip(factors, term.factors, strict=True):
                _fill(factor, indices, term, gate, scale, generator)
        elif term.is_tree and len(term.components("")) == 1:
            _fill_tree(factors, term, share, generator)
        else:
            raise ValueError(
                f"an orthogonal start is asked for {term.statement!r}; it needs a tree network (SVD, Tucker, TT, TTM, HT) or a sum of "
                "Kronecker products (KCP, KT): choose one of these formats, or the normal start"
            )
    return weight


def _is_kronecker(network: Network) -> bool:
    """Whether ranks stand on every factor and modes on one."""
    return all(len(network.carriers(rank)) == len(network.factors) for rank in network.ranks) and all(
        len(network.carriers(mode)) == 1 for mode in network.modes if mode != "g"
    )


def _has_matrices(network: Network) -> bool:
    """Whether a factor maps inputs to outputs by itself; those of SVD and CP do not."""
    return any({"o", "i"} <= {index[0] for index in indices if index in network.modes} for indices in network.factors)


def _fill(
    factor: Tensor, indices: Sequence[str], network: Network, gate: Sequence[str], scale: float, generator: torch.Generator | None
) -> None:
    """Fills every slice at fixed ranks, group and gate with scale x sqrt(max(out, in) / in) x a semi-orthogonal matrix."""
    out = [i for i in indices if i[0] == "o" and i not in gate and i in network.modes]
    inp = [i for i in indices if i in network.modes and i not in (*out, *gate, "g")]
    rest = [i for i in indices if i not in out and i not in inp]
    n_out, n_in = (math.prod(network.sizes[i] for i in group) for group in (out, inp))
    matrix = _semi_orthogonal(math.prod(network.sizes[i] for i in rest), n_out, n_in, generator)
    _put(factor, indices, network, matrix * (scale * math.sqrt(max(n_out, n_in) / n_in)), (*rest, *out, *inp))


def _fill_tree(factors: Sequence[Tensor], network: Network, std: float, generator: torch.Generator | None) -> None:
    """Fills the factors from the largest one on outwards.

    A matrix with orthonormal columns keeps the squared norm of what it is multiplied with; one with fewer rows than columns keeps rows /
    columns of it on average. So the root gets the squared norm that the dense weight is to have, divided by these.
    """
    root = max(range(len(factors)), key=lambda number: factors[number].numel())
    shared, n_slices = network.shared_modes, math.prod(network.sizes[mode] for mode in network.shared_modes)
    square = std**2 * math.prod(network.shape)
    reached = [root]
    for parent in reached:
        for rank in (index for index in network.factors[parent] if index in network.ranks):
            for number in (k for k, _ in network.carriers(rank) if k not in reached):
                rest = [i for i in network.factors[number] if i not in shared and i != rank]
                n_rows, n_columns = math.prod(network.sizes[i] for i in rest), network.sizes[rank]
                matrix = _semi_orthogonal(n_slices, n_rows, n_columns, generator)
                _put(factors[number], network.factors[number], network, matrix, (*shared, *rest, rank))
                square /= min(1.0, n_rows / n_columns)
                reached.append(number)
    with torch.no_grad():
        factors[root].normal_(0, math.sqrt(square / factors[root].numel()), generator=generator)


def _semi_orthogonal(n_slices: int, n_rows: int, n_columns: int, generator: torch.Generator | None) -> Tensor:
    """(slices, rows, columns) in float64, each with orthonormal columns, or rows where there are fewer."""
    normal = torch.randn(n_slices, max(n_rows, n_columns), min(n_rows, n_columns), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    q = q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)[:, None, :]  # without it QR favours some of all rotations
    return q if n_rows >= n_columns else q.mT


def _put(factor: Tensor, indices: Sequence[str], network: Network, values: Tensor, have: Sequence[str]) -> None:
    """Copies values whose axes are the indices `have`, one after another, into a factor."""
    shaped = values.reshape([network.sizes[i] for i in have]).permute([have.index(i) for i in indices])
    with torch.no_grad():
        factor.copy_(shaped)


def balance_(weight: FactorizedWeight) -> FactorizedWeight:
    """The weight with the same `dense()`, in which all factors of a term have the same root mean square.

    Scales can move between factors without any effect on the weight; training lets them drift apart, which slows optimisers down and
    costs accuracy in half precision. Where ranks stand on every factor (CP, KCP) each of their slices is balanced by itself. Momentum
    that an optimiser keeps for the factors is not changed: call it seldom, or before training.
    """
    for term, part in zip(weight.network.terms, weight.network.term_slices, strict=True):
        common = [rank for rank in term.ranks if len(term.carriers(rank)) == len(term.factors)]
        moved = []
        for factor, indices in zip(weight.factors[part], term.factors, strict=True):
            order = [*common, *(i for i in indices if i not in common)]
            n_slices = math.prod(term.sizes[i] for i in common)
            moved.append(factor.detach().permute([indices.index(i) for i in order]).reshape(n_slices, -1))
        sizes = torch.stack([one.double().square().mean(1).sqrt() for one in moved])
        is_zero = (sizes == 0).any(0)
        logs = torch.where(is_zero, 1.0, sizes).log()
        scales = (logs.mean(0) - logs).exp()
        for factor, indices, scale in zip(weight.factors[part], term.factors, scales, strict=True):
            shape = [term.sizes[i] if i in common else 1 for i in indices]
            order = [i for i in indices if i in common]
            by_slice = scale.reshape([term.sizes[i] for i in common]).permute([common.index(i) for i in order])
            with torch.no_grad():
                factor.mul_(by_slice.reshape(shape).to(factor))
    return weight
