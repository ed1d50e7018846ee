"""Sequences of groups for an input to meet, from the cheapest on; how the state is laid out in memory is not looked at here.

Every contraction tree that contains the input is a chain: the input meets groups of factors, one after another, and the factors
of a group are contracted with each other first. So all plans are ordered partitions of the factors: paths in a graph whose
nodes are sets of factors that the input has met. A narrow beam finds a good path; Dijkstra's algorithm then settles only the
sets that are cheaper to reach than that path.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator

from tenfold.contract.moves import Moves

BEAM = 8  # sets of factors of each size from which the first path is sought
PRICED = 12_000  # moves that are looked at before the search is content with what it has: enough for 14 factors

Price = Callable[[int, int], float]


def sequences(moves: Moves, price: Price, slack: float) -> Iterator[tuple[int, ...]]:
    """Sequences of groups that end with all factors, from the cheapest on, up to `slack` times its price.

    `price(done, group)` is what it costs a state that has met the factors `done` to meet a group.
    """
    edges: dict[int, dict[tuple[int, int], float]] = defaultdict(dict)
    bound = _beam(moves, price, edges)
    least = _settle(moves, price, edges, bound, slack)
    limit = least[moves.all] * slack * (1 + 1e-9)  # the same sum in another order
    # backwards from the goal: what is left of a path is known exactly, so paths come out in the order of their price
    heap: list[tuple[float, float, int, tuple[int, ...]]] = [(1.0, 0.0, moves.all, ())]
    while heap:
        _, minus_behind, done, path = heapq.heappop(heap)  # of equal ones, the one that is closest to the start
        if not done:
            yield path
            continue
        for (before, group), cost in edges[done].items():
            behind = cost - minus_behind
            if (total := least[before] + behind) <= limit:
                heapq.heappush(heap, (round(total / least[moves.all], 9), -behind, before, (group, *path)))


def _beam(moves: Moves, price: Price, edges: dict[int, dict[tuple[int, int], float]]) -> dict[int, float]:
    """The price of the sets on good paths, and the edges between them."""
    known = {0: 0.0}
    by_size: dict[int, set[int]] = defaultdict(set, {0: {0}})
    for size in range(moves.all.bit_count()):
        for done in sorted(by_size[size], key=known.__getitem__)[:BEAM]:
            for group in moves.candidates(done):
                after, cost = done | group, price(done, group)
                edges[after][done, group] = cost
                if known[done] + cost < known.get(after, float("inf")):
                    known[after] = known[done] + cost
                    by_size[after.bit_count()].add(after)
    return known


def _settle(
    moves: Moves, price: Price, edges: dict[int, dict[tuple[int, int], float]], bound: dict[int, float], slack: float
) -> dict[int, float]:
    """The least price to reach each set of factors that is on a path within `slack` of the best."""
    known, settled = dict(bound), set[int]()
    heap, n_priced = [(0.0, 0)], 0
    while heap and n_priced < PRICED:
        cost, done = heapq.heappop(heap)
        limit = known[moves.all] * slack
        if cost > limit:
            break
        if done in settled or done == moves.all:
            continue
        settled.add(done)
        candidates = moves.candidates(done)
        n_priced += len(candidates)
        for group in candidates:
            after = done | group
            if (step := edges[after].get((done, group))) is None:
                step = price(done, group)
            if (total := cost + step) > limit:
                continue
            edges[after][done, group] = step
            if total < known.get(after, float("inf")) or (total <= known[after] and after not in settled):
                known[after] = total
                heapq.heappush(heap, (total, after))
    return known
