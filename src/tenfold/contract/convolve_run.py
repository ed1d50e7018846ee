"""Convolutions: the steps of (N, in, *positions) -> (N, out, *positions), one after another."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.contract.steps import ContractionPlan

FEWEST_CHANNELS = 12  # matrix products with fewer rows or columns may take up to five times as long as torch's convolutions
MOVED_BATCH = 16  # images; smaller batches lose more by being laid out anew than they gain
LARGE_STATE = 1 << 16  # values of a state; with smaller ones torch's convolutions of a kernel of one value are faster for few images
FRESH_BYTES, TILE_BYTES = 32 << 20, 8 << 20  # what malloc never keeps for the next time; and of parts that it does
Spatial: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]


def laid_out(plan: ContractionPlan, made: Sequence[Tensor]) -> list[Tensor]:
    """The tensors of the steps, one for each, in the layout that the step needs."""
    if _is_multiplied(plan, made[0], False):
        return [one.contiguous(memory_format=torch.channels_last) for one in made]
    # torch's backward refuses strides; those of axes of size 1 are made anew, as torch lays its output out by them
    return [one.contiguous().flatten().view(one.shape) for one in made]


def convolve(plan: ContractionPlan, prepared: Sequence[Tensor], x: Tensor, spatial: Spatial | None) -> Tensor:
    """(N, out, *positions) from (N, in, *positions).

    `spatial(x, weight, groups)` is the layer's own dense convolution; None: it maps the channels of each position to that position.
    """
    if _is_multiplied(plan, x, spatial is None):
        return _multiplied(_products(plan, prepared, spatial is None), x, spatial)
    is_moved = _is_moved(plan, x)
    if is_moved:
        x = x.contiguous(memory_format=torch.channels_last)
    y = _convolve(plan, prepared, x, spatial)
    return y.contiguous() if is_moved else y


def convolution(plan: ContractionPlan, prepared: Sequence[Tensor], x: Tensor, is_pointwise: bool) -> Callable[[Tensor, Spatial], Tensor]:
    """`convolve` for inputs of the shape of x: what it would decide for each of them is decided once."""

    def anew(x: Tensor, spatial: Spatial) -> Tensor:
        return convolve(plan, prepared, x, None if is_pointwise else spatial)

    if not (plan.is_cached and plan.is_plain):
        return anew
    if _is_multiplied(plan, x, is_pointwise):
        products, is_transformed = _products(plan, prepared, is_pointwise), torch._C._are_functorch_transforms_active
        return lambda x, spatial: anew(x, spatial) if is_transformed() else _multiplied(products, x, spatial)
    steps = [
        (step.kind == "convolve" and not is_pointwise, weight, step.n_shared) for step, weight in zip(plan.steps, prepared, strict=True)
    ]
    pointwise = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]

    def plain(x: Tensor, spatial: Spatial) -> Tensor:
        for is_spatial, weight, n_groups in steps:
            x = spatial(x, weight, n_groups) if is_spatial else pointwise(x, weight, None, 1, 0, 1, n_groups)
        return x

    return plain


# -- on a CPU, without gradients: matrix products that also lay images out --------------------------------------------------


def _is_multiplied(plan: ContractionPlan, like: Tensor, is_pointwise: bool) -> bool:
    """Whether products pay: beside a depthwise step always, as that is twice as fast with its channels last; else where images are
    many or large, and channels not few. What torch.vmap hands out does not tell its layout.
    """
    if like.dim() != 4 or not (is_pointwise or len(plan.steps) > 1) or not (plan.is_cached and plan.is_plain):
        return False
    if not plan.is_depthwise and ((plan.batch == 1 and plan.largest < LARGE_STATE) or plan.narrowest < FEWEST_CHANNELS):
        return False
    return like.device.type == "cpu" and not torch._C._are_functorch_transforms_active()


class _Products(NamedTuple):
    """The steps: whether it is a matrix for the channels of every place, it or the kernel, groups; and the most channels between two."""

    steps: list[tuple[bool, Tensor, int]]
    n_channels: int


def _products(plan: ContractionPlan, prepared: Sequence[Tensor], is_pointwise: bool) -> _Products:
    steps = []
    for step, weight in zip(plan.steps, prepared, strict=True):
        is_matrix = step.n_shared == 1 and (is_pointwise or step.kind == "linear")
        steps.append((is_matrix, weight.flatten(1) if is_matrix else weight, step.n_shared))
    return _Products(steps, max(weight.shape[0] for weight in prepared[:-1] or prepared))


def _multiplied(products: _Products, x: Tensor, spatial: Spatial | None) -> Tensor:
    """The steps; where states are so large that every one takes fresh memory from the system, for parts of the batch in turn."""
    state = products.n_channels * x.shape[2] * x.shape[3] * x.element_size()
    if state * len(x) <= FRESH_BYTES:
        return _part(products, x, spatial)
    y, end = x.new_empty(0), 0
    for part in x.split(max(1, TILE_BYTES // state)):
        found, start, end = _part(products, part, spatial), end, end + len(part)
        if not start:
            layout = torch.contiguous_format if found.is_contiguous() else torch.channels_last
            y = torch.empty((len(x), *found.shape[1:]), dtype=x.dtype, memory_format=layout)
        y[start:end] = found
    return y


def _part(products: _Products, x: Tensor, spatial: Spatial | None) -> Tensor:
    """The steps, with channels last between the first and the last of them: a product reads and writes either layout at no cost."""
    comes_last = not x.is_contiguous() and _is_last(x)
    for number, (is_matrix, weight, n_groups) in enumerate(products.steps, 1):
        if is_matrix:
            x = _product(x, weight, comes_last or number < len(products.steps))
        else:
            x = F.conv2d(x, weight, groups=n_groups) if spatial is None else spatial(x, weight, n_groups)
    return x.contiguous(memory_format=torch.channels_last if comes_last else torch.contiguous_format)


def _is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _product(x: Tensor, matrix: Tensor, is_last: bool) -> Tensor:
    """(N, o, height, width) from (N, i, height, width) and (o, i), with the channels last or first in memory.

    Strides are given as numbers: of a few images each view that torch derives costs as much as a tenth of the product.
    """
    n, c, height, width = x.shape
    n_places, n_out = height * width, len(matrix)
    is_first = x.is_contiguous()
    if not (is_first or _is_last(x)):
        x, is_first = x.contiguous(), True
    if is_last:
        if n != 1 and is_first:
            places = x.as_strided((n, n_places, c), (n_places * c, 1, n_places))
            y = torch.bmm(places, matrix.t().expand(n, -1, -1))
        else:
            y = torch.mm(x.as_strided((n * n_places, c), (1, n_places) if is_first else (c, 1)), matrix.t())
        return y.as_strided((n, n_out, height, width), (n_places * n_out, 1, width * n_out, n_out))
    strides = (n_places, 1) if is_first else (1, c)
    if n == 1:
        y = torch.mm(matrix, x.as_strided((c, n_places), strides))
    else:
        y = torch.bmm(matrix.expand(n, -1, -1), x.as_strided((n, c, n_places), (n_places * c, *strides)))
    return y.view(n, n_out, height, width)


# -- any device, with or without gradients -----------------------------------------------------------------------------------


def _is_moved(plan: ContractionPlan, x: Tensor) -> bool:
    """Whether images are laid out channels last for the steps, and back: only depthwise steps gain more by it than that costs.

    In eval they do where `_multiplied` cannot be used for the order of the channels, and not where it is slower.
    """
    if (plan.is_cached and plan.is_plain) or torch.compiler.is_compiling() or x.dim() != 4 or x.device.type != "cpu":
        return False
    if x.shape[0] < MOVED_BATCH or not x.is_contiguous():
        return False
    return plan.is_depthwise


def _convolve(plan: ContractionPlan, prepared: Sequence[Tensor], x: Tensor, spatial: Spatial | None) -> Tensor:
    n_spatial = x.dim() - 2
    pointwise = (F.conv1d, F.conv2d, F.conv3d)[n_spatial - 1]
    samples = x.shape[0]
    for step, weight in zip(plan.steps, prepared, strict=True):
        if step.perm is not None:
            x = _reorder(x, step.view, step.perm, n_spatial)
        if step.n_passing > 1:
            x = x.reshape(samples * step.n_passing, x.shape[1] // step.n_passing, *x.shape[2:])
        if step.kind == "convolve" and spatial is not None:
            x = spatial(x, weight, step.n_shared)
        else:
            x = pointwise(x, weight, groups=step.n_shared)
        if step.n_passing > 1:
            x = x.reshape(samples, step.n_passing * x.shape[1], *x.shape[2:])
    return x if plan.out_perm is None else _reorder(x, plan.out_view, plan.out_perm, n_spatial)


def _reorder(x: Tensor, view: tuple[int, ...], perm: tuple[int, ...], n_spatial: int) -> Tensor:
    """The channels of x, seen as the indices of sizes `view`, in another order."""
    y = x.reshape(x.shape[0], *view, *x.shape[2:])
    y = y.permute(0, *(axis + 1 for axis in perm), *range(y.dim() - n_spatial, y.dim()))
    return y.reshape(x.shape)
