"""What becomes of an input's indices when it meets groups of a network's factors; all sets are bit masks, so that a search is cheap.

An index of size 1 is never part of a state: it neither takes room nor stands in anybody's way.
"""

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import combinations, pairwise
from typing import NamedTuple

from tenfold.network import Network

GROUPS = 512  # sets of joined factors, from the small ones on; a ring of 20 factors has fewer
EXHAUSTIVE = 6  # up to so many factors any set of them is a group, also where no rank joins them


class Move(NamedTuple):
    """The indices of one step, by what the step does to them (bit masks)."""

    passing: int  # in the state only
    shared: int  # in the state and in the group, and needed later
    summed: int  # in the state and in the group for the last time
    new: int  # brought by the group


class Moves:
    """The moves of a network's factors; `is_convolution`: kernel modes belong to the places of an image, not to its channels."""

    def __init__(self, network: Network, is_convolution: bool) -> None:
        self.network = network
        kept = [mode for mode in network.modes if not (is_convolution and mode[0] == "k")]
        self.names = tuple(name for name in (*kept, *network.ranks) if network.sizes[name] > 1)
        self._bit = {name: 1 << number for number, name in enumerate(self.names)}
        self._carried = [self._mask(indices) for indices in network.factors]
        self.all = (1 << len(network.factors)) - 1
        self.start = self._mask(mode for mode in network.modes if mode[0] in "gi")
        self.output = self._mask(mode for mode in network.modes if mode[0] in "go")
        self.kernel = sum(1 << k for k, f in enumerate(network.factors) if is_convolution and any(i[0] == "k" for i in f))
        self._sizes: dict[int, int] = {0: 1}
        self._states: dict[int, int] = {}
        self._by_factor: dict[int, int] = {}

    def _mask(self, names: Iterator[str] | tuple[str, ...]) -> int:
        return sum(self._bit.get(name, 0) for name in names)

    def size(self, indices: int) -> int:
        """The product of the sizes of some indices."""
        if (found := self._sizes.get(indices)) is None:
            found = self._sizes[indices] = math.prod(self.network.sizes[name] for name in self.of(indices))
        return found

    def of(self, indices: int) -> tuple[str, ...]:
        """The names of some indices: modes in the order of the dense tensor, then ranks."""
        return tuple(name for number, name in enumerate(self.names) if indices >> number & 1)

    def factors(self, group: int) -> tuple[int, ...]:
        """The numbers of the factors of a group."""
        return tuple(k for k in range(len(self.network.factors)) if group >> k & 1)

    def carried(self, group: int) -> int:
        """The indices that a group's factors carry."""
        if (found := self._by_factor.get(group)) is None:
            found = 0
            for k in self.factors(group):
                found |= self._carried[k]
            self._by_factor[group] = found
        return found

    def state(self, done: int) -> int:
        """The indices of the state once the input has met the factors `done`: what they carry or left, and somebody still needs."""
        if (found := self._states.get(done)) is None:
            found = self._states[done] = (self.start | self.carried(done)) & (self.carried(self.all & ~done) | self.output)
        return found

    def move(self, done: int, group: int) -> Move:
        """What a group does to the state after the factors `done`."""
        before, after, carried = self.state(done), self.state(done | group), self.carried(group)
        return Move(before & ~carried, before & carried & after, before & ~after, after & ~before)

    def open(self, group: int) -> int:
        """The indices of the tensor that a group's factors are contracted to."""
        return self.carried(group) & (self.carried(self.all & ~group) | self.start | self.output)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """Sets of factors that may be merged: those joined through ranks; a rank of many factors joins each to the next one only.

        Small networks have all sets. Kernel modes stay together: part of a kernel is no convolution.
        """
        count = len(self.network.factors)
        if count <= EXHAUSTIVE:
            found = {sum(1 << k for k in some) for size in range(1, count + 1) for some in combinations(range(count), size)}
        else:
            found = self._joined(count)
        return tuple(sorted(group for group in found if not group & self.kernel or not self.kernel & ~group))

    def parts(self, group: int) -> Iterator[int]:
        """One half of each way to contract a group from two: the half with the lowest factor."""
        first = group & -group
        if group.bit_count() <= EXHAUSTIVE:
            half, is_free = (group - 1) & group, len(self.network.factors) <= EXHAUSTIVE
            while half:
                if half & first and (is_free or (half in self._parts and group & ~half in self._parts)):
                    yield half
                half = (half - 1) & group
            return
        yield from (half for half in self._parts if half & first and not half & ~group and half != group and group & ~half in self._parts)

    @cached_property
    def _parts(self) -> frozenset[int]:
        return frozenset(self._joined(len(self.network.factors)))

    def _joined(self, count: int) -> set[int]:
        beside = [0] * count
        for rank in self.network.ranks:
            carriers = [k for k, _ in self.network.carriers(rank)]
            for one, other in pairwise(carriers):
                beside[one] |= 1 << other
                beside[other] |= 1 << one
        found = fresh = {1 << k for k in range(count)}
        while fresh and len(found) < GROUPS:
            grown = {group | 1 << k for group in fresh for k in range(count) if not group >> k & 1 and beside[k] & group}
            fresh = grown - found
            found = found | fresh
        whole = {self.all, self.kernel} if self.kernel else {self.all}
        return found | whole

    def candidates(self, done: int) -> list[int]:
        """The groups that the input may meet next: those that carry an index of the state, or all where none does."""
        left = [group for group in self.groups if not group & done]
        state = self.state(done)
        return [group for group in left if self.carried(group) & state] or left
