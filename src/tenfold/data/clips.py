"""Clips: an .npz file of short clips -> a data set of (frames flattened (steps, height * width * channels), class)."""

import io
import itertools
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tenfold.data.frames import CENTER, SCALE, as_inputs, check_scale
from tenfold.data.npz import ascends, read_npz
from tenfold.data.pillow import image_module
from tenfold.data.sequences import Sample
from tenfold.files import said_of

LAYOUT = (
    "frames, uint8 (clips, frames, height, width, channels), or bytes and offsets of one JPEG sheet a clip with its frames one below "
    "another, and labels"
)


class Clips(Dataset[Sample]):
    """Clips of one length as (input (steps, height * width * channels), class), see `as_inputs`. Pixels are kept as uint8.

    frames: uint8 (clips, frames, height, width, channels).
    labels: one whole number a clip.
    names: one name a clip; may be empty.

    Raises:
        ValueError: shapes, dtypes or counts do not fit.

    >>> data = Clips(np.zeros((3, 16, 4, 6, 3), np.uint8), torch.tensor([0, 1, 1]))
    >>> len(data), data[0][0].shape, data.size
    (3, torch.Size([16, 72]), (4, 6))
    """

    def __init__(
        self, frames: np.ndarray, labels: Tensor, *, names: tuple[str, ...] = (), center: float = CENTER, scale: float = SCALE
    ) -> None:
        check_scale(scale)
        if frames.dtype != np.uint8 or frames.ndim != 5 or 0 in frames.shape:
            raise ValueError(
                f"the clips have shape {frames.shape} and dtype {frames.dtype}; uint8 (clips, frames, height, width, channels) with at "
                "least one of each is needed: reshape or convert them"
            )
        if labels.shape != (len(frames),) or labels.is_floating_point() or len(names) not in (0, len(frames)):
            raise ValueError(
                f"there are {len(frames)} clips, labels of shape {tuple(labels.shape)} and dtype {labels.dtype}, and {len(names)} names; a "
                "whole number, and a name or none, is needed for each clip: give as many"
            )
        self._frames = frames
        self.labels = labels.long()
        self.names = names
        self.center = center
        self.scale = scale

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, position: int) -> Sample:
        return as_inputs(self.frames(position), self.center, self.scale), self.labels[position]

    def frames(self, position: int) -> np.ndarray:
        """The frames of a clip: uint8 (frames, height, width, channels)."""
        return self._frames[position]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a frame."""
        return self._frames.shape[2], self._frames.shape[3]


def read_clips(path: str | os.PathLike[str], n_frames: int = 16, *, center: float = CENTER, scale: float = SCALE) -> Clips:
    """The clips of an .npz file.

    The file holds `labels` and either `frames`, uint8 (clips, frames, height, width, channels), or JPEG sheets: `bytes` (all files one
    after another) and `offsets` (where each begins, and the end), each sheet with `n_frames` frames one below another. `names` may be
    there.

    Raises:
        ValueError: the file is missing or damaged, has other arrays, or its sheets cannot be cut into `n_frames` frames.
        ImportError: it has JPEG sheets and Pillow is not installed.
    """
    check_scale(scale)
    place = Path(path)
    arrays = read_npz(place)
    if "labels" not in arrays or not ("frames" in arrays or {"bytes", "offsets"} <= set(arrays)):
        raise ValueError(f"{place} has the arrays {sorted(arrays)}; it needs {LAYOUT}: write it with numpy.savez")
    frames = arrays["frames"] if "frames" in arrays else _sheets(place, arrays["bytes"], arrays["offsets"], n_frames)
    labels = arrays["labels"]
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{place} has labels of dtype {labels.dtype}; whole numbers are needed: save them as integers")
    names = tuple(str(name) for name in arrays.get("names", ()))
    with said_of(place):
        return Clips(frames, torch.from_numpy(labels.astype(np.int64)), names=names, center=center, scale=scale)


def _sheets(path: Path, data: np.ndarray, offsets: np.ndarray, n_frames: int) -> np.ndarray:
    if n_frames < 1:
        raise ValueError(f"n_frames is {n_frames}; a sheet needs at least 1 frame: give the number of frames of a clip")
    if data.dtype != np.uint8 or not ascends(offsets, data.size):
        raise ValueError(
            f"{path} has {data.size} bytes and {offsets.size} offsets that do not ascend within them; {LAYOUT} are needed: write it again"
        )
    library = image_module(f"{path} has clips as JPEG sheets")
    whole = data.tobytes()
    clips: list[np.ndarray] = []
    for position, (start, end) in enumerate(itertools.pairwise(offsets)):
        try:
            with library.open(io.BytesIO(whole[start:end])) as image:
                sheet = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError) as error:  # Pillow's errors for damaged files
            raise ValueError(f"clip {position} of {path} is damaged ({error}); a whole JPEG file is needed: write it again") from error
        if len(sheet) % n_frames:
            raise ValueError(
                f"clip {position} of {path} is {len(sheet)} pixels high, which {n_frames} frames do not divide; frames of one height, one "
                "below another, are needed: give n_frames"
            )
        clips.append(sheet.reshape(n_frames, len(sheet) // n_frames, *sheet.shape[1:]))
        if clips[-1].shape != clips[0].shape:
            raise ValueError(
                f"clip {position} of {path} has shape {clips[-1].shape}, clip 0 has {clips[0].shape}; one shape is needed: resize it"
            )
    return np.stack(clips)
