"""Video layouts: a folder -> its clips, each with its class and group, as the data sets' own archives unpack.

A layout is a function, so that another one needs no change here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tenfold.data.skipped import Skipped

VIDEO_ENDINGS = (".avi", ".mpg", ".mpeg", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".wmv", ".flv", ".3gp")


@dataclass(frozen=True)
class VideoFile:
    """A clip: its file, the name of its class and its group. Clips of one group were cut from one source."""

    path: Path
    label: str
    group: str


@dataclass(frozen=True)
class Listing:
    """What a folder holds: clips, and files that are none."""

    files: list[VideoFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


Layout: TypeAlias = Callable[[Path], Listing]


def ucf11(root: Path) -> Listing:
    """CLASS/GROUP/CLIP, with groups such as v_shooting_01; folders named Annotation are left out.

    The group of a clip is the number at the end of its folder's name, as "g01", so that one split by group serves all classes.

    Source: UCF11 (UCF YouTube Action), Liu et al. 2009, folder action_youtube_naudio.
    """
    listing = Listing()
    for label in _folders(root):
        for group in _folders(label):
            if group.name == "Annotation":
                continue
            number = re.search(r"(\d+)$", group.name)
            for path in _files(group):
                _add(listing, path, label.name, f"g{number[1]}" if number else group.name)
    return listing


def ucf50(root: Path) -> Listing:
    """CLASS/v_CLASS_gNN_cMM.avi; the group of a clip is gNN.

    Source: UCF50, Reddy & Shah 2012.
    """
    listing = Listing()
    for label in _folders(root):
        for path in _files(label):
            found = re.search(r"_(g\d+)_c\d+$", path.stem)
            _add(listing, path, label.name, found[1] if found else None, "_gNN_cMM at the end of its name")
    return listing


def youtube_celebrities(root: Path) -> Listing:
    """NNNN_CC_FIRSTNAME_LASTNAME.avi or NNNN_CC_NNN_FIRSTNAME_LASTNAME.avi in one folder, or in a folder for each celebrity.

    The class is what follows the numbers; the name of the folder where there are folders. The group is the second number.

    Source: YouTube Celebrities Face Tracking and Recognition, Kim et al. 2008.
    """
    listing = Listing()
    for path in _files(root):
        label, group = _celebrity(path)
        _add(listing, path, label, group, "a name such as 0001_01_Firstname_Lastname")
    for folder in _folders(root):
        for path in _files(folder):
            _add(listing, path, folder.name, _celebrity(path)[1] or path.stem)
    return listing


def class_folders(root: Path) -> Listing:
    """CLASS/CLIP, with any names; every clip is a group of its own."""
    listing = Listing()
    for label in _folders(root):
        for path in _files(label):
            _add(listing, path, label.name, f"{label.name}/{path.stem}")
    return listing


def _celebrity(path: Path) -> tuple[str | None, str | None]:
    found = re.fullmatch(r"\d+_(\d+)(?:_\d+)*_(\D.*)", path.stem)
    return (found[2], found[1]) if found else (None, None)


def _add(listing: Listing, path: Path, label: str | None, group: str | None, missing: str = "") -> None:
    if path.suffix.lower() not in VIDEO_ENDINGS:
        listing.skipped.append(Skipped(path, f"{path.suffix or 'no ending'} is not the ending of a video file"))
    elif label is None or group is None:
        listing.skipped.append(Skipped(path, f"it lacks {missing}"))
    else:
        listing.files.append(VideoFile(path, label, group))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """All but folders: links that lead nowhere are no files either, but are to be listed as clips that cannot be read."""
    return sorted(path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))
