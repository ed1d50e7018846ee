"""Small video files for tests: the left half of a frame grows brighter from frame to frame, the right half is dark red."""

from pathlib import Path

import numpy as np
import pytest

RIGHT = (120, 20, 20)
CODECS = {".mpg": "mpeg1video", ".avi": "mpeg4", ".mp4": "mpeg4"}


def brightness(position: int) -> int:
    """The grey of the left half of a frame."""
    return min(20 + 10 * position, 255)


def write_video(path: Path, n_frames: int = 12, size: tuple[int, int] = (48, 64), *, noise: int | None = None) -> Path:
    """Writes frames 0 .. n_frames - 1 of (height, width); with `noise` as seed they are random pixels, which makes the file large."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    random = None if noise is None else np.random.RandomState(noise)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for position in range(n_frames):
            frame = np.full((*size, 3), brightness(position), np.uint8)
            frame[:, size[1] // 2 :] = RIGHT
            if random is not None:
                frame = random.randint(0, 256, frame.shape).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def cut_off(path: Path, ratio: float) -> Path:
    """Keeps the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(ratio * len(data))])
    return path


def positions_of(frames: np.ndarray) -> list[int]:
    """Which frames of the file they are, read from their left halves."""
    quarter = frames.shape[2] // 4
    return [round((float(frame[:, :quarter].mean()) - 20) / 10) for frame in frames]
