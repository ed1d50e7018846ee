"""Video: a folder of clips -> a data set of (frames flattened (steps, height * width * 3), class)."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from tenfold.data.decode import NEEDED, read_frames, video_package
from tenfold.data.frames import CENTER, SCALE, as_inputs, check_scale
from tenfold.data.sampling import Evenly, Sampling
from tenfold.data.sequences import Sample
from tenfold.data.skipped import Skipped, UnreadableFile, first_few, warn_of
from tenfold.data.video_cache import FrameCache
from tenfold.data.video_layouts import Layout, Listing, VideoFile
from tenfold.progress import Progress, silent

SIZE = (120, 160)  # height, width: 57,600 inputs with three colours, as in the experiments on UCF11


class VideoFolder(Dataset[Sample]):
    """Clips of a folder as (input (steps, height * width * 3), class), see `as_inputs`; steps differ where clips are short.

    All clips are decoded once, when the data set is made. What cannot be used is left out with a warning and listed in `skipped`.

    files: the clips in use, with class name and group.
    classes: names of all classes of the folder, sorted; a class keeps its number even if none of its clips can be read.
    labels, lengths: number of the class, and of frames, of each clip.
    groups: name of the group of each clip, for `k_fold` and `holdout`.
    skipped: (path, reason) of files without ending or name of a clip, and of clips that cannot be decoded.

    Args:
        layout: how the folder is arranged: `ucf11`, `ucf50`, `youtube_celebrities`, `class_folders` or a function of one's own.
        sampling: which frames are kept.
        size: (height, width) of the kept frames.
        cache: a folder for the decoded frames; without one they stay in memory, clips * frames * height * width * 3 bytes.
        center, scale: inputs are (pixels - center) / scale.
        strict: raises for the first clip that cannot be decoded instead of leaving it out.
        n_threads: clips that are decoded at the same time.

    Raises:
        ValueError: the folder does not exist or has no readable clip, or a setting is out of range.
        UnreadableFile: a ValueError: a clip cannot be decoded and `strict` is set.
        ImportError: PyAV is not installed.
        OSError: the cache folder cannot be written.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: Layout,
        *,
        sampling: Sampling | None = None,
        size: tuple[int, int] = SIZE,
        cache: str | os.PathLike[str] | None = None,
        center: float = CENTER,
        scale: float = SCALE,
        strict: bool = False,
        n_threads: int = 1,
        progress: Progress | None = None,
    ) -> None:
        video_package()
        _check(size, scale, n_threads)
        self.root = Path(root)
        if not self.root.is_dir():
            raise ValueError(f"the folder {self.root} does not exist; a folder of clips is needed: check the path")
        self.sampling = Evenly(16) if sampling is None else sampling
        self.size = (size[0], size[1])
        self.center = center
        self.scale = scale
        listing = layout(self.root)
        reader = _Reader(self.root, self.size, self.sampling, None if cache is None else FrameCache(Path(cache), self.size, self.sampling))
        clips, unreadable = reader.read_all(listing.files, strict, n_threads, progress or silent)
        self.skipped = tuple(sorted(listing.skipped + unreadable))
        if not clips:
            raise ValueError(_nothing_readable(self.root, listing, self.skipped, layout))
        warn_of(self.skipped, len(clips) + len(self.skipped), self.root, stacklevel=2)
        self._clips = clips
        self.files = tuple(clip.file for clip in clips)
        self.classes = tuple(sorted({file.label for file in listing.files}))
        self.labels = torch.tensor([self.classes.index(file.label) for file in self.files])
        self.lengths = torch.tensor([clip.n_frames for clip in clips])
        self.groups = tuple(file.group for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> Sample:
        return as_inputs(self.frames(position), self.center, self.scale), self.labels[position]

    def frames(self, position: int) -> np.ndarray:
        """The kept frames of a clip: uint8 (frames, height, width, 3), RGB.

        Raises:
            ValueError: its file in the cache is gone.
        """
        kept = self._clips[position].kept
        if isinstance(kept, np.ndarray):
            return kept
        try:
            return np.load(kept, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the cached frames {kept} cannot be read ({type(error).__name__}); the cache is needed as long as the data set is used: "
                "make the data set again, which decodes what is missing"
            ) from error


@dataclass(frozen=True)
class _Clip:
    """A clip whose frames are at hand: in memory, or in a file of the cache."""

    file: VideoFile
    n_frames: int
    kept: np.ndarray | Path


@dataclass(frozen=True)
class _Reader:
    """Decodes the clips of one folder, or finds them in the cache."""

    root: Path
    size: tuple[int, int]
    sampling: Sampling
    cache: FrameCache | None

    def read_all(self, files: Sequence[VideoFile], strict: bool, n_threads: int, progress: Progress) -> tuple[list[_Clip], list[Skipped]]:
        """The clips that can be read, in the order of the files, and those that cannot."""
        clips: list[_Clip] = []
        skipped: list[Skipped] = []
        with ThreadPoolExecutor(n_threads) as pool:
            for done, clip in enumerate(pool.map(self.read, files), 1):
                if isinstance(clip, _Clip):
                    clips.append(clip)
                elif strict:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise clip
                else:
                    skipped.append(Skipped(clip.path, clip.reason))
                progress("decoding", done, len(files))
        return clips, skipped

    def read(self, file: VideoFile) -> _Clip | UnreadableFile:
        """The clip, or why it cannot be read."""
        name = file.path.relative_to(self.root).as_posix()
        if not file.path.is_file():
            return UnreadableFile(file.path, "it is no file, or a link to none", NEEDED)
        place = None if self.cache is None else self.cache.place(file.path, name)
        if self.cache is not None and place is not None and (frames := self.cache.load(place)) is not None:
            return _Clip(file, len(frames), place)
        try:
            frames = read_frames(file.path, self.size, self.sampling, name)
        except UnreadableFile as error:
            return error
        if self.cache is None or place is None:
            return _Clip(file, len(frames), frames)
        self.cache.save(place, frames)
        return _Clip(file, len(frames), place)


def _check(size: tuple[int, int], scale: float, n_threads: int) -> None:
    check_scale(scale)
    if len(size) != 2 or min(size) < 1 or n_threads < 1:
        raise ValueError(
            f"size is {size} and n_threads is {n_threads}; a height and a width of at least 1 pixel, and at least 1 thread, are needed: "
            "give for instance size=(120, 160)"
        )


def _nothing_readable(root: Path, listing: Listing, skipped: Sequence[Skipped], layout: Layout) -> str:
    n_files = len(listing.files) + len(listing.skipped)
    found = f"{n_files} files, of which {first_few(skipped)}" if skipped else "no files where they are looked for"
    wanted = (layout.__doc__ or layout.__name__).strip().splitlines()[0]
    return f"the folder {root} has 0 readable clips; it has {found}; at least one is needed, as {wanted} Check the path and the layout"
