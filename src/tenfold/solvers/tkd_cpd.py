"""TKD-CPD: the channel modes are compressed by Tucker-2 first, then the small core gets a corrected CP decomposition.

With orthonormal bases the squared errors add up: Tucker-2 takes a small part of the bound, CP of the core the rest. A convolution
becomes 1x1, 1x1, depthwise, 1x1, 1x1. A basis is merged with the CP factor beside it unless both stored apart are cheaper, which is
where q (n + R) < n R for a basis (n, q). Merged on both sides the result is a plain CP, found at the cost of the small core.

Source: Phan et al. 2020, arXiv 2008.05441, section 4; Bro and Andersson 1998 (CANDELINC). Deviation: the merge rule.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.epc import epc
from tenfold.solvers.levenberg_marquardt import CPLayout, levenberg_marquardt
from tenfold.solvers.sensitivity import rebalance
from tenfold.solvers.solution import Solution, check_target, finish
from tenfold.solvers.tucker2_bounded import Tucker2Search

SHARE = 0.1  # of the squared bound that Tucker-2 may take
SWEEPS, CORRECTIONS = 50, 20  # of a first ALS where no bound is given, and of the correction of the whole


@dataclass(frozen=True)
class TKDCPD:
    """What `tkd_cpd` returns for one tensor.

    network: the CP network, in which a factor is split in two where its basis stays apart.
    bases: the Tucker ranks of the two larger legs, in the order of the factors.
    solution: factors (1, *shape) of `network`.
    """

    network: Network
    bases: tuple[int, int]
    solution: Solution


def tkd_cpd(
    target: Tensor,
    network: Network,
    *,
    delta: float | None = None,
    slack: float = 1.01,
    share: float = SHARE,
    is_merged: bool | None = None,
    seed: int = 0,
) -> TKDCPD:
    """A corrected CP of one tensor (1, *network.shape), found on its Tucker-2 core; the smallest of the three legs is not compressed.

    Args:
        network: CP of order 3 with its rank. Where the core has a smaller largest useful rank, the result has that.
        delta: the relative error to keep; left out, `slack` times what a short ALS on the whole tensor reaches.
        share: of delta^2, for Tucker-2.
        is_merged: whether both bases are merged with the CP factors; left out, the cheaper for each.

    Raises:
        ValueError: not CP of order 3, a rank that adds nothing, another shape, values that are not finite, or an error out of reach.
    """
    check_target(target, network)
    layout = CPLayout.of(network)
    if len(layout.legs) != 3 or len(target) != 1:
        raise ValueError(
            f"{network.statement!r} has {len(layout.legs)} factors and {len(target)} tensors were given; TKD-CPD needs three factors "
            "and one tensor: use levenberg_marquardt for other orders, and one call for each tensor"
        )
    if not 0 < share < 1:
        raise ValueError(f"the share of Tucker-2 is {share}; it must be between 0 and 1: 0.1 leaves most of the error to CP")
    if delta is None:
        delta = min(slack * float(cp_als(target, network, sweeps=SWEEPS, seed=seed).errors), 0.999)
    if not 0 <= delta < 1:
        raise ValueError(
            f"delta is {delta}; zero factors have the relative error 1, so it must be from 0 up to below 1: choose a smaller one"
        )
    small = layout.flat(target.double())[0]  # the leg that stays, then those with a basis
    rank = network.sizes[layout.rank]
    cost = [n + rank for n in small.shape[1:]]
    search = Tucker2Search(small.permute(1, 2, 0), share**0.5 * delta, lambda a, b: a * cost[0] + b * cost[1])
    search.run()
    core = torch.einsum("kab,ap,bq->kpq", small, *search.bases)
    parts = _core(core, rank, float(small.norm()), delta, seed)
    is_apart = [basis.shape[1] * (len(basis) + rank) < len(basis) * rank if is_merged is None else not is_merged for basis in search.bases]
    whole, factors = join_bases(layout, parts, search.bases, is_apart)
    factors = rebalance(whole, factors)
    solution = finish("tkd_cpd", target, whole, factors)
    if float(solution.errors) <= delta:
        correction = epc(target, whole, factors, delta=delta, sweeps=CORRECTIONS)
        solution = finish("tkd_cpd", target, whole, correction.factors, correction.errors)
    ranks = dict(zip(layout.order[1:], (basis.shape[1] for basis in search.bases), strict=True))
    first, second = sorted(ranks)
    return TKDCPD(whole, (ranks[first], ranks[second]), solution)


def _core(core: Tensor, rank: int, norm: float, delta: float, seed: int) -> list[Tensor]:
    """CP factors (size, R) of the core, with what Tucker-2 leaves of the bound."""
    network = Network.parse("k r, a r, b r -> k a b", {"k": core.shape[0], "a": core.shape[1], "b": core.shape[2], "r": rank})
    network = network.resized({"r": min(rank, network.useful_rank("r"))})
    inside = float(core.norm())
    bound = max((delta * norm) ** 2 - (norm**2 - inside**2), 0.0) ** 0.5 / inside if inside > 0 else 0.0
    try:
        return [factor[0] for factor in levenberg_marquardt(core[None], network, delta=min(bound, 0.999), seed=seed).factors]
    except ValueError as error:
        raise ValueError(
            f"delta is {delta:.6g}, but CP of rank {network.sizes['r']} on a core of {tuple(core.shape)} does not reach it; "
            "an error within reach is needed: raise the rank or delta"
        ) from error


def join_bases(layout: CPLayout, parts: list[Tensor], bases: tuple[Tensor, Tensor], is_apart: list[bool]) -> tuple[Network, list[Tensor]]:
    """The CP network with a basis on its two larger legs, and the factors (1, *shape).

    parts: CP factors (size, R) of the core, the leg without a basis first; a basis is merged with its part, or a factor of its own.
    """
    network, rank = layout.network, layout.rank
    sizes = {**network.sizes, rank: parts[0].shape[1]}
    groups: list[list[tuple[tuple[str, ...], Tensor]]] = [[] for _ in layout.legs]
    for position, k in enumerate(layout.order):
        names, leg = network.factors[k], layout.legs[k]
        shape = [sizes[i] for i in leg]
        if position == 0 or not is_apart[position - 1]:
            part = parts[position] if position == 0 else bases[position - 1] @ parts[position]
            groups[k] = [(names, part.reshape(1, *shape, -1).movedim(-1, names.index(rank) + 1))]
            continue
        bond = next(name for name in (f"{rank}{k}{'x' * n}" for n in range(len(sizes) + 1)) if name not in sizes)
        sizes[bond] = bases[position - 1].shape[1]
        outer = tuple(bond if i == rank else i for i in names)
        pair = [
            (outer, bases[position - 1].reshape(1, *shape, -1).movedim(-1, names.index(rank) + 1)),
            ((bond, rank), parts[position][None]),
        ]
        if names[0] == rank:
            pair = [((rank, bond), parts[position].mT[None]), pair[0]]
        groups[k] = pair
    chosen = [one for group in groups for one in group]
    whole = Network.of([names for names, _ in chosen], network.modes, sizes)
    return whole, [tensor.contiguous() for _, tensor in chosen]
