"""Start values of factorised weights beyond the normal one, and the balance of their factors. Named and used as torch.nn.init.

Measured consequences of each choice are in docs/initialisation.md.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.weight import FactorizedWeight


def normal_(weight: FactorizedWeight, std: float, *, generator: torch.Generator | None = None) -> FactorizedWeight:
    """The weight, filled so that every entry of `dense()` has mean 0 and standard deviation `std`; exact for every format and any ranks."""
    weight.init_normal_(std, generator=generator)
    return weight


def orthogonal_(
    weight: FactorizedWeight, std: float | None = None, *, gates: int = 1, generator: torch.Generator | None = None
) -> FactorizedWeight:
    """The weight, a sum of Kronecker products, filled with semi-orthogonal matrices.

    With one term the matrix is semi-orthogonal itself (times a scale): all its singular values are equal, which no product of
    normal factors comes near. With more terms it is close to that.

    Args:
        std: standard deviation of the entries of `dense()`; left out, 1 / sqrt(in): outputs vary as inputs do, and a square matrix
            of one term is orthogonal.
        gates: the output holds so many matrices one after another as its first mode (`Fold.gate`); each is semi-orthogonal.

    Raises:
        ValueError: the format is no sum of Kronecker products (KCP without an inner rank, KT).

    Source: deviation from independent normal factors as derived in docs/initialisation.md; orthogonal Kronecker factors for
    recurrent layers: Jose, Cisse, Fleuret 2018, arXiv 1705.10142.
    """
    network, fold = weight.network, weight.fold
    gate = ("o1",) if gates > 1 and len(fold.axis("o").modes) > 1 and fold.axis("o").modes[0] == gates else ()
    if std is None:
        std = 1 / math.sqrt(fold.axis("i").size // fold.axis("i").groups)
    for term, part in zip(network.terms, network.term_slices, strict=True):
        _check_kronecker(term)
        n_in = math.prod(term.sizes[mode] for mode in term.modes if mode[0] != "o" and mode != "g")
        n_products = math.prod(term.ranks.values()) * len(network.terms)
        scale = (std * math.sqrt(n_in / n_products)) ** (1 / len(term.factors))
        for factor, indices in zip(weight.factors[part], term.factors, strict=True):
            _fill(factor, indices, term, gate, scale, generator)
    return weight


def _check_kronecker(network: Network) -> None:
    if any(len(network.carriers(rank)) < len(network.factors) for rank in network.ranks) or any(
        len(network.carriers(mode)) > 1 for mode in network.modes if mode != "g"
    ):
        raise ValueError(
            f"an orthogonal start is asked for {network.statement!r}; it needs a sum of Kronecker products, whose ranks stand on every "
            "factor and whose modes stand on one: choose KCP or KT, or the normal start"
        )


def _fill(
    factor: Tensor, indices: Sequence[str], network: Network, gate: Sequence[str], scale: float, generator: torch.Generator | None
) -> None:
    """Fills every slice at fixed ranks, group and gate with scale x sqrt(max(out, in) / in) x a semi-orthogonal matrix."""
    out = [i for i in indices if i[0] == "o" and i not in gate and i in network.modes]
    inp = [i for i in indices if i in network.modes and i not in (*out, *gate, "g")]
    rest = [i for i in indices if i not in out and i not in inp]
    n_out, n_in = (math.prod(network.sizes[i] for i in group) for group in (out, inp))
    n_slices = math.prod(network.sizes[i] for i in rest)
    normal = torch.randn(n_slices, max(n_out, n_in), min(n_out, n_in), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    q = q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)[:, None, :]  # without it QR favours some of all rotations
    matrix = (q if n_out >= n_in else q.mT) * (scale * math.sqrt(max(n_out, n_in) / n_in))
    have = [*rest, *out, *inp]
    shaped = matrix.reshape([network.sizes[i] for i in have]).permute([have.index(i) for i in indices])
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
