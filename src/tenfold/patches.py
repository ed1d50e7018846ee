"""Patches: what the weight of a layer is multiplied with, row by row. For a convolution they are the inputs under the kernel."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS_LIMIT = 4096  # patches of a layer that one batch contributes; more add cost and hardly information
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer is a transposed convolution."""
    return isinstance(module, TRANSPOSED)


def patch_size(module: nn.Module) -> int:
    """The number of values that an output of a layer is made of: its inputs (of one group) times the kernel; 0 for lookups and others."""
    layer: Any = module
    if isinstance(module, nn.Linear):
        return layer.in_features
    if isinstance(module, CONVOLUTIONS + TRANSPOSED):
        return layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return 0


def patches(module: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """(groups, rows, in x kernel) from the input of a layer, channels slowest: a spread of at most about ROWS_LIMIT patches.

    With it comes the number of patches that each row stands for.
    """
    x = x if x.dtype == torch.float64 else x.float()
    if isinstance(module, nn.Linear):
        rows = x.reshape(-1, x.shape[-1])
        step = _step(len(rows), x.shape[1:-1].numel())
        return rows[::step][None], step
    layer: Any = module
    n_spatial = len(layer.kernel_size)
    if x.dim() == n_spatial + 1:
        x = x[None]
    x, strides = (_spread(layer, x), [1] * n_spatial) if is_transposed(module) else (_padded(layer, x), layer.stride)
    for axis, (kernel, stride, dilation) in enumerate(zip(layer.kernel_size, strides, layer.dilation, strict=True), 2):
        x = x.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    # (N, C, *places, *kernel) -> (N, *places, C, *kernel), thinned before it is copied
    x = x.permute(0, *range(2, 2 + n_spatial), 1, *range(2 + n_spatial, 2 + 2 * n_spatial))
    sizes = x.shape[: 1 + n_spatial]
    if (step := _step(sizes.numel(), sizes[1:].numel())) > 1:
        x = x[torch.unravel_index(torch.arange(0, sizes.numel(), step, device=x.device), sizes)]
    if is_transposed(module):
        x = x.flip(tuple(range(-n_spatial, 0)))
    return x.reshape(-1, layer.groups, patch_size(layer)).movedim(1, 0), step


def _padded(layer: Any, x: Tensor) -> Tensor:
    padding = layer._reversed_padding_repeated_twice
    if layer.padding_mode != "zeros":
        return F.pad(x, padding, mode=layer.padding_mode)
    return F.pad(x, padding) if any(padding) else x


def _spread(layer: Any, x: Tensor) -> Tensor:
    """The input that an ordinary convolution with the kernel reversed makes the same outputs of: zeros between its values, and around."""
    sizes = [(size - 1) * stride + 1 for size, stride in zip(x.shape[2:], layer.stride, strict=True)]
    spread = x.new_zeros(*x.shape[:2], *sizes)
    spread[(..., *(slice(None, None, stride) for stride in layer.stride))] = x
    padding: list[int] = []
    for kernel, dilation, cut, extra in zip(layer.kernel_size, layer.dilation, layer.padding, layer.output_padding, strict=True):
        around = dilation * (kernel - 1) - cut  # below 0 it cuts
        padding = [around, around + extra, *padding]
    return F.pad(spread, padding)


def _step(n_rows: int, n_places: int) -> int:
    """Every so manyth row leaves about ROWS_LIMIT; coprime with the places of a sample, so that all of these are met equally often."""
    step = max(1, n_rows // ROWS_LIMIT)
    while math.gcd(step, n_places) > 1:
        step += 1
    return step
