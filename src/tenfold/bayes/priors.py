"""Priors on the factors of a network: one variance for every slice of a rank, with a hyperprior on each.

The variance of a rank slice is written lambda, its root s. For entries with the sum of squares M and the number D, under
Normal(0, lambda), a hyperprior has a closed-form best lambda: the minimum of M / (2 lambda) + D / 2 log lambda + cost(lambda).

Source: Hawkins and Zhang 2020, arXiv 2010.08689 (log-uniform, half-Cauchy, the variances as point masses). Deviations: the stable root of
the half-Cauchy update, and the symmetric prior, which shares a rank's variances among all factors that carry it.
"""

import abc
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tenfold.bayes.guards import check_positive
from tenfold.network import Network


class Hyperprior(abc.ABC):
    """What is believed of a variance before any data."""

    @abc.abstractmethod
    def best(self, energy: Tensor, count: Tensor) -> Tensor:
        """The variances that minimise M / (2 lambda) + D / 2 log lambda + cost(lambda), for M = `energy` and D = `count`."""

    @abc.abstractmethod
    def cost(self, variance: Tensor) -> Tensor:
        """The negative log density, up to a constant."""


@dataclass(frozen=True)
class LogUniform(Hyperprior):
    """p(s) ~ 1 / s: no scale and no setting. The mode is taken in s, which gives M / (D + 1)."""

    def best(self, energy: Tensor, count: Tensor) -> Tensor:
        return energy / (count + 1)

    def cost(self, variance: Tensor) -> Tensor:
        return variance.log() / 2


@dataclass(frozen=True)
class HalfCauchy(Hyperprior):
    """p(s) ~ 1 / (1 + s^2 / scale^2): as the log-uniform above `scale`, flat below it.

    The best variance is the positive root of (D + 2) x^2 + (D scale^2 - M) x - M scale^2. Where D scale^2 exceeds M, the textbook
    form of the root subtracts nearly equal numbers; its other form does not.
    """

    scale: float = 0.1

    def __post_init__(self) -> None:
        check_positive("HalfCauchy", "scale", self.scale, 0.1)

    def best(self, energy: Tensor, count: Tensor) -> Tensor:
        square = self.scale**2
        b = count * square - energy
        root = (b * b + 4 * (count + 2) * energy * square).sqrt()
        return torch.where(
            b > 0, 2 * energy * square / (b + root).clamp_min(1e-300 if b.dtype == torch.float64 else 1e-38), _large(b, root, count)
        )

    def cost(self, variance: Tensor) -> Tensor:
        return (variance / self.scale**2).log1p()


def _large(b: Tensor, root: Tensor, count: Tensor) -> Tensor:
    return (root - b) / (2 * (count + 2))


@dataclass(frozen=True)
class Gamma(Hyperprior):
    """A gamma density on the precision 1 / lambda; the mode is taken in lambda: (2 rate + M) / (D + 2 + 2 shape).

    It holds variances above rate / (shape + 1 + D / 2): no slice dies entirely, so decide by rounding and not by a threshold.
    """

    shape: float = 1.0
    rate: float = 1e-6

    def __post_init__(self) -> None:
        check_positive("Gamma", "shape", self.shape, 1.0)
        check_positive("Gamma", "rate", self.rate, 1e-6)

    def best(self, energy: Tensor, count: Tensor) -> Tensor:
        return (2 * self.rate + energy) / (count + 2 + 2 * self.shape)

    def cost(self, variance: Tensor) -> Tensor:
        return (self.shape + 1) * variance.log() + self.rate / variance


@dataclass(frozen=True)
class Prior:
    """Normal(0, v) on every entry of every factor; v is the product of the variances of the rank slices that the entry belongs to.

    is_symmetric: every factor that carries a rank shares its variances. Otherwise as published: see `governing_ranks`.
    core_variance: v of a factor that no variance governs, where the prior is as published.
    """

    hyperprior: Hyperprior = field(default_factory=LogUniform)
    is_symmetric: bool = True
    core_variance: float = 100.0

    def __post_init__(self) -> None:
        check_positive("Prior", "core_variance", self.core_variance, 100.0)

    def governing_ranks(self, network: Network) -> tuple[tuple[str, ...], ...]:
        """For each factor the ranks whose variances multiply to that of its entries.

        As published, one rank for each factor: its last one, so that a bond of a chain is governed from its left core, and the last
        bond from both sides. A factor without input or output modes takes the last of its ranks that no other factor has taken; it has
        `core_variance` where there is none (the core of Tucker). A rank that is then left, as in fully connected networks, is governed
        from the first factor that carries it.

        >>> Prior(is_symmetric=False).governing_ranks(Network.parse("o1 a, a o2 b, b o3 -> o1 o2 o3", dict(o1=2, o2=2, o3=2, a=2, b=2)))
        (('a',), ('b',), ('b',))
        """
        ranks = [tuple(i for i in indices if i in network.ranks) for indices in network.factors]
        if self.is_symmetric:
            return tuple(ranks)
        governed = [
            mine[-1:] if any(i[0] in "oi" for i in indices if i in network.modes) else ()
            for mine, indices in zip(ranks, network.factors, strict=True)
        ]
        taken = {rank for one in governed for rank in one}
        for number, mine in enumerate(ranks):
            free = [rank for rank in mine if rank not in taken]
            if not governed[number] and free:
                governed[number] = (free[-1],)
                taken.add(free[-1])
        for rank in network.ranks:
            if rank not in taken:
                number, _ = network.carriers(rank)[0]
                governed[number] = (*governed[number], rank)
        return tuple(governed)
