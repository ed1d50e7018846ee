"""Plans of lookups that compute what ids have in common once: a tree of products over tables, from sizes alone.

Every operand is a table whose rows stand for the digits that it depends on: a factor that carries the mode i2 has one row for each value of
the second digit, the product of the first two factors one row for each pair (i1, i2) that occurs. So ids with a common prefix share its
row, and gradients are summed for each row before they go on to the factors.

Source: prefix reuse and aggregation before the products: Wang et al. 2022 (EL-Rec), and the TT-Rec line of Yin et al. 2021, arXiv
2101.11714. Deviations: any network and any order of its factors; rows of a product are grouped by one of its operands, so that they are
matrix products; no atomic additions.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tenfold.contract.pairs import contract_in_pairs
from tenfold.network import Network

EXACT_LIMIT = 8  # operands for which all trees are compared
MOVED = 8  # multiply-adds that take as long as moving one value: measured on one core, TTM of rank 16
ROW_COST = 200  # the same for a row of a product
MOST_ROWS = 1024  # that share a row of the common operand in one product
CHUNK_IDS = 8192  # about as many are computed at a time
TYPICAL = (512, 8192, 65536)  # numbers of different ids that plans are made for


@dataclass(frozen=True)
class Leaf:
    """A factor as a table: one row for each value of its digits, `size` values in a row.

    digits: which input modes it carries; sizes: theirs. perm: those axes first, then the others as the product wants them.
    """

    factor: int
    digits: tuple[int, ...]
    sizes: tuple[int, ...]
    perm: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Product:
    """Rows of `own` times rows of `common`, where many rows share one of `common`; operands are counted with the leaves first.

    A row of `own` is (h, a, s), one of `common` (h, s, b), one of the result (h, a, b): s is summed, h stays on both.
    own_view, own_perm: how a row of the operand has to be permuted for that; None where it need not be.
    """

    own: int
    common: int
    digits: tuple[int, ...]
    sizes: tuple[int, ...]
    h: int
    a: int
    s: int
    b: int
    own_view: tuple[int, ...] | None
    own_perm: tuple[int, ...]
    common_view: tuple[int, ...] | None
    common_perm: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of values in a row."""
        return self.h * self.a * self.b


@dataclass(frozen=True)
class LookupPlan:
    """Leaves and products; the last product has a row for each id. `view` and `perm` bring it into the order of the output.

    radices: the size of every digit. n_out: values in a row of the table, padding included.
    """

    statement: str
    radices: tuple[int, ...]
    leaves: tuple[Leaf, ...]
    products: tuple[Product, ...]
    view: tuple[int, ...] | None
    perm: tuple[int, ...]
    n_out: int

    @property
    def lead(self) -> int:
        """The digit by which ids are best sorted first: products of neighbours then share a row of their common operand."""
        for product in self.products:
            if len(product.digits) > 1 and product.common < len(self.leaves) and self.leaves[product.common].digits:
                return self.leaves[product.common].digits[0]
        return 0

    @property
    def last(self) -> int:
        """The operand that has a row for each id."""
        return len(self.leaves) + len(self.products) - 1

    def __str__(self) -> str:
        names = [f"factor {leaf.factor}" for leaf in self.leaves]
        lines = [f"lookup: {self.statement}"]
        for one in self.products:
            digits = " ".join(f"i{digit + 1}" for digit in one.digits) or "no digit"
            lines.append(f"  {names[one.own]} . {names[one.common]}: {one.size} values for each different ({digits})")
            names.append(f"({digits})")
        return "\n".join(lines)


def plan_lookup(network: Network, n_different: int) -> LookupPlan:
    """The plan for so many different ids; there is one for all numbers of about the same size."""
    return _plan(network, next((size for size in TYPICAL if n_different <= size), TYPICAL[-1]))


@lru_cache(maxsize=1024)
def _plan(network: Network, n_ids: int) -> LookupPlan:
    return _Tree(network, n_ids).plan()


class _Tree:
    """The choice of a tree. Ids are taken as uniform; of equal trees the one that meets leading digits first is taken."""

    def __init__(self, network: Network, n_ids: int) -> None:
        self.network, self.n_ids = network, n_ids
        self.sizes: Mapping[str, int] = network.sizes
        self.inputs = [mode for mode in network.modes if mode[0] == "i"]
        self.out = [mode for mode in network.modes if mode[0] != "i"]
        self.order = {name: number for number, name in enumerate((*network.modes, *network.ranks))}

    def plan(self) -> LookupPlan:
        tree = self._best() if len(self.network.factors) <= EXACT_LIMIT else self._path()
        leaves: list[Leaf] = []
        products: list[Product] = []
        layouts: dict[int, list[str]] = {}
        n_leaves = len(self.network.factors)
        wanted: dict[int, list[str]] = {}
        for number, (left, right) in enumerate(tree, n_leaves):
            one, layout = self._product(tree, left, right, layouts, wanted)
            products.append(one)
            layouts[number] = layout
        if not tree:
            wanted[0] = layouts[0] = [i for i in self.network.factors[0] if i in self.out]
        for factor, indices in enumerate(self.network.factors):
            digits = [i for i in self.inputs if i in indices]
            names = (*digits, *wanted[factor])
            leaves.append(
                Leaf(
                    factor,
                    tuple(self.inputs.index(i) for i in digits),
                    tuple(self.sizes[i] for i in digits),
                    tuple(indices.index(i) for i in names),
                    self._count(wanted[factor]),
                )
            )
        last = layouts[n_leaves + len(tree) - 1]
        view, perm = _permutation(last, self.out, self.sizes)
        radices = tuple(self.sizes[i] for i in self.inputs)
        return LookupPlan(self.network.statement, radices, tuple(leaves), tuple(products), view, perm, self._count(self.out))

    # -- which products ---------------------------------------------------------------------------------------------

    def _best(self) -> list[tuple[int, int]]:
        """The cheapest tree over all sets of factors, as pairs of operand numbers."""
        n = len(self.network.factors)
        best: dict[int, tuple[float, int]] = {1 << k: (0.0, 0) for k in range(n)}
        for group in sorted(range(1, 1 << n), key=lambda mask: mask.bit_count()):
            if group in best:
                continue
            top = 1 << (group.bit_length() - 1)
            rest, half = group & ~top, group & ~top
            found = []
            while half:  # every part that leaves the last factor out
                found.append((best[half][0] + best[group & ~half][0] + self._cost(half, group & ~half), half))
                half = (half - 1) & rest
            best[group] = min(found)
        pairs: list[tuple[int, int]] = []

        def build(group: int) -> int:
            if group.bit_count() == 1:
                return group.bit_length() - 1
            half = best[group][1]
            pairs.append((build(half), build(group & ~half)))
            return n + len(pairs) - 1

        build((1 << n) - 1)
        return pairs

    def _path(self) -> list[tuple[int, int]]:
        """opt_einsum's order, for many factors."""
        operands = [tuple(i for i in indices if i not in self.inputs) for indices in self.network.factors]
        batch = [("*", *kept) if set(f) & set(self.inputs) else kept for f, kept in zip(self.network.factors, operands, strict=True)]
        pairs, _ = contract_in_pairs(batch, ["*", *self.out], {**self.sizes, "*": 256})
        return [(pair.left, pair.right) for pair in pairs]

    def _open(self, group: int) -> set[str]:
        """The indices of a row of a group's product."""
        inside = {i for k, f in enumerate(self.network.factors) if group >> k & 1 for i in f}
        outside = {i for k, f in enumerate(self.network.factors) if not group >> k & 1 for i in f} | set(self.out)
        return inside & outside - set(self.inputs)

    def _digits(self, group: int) -> set[str]:
        return {i for k, f in enumerate(self.network.factors) if group >> k & 1 for i in f if i in self.inputs}

    def _cost(self, left: int, right: int) -> float:
        both = self._open(left) | self._open(right)
        moved = min(self._gathered(left, right), self._gathered(right, left)) + self._count(self._open(left | right))
        digits = self._digits(left | right)
        leads = digits == set(self.inputs[: len(digits)])
        return self._rows(digits) * (self._count(both) + MOVED * moved + ROW_COST) * (1.0 if leads else 1.0 + 1e-6)

    def _gathered(self, own: int, common: int) -> float:
        """Values gathered for each row of a product, where one row of `common` serves a tile of them."""
        rows = min(self._rows(self._digits(own | common)), CHUNK_IDS)
        tile = min(MOST_ROWS, max(1.0, rows / self._rows(self._digits(common)) / 2))
        return self._count(self._open(own)) + self._count(self._open(common)) / tile

    def _rows(self, digits: set[str]) -> float:
        """How many different values of some digits so many uniform ids have."""
        n_all = math.prod(self.sizes[i] for i in digits)
        return -n_all * math.expm1(-self.n_ids / n_all)

    def _count(self, names: set[str] | Sequence[str]) -> int:
        return math.prod(self.sizes[i] for i in names)

    # -- what they are as data --------------------------------------------------------------------------------------

    def _product(
        self, tree: list[tuple[int, int]], left: int, right: int, layouts: dict[int, list[str]], wanted: dict[int, list[str]]
    ) -> tuple[Product, list[str]]:
        masks = self._masks(tree)
        own, common = self._roles(left, right, masks)
        indices = {k: layouts.get(k) or sorted(self._open(masks[k]), key=self.order.__getitem__) for k in (own, common)}
        rest = self._open(masks[own] | masks[common])
        h = [i for i in indices[own] if i in indices[common] and i in rest]
        s = [i for i in indices[own if own in layouts else common] if i in indices[own] and i in indices[common] and i not in rest]
        a = [i for i in indices[own] if i not in indices[common]]
        b = [i for i in indices[common] if i not in indices[own]]
        views = []
        for operand, names in ((own, [*h, *a, *s]), (common, [*h, *s, *b])):
            wanted[operand] = names
            views.append(_permutation(layouts[operand], names, self.sizes) if operand in layouts else (None, ()))
        digits = sorted(self._digits(masks[own] | masks[common]), key=self.inputs.index)
        (own_view, own_perm), (common_view, common_perm) = views
        product = Product(
            own, common, tuple(self.inputs.index(i) for i in digits), tuple(self.sizes[i] for i in digits),
            self._count(h), self._count(a), self._count(s), self._count(b), own_view, own_perm, common_view, common_perm,
        )  # fmt: skip
        return product, [*h, *a, *b]

    def _masks(self, tree: list[tuple[int, int]]) -> list[int]:
        masks = [1 << k for k in range(len(self.network.factors))]
        for left, right in tree:
            masks.append(masks[left] | masks[right])
        return masks

    def _roles(self, left: int, right: int, masks: list[int]) -> tuple[int, int]:
        """Which operand is gathered for each row, and which one for groups of rows that share it: the way that moves less."""
        is_left = self._gathered(masks[left], masks[right]) <= self._gathered(masks[right], masks[left])
        return (left, right) if is_left else (right, left)


def _permutation(have: Sequence[str], want: Sequence[str], sizes: Mapping[str, int]) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """The view and the permutation of a row's axes; None where they are in order, indices of size 1 left aside."""
    have, want = ([i for i in names if sizes[i] > 1] for names in (have, want))
    if have == want:
        return None, ()
    merged = [list(run) for _, run in itertools.groupby(have, key=lambda i: want.index(i) - have.index(i))]
    first = {run[0]: number for number, run in enumerate(merged)}
    perm = tuple(first[i] for i in want if i in first)
    return tuple(math.prod(sizes[i] for i in run) for run in merged), perm
