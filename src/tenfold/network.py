"""Network: a weight format as a statement of indices, and what follows from the statement alone.

A statement such as ``"r o1 i1, r o2 i2 -> o1 o2 i1 i2"`` names the indices of every factor. Indices on the right are
modes: they exist in the dense weight. All others are ranks and are summed. An index may stand on more than two factors
(a hyper-edge). A statement may be a sum of terms, ``"a r, r b + a s, s b -> a b"``, each with factors and ranks of its own. This file
holds data only: no torch, no arithmetic on values.
"""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
ROUNDING = 1e-12  # a flow of log sizes that is less is none


@dataclass(frozen=True)
class Network:
    """The indices of every factor, the modes in the order of the dense tensor, and the size of every index.

    term_lengths: how many factors each term of a sum has; empty where there is one term.

    Raises:
        ValueError: a mode is on no factor, a rank on one only, an index twice on one factor, or a size is missing or below 1; the terms do
            not hold all factors, or share a rank.
    """

    factors: tuple[tuple[str, ...], ...]
    modes: tuple[str, ...]
    index_sizes: tuple[tuple[str, int], ...]
    term_lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.factors or not self.modes:
            raise ValueError(f"the statement {self.statement!r} has no factor or no mode; it needs at least one of each")
        for indices in (*self.factors, self.modes):
            if len(set(indices)) != len(indices):
                raise ValueError(f"the statement {self.statement!r} repeats an index within {' '.join(indices)!r}; name each axis once")
        used = {index for indices in self.factors for index in indices}
        if missing := [mode for mode in self.modes if mode not in used]:
            raise ValueError(f"the statement {self.statement!r} has modes {missing} that no factor carries; add them to a factor")
        if single := [index for index in sorted(used - set(self.modes)) if len(self.carriers(index)) == 1]:
            raise ValueError(
                f"the statement {self.statement!r} has ranks {single} on one factor only; a rank joins two or more: leave them out"
            )
        if set(self.sizes) != used:
            raise ValueError(
                f"sizes are given for {sorted(self.sizes)} but the statement {self.statement!r} has the indices {sorted(used)}; "
                "give one size for each index"
            )
        if bad := {name: size for name, size in self.index_sizes if size < 1}:
            raise ValueError(f"sizes {bad} of {self.statement!r} are below 1; every index needs a size of at least 1")
        if self.term_lengths:
            self._check_terms()

    def _check_terms(self) -> None:
        if sum(self.term_lengths) != len(self.factors) or min(self.term_lengths) < 1 or len(self.term_lengths) == 1:
            raise ValueError(
                f"the {len(self.factors)} factors of {self.statement!r} are in terms of {self.term_lengths}; give two terms or more that "
                "hold all of them"
            )
        ranks = [{i for indices in term.factors for i in indices if i not in self.modes} for term in self.terms]  # each checks itself
        if both := sorted(rank for rank in self.ranks if sum(rank in one for one in ranks) > 1):
            raise ValueError(f"the ranks {both} of {self.statement!r} stand in more than one term; name them apart")

    @classmethod
    def of(
        cls, factors: Iterable[Iterable[str]], modes: Iterable[str], sizes: Mapping[str, int], term_lengths: Iterable[int] = ()
    ) -> "Network":
        """A network from index names; `sizes` may hold names that the network does not use."""
        factors, modes = tuple(tuple(f) for f in factors), tuple(modes)
        names = dict.fromkeys(index for indices in (*factors, modes) for index in indices)
        return cls(factors, modes, tuple((name, int(sizes[name])) for name in names if name in sizes), tuple(term_lengths))

    @classmethod
    def parse(cls, statement: str, sizes: Mapping[str, int]) -> "Network":
        """A network from a statement.

        >>> Network.parse("o r, r i -> o i", {"o": 4, "i": 6, "r": 2}).numel
        20

        Raises:
            ValueError: the text has no arrow or a name that is none, or no network has these indices and sizes.
        """
        left, arrow, right = statement.partition("->")
        terms = [[part.split() for part in term.split(",")] for term in left.split("+")]
        groups = [group for term in terms for group in term]
        if not arrow or any(not _NAME.fullmatch(name) for group in (*groups, right.split()) for name in group):
            raise ValueError(f"{statement!r} is not a statement; write index names as in 'o r, r i -> o i'")
        return cls.of(groups, right.split(), sizes, map(len, terms) if len(terms) > 1 else ())

    @cached_property
    def statement(self) -> str:
        """The index string, e.g. ``"o1 r, r i1 -> o1 i1"``."""
        terms = [", ".join(map(" ".join, self.factors[part])) for part in self.term_slices]
        return f"{' + '.join(terms)} -> {' '.join(self.modes)}"

    @cached_property
    def term_slices(self) -> tuple[slice, ...]:
        """Which factors each term of the sum has."""
        ends = list(itertools.accumulate(self.term_lengths or (len(self.factors),)))
        return tuple(slice(start, end) for start, end in zip((0, *ends), ends, strict=False))

    @cached_property
    def terms(self) -> tuple["Network", ...]:
        """Each term of the sum as a network of its own; the network itself where there is one term."""
        if not self.term_lengths:
            return (self,)
        return tuple(Network.of(self.factors[part], self.modes, self.sizes) for part in self.term_slices)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The size of every index by name."""
        return dict(self.index_sizes)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The size of every rank index by name, in the order of the statement."""
        return {name: size for name, size in self.index_sizes if name not in self.modes}

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of every factor."""
        return tuple(tuple(self.sizes[index] for index in indices) for indices in self.factors)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor, one axis for each mode."""
        return tuple(self.sizes[mode] for mode in self.modes)

    @cached_property
    def numel(self) -> int:
        """The number of stored values."""
        return sum(map(math.prod, self.shapes))

    def carriers(self, index: str) -> tuple[tuple[int, int], ...]:
        """The (factor, axis) pairs that carry an index."""
        return tuple((k, indices.index(index)) for k, indices in enumerate(self.factors) if index in indices)

    def resized(self, sizes: Mapping[str, int]) -> "Network":
        """The same statement with other sizes for the indices named."""
        resized = tuple((name, int(sizes.get(name, size))) for name, size in self.index_sizes)
        return Network(self.factors, self.modes, resized, self.term_lengths)

    @cached_property
    def shared_modes(self) -> tuple[str, ...]:
        """The modes that all factors carry, such as the groups of a convolution; none where there is one factor."""
        return tuple(mode for mode in self.modes if len(self.carriers(mode)) == len(self.factors) > 1)

    @cached_property
    def is_tree(self) -> bool:
        """Whether cutting any rank splits the network in two, shared modes being held fixed. Ranks of size 1 join nothing."""
        edges = [tuple(k for k, _ in self.carriers(rank)) for rank, size in self.ranks.items() if size > 1]
        alone = [mode for mode in self.modes if mode not in self.shared_modes]
        if any(len(edge) != 2 for edge in edges) or any(len(self.carriers(mode)) > 1 for mode in alone):
            return False
        group = list(range(len(self.factors)))
        for left, right in edges:
            if group[left] == group[right]:
                return False
            group = [group[left] if one == group[right] else one for one in group]
        return True

    def components(self, without: str) -> list[set[int]]:
        """The factors that stay connected through rank indices when one index is cut, as sets of factor numbers."""
        rest = set(range(len(self.factors)))
        found = []
        while rest:
            group = {rest.pop()}
            while grown := {
                k for k in rest for m in group if any(i in self.ranks and i != without for i in set(self.factors[k]) & set(self.factors[m]))
            }:
                group |= grown
                rest -= grown
            found.append(group)
        return found

    def useful_rank(self, rank: str) -> int:
        """The largest size of a rank index that can change what the network represents.

        Cutting the index leaves components; the matrix between one of them and all others has at most the rank of its smaller
        side, and for a hyper-edge a sum over the index can be absorbed once it reaches the product of all sides but the largest.
        In a loop nothing separates; the bound is then the product of all modes but those of the largest carrier. A bond to a factor
        whose other ranks all stand on both of its ends is a product of matrices, one for each value of these: it needs no more than
        that factor's own modes.
        """
        if self.term_lengths:
            return next(term.useful_rank(rank) for term in self.terms if rank in term.ranks)
        size = {mode: self.sizes[mode] for mode in self.modes if mode not in self.shared_modes}
        carriers = {k for k, _ in self.carriers(rank)}
        sides = [group for group in self.components(rank) if group & carriers]
        own = []
        if len(sides) == 1:
            sides = [{k} for k in carriers]
            total = math.prod(size.values())
            own = self._own_sizes(rank) if len(carriers) == 2 else []
        else:
            total = math.prod(size[m] for m in size if any(m in self.factors[k] for side in sides for k in side))
        bound = total // max(math.prod(size[m] for m in size if any(m in self.factors[k] for k in side)) for side in sides)
        return max(1, min([bound, *own]))

    def _own_sizes(self, bond: str) -> list[int]:
        """For each end of a bond whose other ranks stand on both ends, the product of the modes that stand on it alone."""
        ends = [set(self.factors[k]) for k, _ in self.carriers(bond)]
        alone = [ends[0] - ends[1], ends[1] - ends[0]]
        return [math.prod(self.sizes[i] for i in mine) for mine in alone if mine <= set(self.modes)]

    @cached_property
    def sufficient_rank(self) -> int | None:
        """A size of all ranks at which the network represents every tensor, so that larger ones add nothing; None where none is known.

        A network with loops contains trees: some of its bonds have size 1 there. A tree whose bonds are as large as the smaller of their
        two sides represents everything. Of the trees of shortest paths from each factor it is the one whose widest bond is narrowest.
        """
        alone = [mode for mode in self.modes if mode not in self.shared_modes]
        if self.term_lengths or any(len(self.carriers(rank)) != 2 for rank in self.ranks) or any(len(self.carriers(m)) > 1 for m in alone):
            return None
        joined: defaultdict[int, list[int]] = defaultdict(list)
        for (one, _), (other, _) in map(self.carriers, self.ranks):
            joined[one].append(other)
            joined[other].append(one)
        own = [math.prod(self.sizes[mode] for mode in alone if mode in indices) for indices in self.factors]
        return min(_widest_bond(root, joined, own) for root in range(len(own))) if len(self.components("")) == 1 else None

    def matrix_rank_bound(self) -> int:
        """The largest rank that the matrix of output modes by input modes can have, whatever the values.

        Put every factor on the input or on the output side: what crosses between the sides bounds the rank. The smallest such cut over
        all placements; modes named o.. are outputs, all others inputs. For a sum the bounds add up.
        """
        rows = math.prod(self.sizes[mode] for mode in self.modes if mode[0] == "o")
        columns = math.prod(self.shape) // rows
        bounds = (term.matrix_rank_bound() for term in self.terms) if self.term_lengths else [self._smallest_cut()]
        return min(rows, columns, sum(bounds))

    def _smallest_cut(self) -> int:
        """The smallest product of sizes of indices that separate the outputs from the inputs, found as the largest flow between them.

        An index is a bottleneck of width log(size) between two nodes, entered from all its factors and left towards all. Flow is
        pushed along shortest paths, of which there are polynomially many (Edmonds and Karp 1972, doi:10.1145/321694.321699).
        """
        room: defaultdict[Hashable, dict[Hashable, float]] = defaultdict(dict)
        for index, size in self.index_sizes:
            entry, exit = (index, "entry"), (index, "exit")
            room[entry][exit] = math.log(size)
            sides = ["outputs" if index[0] == "o" else "inputs"] if index in self.modes else []
            for end in (*sides, *(k for k, _ in self.carriers(index))):
                room[end][entry] = room[exit][end] = math.inf
        while "inputs" in (came_from := _reached(room, "outputs")):
            path: list[Hashable] = ["inputs"]
            while path[-1] != "outputs":
                path.append(came_from[path[-1]])
            steps = list(itertools.pairwise(path[::-1]))
            flow = min(room[start][end] for start, end in steps)
            for start, end in steps:
                room[start][end] -= flow
                room[end][start] = room[end].get(start, 0.0) + flow
        return math.prod(size for index, size in self.index_sizes if (index, "entry") in came_from and (index, "exit") not in came_from)


def _reached(room: Mapping[Hashable, Mapping[Hashable, float]], start: Hashable) -> dict[Hashable, Hashable]:
    """The nodes that a flow from `start` can still reach, each with the one before it on a shortest path."""
    found: dict[Hashable, Hashable] = {start: start}
    queue = [start]
    for node in queue:
        for end, left in room[node].items():
            if left > ROUNDING and end not in found:
                found[end] = node
                queue.append(end)
    return found


def _widest_bond(root: int, joined: Mapping[int, Sequence[int]], own: Sequence[int]) -> int:
    """The largest bond of the tree of shortest paths from a factor; `own` are the products of the modes of each factor."""
    parents, queue = {root: root}, [root]
    for node in queue:
        fresh = [one for one in dict.fromkeys(joined[node]) if one not in parents]
        parents |= dict.fromkeys(fresh, node)
        queue += fresh
    below, widest = list(own), 1
    for node in queue[:0:-1]:
        widest = max(widest, min(below[node], math.prod(own) // below[node]))
        below[parents[node]] *= below[node]
    return widest
