"""Execution of plans with torch operations. Nothing is searched or decided here."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.contract.convolve_run import laid_out
from tenfold.contract.steps import ContractionPlan, Gather, Pair, PairPlan, RowsPlan

FEW = 64  # ids are few for a core that has so many times as many slices; of a matrix they are with as many


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
    return laid_out(plan, made) if plan.verb == "convolve" else made


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
            factor = _slices(factor, gather, flat)
        operands.append(factor)
    return run_pairs(operands, plan.pairs).permute(plan.perm).reshape(-1, plan.n_out)


def _slices(factor: Tensor, gather: Gather, ids: Tensor) -> Tensor:
    """(ids, ...): slices of a factor. A few are picked from it as it lies: in another order its gradient is a copy of the whole."""
    is_matrix = factor.dim() == 2
    if torch.compiler.is_compiling() or torch._C._is_tracing():  # a program for any number of ids
        are_few = is_matrix
    else:
        are_few = ids.numel() * (1 if is_matrix else FEW) <= gather.shape[0]
    if are_few and len(gather.digits) == 1:
        return factor.index_select(gather.perm[0], ids).permute(gather.perm).reshape(-1, *gather.shape[1:])
    return factor.permute(gather.perm).reshape(gather.shape).index_select(0, ids)


def full_precision(like: Tensor) -> Any:
    """A context in which autocast is off: what stands for a weight keeps the dtype of the weight."""
    return torch.autocast(like.device.type, enabled=False) if is_cast(like) else contextlib.nullcontext()


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An input in the dtype that autocast asks for; without it, one of another dtype than the weight's is refused."""
    if is_cast(x) and x.is_floating_point() and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(x.device.type))
    if x.dtype != dtype:
        raise RuntimeError(f"the input has the dtype {x.dtype}, but the weight has {dtype}; convert one of them")
    return x


def is_cast(x: Tensor) -> bool:
    """Whether autocast is on where a tensor is; torch knows none for "meta", and refuses the question."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def pad_channels(x: Tensor, groups: int, padding: int) -> Tensor:
    """(N, channels + groups x padding, *positions): each group of channels with zeros at its end."""
    y = x.unflatten(1, (groups, -1))
    return F.pad(y, (0, 0) * (x.dim() - 2) + (0, padding)).flatten(1, 2)
