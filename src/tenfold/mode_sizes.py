"""Mode sizes: into which modes an axis is split where nobody says so; as equal ones as can be, padded where that gains much."""

import math
from functools import lru_cache
from itertools import combinations_with_replacement

PADDING_LIMIT = 1.05  # an axis is padded by at most 5 %, where no exact split is close to balanced
PADDING_GAIN = 1.1  # how much smaller the sum of padded modes has to be
SEARCH_LIMIT = 100  # padded sizes that are split exactly
COMBINATIONS = 3000  # of modes near the root that are tried


@lru_cache(maxsize=4096)
def balanced_modes(size: int, count: int) -> tuple[int, ...]:
    """`count` mode sizes whose product is `size`, or up to 5 % more where that makes them much more equal.

    Equal modes minimise the sum of the modes, which is what the factors of most formats store. Padding is charged by its square, and
    has to gain a tenth at least: it costs a copy of every input.

    >>> balanced_modes(1000, 3), balanced_modes(33278, 3)
    ((10, 10, 10), (30, 30, 37))
    """

    def cost(modes: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        padded = math.prod(modes)
        return sum(modes) * (padded / size) ** 2 * (PADDING_GAIN if padded > size else 1), modes

    root = size ** (1 / count)
    width = int((COMBINATIONS ** (1 / max(1, count - 1)) - 1) / 2)
    best = min([_most_equal(size, count), *_near(size, count, round(root), width)], key=cost)
    for padded in range(size + 1, min(int(size * PADDING_LIMIT), size + SEARCH_LIMIT) + 1):
        if math.ceil(count * padded ** (1 / count) - 1e-9) * (padded / size) ** 2 * PADDING_GAIN >= cost(best)[0]:
            break  # no split of this size, nor of a larger one, is equal enough to be better
        best = min(best, _most_equal(padded, count), key=cost)
    return best


def _near(size: int, count: int, root: int, width: int) -> list[tuple[int, ...]]:
    """Splits into modes near the root, with the least padding: all but one are tried, the last is what is missing."""
    found = []
    for modes in combinations_with_replacement(range(max(1, root - width), root + width + 1), count - 1):
        last = -(-size // math.prod(modes))
        if math.prod(modes) * last <= size * PADDING_LIMIT:
            found.append(tuple(sorted((*modes, last))))
    return found


@lru_cache(maxsize=65536)
def _most_equal(size: int, count: int) -> tuple[int, ...]:
    """The divisors of `size` with the smallest sum, in increasing order."""
    if count == 1:
        return (size,)
    root = round(size ** (1 / count)) + 1
    best = None
    for first in range(min(root, size), 0, -1):
        if size % first == 0:
            rest = _most_equal(size // first, count - 1)
            if best is None or first + sum(rest) < sum(best):
                best = tuple(sorted((first, *rest)))
            if count == 2:
                break  # the largest divisor below the root gives the smallest sum
    assert best is not None
    return best
