"""Augment: inputs changed at random while training, so that a network sees more of them."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Augment: TypeAlias = Callable[[Any, torch.Generator], Any]


def as_augment(augment: Augment | Literal["flip", "crop"] | None) -> Augment | None:
    """The function that a name stands for.

    Raises:
        ValueError: the name is not known.
    """
    if augment is None or callable(augment):
        return augment
    if augment not in ("flip", "crop"):
        raise ValueError(
            f"augment is {augment!r}; it needs 'flip', 'crop', a function augment(inputs, generator) or None: choose one of these"
        )
    return flip if augment == "flip" else crop


def flip(inputs: Any, generator: torch.Generator) -> Tensor:
    """Images (N, channels, height, width), about half of them mirrored left to right."""
    _check_images(inputs, "flip")
    is_mirrored = torch.rand(len(inputs), generator=generator).to(inputs.device) < 0.5
    return torch.where(is_mirrored[:, None, None, None], inputs.flip(-1), inputs)


def crop(inputs: Any, generator: torch.Generator) -> Tensor:
    """Images (N, channels, height, width) mirrored as by `flip`, padded with zeros by an eighth of their size and cut out at random places.

    Source: the usual augmentation of CIFAR-10, arXiv 1512.03385, section 4.2.
    """
    _check_images(inputs, "crop")
    n, _, height, width = inputs.shape
    images = flip(inputs, generator)
    padded = F.pad(images, (width // 8,) * 2 + (height // 8,) * 2)
    tops, lefts = (
        torch.randint(2 * (size // 8) + 1, (n, 1), generator=generator) + torch.arange(size) for size in (height, width)
    )  # (N, size)
    samples = torch.arange(n)[:, None, None]
    cut = padded.movedim(1, -1)[samples.to(inputs.device), tops[:, :, None].to(inputs.device), lefts[:, None].to(inputs.device)]
    return cut.movedim(-1, 1)


def _check_images(inputs: Any, name: str) -> None:
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(
            f"augment={name!r} got inputs {shape}; it needs images (N, channels, height, width): leave it out for other inputs"
        )
