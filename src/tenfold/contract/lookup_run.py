"""Execution of lookup plans: tables from factors, products, what goes to the output; gradients are summed for each row on their way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tenfold.contract.lookup import Leaf, LookupPlan
from tenfold.contract.lookup_index import Chunk, Ids, Tables
from tenfold.contract.lookup_product import Space, backward, forward, permuted, unpermuted

Values = dict[int, Tensor]
"""Rows of operands by their numbers."""


@dataclass(frozen=True)
class Request:
    """What is looked up and where it goes: out[target[k]] += weight[k] x row of the k-th sorted id.

    target: (B,) in the order of `ids.order`; n_targets: rows of the output. weights: (B,) in the same order, or None.
    is_single: every target stands for one id.
    """

    ids: Ids
    target: Tensor
    n_targets: int
    weights: Tensor | None
    is_single: bool


@dataclass(frozen=True)
class Job:
    """A request with the plan of a term and with all that depends on ids alone."""

    plan: LookupPlan
    request: Request
    tables: Tables
    chunks: list[Chunk]


# -- tables ---------------------------------------------------------------------------------------------------------------


def leaf_tables(plan: LookupPlan, tables: Tables, factors: Sequence[Tensor]) -> Values:
    """The rows of the leaves that are used."""
    return {number: _leaf_table(leaf, factors[leaf.factor], tables.used[number]) for number, leaf in enumerate(plan.leaves)}


def _leaf_table(leaf: Leaf, factor: Tensor, used: Tensor | None) -> Tensor:
    table = factor.permute(leaf.perm)
    if used is not None:
        table = table[_unraveled(used, leaf)]
    return table.reshape(-1, leaf.size)


def _leaf_gradient(leaf: Leaf, factor: Tensor, used: Tensor | None, flow: Tensor) -> Tensor:
    """The gradient of a factor from that of its table."""
    shape = [factor.shape[axis] for axis in leaf.perm]
    back = [leaf.perm.index(axis) for axis in range(factor.dim())]
    if used is None:
        return flow.reshape(shape).permute(back)
    gradient = factor.new_zeros(shape)
    gradient[_unraveled(used, leaf)] = flow.reshape(-1, *shape[len(leaf.digits) :])
    return gradient.permute(back)


def _unraveled(keys: Tensor, leaf: Leaf) -> tuple[Tensor, ...]:
    found = []
    for size in reversed(leaf.sizes[1:]):
        found.append(keys % size)
        keys = torch.div(keys, size, rounding_mode="floor")
    return (keys, *reversed(found))


def whole_tables(plan: LookupPlan, tables: Tables, leaves: Values) -> Values:
    """The values of the whole products."""
    values = dict(leaves)
    for number, groups in tables.whole.items():
        product = plan.products[number - len(plan.leaves)]
        own, common = values[product.own], values[product.common]
        values[number] = forward(product, groups, own, common, Space(own), own.new_empty(groups.n_rows, product.size))
    return {number: values[number] for number in tables.whole}


# -- a lookup -------------------------------------------------------------------------------------------------------------


def run(job: Job, values: Values) -> Tensor:
    """(n_targets, n_out) from the values of the leaves and of the whole products."""
    request, plan = job.request, job.plan
    space = Space(values[0])
    out = values[0].new_empty if request.is_single else values[0].new_zeros
    out = out(request.n_targets, plan.n_out)
    for chunk in job.chunks:
        _deliver(job, chunk, _products(job, chunk, values, space, is_last_too=True)[plan.last], space, out)
    return out


def _products(job: Job, chunk: Chunk, values: Values, space: Space, *, is_last_too: bool) -> Values:
    """The values of everything that the ids of a chunk need."""
    found = dict(values)
    for number, groups in chunk.groups.items():
        product = job.plan.products[number - len(job.plan.leaves)]
        if is_last_too or number != job.plan.last:
            out = space.take(("value", number), groups.n_rows, product.size)
            found[number] = forward(product, groups, found[product.own], found[product.common], space, out)
    return found


def _deliver(job: Job, chunk: Chunk, rows: Tensor, space: Space, out: Tensor) -> None:
    """Adds the rows of a chunk's ids to their targets."""
    request = job.request
    given, places = _occurrences(request.ids, chunk)
    if places is not None:
        rows = space.gather("rows", rows, places)
    rows = permuted(rows, job.plan.view, job.plan.perm)
    if request.weights is not None:
        rows = rows * request.weights[given][:, None]
    (out.index_copy_ if request.is_single else out.index_add_)(0, request.target[given], rows)


def _collect(job: Job, chunk: Chunk, flow: Tensor, space: Space) -> Tensor:
    """The gradient of the rows of a chunk's last product, from that of the output: summed over the places of each id."""
    request, last = job.request, job.plan.last
    given, places = _occurrences(request.ids, chunk)
    rows = space.gather("rows", flow, request.target[given])
    if request.weights is not None:
        rows.mul_(request.weights[given][:, None])
    rows = unpermuted(rows, job.plan.view, job.plan.perm)
    if places is None:
        return rows
    n_rows = chunk.groups[last].n_rows if last in chunk.groups else job.tables.n_rows[last]
    return space.take(("flow", last), n_rows, rows.shape[1]).zero_().index_add_(0, places, rows)


def _occurrences(ids: Ids, chunk: Chunk) -> tuple[slice, Tensor | None]:
    """The places at which the ids of a chunk are given, and for each of them the row of the last product; None where they are in order."""
    if ids.starts is None:
        return slice(chunk.start, chunk.stop), chunk.places
    given = slice(int(ids.starts[chunk.start]), int(ids.starts[chunk.stop]))
    number = ids.number[given] - chunk.start
    return given, number if chunk.places is None else chunk.places[number]


def gradients(job: Job, factors: Sequence[Tensor], flow: Tensor, values: Values) -> list[Tensor]:
    """The gradient of every factor from that of the output."""
    plan, n_leaves, space = job.plan, len(job.plan.leaves), Space(flow)
    flows = {number: torch.zeros_like(table) for number, table in values.items()}
    for chunk in job.chunks:
        found = _products(job, chunk, values, space, is_last_too=False)
        mine = {plan.last: _collect(job, chunk, flow, space)}
        for number, groups in reversed(chunk.groups.items()):
            product = plan.products[number - n_leaves]
            for one in (product.own, product.common):
                if one not in flows and one not in mine:
                    mine[one] = space.take(("flow", one), *found[one].shape).zero_()
            own, common = (flows[one] if one in flows else mine[one] for one in (product.own, product.common))
            backward(product, groups, found[product.own], found[product.common], mine.pop(number), own, common, space)
        for number, one in mine.items():  # a network of one factor has no product
            flows[number].add_(one)
    for number, groups in reversed(job.tables.whole.items()):
        product = plan.products[number - n_leaves]
        own, common = product.own, product.common
        backward(product, groups, values[own], values[common], flows[number], flows[own], flows[common], space)
    return [_leaf_gradient(leaf, factors[leaf.factor], job.tables.used[number], flows[number]) for number, leaf in enumerate(plan.leaves)]


class Reused(torch.autograd.Function):
    """The lookup of a job, with gradients for the factors; `plain` gives the same with torch operations alone, for higher ones."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, job: Job, kept: Values | None, plain: Callable[[Sequence[Tensor]], Tensor], *factors: Tensor
    ) -> Tensor:
        ctx.job, ctx.plain = job, plain
        ctx.save_for_backward(*factors)
        values = leaf_tables(job.plan, job.tables, factors)
        return run(job, values | (whole_tables(job.plan, job.tables, values) if kept is None else kept))

    @staticmethod
    def backward(ctx: Any, flow: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        factors, needs = ctx.saved_tensors, ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # gradients of gradients: everything is part of a graph
            wanted = [factor for factor, need in zip(factors, needs, strict=True) if need]
            found = iter(torch.autograd.grad(ctx.plain(factors), wanted, flow, create_graph=True, materialize_grads=True))
            return (None, None, None, *(next(found) if need else None for need in needs))
        values = leaf_tables(ctx.job.plan, ctx.job.tables, factors)
        values |= whole_tables(ctx.job.plan, ctx.job.tables, values)
        given = gradients(ctx.job, factors, flow.contiguous(), values)
        return (None, None, None, *(one if need else None for one, need in zip(given, needs, strict=True)))
