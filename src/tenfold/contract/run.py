"""Execution of plans with torch operations. Nothing is searched or decided here."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.contract.steps import ContractionPlan, Pair, PairPlan, RowsPlan, Step


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
    return [dense(step.group, factors) for step in plan.steps]


def linear(plan: ContractionPlan, prepared: Sequence[Tensor], x: Tensor) -> Tensor:
    """(*batch, out) from (*batch, in); both sizes are padded ones."""
    state = x.reshape(-1, x.shape[-1])
    for step, weight in zip(plan.steps, prepared, strict=True):
        state = _multiply(step, weight, state)
    if plan.out_perm is not None:
        state = state.reshape(-1, *plan.out_view).permute(0, *(axis + 1 for axis in plan.out_perm))
    return state.reshape(*x.shape[:-1], plan.n_out)


def _multiply(step: Step, weight: Tensor, state: Tensor) -> Tensor:
    if step.perm is not None:
        state = state.reshape(-1, *step.view).permute(0, *(axis + 1 for axis in step.perm))
    state = state.reshape(-1, *step.shape)
    if step.kind == "linear":
        return F.linear(state, weight)
    if step.kind == "left":
        return weight @ state
    if step.kind == "scale":
        return state * weight
    if step.kind == "scale_sum":
        return (state * weight).sum(-2)
    return torch.bmm(state.movedim(1, 0), weight).movedim(0, 1)


def convolve(plan: ContractionPlan, prepared: Sequence[Tensor], x: Tensor, spatial: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
    """(N, out, *positions) from (N, in, *positions); `spatial(x, weight, groups)` is the layer's own dense convolution."""
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
