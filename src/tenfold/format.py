"""Format: what a weight format states, and what every format gets from its statement.

A format is a frozen dataclass with one method, `factors`: the index names of each factor for a given fold. Network, ranks,
initialisation, the four verbs, a solver, saving and planning follow.
"""

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from tenfold.fold import Fold
from tenfold.network import Network
from tenfold.solvers.als import als
from tenfold.solvers.solution import Solution
from tenfold.solvers.stable_als import stable_als, stable_errors

Rank: TypeAlias = int | float | tuple[int, ...] | None

CHOICES = 12  # ranks that a plan tries where every one of them is fitted by iteration
RANKS_LIMIT = 1024  # the product of the ranks on a factor with modes up to which an iterative fit takes seconds, not minutes


@dataclass(frozen=True)
class Format(abc.ABC):
    """Base of all formats.

    `rank` is an int (the same for every rank index, cut where a smaller one already represents everything), a tuple with one int
    for each rank index in the order of the statement, a fraction of the largest useful ranks (where bonds form loops, of those at which
    equal ranks represent everything), or None: left to the plan. Rank indices that another field sizes, such as `blocks`, are not counted.
    """

    n_modes: ClassVar[int] = 1  # modes that an input or an output axis is split into where nothing else is asked for
    n_kernel_modes: ClassVar[int | None] = None  # the same for convolutions; None: as n_modes

    rank_step: ClassVar[float] = 0.8  # ratio between the ranks that a plan tries
    is_svd_of_matrices: ClassVar[bool] = False  # whether without a kernel it is no better than SVD, and not tried beside it

    rank: Rank = None

    @abc.abstractmethod
    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        """The index names of each factor. Modes are those of the fold; every other name is a rank."""

    def fold(self, fold: Fold) -> Fold:
        """The fold as this format takes it: itself, or with a hint for `factors`."""
        return fold

    def other_ranks(self, network: Network) -> Mapping[str, int]:
        """Sizes, by name, of the rank indices of a network of this format that a field other than `rank` gives."""
        return {}

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        """Factors for a batch of dense tensors (batch, *network.shape), in float64."""
        return als(target, network, sweeps=sweeps, seed=seed)

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        """Relative errors (len(networks), batch) that this format reaches at several ranks; an estimate is enough for a plan."""
        return torch.stack([self.solve(target, network, sweeps=sweeps, seed=seed).errors for network in networks])

    def slack(self, network: Network) -> float:
        """Above 1 where `solve` makes factors less sensitive within so many times their error; a later fit has to do it again."""
        return 1.0

    def rank_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        """Ranks that a plan may choose from, ascending: the same fraction of the largest useful value for every rank."""
        widest = self.widest(fold)
        most = self.free_ranks(widest)
        if self.rank is not None:
            return [self.ranks_of(self.network(fold))]
        steps = sorted({round_rank(max(most.values()) * self.rank_step**k) for k in range(80)})
        choices = {tuple(max(1, round_rank(size * step / max(most.values()), size)) for size in most.values()) for step in steps}
        return sorted(choices, key=lambda ranks: (sum(ranks), ranks))

    def equal_choices(self, fold: Fold) -> list[tuple[int, ...]]:
        """Ranks that a plan may choose from, ascending: at most CHOICES, the same for every rank index, cut at the largest useful ones.

        For networks with loops, whose largest useful ranks are far above what can be stored: none has more values than the dense
        weight, nor ranks on one factor with modes whose product exceeds RANKS_LIMIT.
        """
        if self.rank is not None:
            return [self.ranks_of(self.network(fold))]
        widest = self.widest(fold)
        most, others, dense = self.free_ranks(widest), self._resolve_others(widest), math.prod(fold.shape)

        def chosen(rank: int) -> tuple[int, ...]:
            return tuple(min(rank, size) for size in most.values())

        def fits(rank: int) -> bool:
            network = widest.resized({**dict(zip(most, chosen(rank), strict=True)), **others})
            owners = [indices for indices in network.factors if any(i in network.modes for i in indices)]
            product = max(math.prod(network.sizes[i] for i in indices if i in network.ranks) for indices in owners)
            return network.numel <= dense and product <= RANKS_LIMIT

        top, limit = 1, self.largest_rank(widest)
        for step in (2**k for k in range(limit.bit_length(), -1, -1)):
            if top + step <= limit and fits(top + step):
                top += step
        return sorted({chosen(round_rank(top ** (k / (CHOICES - 1)), top)) for k in range(CHOICES)})

    def max_ranks(self, network: Network) -> dict[str, int]:
        """The largest useful size of every rank index."""
        return {rank: network.useful_rank(rank) for rank in network.ranks}

    def network(self, fold: Fold) -> Network:
        """The network for a weight.

        Raises:
            ValueError: the format has no rank, a rank below 1 or one above the largest useful.
            TypeError: a rank is no number.
        """
        widest = self.widest(fold)
        return widest.resized(self._resolve(widest))

    def widest(self, fold: Fold) -> Network:
        """The network with the largest useful ranks.

        Raises:
            ValueError: the format has no rank for these modes.
        """
        fold = self.fold(fold)
        factors = [tuple(indices) for indices in self.factors(fold)]
        if fold.role("g"):
            factors = [("g", *indices) for indices in factors]
        modes = set(fold.modes)
        ranks = {index: 1 for indices in factors for index in indices if index not in modes}
        if not ranks:
            raise ValueError(
                f"{type(self).__name__} has no rank with the modes {fold.sizes}: its one factor is the dense weight; give more modes"
            )
        network = Network.of(factors, fold.modes, {**fold.sizes, **ranks}, self.term_lengths(fold))
        return network.resized(self.max_ranks(network))

    def term_lengths(self, fold: Fold) -> Sequence[int]:
        """How many factors each term has where the format is a sum of networks; empty where it is one."""
        return ()

    def free_ranks(self, widest: Network) -> dict[str, int]:
        """The largest useful size of every rank index that `rank` gives."""
        others = self.other_ranks(widest)
        return {rank: size for rank, size in widest.ranks.items() if rank not in others}

    def largest_rank(self, widest: Network) -> int:
        """The largest int that `rank` can be: equal ranks above it add nothing."""
        most = max(self.free_ranks(widest).values(), default=1)
        return min(most, widest.sufficient_rank or most)

    def ranks_of(self, network: Network) -> tuple[int, ...]:
        """The value of `rank`, as a tuple, that gives a network of this format."""
        return tuple(self.free_ranks(network).values())

    def _resolve(self, widest: Network) -> Mapping[str, int]:
        most, name = self.free_ranks(widest), type(self).__name__
        if self.rank is None:
            raise ValueError(f"{name}() has no rank; a layer needs one: give {name}(rank=8), or let tenfold.plan choose")
        ranks = self.rank if isinstance(self.rank, tuple) else () if isinstance(self.rank, float) else (self.rank,)
        if bad := [rank for rank in ranks if not isinstance(rank, Integral)]:
            raise TypeError(
                f"{name} got the rank {self.rank!r}, with {bad[0]!r} a {type(bad[0]).__name__}; an int is needed, a fraction as a float, "
                f"or a tuple with one int for each rank index: give for instance {name}(rank=8)"
            )
        if isinstance(self.rank, tuple):
            if len(self.rank) != len(most):
                raise ValueError(
                    f"{name} got {len(self.rank)} ranks {self.rank}, but has the {len(most)} rank indices {list(most)}; give one each"
                )
            chosen = dict(zip(most, self.rank, strict=True))
        elif isinstance(self.rank, float):
            if not 0 < self.rank <= 1:
                raise ValueError(f"{name} got the rank {self.rank}; a fraction must be above 0 and at most 1; for a whole rank give an int")
            largest = self.largest_rank(widest)
            chosen = {rank: max(1, round(self.rank * min(size, largest))) for rank, size in most.items()}
        else:
            if self.rank > (largest := self.largest_rank(widest)):
                raise ValueError(f"{name} got rank {self.rank}, but ranks above {largest} add nothing here; choose at most that")
            chosen = {rank: min(self.rank, size) for rank, size in most.items()}
        if min(chosen.values(), default=1) < 1:
            raise ValueError(f"{name} got rank {self.rank}; every rank must be at least 1")
        if above := {rank: f"{size} > {most[rank]}" for rank, size in chosen.items() if size > most[rank]}:
            raise ValueError(f"{name} got ranks above the largest useful ones: {above}; choose at most those")
        return {**chosen, **self._resolve_others(widest)}

    def _resolve_others(self, widest: Network) -> dict[str, int]:
        others = dict(self.other_ranks(widest))
        if bad := {rank: size for rank, size in others.items() if not isinstance(size, Integral)}:
            raise TypeError(f"{type(self).__name__} got the sizes {bad}; whole numbers are needed: round them")
        if bad := {rank: size for rank, size in others.items() if not 1 <= size <= widest.ranks[rank]}:
            most = {rank: widest.ranks[rank] for rank in bad}
            raise ValueError(
                f"{type(self).__name__} got the sizes {bad}; they must be from 1 to the largest useful ones, {most}: choose others"
            )
        return others


class PenalisedFormat(Format, abc.ABC):
    """Base of formats whose tensors of given ranks are not a closed set: fits are penalised, or their terms could grow without bound."""

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        return stable_als(target, network, sweeps=sweeps, seed=seed)

    def errors(self, target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
        return stable_errors(target, networks, sweeps=sweeps, seed=seed)


def round_rank(rank: float, most: int | None = None) -> int:
    """A rank rounded to a multiple of 8 above 32 and of 4 above 16, where matrix products run best, but not above `most`."""
    unit = 8 if rank > 32 else 4 if rank > 16 else 1
    rounded = max(1, round(rank / unit) * unit)
    return rounded if most is None else min(rounded, most)
