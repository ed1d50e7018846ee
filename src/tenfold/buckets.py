"""The sizes that a contraction plan is made for: few plans serve all batches, and an exported program has one for all."""

import math
from collections.abc import Sequence

import torch

_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch < 2.7 has no is_exporting
EXPORT_BATCH, EXPORT_PLACES = 16, 1024  # an exported program has one plan for all sizes that it leaves open


def places(sizes: Sequence[int]) -> int:
    """The number of positions of a convolution; a middling one where an exported program leaves it open."""
    count = math.prod(sizes)
    if isinstance(count, torch.Tensor):  # torch.jit.trace hands out sizes as tensors
        return int(count)
    return EXPORT_PLACES if _is_exporting() and not isinstance(count, int) else count


def bucket(batch: int) -> int:
    """The batch size that a plan is made for: few plans serve all batches."""
    if _is_exporting():
        return EXPORT_BATCH
    return 1 if batch <= 4 else 16 if batch <= 64 else 256 if batch <= 1024 else 4096
