"""Decode: one video file -> the frames that a sampling keeps, resized, as uint8 (frames, height, width, 3). Uses PyAV (FFmpeg)."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.data.sampling import Sampling
from tenfold.data.skipped import UnreadableFile

FEWEST = 0.9  # share of the frames named in the file's header below which it counts as cut off; headers of whole files can be off by a few
NEEDED = "a whole and undamaged video file"


def video_package() -> Any:
    """The package av.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError(
            'decoding video needs PyAV, the package av, which is not installed; the extra "video" is needed: '
            'run pip install "tenfold[video]"'
        ) from error


def read_frames(path: Path, size: tuple[int, int], sampling: Sampling, name: str) -> np.ndarray:
    """uint8 RGB frames (n, height, width, 3) of the file.

    The file is decoded twice, first to count its frames, as the numbers in headers are often wrong: no clip has to fit into memory.
    Frames are resized to `size` by averaging areas; the aspect ratio is not kept. Damage that FFmpeg conceals by itself goes unseen.

    Args:
        size: (height, width).
        name: what `sampling` knows the clip by.

    Raises:
        UnreadableFile: it is no video, has no frames, is damaged or cut off.
        ImportError: PyAV is not installed.
    """
    n_frames = _count(path)
    wanted = sampling.positions(n_frames, name)
    height, width = size
    frames = np.empty((len(wanted), height, width, 3), np.uint8)
    n_found = 0
    for position, frame in enumerate(_decoded(path)):
        if n_found < len(wanted) and position == wanted[n_found]:
            frames[n_found] = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
            n_found += 1
        if n_found == len(wanted):
            break
    return frames


def _count(path: Path) -> int:
    """The number of frames that can be decoded."""
    count = sum(1 for _ in _decoded(path))
    promised = _promised(path)
    if count == 0:
        raise UnreadableFile(path, "no frame can be decoded", NEEDED)
    if count < FEWEST * promised:
        raise UnreadableFile(path, f"{count} of {promised} frames can be decoded", NEEDED)
    return count


def _promised(path: Path) -> int:
    """The number of frames in the file's header, 0 where it has none."""
    with video_package().open(str(path), metadata_errors="replace") as container:
        return container.streams.video[0].frames


def _decoded(path: Path) -> Iterator[Any]:
    av = video_package()
    position = 0
    try:
        with av.open(str(path), metadata_errors="replace") as container:  # old files have names that are not UTF-8
            if not container.streams.video:
                raise UnreadableFile(path, "it has no video stream", NEEDED)
            for frame in container.decode(container.streams.video[0]):
                yield frame
                position += 1
    except av.error.FFmpegError as error:
        reason = str(error.strerror or error)
        raise UnreadableFile(path, f"{reason} after {position} frames" if position else reason, NEEDED) from error
