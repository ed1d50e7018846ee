"""TKD with given ranks: orthonormal bases for both channel modes by Tucker-2, and corrected CP of the core between them.

The squared errors of the two steps add up, so each is fitted by itself; the core is small, so its CP and the correction are cheap. With
orthonormal bases the sensitivity of the whole is that of the core and a constant.

Source: Phan et al. 2020, arXiv 2008.05441, section 4; Bro and Andersson 1998 (CANDELINC). `tkd_cpd` chooses the ranks by an error bound.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered
from tenfold.solvers.cp_als import cp_errors
from tenfold.solvers.hosvd import hosvd
from tenfold.solvers.sensitivity import rebalance
from tenfold.solvers.solution import Solution, check_target, finish
from tenfold.solvers.stable_cp import SLACK, stable_cp


def is_tkd(network: Network) -> bool:
    """Whether a network is ``o a, a r, r k, r b, b i`` with one mode, or none, at every place: what `tkd` solves."""
    if len(network.factors) != 5 or len(network.ranks) != 3 or network.term_lengths:
        return False
    outer = [network.factors[k] for k in (0, 1, 3, 4)]
    if any(len(indices) != 2 for indices in outer):
        return False
    (o, a), (first, r), (last, b), (second, i) = outer
    middle, *kernel = network.factors[2]
    is_chain = (first, middle, last, second) == (a, r, r, b) and {a, r, b} == set(network.ranks)
    return is_chain and {o, i, *kernel} == set(network.modes)


def tkd(target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
    """Factors of a TKD network, see `is_tkd`, for a batch of tensors.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    check_target(target, network)
    split = _Split(network)
    flat = split.flat(target.double())
    bases, core = split.bases(flat, network)
    inside = core.flatten(1).square().sum(1)
    lost = (flat.flatten(1).square().sum(1) - inside).clamp_min(0) / inside.clamp_min(torch.finfo(inside.dtype).tiny)
    fit = stable_cp(core, split.core_network(network), sweeps=sweeps, seed=seed, outside=lost)
    left, middle, right = fit.factors  # (a, r), (k, r), (b, r)
    kernel = middle.mT.reshape(-1, network.sizes[split.r], *(network.sizes[mode] for mode in split.kernel))
    factors = rebalance(network, [bases[0], left, kernel, right.mT, bases[1].mT])
    return finish("tkd", target, network, factors, is_converged=fit.is_converged)


def tkd_errors(target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
    """Relative errors (len(networks), batch) at several ranks: one descent of CP for every pair of bases."""
    split = _Split(networks[0])
    flat = split.flat(target.double())
    squared = flat.flatten(1).square().sum(1)
    pairs: dict[tuple[int, int], list[int]] = {}
    for number, network in enumerate(networks):
        pairs.setdefault((network.sizes[split.a], network.sizes[split.b]), []).append(number)
    errors: list[Tensor] = [torch.empty(0)] * len(networks)
    for numbers in pairs.values():
        core = split.bases(flat, networks[numbers[0]])[1]
        inside = core.flatten(1).square().sum(1)
        found = cp_errors(core, [split.core_network(networks[number]) for number in numbers], sweeps=sweeps, seed=seed)
        for number, error in zip(numbers, found, strict=True):
            both = (squared - inside).clamp_min(0) + error.square() * inside
            errors[number] = (both / squared.clamp_min(1e-300)).sqrt() * SLACK
    return torch.stack(errors)


class _Split:
    """The parts of a TKD network: output mode, kernel modes and input mode, and the ranks a, r, b."""

    def __init__(self, network: Network) -> None:
        (self.o, self.a), (_, self.r), middle, (_, self.b), (_, self.i) = network.factors
        self.kernel = middle[1:]
        self.modes, self.sizes = network.modes, network.sizes

    def flat(self, target: Tensor) -> Tensor:
        """(batch, out, kernel, in)."""
        shape = (self.sizes[self.o], math.prod(self.sizes[mode] for mode in self.kernel), self.sizes[self.i])
        return ordered(target, self.modes, (self.o, *self.kernel, self.i)).reshape(-1, *shape)

    def bases(self, flat: Tensor, network: Network) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Orthonormal bases (batch, out, a) and (batch, in, b), and the core (batch, a, kernel, b)."""
        sizes = dict(zip("oki", flat.shape[1:], strict=True)) | {"a": network.sizes[self.a], "b": network.sizes[self.b]}
        factors = hosvd(flat, Network.parse("o a, a k b, b i -> o k i", sizes)).factors
        out, inp = (torch.linalg.qr(basis).Q for basis in (factors[0], factors[2].mT))
        return (out, inp), torch.einsum("noki,noa,nib->nakb", flat, out, inp)

    def core_network(self, network: Network) -> Network:
        """CP of the core."""
        sizes = {"a": network.sizes[self.a], "k": math.prod(self.sizes[mode] for mode in self.kernel), "b": network.sizes[self.b]}
        return Network.parse("a r, k r, b r -> a k b", {**sizes, "r": network.sizes[self.r]})
