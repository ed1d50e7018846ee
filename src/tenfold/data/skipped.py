"""Skipped: files that a data set could not use are listed with the reason, and a warning says so. Nothing is left out silently."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SHOWN = 3  # files that a warning or a message names


class Skipped(NamedTuple):
    """A file that was left out, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path.name} ({self.reason})"


class UnreadableFile(ValueError):
    """A file that cannot be read: `path` and `reason` for lists, the message for people.

    Args:
        needed: what would be readable, e.g. "an undamaged video file".
    """

    def __init__(self, path: Path, reason: str, needed: str) -> None:
        super().__init__(path, reason, needed)
        self.path = path
        self.reason = reason
        self.needed = needed

    def __str__(self) -> str:
        return f"the file {self.path} cannot be read ({self.reason}); {self.needed} is needed: repair or remove it"


def first_few(skipped: Sequence[Skipped]) -> str:
    """The first few files with their reasons, in one line."""
    more = len(skipped) - SHOWN
    return ", ".join(str(one) for one in skipped[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def warn_of(skipped: Sequence[Skipped], n_files: int, root: Path, stacklevel: int) -> None:
    """Warns of the files of a folder that were left out, if there are any."""
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {n_files} files in {root} were skipped: {first_few(skipped)}; repair or remove them, `.skipped` lists all",
            stacklevel=stacklevel + 1,
        )
