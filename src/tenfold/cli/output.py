"""Where results go: checked before the long work begins, so that it is not lost at the end."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

RESERVE = 1 << 20  # bytes beside the model: plan, report, file headers


@contextlib.contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Makes a folder for the block to write to; folders that were made and are empty at the end are gone again.

    Raises:
        ValueError: the folder cannot be made or written.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(4096))
                probe.flush()
        except OSError as error:
            raise _unusable(folder, error) from error
        yield
    finally:
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()


@contextlib.contextmanager
def writable_file(file: Path) -> Iterator[None]:
    """The same for the folder of a file.

    Raises:
        ValueError: the file is a folder or read-only, or its folder cannot be written.
    """
    if file.is_dir() or (file.exists() and not os.access(file, os.W_OK)):
        what = "a folder" if file.is_dir() else "read-only"
        raise ValueError(f"--out {file} is {what}; a file that can be written is needed: choose another name")
    with writable_folder(file.parent):
        yield


def check_ending(file: Path, ending: str = ".safetensors") -> None:
    """Raises ValueError where a file would have another ending: readers, also this program, tell files apart by it."""
    if file.suffix != ending:
        raise ValueError(
            f"--out {file} is to be a {ending[1:]} file; a name that ends in {ending} is needed, by which it can be read again: "
            f"give --out {file.with_suffix(ending)}"
        )


def check_space(folder: Path, size_bytes: int) -> None:
    """Raises ValueError where the disk of a folder has no space for so many bytes and a report."""
    free, needed = shutil.disk_usage(folder).free, size_bytes + RESERVE
    if free < needed:
        raise _unusable(folder, OSError(errno.ENOSPC, f"{free:,} bytes are free and about {needed:,} are needed"))


def _unusable(folder: Path, error: OSError) -> ValueError:
    return ValueError(
        f"nothing can be written to --out {folder} ({error.strerror or error}); a folder that is writable and has space is needed: "
        "choose another, or mend its rights"
    )
