"""The steps of (rows, in) -> (rows, out), one after another, and large batches in parts."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from tenfold.contract.steps import ADD_ABOVE, ContractionPlan, Step


def linear(plan: ContractionPlan, prepared: Sequence[Tensor], x: Tensor) -> Tensor:
    """(*batch, out) from (*batch, in); both sizes are padded ones."""
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    if torch.compiler.is_compiling() or len(plan.steps) == 1 or rows.shape[0] <= plan.tile_above:
        y = chain(plan, prepared, rows)
    else:
        y = tiled(plan, prepared, rows)
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], plan.n_out)


def chain(plan: ContractionPlan, prepared: Sequence[Tensor], state: Tensor) -> Tensor:
    """(rows, out) from (rows, in): one step after another."""
    for step, weight in zip(plan.steps, prepared, strict=True):
        if step.perm is not None:
            state = state.reshape(step.view).permute(step.perm)
        state = state.reshape(step.shape)  # a copy takes the place of its original, which is free from here on
        state = _multiply(step, weight, state)
    if plan.out_perm is not None:
        state = state.reshape(plan.out_view).permute(plan.out_perm)
    return state.reshape(-1, plan.n_out)


def _multiply(step: Step, weight: Tensor, x: Tensor) -> Tensor:
    """The product of a step; `step.axes` says what the axes of x are, `step.out` in which order those of the result are wanted."""
    if step.kind == "linear":
        rows = x if step.axes == "pk" else x.mT
        return F.linear(rows, weight) if step.out == "pn" else weight @ rows.mT
    if step.kind == "left":
        weight = weight.expand(x.shape[0], -1, -1)
        return torch.bmm(weight, x) if step.out == "pnq" else torch.bmm(x.mT, weight.mT)
    if step.kind == "scale":
        return x * weight
    if step.kind == "split":
        return _split(step, weight, x)
    if step.axes == "spkq":
        return _inside(step, weight, x)
    x = x.permute([step.axes.index(axis) for axis in "spk"])
    return torch.bmm(x, weight) if step.out == "spn" else torch.bmm(weight.mT, x.mT)


def _inside(step: Step, weight: Tensor, x: Tensor) -> Tensor:
    """A batch of products with summed indices that stand inside: the group is repeated for each value of what stands before them."""
    shared, passing, summed, inner = x.shape
    weight = weight.mT[:, None].expand(-1, passing, -1, -1).reshape(shared * passing, weight.shape[2], summed)
    x = x.reshape(shared * passing, summed, inner)
    return torch.bmm(weight, x) if step.out == "spnq" else torch.bmm(x.mT, weight.mT)


def _split(step: Step, weight: Tensor, x: Tensor) -> Tensor:
    """A sum in two places: a product for each value of the outer index (and of shared ones), and their sum."""
    left, right = (weight.mT, x.mT) if step.out[-1] == "p" else (x, weight)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or step.axes != "apk" or x.numel() < ADD_ABOVE:
        return torch.matmul(left, right).sum(step.axes.index("a"))
    y = left[0] @ right[0]
    for part in range(1, x.shape[0]):
        torch.addmm(y, left[part], right[part], out=y)
    return y


def tiled(plan: ContractionPlan, prepared: Sequence[Tensor], rows: Tensor) -> Tensor:
    """(rows, out) from (rows, in), so many rows at a time that the states between steps stay in the cache."""
    has_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (rows, *prepared))
    # torch.func and forward-mode gradients take no function that calls autograd itself
    is_transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    if has_gradients and rows.shape[0] > plan.recompute_above and not is_transformed:
        return _Recomputed.apply(plan, rows, *prepared)  # pyright: ignore[reportReturnType]
    return torch.cat([chain(plan, prepared, part) for part in rows.split(plan.tile)])


class _Recomputed(torch.autograd.Function):
    """Rows in parts whose states are computed again in backward, part by part: only the input is saved."""

    @staticmethod
    def forward(ctx: Any, plan: ContractionPlan, rows: Tensor, *prepared: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.plan = plan
        ctx.save_for_backward(rows, *prepared)
        return torch.cat([chain(plan, prepared, part) for part in rows.split(plan.tile)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # gradients of gradients: everything is part of a graph
            found = _gradients(ctx.plan, ctx.saved_tensors, needs, grad, True)
            return (None, *found)
        rows, *prepared = ctx.saved_tensors
        sums: list[Tensor | None] = [None] * len(prepared)
        flows = []
        for part, flow in zip(rows.split(ctx.plan.tile), grad.split(ctx.plan.tile), strict=True):
            leaves = [tensor.detach().requires_grad_(need) for tensor, need in zip((part, *prepared), needs, strict=True)]
            first, *rest = _gradients(ctx.plan, leaves, needs, flow, False)
            flows.append(first)
            # in float32 at least: hundreds of parts added in bfloat16 come to a stop where one is less than a rounding of their sum
            wide = [None if one is None else one.to(torch.promote_types(one.dtype, torch.float32)) for one in rest]
            sums = [one if total is None or one is None else total.add_(one) for total, one in zip(sums, wide, strict=True)]
        found = [None if total is None else total.to(one.dtype) for total, one in zip(sums, prepared, strict=True)]
        return (None, torch.cat(flows) if needs[0] else None, *found)


def _gradients(
    plan: ContractionPlan, tensors: Sequence[Tensor], needs: Sequence[bool], grad: Tensor, create_graph: bool
) -> list[Tensor | None]:
    """The gradients of the rows and of each step's weight, None where none is needed."""
    with torch.enable_grad():
        y = chain(plan, tensors[1:], tensors[0])
    wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=create_graph))
    return [next(found) if need else None for need in needs]
