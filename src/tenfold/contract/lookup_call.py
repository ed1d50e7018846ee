"""Lookups from ids: when rows of products are shared between ids, and what is prepared for that."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tenfold.contract.lookup import plan_lookup
from tenfold.contract.lookup_index import (
    CHUNK_BYTES,
    CHUNK_BYTES_ELSEWHERE,
    Ids,
    chunks,
    distinct,
    key,
    tables_of,
    whole_products,
)
from tenfold.contract.lookup_run import Job, Request, Reused, leaf_tables, whole_tables
from tenfold.contract.pairs import plan_rows
from tenfold.contract.run import digits_of, rows
from tenfold.network import Network

FEWEST_IDS = 256  # below it there is little to gain, and what finding it costs is more
WORK, WORK_WITH_GRADIENTS = 24e6, 8e6  # FLOP in products of slices with slices, from which on what ids share pays for being found
LARGE_ROWS = 1 << 24  # values of all rows; bags are summed without having them all
KEPT_BYTES = 16 << 20  # of all whole products that are kept in eval
LOW_PRECISION = (torch.float16, torch.bfloat16)  # sums are formed in float32


def is_reusing(network: Network, ids: Tensor, factor: Tensor) -> bool:
    """Whether a lookup looks for what ids share: where that pays, their values are at hand, and no tracing or transform is at work.

    Only a network that multiplies slices with slices, id by id, has much to share (TTM, TT, HT): rows of CP, Tucker or SVD are one
    product for all ids, which is faster than to find what they have in common.
    """
    n_ids = ids.numel()
    if torch.compiler.is_compiling() or n_ids < FEWEST_IDS or ids.is_meta or factor.is_meta:
        return False
    if torch._C._are_functorch_transforms_active() or torch._C._is_tracing():
        return False
    plans = [plan_rows(term) for term in network.terms]
    work = n_ids * sum(plan.flops * plan.n_products for plan in plans)
    is_worth = work >= (WORK_WITH_GRADIENTS if torch.is_grad_enabled() else WORK)
    return is_worth or n_ids * plans[0].n_out >= LARGE_ROWS or factor.dtype in LOW_PRECISION


def each(network: Network, ids: Tensor) -> Request:
    """A row for each of the ids (B,)."""
    found = _sorted(network, ids)
    return Request(found, found.order, len(ids), None, True)


def summed(network: Network, ids: Tensor, bags: Tensor, n_bags: int, weights: Tensor | None) -> Request:
    """The sum of the rows of the ids (B,) of each bag, times weights (B,) where there are any; `bags` (B,) says where each id goes."""
    found = _sorted(network, ids)
    return Request(found, bags[found.order], n_bags, None if weights is None else weights.detach()[found.order], False)


def _sorted(network: Network, ids: Tensor) -> Ids:
    plan = plan_lookup(network.terms[0], len(ids))
    return Ids.of(ids, plan.radices, plan.lead)


def look_up(
    network: Network,
    factors: Sequence[Tensor],
    request: Request,
    kept: Callable[[Any, Callable[[], Any]], Any] | None = None,
) -> Tensor:
    """(targets, out) of a request, padded columns included.

    Args:
        kept: `kept(key, make)` gives `make()` or what it gave before; None where nothing may be kept.
    """
    dtype = factors[0].dtype
    if dtype in LOW_PRECISION:
        factors = [factor.float() for factor in factors]
    if request.weights is not None:
        request = replace(request, weights=request.weights.to(factors[0].dtype))
    n_ids, device, value_bytes = len(request.ids.different), factors[0].device, factors[0].element_size()
    plan = plan_lookup(network, len(request.ids.order))
    digits = digits_of(request.ids.different, plan.radices)
    chunk_bytes = CHUNK_BYTES.get(device.type, CHUNK_BYTES_ELSEWHERE)
    reach, limit = (n_ids, chunk_bytes) if kept is None else (math.inf, KEPT_BYTES)
    whole = whole_products(plan, reach, limit, device, value_bytes)
    tables, leaf_rows = tables_of(plan, request.ids, digits, whole)
    parts = list(chunks(plan, request.ids, tables, digits, leaf_rows, chunk_bytes, value_bytes))
    job = Job(plan, request, tables, parts)

    def make() -> dict[int, Tensor]:
        return whole_tables(plan, tables, leaf_tables(plan, tables, factors))

    found: Any = Reused.apply(job, kept(("lookup", plan), make) if kept else None, _plain(network, request), *factors)
    return found.to(dtype)


def _plain(network: Network, request: Request) -> Callable[[Sequence[Tensor]], Tensor]:
    """The same from factors with torch operations alone."""

    def compute(factors: Sequence[Tensor]) -> Tensor:
        plan, radices = plan_rows(network), [network.sizes[mode] for mode in network.modes if mode[0] == "i"]
        found = rows(plan, factors, digits_of(request.ids.different, radices))[request.ids.number]
        if request.weights is not None:
            found = found * request.weights[:, None]
        return found.new_zeros(request.n_targets, plan.n_out).index_add(0, request.target, found)

    return compute


@dataclass(frozen=True)
class Reuse:
    """What a batch of ids has in common: how many there are, how many different ones, and for each product its different rows."""

    n_ids: int
    n_different: int
    products: tuple[tuple[tuple[int, ...], int], ...]

    @property
    def unique_ratio(self) -> float:
        """Different ids for each id (U / B)."""
        return self.n_different / max(1, self.n_ids)

    @property
    def prefix_ratio(self) -> float:
        """Different rows of the last product but one for each id (P / B); in a TT-matrix of three cores different prefixes."""
        return (self.products[-2][1] if len(self.products) > 1 else self.n_different) / max(1, self.n_ids)

    def __str__(self) -> str:
        lines = [f"{self.n_ids:,} ids, {self.n_different:,} different ones: U/B {self.unique_ratio:.3f}, P/B {self.prefix_ratio:.3f}"]
        for digits, count in self.products:
            lines.append(f"  ({' '.join(f'i{digit + 1}' for digit in digits)}): {count:,} different")
        return "\n".join(lines)


def reuse_of(network: Network, ids: Tensor) -> Reuse:
    """What the ids (B,) have in common."""
    plan = plan_lookup(network, max(1, len(ids)))
    if not len(ids):
        return Reuse(0, 0, tuple((one.digits, 0) for one in plan.products))
    found = Ids.of(ids, plan.radices, plan.lead)
    digits = digits_of(found.different, plan.radices)
    counts = [
        (one.digits, len(distinct(key(digits, one.digits, one.sizes), found.is_adjacent(one.digits))[0]) if one.digits else 1)
        for one in plan.products
    ]
    return Reuse(len(ids), len(found.different), tuple(counts))
