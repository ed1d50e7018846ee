"""Augment: inputs changed at random while training, so that a network sees more of them."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

Augment: TypeAlias = Callable[[Any, torch.Generator], Any]


def as_augment(augment: Augment | Literal["flip"] | None) -> Augment | None:
    """The function that a name stands for.

    Raises:
        ValueError: the name is not known.
    """
    if augment is None or callable(augment):
        return augment
    if augment != "flip":
        raise ValueError(f"augment is {augment!r}; it needs 'flip', a function augment(inputs, generator) or None: choose one of these")
    return flip


def flip(inputs: Any, generator: torch.Generator) -> Tensor:
    """Images (N, channels, height, width), about half of them mirrored left to right."""
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"augment='flip' got inputs {shape}; it needs images (N, channels, height, width): leave it out for other inputs")
    is_mirrored = torch.rand(len(inputs), generator=generator).to(inputs.device) < 0.5
    return torch.where(is_mirrored[:, None, None, None], inputs.flip(-1), inputs)
