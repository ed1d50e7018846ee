"""Images: .npz files of small labelled images -> pixels and classes as tensors, training and test part."""

import io
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tenfold.data.npz import ascends, read_npz
from tenfold.data.pillow import image_module
from tenfold.files import said_of

PARTS = ("x_train", "y_train", "x_test", "y_test")
PACKED = ("header", "payload", "offsets", "labels")


@dataclass(frozen=True)
class Images:
    """pixels: uint8 (images, channels, height, width). labels: int64, a class each.

    Raises:
        ValueError: shapes, dtypes or counts do not fit.
    """

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.pixels.dim() != 4 or self.pixels.dtype != torch.uint8 or self.labels.shape != self.pixels.shape[:1] or not len(self.pixels):
            raise ValueError(
                f"the images have shape {tuple(self.pixels.shape)} and dtype {self.pixels.dtype}, their labels {tuple(self.labels.shape)}; "
                "uint8 (images, channels, height, width), at least one, and a label for each are needed: reshape or convert them"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def part(self, rows: Tensor | slice) -> "Images":
        """Some of the images."""
        return Images(self.pixels[rows], self.labels[rows])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (channels,) of the pixels as they are, 0..255."""
        wide = self.pixels.transpose(0, 1).flatten(1)
        counts = torch.stack([torch.bincount(one, minlength=256) for one in wide.long()]).double()
        values, total = torch.arange(256, dtype=torch.float64), wide.shape[1]
        mean = (counts @ values) / total
        return mean.float(), ((counts @ values.square()) / total - mean.square()).clamp_min(1e-12).sqrt().float()


def read_images(path: str | os.PathLike[str]) -> tuple[Images, Images]:
    """Training and test images of an .npz file with x_train, y_train, x_test and y_test, as MNIST is often kept.

    Images are uint8, (images, height, width) or (images, height, width, channels).

    Raises:
        ValueError: the file is missing, damaged or laid out otherwise.
    """
    place = Path(path)
    arrays = read_npz(place)
    if missing := [name for name in PARTS if name not in arrays]:
        raise ValueError(f"the file {place} has no {', '.join(missing)}; {', '.join(PARTS)} are needed: save it with these names")
    train, test = (_images(place, arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        sizes = " and ".join(str(tuple(one.pixels.shape[1:])) for one in (train, test))
        raise ValueError(f"the file {place} has images of shape {sizes}; training and test images need one: resize them")
    return train, test


def read_packed_images(path: str | os.PathLike[str]) -> Images:
    """Images of an .npz file that holds JPEG files one after another (`payload`, cut by `offsets`) and what all begin with (`header`).

    Raises:
        ValueError: the file is missing, damaged or laid out otherwise.
        ImportError: Pillow is missing.
    """
    place = Path(path)
    arrays = read_npz(place)
    if missing := [name for name in PACKED if name not in arrays]:
        raise ValueError(f"the file {place} has no {', '.join(missing)}; {', '.join(PACKED)} are needed: save it with these names")
    offsets, size = arrays["offsets"], arrays["payload"].size
    if not ascends(offsets, size):
        raise ValueError(
            f"the file {place} has offsets that do not cut its payload of {size} bytes into images; ascending whole numbers "
            "from 0 to its end are needed: save it again"
        )
    library = image_module(f"the file {place} has images packed as JPEG")
    header, payload = arrays["header"].tobytes(), arrays["payload"].tobytes()
    pictures = []
    for number, (start, end) in enumerate(itertools.pairwise(offsets)):
        try:
            pictures.append(np.asarray(library.open(io.BytesIO(header + payload[start:end])).convert("RGB")))
        except OSError as error:
            raise ValueError(
                f"image {number} of {place} cannot be read ({error}); undamaged JPEG files are needed: save it again"
            ) from error
        if pictures[-1].shape != pictures[0].shape:
            raise ValueError(
                f"image {number} of {place} has height and width {pictures[-1].shape[:2]}, image 0 {pictures[0].shape[:2]}; one size is "
                "needed: resize them"
            )
    return _images(place, np.stack(pictures), arrays["labels"])


def _images(place: Path, pixels: np.ndarray, labels: np.ndarray) -> Images:
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"the file {place} has images of shape {pixels.shape} and dtype {pixels.dtype} and labels of dtype {labels.dtype}; uint8 "
            "(images, height, width) or (images, height, width, channels) and whole numbers are needed: convert them"
        )
    wide = torch.from_numpy(pixels if pixels.ndim == 4 else pixels[..., None])
    with said_of(place):
        return Images(wide.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels.astype(np.int64)))
