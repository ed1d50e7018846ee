"""Npz: the arrays of an .npz file, or a message that says what is wrong with it; and whole numbers of files, as int64."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file.

    Raises:
        ValueError: the file is missing or damaged, or holds objects.
    """
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist; an .npz file is needed: check the path")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file}
    except Exception as error:  # zipfile, numpy and zlib each raise their own
        raise ValueError(
            f"the file {path} cannot be read ({type(error).__name__}); an undamaged .npz file without objects is needed: save it again"
        ) from error


def whole_numbers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """The values of an array of whole numbers, in any type of number, as int64.

    Raises:
        ValueError: there are fractions, numbers that 64 bits do not hold, or something else than numbers.
    """
    if values.dtype.kind == "f":
        is_wrong = ~(np.isfinite(values) & (values == np.rint(values)))
    else:
        is_wrong = np.full(values.shape, values.dtype.kind not in "iu")
    if is_wrong.any():
        raise ValueError(f"the file {path} has the {name} {values[is_wrong][0]}; whole numbers are needed: check that it is this data set")
    if (is_large := (values >= 2**63) | (values < -(2**63))).any():
        raise _too_large(path, name, values[is_large][0])
    return values.astype(np.int64)


def int64s(path: Path, name: str, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of whole numbers, all of one length, as int64.

    Raises:
        ValueError: 64 bits do not hold one of them.
    """
    try:
        return np.array(rows, dtype=np.int64)
    except OverflowError:
        raise _too_large(path, name, max((one for row in rows for one in row), key=abs)) from None


def _too_large(path: Path, name: str, value: float) -> ValueError:
    return ValueError(f"the file {path} has the {name} {value}; whole numbers of 64 bits are needed: number them anew, in order")


def ascends(offsets: np.ndarray, size: int) -> bool:
    """Whether offsets cut an array of this size into at least one part, none of them empty."""
    return (
        offsets.ndim == 1
        and np.issubdtype(offsets.dtype, np.integer)
        and len(offsets) > 1
        and offsets[0] >= 0
        and bool((offsets[1:] > offsets[:-1]).all())
        and int(offsets[-1]) <= size
    )
