"""STT: a tensor train whose cores are joined by semi-tensor products."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral

from torch import Tensor

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.solvers.solution import Solution
from tenfold.solvers.tt_svd import tt_svd


@dataclass(frozen=True)
class STT(Format):
    """Semi-tensor-product tensor train: ``o1 r1, r1 o2 o3 r2, r2 o4 i1 r3, r3 i2 i3 -> o1 o2 o3 o4 i1 i2 i3 ..``.

    Every mode n is two, (n / t, t), in the fold: here o1 o2 are the first one. A core of `TT` that has n and a bond R is stored as n / t
    and R / t and used as U (x) I_t; so the inner part of a mode passes through its own core, as part of the bond, to the next one. `rank`
    counts what is stored, R / t. The parameters of such a core fall by t^2 against TT of nominal rank R. The last core keeps its mode
    whole; a mode that t does not divide is kept whole too. The rank of the matrix is bounded as in TT, with nominal ranks. Prefer it to
    TT where the ranks needed are so large that the bonds dominate.

    Source: Zhao, Liu, Huang and Zhu 2021, arXiv 2109.15200 (abstract, and the semi-tensor product of Cheng); where in a core the identity
    stands is our choice, as the paper's body was not at hand.
    """

    n_modes = 2
    n_kernel_modes = 1

    t: int = 2

    def fold(self, fold: Fold) -> Fold:
        return with_identity(fold, self.t, "STT", "TT")

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        legs = shifted(fold.legs)
        bonds = [(), *((f"r{number}",) for number in range(1, len(legs))), ()]
        return [(*left, *leg, *right) for leg, left, right in zip(legs, bonds, bonds[1:], strict=False)]

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return tt_svd(target, network)


def with_identity(fold: Fold, t: int, name: str, plain: str) -> Fold:
    """The fold in which every mode n that t divides is two, (n / t, t).

    Raises:
        ValueError: t is below 2.
        TypeError: t is no whole number.
    """
    if not isinstance(t, Integral):
        raise TypeError(f"{name} got t={t!r}; a whole number is needed, as modes are divided by it: give for instance t=2")
    if t < 2:
        raise ValueError(
            f"{name} got t={t}; a semi-tensor product needs an identity of size 2 or more: give t=2, or choose {plain}, which is t=1"
        )
    return replace(fold, inner=t)


def shifted(legs: Sequence[Sequence[str]], *, is_ring: bool = False) -> list[tuple[str, ...]]:
    """The modes of each core when the inner part of each leg stands on the next core; the last one keeps its own, or hands it to the first.

    A leg of kernel positions has no inner part.
    """
    heads = [tuple(leg) if leg[0][0] == "k" else tuple(leg[:-1]) for leg in legs]
    inner = [() if leg[0][0] == "k" else tuple(leg[-1:]) for leg in legs]
    before = [inner[-1] if is_ring else (), *inner[:-1]]
    cores = [(*early, *head) for early, head in zip(before, heads, strict=True)]
    return cores if is_ring else [*cores[:-1], (*cores[-1], *inner[-1])]
