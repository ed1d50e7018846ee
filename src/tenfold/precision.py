"""Precision: the dtype that products are computed in while a model trains, and whether a device has instructions for it."""

import platform
import warnings
from typing import Literal, TypeAlias, get_args

import torch

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]


def settled(precision: str, device: torch.device) -> str:
    """The precision itself; for "auto" bfloat16 where the device computes with it, else float32.

    On a CPU without instructions for it, bfloat16 is emulated: a step of ResNet-20 took 8 s there, and 0.6 s in float32.

    Raises:
        ValueError: there is no such precision, or the device cannot train in it.

    Warns:
        UserWarning: bfloat16 is asked for where it is emulated.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}; it needs one of {', '.join(get_args(Precision))}: choose one of these")
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision is 'float16' for a model on the CPU; float16 needs a GPU: take precision='bfloat16', or move the model")
    if precision == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    if precision == "bfloat16" and not has_bfloat16(device):
        warnings.warn(
            f"precision is 'bfloat16', which this {device.type} has no instructions for: products are emulated, and may take ten times as "
            "long as in float32; take precision='float32', or 'auto', which asks the device",
            stacklevel=3,
        )
    return precision


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes products in bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
