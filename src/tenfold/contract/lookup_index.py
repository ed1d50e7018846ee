"""Which rows a lookup needs: different ids, different digits of them, and the groups in which products are computed. No values here.

All arithmetic on ids is in int64.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.contract.lookup import LookupPlan, Product

SPARED = 0.9  # a product is kept for each different row where these are fewer than so much of the ids
FILLED = 1.25  # groups are filled up to full tiles as long as that adds no more than a quarter of the rows
TILES = (1024, 256, 64, 32, 16, 8, 4)  # rows of a tile: what one matrix product takes
CHUNK_BYTES = {"cpu": 8 << 20}  # of the products of a chunk of ids: what stays in the cache
CHUNK_BYTES_ELSEWHERE = 512 << 20
FEWEST_OF_CHUNK = 256  # ids


@dataclass(frozen=True)
class Ids:
    """Ids for a lookup, sorted: the different ones, and which of the given ids each of them stands for.

    different: (U,) by the digit `lead`, then by size. order: (B,) places of the given ids, in the same order. number: (B,) for each of
    these the number of its different id. starts: (U + 1,) where the places of a different id begin in `order`; None where no id occurs
    twice.
    """

    different: Tensor
    lead: int
    order: Tensor
    number: Tensor
    starts: Tensor | None

    @classmethod
    def of(cls, ids: Tensor, radices: Sequence[int] = (), lead: int = 0) -> "Ids":
        """From ids (B,), at least one, of a table with so many values of each digit.

        Raises:
            IndexError: an id is negative or too large.
        """
        ids, n_all, after = ids.to(torch.int64), math.prod(radices), math.prod(radices[lead + 1 :])
        low, high = (int(one) for one in ids.aminmax())
        if low < 0 or (radices and high >= n_all):
            raise IndexError(
                f"index out of range: the ids are {low} to {high}, but the table has {n_all:,} rows, padding included; "
                f"ids must be 0 to {n_all - 1}: check the vocabulary"
            )
        lead = lead if lead and radices[lead] * n_all < 1 << 63 else 0
        keys = ids + torch.div(ids, after, rounding_mode="floor") % radices[lead] * n_all if lead else ids
        values, order = torch.sort(keys, stable=True)
        different, number, counts = torch.unique_consecutive(values, return_inverse=True, return_counts=True)
        starts = None if len(different) == len(ids) else torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(different % n_all if lead else different, lead, order, number, starts)

    def is_adjacent(self, digits: Sequence[int]) -> bool:
        """Whether ids that are equal in some digits follow each other."""
        return (tuple(digits) == tuple(range(len(digits))) and self.lead in digits) or tuple(digits) == (self.lead,)


def key(digits: Sequence[Tensor], which: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """One number for some digits of each id, different for different ones."""
    flat = digits[which[0]]
    for digit, size in zip(which[1:], sizes[1:], strict=True):
        flat = flat * size + digits[digit]
    return flat


def distinct(keys: Tensor, is_adjacent: bool) -> tuple[Tensor, Tensor]:
    """For each different key the place of one that has it, and for each key the number of its different one."""
    if is_adjacent:
        _, number, counts = torch.unique_consecutive(keys, return_inverse=True, return_counts=True)
        return counts.cumsum(0) - counts, number
    values, number = torch.unique(keys, return_inverse=True)
    place = torch.empty_like(values).scatter_(0, number, torch.arange(len(keys), device=keys.device))
    return place, number


@dataclass(frozen=True)
class Groups:
    """The rows of a product, in groups of `tile` rows that share a row of the common operand.

    own: (groups x tile,) rows of the own operand; common: (groups,). Groups are filled up with rows that nobody reads.
    """

    own: Tensor
    common: Tensor
    tile: int

    @property
    def n_rows(self) -> int:
        """With those that nobody reads."""
        return len(self.own)


def grouped(own: Tensor, common: Tensor, n_common: int) -> tuple[Groups, Tensor | None]:
    """The groups for pairs of rows, and for each pair the row of the product that it gets; None where that is its own number."""
    counts = torch.bincount(common, minlength=n_common)
    sizes = torch.tensor(TILES, device=own.device)
    filled = (torch.div(counts[:, None] + (sizes - 1), sizes, rounding_mode="floor").sum(0) * sizes).tolist()
    tile = next((size for size, rows in zip(TILES, filled, strict=True) if size <= len(own) and rows <= FILLED * len(own)), 1)
    if tile == 1:
        return Groups(own, common, 1), None
    n_tiles = torch.div(counts + (tile - 1), tile, rounding_mode="floor")
    order = torch.argsort(common.to(torch.int32) if n_common < 1 << 31 else common, stable=True)  # half the time of int64
    shift = (n_tiles.cumsum(0) - n_tiles) * tile - (counts.cumsum(0) - counts)
    slots = torch.arange(len(own), device=own.device) + torch.repeat_interleave(shift, counts)
    rows = own.new_zeros(int(n_tiles.sum()) * tile)
    rows[slots] = own[order]
    places = torch.empty_like(slots)
    places[order] = slots
    return Groups(rows, torch.repeat_interleave(torch.arange(n_common, device=own.device), n_tiles), tile), places


def every_pair(n_own: int, n_common: int, device: torch.device) -> Groups:
    """All rows of one operand with all rows of the other; the row (common, own) has the number common x n_own + own."""
    return Groups(torch.arange(n_own, device=device).repeat(n_common), torch.arange(n_common, device=device), n_own)


@dataclass(frozen=True)
class Chunk:
    """Some different ids: for each product that is not whole its groups, and in which row of the last one each id is."""

    start: int
    stop: int
    groups: dict[int, Groups]
    places: Tensor | None


@dataclass(frozen=True)
class Tables:
    """Which rows of the leaves exist, and which products are whole: computed for all values of their digits.

    used: for each leaf the keys of its rows, None where all exist. n_rows: of each leaf and each whole product.
    """

    used: tuple[Tensor | None, ...]
    n_rows: dict[int, int]
    whole: dict[int, Groups]


def tables_of(plan: LookupPlan, ids: Ids, digits: Sequence[Tensor], whole: dict[int, Groups]) -> tuple[Tables, list[Tensor]]:
    """What exists for the digits of some ids, and for each leaf the row of each id. `whole`: the products that are whole."""
    used: list[Tensor | None] = []
    n_rows: dict[int, int] = {}
    rows: list[Tensor] = []
    within = {one for number in whole for product in (plan.products[number - len(plan.leaves)],) for one in (product.own, product.common)}
    for number, leaf in enumerate(plan.leaves):
        n_rows[number], n_ids = math.prod(leaf.sizes), len(digits[0])
        used.append(None)
        rows.append(key(digits, leaf.digits, leaf.sizes) if leaf.digits else digits[0].new_zeros(n_ids))
        if n_rows[number] > 2 * n_ids and number not in within:
            place, one = distinct(rows[number], ids.is_adjacent(leaf.digits))
            used[number] = rows[number][place]
            n_rows[number], rows[number] = len(place), one
    for number, groups in whole.items():
        n_rows[number] = groups.n_rows
    return Tables(tuple(used), n_rows, whole), rows


def whole_products(plan: LookupPlan, n_ids: float, size_bytes: int, device: torch.device, value_bytes: int) -> dict[int, Groups]:
    """The products, but the last, that are computed for all values of their digits: few of them, in at most so many bytes."""
    n_rows = {number: math.prod(leaf.sizes) for number, leaf in enumerate(plan.leaves)}
    found: dict[int, Groups] = {}
    for number, product in enumerate(plan.products[:-1], len(plan.leaves)):
        own, common = n_rows.get(product.own, 0), n_rows.get(product.common, 0)
        if not own * common or own * common > math.prod(product.sizes):
            continue
        if own * common <= 2 * n_ids and own * common * product.size * value_bytes <= size_bytes:
            found[number] = every_pair(own, common, device)
            n_rows[number] = own * common
    return found


def chunks(
    plan: LookupPlan, ids: Ids, tables: Tables, digits: Sequence[Tensor], rows: list[Tensor], chunk_bytes: int, value_bytes: int
) -> Iterator[Chunk]:
    """The ids in parts whose products take about so many bytes."""
    n_ids = len(digits[0])
    parts = [product.size for number, product in enumerate(plan.products, len(plan.leaves)) if number not in tables.whole]
    step = max(FEWEST_OF_CHUNK, chunk_bytes // (value_bytes * max(1, sum(parts))))
    step = math.ceil(n_ids / max(1, math.ceil(n_ids / step)))
    for start in range(0, n_ids, step):
        stop = min(start + step, n_ids)
        yield _chunk(plan, ids, tables, [one[start:stop] for one in digits], [one[start:stop] for one in rows], start, stop)


def _chunk(plan: LookupPlan, ids: Ids, tables: Tables, digits: Sequence[Tensor], leaf_rows: list[Tensor], start: int, stop: int) -> Chunk:
    rows: dict[int, Tensor | None] = dict(enumerate(leaf_rows))
    n_rows = dict(tables.n_rows)
    groups: dict[int, Groups] = {}
    n_leaves = len(plan.leaves)
    for number, product in enumerate(plan.products, n_leaves):
        own, common = _rows(rows[product.own], start, stop, digits), _rows(rows[product.common], start, stop, digits)
        if number in tables.whole:
            rows[number] = common * n_rows[product.own] + own
            continue
        count = None
        if number != plan.last and (found := _fewer(product, ids, digits, own)) is not None:
            place, count = found
            own, common = own[place], common[place]
        groups[number], places = grouped(own, common, n_rows[product.common])
        n_rows[number] = groups[number].n_rows
        rows[number] = places if count is None else count if places is None else places[count]
    return Chunk(start, stop, groups, rows[plan.last])


def _rows(rows: Tensor | None, start: int, stop: int, digits: Sequence[Tensor]) -> Tensor:
    return torch.arange(stop - start, device=digits[0].device) if rows is None else rows


def _fewer(product: Product, ids: Ids, digits: Sequence[Tensor], own: Tensor) -> tuple[Tensor, Tensor] | None:
    """One place for each different row of a product, and the number of each id's row, where that spares enough."""
    if not product.digits:
        return own.new_zeros(1), torch.zeros_like(own)
    place, number = distinct(key(digits, product.digits, product.sizes), ids.is_adjacent(product.digits))
    return (place, number) if len(place) <= SPARED * len(number) else None
