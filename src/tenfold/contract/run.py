"""Execution of plans with torch operations. Nothing is searched or decided here."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.contract.steps import ContractionPlan, Pair, PairPlan, RowsPlan

MOVED_BATCH = 5  # images; smaller batches lose more by being laid out anew than they gain


def run_pairs(operands: list[Tensor], pairs: Sequence[Pair]) -> Tensor:
    """The last result of a list of pairwise products; `operands` is consumed."""
    for pair in pairs:
        left = operands[pair.left].permute(pair.left_perm).reshape(pair.left_shape)
        right = operands[pair.right].permute(pair.right_perm).reshape(pair.right_shape)
        product = left @ right if pair.is_summed else left * right
        operands.append(product.reshape(pair.full_shape))
    return operands[-1]


def dense(plan: PairPlan, factors: Sequence[Tensor]) -> Tensor:
    """The contraction of all factors, with the axes in the order that the plan asks for."""
    return run_pairs([factors[k] for k in plan.factors], plan.pairs).permute(plan.perm).reshape(plan.shape)


def prepare(plan: ContractionPlan, factors: Sequence[Tensor]) -> list[Tensor]:
    """One tensor for each step: its factors contracted, in the layout that the step needs."""
    made = [dense(step.group, factors) for step in plan.steps]
    return [one.contiguous() for one in made] if plan.verb == "convolve" else made  # torch's backward refuses some strided kernels


def convolve(plan: ContractionPlan, prepared: Sequence[Tensor], x: Tensor, spatial: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
    """(N, out, *positions) from (N, in, *positions); `spatial(x, weight, groups)` is the layer's own dense convolution."""
    is_moved = _is_moved(plan, x)
    if is_moved:
        x = x.contiguous(memory_format=torch.channels_last)
    y = _convolve(plan, prepared, x, spatial)
    return y.contiguous() if is_moved else y


def _is_moved(plan: ContractionPlan, x: Tensor) -> bool:
    """Whether images are laid out channels last for the steps, and back: only depthwise steps gain more by it than that costs."""
    if x.dim() != 4 or x.device.type != "cpu" or torch.compiler.is_compiling() or x.shape[0] < MOVED_BATCH or not x.is_contiguous():
        return False
    return any(step.kind == "convolve" and step.n_shared > 1 and step.n_shared == step.group.shape[0] for step in plan.steps)


def _convolve(plan: ContractionPlan, prepared: Sequence[Tensor], x: Tensor, spatial: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
    n_spatial = x.dim() - 2
    pointwise = (F.conv1d, F.conv2d, F.conv3d)[n_spatial - 1]
    samples = x.shape[0]
    for step, weight in zip(plan.steps, prepared, strict=True):
        x = _reorder(x, step.view, step.perm, n_spatial)
        if step.n_passing > 1:
            x = x.reshape(-1, x.shape[1] // step.n_passing, *x.shape[2:])
        x = spatial(x, weight, step.n_shared) if step.kind == "convolve" else pointwise(x, weight, groups=step.n_shared)
        if step.n_passing > 1:
            x = x.reshape(samples, -1, *x.shape[2:])
    return _reorder(x, plan.out_view, plan.out_perm, n_spatial)


def _reorder(x: Tensor, view: tuple[int, ...], perm: tuple[int, ...] | None, n_spatial: int) -> Tensor:
    """The channels of x, seen as the indices of sizes `view`, in another order."""
    if perm is None:
        return x
    y = x.reshape(x.shape[0], *view, *x.shape[2:])
    y = y.permute(0, *(axis + 1 for axis in perm), *range(y.dim() - n_spatial, y.dim()))
    return y.reshape(x.shape)


def digits_of(ids: Tensor, radices: Sequence[int]) -> list[Tensor]:
    """The digits of ids; the first is whole, so that a gather refuses ids which are negative or too large."""
    found = []
    for size in reversed(radices[1:]):
        found.append(ids % size)
        ids = torch.div(ids, size, rounding_mode="floor")
    return [ids, *reversed(found)]


def rows(plan: RowsPlan, factors: Sequence[Tensor], digits: Sequence[Tensor]) -> Tensor:
    """(batch, out): factor slices gathered at the mode indices `digits` of each id, then contracted with the batch shared."""
    operands = []
    for factor, gather in zip(factors, plan.gathers, strict=True):
        if gather.digits:
            flat = digits[gather.digits[0]]
            for digit, size in zip(gather.digits[1:], gather.sizes[1:], strict=True):
                flat = flat * size + digits[digit]
            factor = factor.permute(gather.perm).reshape(gather.shape).index_select(0, flat)
        operands.append(factor)
    return run_pairs(operands, plan.pairs).permute(plan.perm).reshape(-1, plan.n_out)


def full_precision(like: Tensor) -> Any:
    """A context in which autocast is off: what stands for a weight keeps the dtype of the weight."""
    device = like.device.type
    is_cast = device != "meta" and torch.is_autocast_enabled(device)  # torch knows no autocast for "meta"
    return torch.autocast(device, enabled=False) if is_cast else contextlib.nullcontext()


def pad_channels(x: Tensor, groups: int, padding: int) -> Tensor:
    """(N, channels + groups x padding, *positions): each group of channels with zeros at its end."""
    y = x.unflatten(1, (groups, -1))
    return F.pad(y, (0, 0) * (x.dim() - 2) + (0, padding)).flatten(1, 2)
