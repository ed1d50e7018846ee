"""Video cache: decoded frames of a clip as one .npy file, under a key that names everything they depend on.

A file is written under another name and then renamed, so it is whole or not there; a damaged one is made again.
"""

import hashlib
from pathlib import Path

import numpy as np

from tenfold.data.sampling import Sampling
from tenfold.files import replacing

VERSION = "tenfold frames 1"


class FrameCache:
    """The frames of clips for one size and one sampling, in a folder that other settings may share.

    Args:
        folder: is made where it does not exist.
    """

    def __init__(self, folder: Path, size: tuple[int, int], sampling: Sampling) -> None:
        self.folder = folder
        self.size = size
        self.settings = f"{VERSION}, {size}, {sampling!r}"

    def place(self, path: Path, name: str) -> Path:
        """Where the frames of a clip are kept; another one when the clip changes.

        Args:
            name: of the clip, relative to the root of its data set.
        """
        facts = path.stat()
        key = hashlib.sha256(f"{self.settings}, {name}, {facts.st_size}, {facts.st_mtime_ns}".encode()).hexdigest()[:20]
        return self.folder / f"{path.stem}.{key}.npy"

    def load(self, place: Path) -> np.ndarray | None:
        """The frames, mapped into memory; None where they are not there or not whole."""
        try:
            frames = np.load(place, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return frames if frames.dtype == np.uint8 and frames.shape[1:] == (*self.size, 3) and len(frames) else None

    def save(self, place: Path, frames: np.ndarray) -> None:
        """Writes the frames of a clip.

        Raises:
            OSError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(place) as part, part.open("xb") as file:
                np.save(file, frames, allow_pickle=False)
        except OSError as error:
            raise OSError(
                f"the frames of a clip cannot be written to {place} ({error.__cause__ or error}); a writable folder with "
                f"{frames.nbytes / 1e6:.1f} MB is needed: make room, or give another cache folder"
            ) from error
