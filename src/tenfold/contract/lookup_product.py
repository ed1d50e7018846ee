"""One product of a lookup: rows gathered in groups, multiplied, and their gradients summed for each row of the operands."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tenfold.contract.lookup import Product
from tenfold.contract.lookup_index import Groups

PART_BYTES = {"cpu": 512 << 10}  # of gathered rows at a time
PART_BYTES_ELSEWHERE = 64 << 20


class Space:
    """Memory that is used again and again within a call: fresh memory costs more than what is computed in it."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self._buffers: dict[Any, Tensor] = {}
        self._taken: dict[Any, Tensor] = {}

    def take(self, name: Any, rows: int, size: int) -> Tensor:
        """(rows, size), with any values; what was taken under this name before is lost."""
        if (found := self._taken.get((name, rows, size))) is not None:
            return found
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < rows * size:
            self._buffers[name] = buffer = self.like.new_empty(rows * size + rows * size // 4)
            self._taken = {key: one for key, one in self._taken.items() if key[0] != name}
        self._taken[name, rows, size] = found = buffer[: rows * size].view(rows, size)
        return found

    def gather(self, name: Any, table: Tensor, rows: Tensor) -> Tensor:
        """The rows of a table."""
        return torch.index_select(table, 0, rows, out=self.take(name, len(rows), table.shape[1]))


Part = tuple[Tensor, Tensor, Tensor]
"""Rows of the own operand, rows of the common one, and the rows of the product, or of their gradient."""


def _parts(product: Product, groups: Groups, rows: Tensor) -> Iterator[Part]:
    """The groups in parts whose gathered rows stay in the cache."""
    limit = PART_BYTES.get(rows.device.type, PART_BYTES_ELSEWHERE) // rows.element_size()
    values = groups.tile * product.h * product.a * product.s + product.h * product.s * product.b
    step = max(1, limit // values)
    n_rows = step * groups.tile
    return zip(groups.own.split(n_rows), groups.common.split(step), rows.split(n_rows), strict=True)


def forward(product: Product, groups: Groups, own: Tensor, common: Tensor, space: Space, out: Tensor) -> Tensor:
    """(rows, size): the rows of a product, written to `out`."""
    for own_rows, common_rows, part in _parts(product, groups, out):
        left, right = _gathered(product, own_rows, common_rows, own, common, space)
        _multiply(product, left, right, part)
    return out


def backward(
    product: Product, groups: Groups, own: Tensor, common: Tensor, flow: Tensor, own_flow: Tensor, common_flow: Tensor, space: Space
) -> None:
    """Adds the gradients of the operands' rows, from that of the product's rows, to `own_flow` and `common_flow`."""
    for own_rows, common_rows, part in _parts(product, groups, flow):
        left, right = _gathered(product, own_rows, common_rows, own, common, space)
        one = _common_gradient(product, part, left, groups.tile, space)
        common_flow.index_add_(0, common_rows, unpermuted(one, product.common_view, product.common_perm))
        one = _own_gradient(product, part, right, groups.tile, space)
        own_flow.index_add_(0, own_rows, unpermuted(one, product.own_view, product.own_perm))


def _gathered(product: Product, own_rows: Tensor, common_rows: Tensor, own: Tensor, common: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    """(groups x tile, h a s) and (groups, h s b)."""
    left, right = space.gather("own", own, own_rows), space.gather("common", common, common_rows)
    return permuted(left, product.own_view, product.own_perm), permuted(right, product.common_view, product.common_perm)


def permuted(rows: Tensor, view: tuple[int, ...] | None, perm: tuple[int, ...]) -> Tensor:
    """Rows whose values, seen as indices of the sizes `view`, are in another order."""
    if view is None:
        return rows
    return rows.reshape(-1, *view).permute(0, *(axis + 1 for axis in perm)).reshape(len(rows), -1)


def unpermuted(rows: Tensor, view: tuple[int, ...] | None, perm: tuple[int, ...]) -> Tensor:
    """Undoes `permuted`."""
    if view is None:
        return rows
    moved = rows.reshape(-1, *(view[axis] for axis in perm))
    return moved.permute(0, *(perm.index(axis) + 1 for axis in range(len(perm)))).reshape(len(rows), -1)


def _multiply(product: Product, left: Tensor, right: Tensor, out: Tensor) -> None:
    n, h, a, s, b = len(right), product.h, product.a, product.s, product.b
    if s == 1:
        torch.mul(left.view(n, -1, h, a, 1), right.view(n, 1, h, 1, b), out=out.view(n, -1, h, a, b))
    elif h == 1:
        torch.bmm(left.view(n, -1, s), right.view(n, s, b), out=out.view(n, -1, b))
    else:
        rows = left.view(n, -1, h, a, s).transpose(1, 2).reshape(n * h, -1, s)
        found = torch.bmm(rows, right.view(n * h, s, b))
        out.view(n, -1, h, a, b).copy_(found.view(n, h, -1, a, b).transpose(1, 2))


def _own_gradient(product: Product, flow: Tensor, right: Tensor, tile: int, space: Space) -> Tensor:
    """(groups x tile, h a s)."""
    n, h, a, s, b = len(right), product.h, product.a, product.s, product.b
    if h == 1:
        out = space.take("own", n * tile, a * s)
        torch.bmm(flow.view(n, -1, b), right.view(n, s, b).mT, out=out.view(n, -1, s))
        return out
    if s == 1:
        return _summed(flow.view(n, -1, h, a, b) * right.view(n, 1, h, 1, b), (4,)).reshape(n * tile, -1)
    rows = flow.view(n, -1, h, a, b).transpose(1, 2).reshape(n * h, -1, b)
    found = torch.bmm(rows, right.view(n * h, s, b).mT)
    return found.view(n, h, -1, a, s).transpose(1, 2).reshape(n * tile, -1)


def _common_gradient(product: Product, flow: Tensor, left: Tensor, tile: int, space: Space) -> Tensor:
    """(groups, h s b)."""
    n, h, a, s, b = len(flow) // tile, product.h, product.a, product.s, product.b
    if h == 1:
        if b < s:  # products with few columns run at a third of the rate
            out = space.take("common gradient", n, b * s).view(n, b, s)
            return torch.bmm(flow.view(n, -1, b).mT, left.view(n, -1, s), out=out).mT.reshape(n, -1)
        out = space.take("common gradient", n, s * b)
        torch.bmm(left.view(n, -1, s).mT, flow.view(n, -1, b), out=out.view(n, s, b))
        return out
    if s == 1:
        return _summed(flow.view(n, -1, h, a, b) * left.view(n, -1, h, a, 1), (1, 3)).reshape(n, -1)
    rows = left.view(n, -1, h, a, s).transpose(1, 2).reshape(n * h, -1, s)
    flows = flow.view(n, -1, h, a, b).transpose(1, 2).reshape(n * h, -1, b)
    return torch.bmm(rows.mT, flows).view(n, -1)


def _summed(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The sum over axes; those of size 1 cost nothing."""
    long = [axis for axis in axes if values.shape[axis] > 1]
    return values.sum(long) if long else values
