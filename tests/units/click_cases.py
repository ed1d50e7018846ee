"""Rows in Criteo's format for tests, in files of any form."""

import gzip
from pathlib import Path

import numpy as np

from tenfold.data.criteo import read_criteo


def row(number: int, label: str = "1") -> list[str]:
    """A row in Criteo's format with missing and negative numbers and missing categories."""
    numbers = ["" if k == 3 else str(-2 if k == 5 else number * k) for k in range(13)]
    return [label, *numbers, *("" if k == 25 else f"{(number * 31 + k) % 7:08x}" for k in range(26))]


def write(path: Path, rows: list[list[str]], separator: str = "\t", end: str = "\n", head: str = "") -> Path:
    text = head + end.join(separator.join(one) for one in rows) + end
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def everything(path: Path, block_bytes: int = 1 << 20, **options: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = [rows for _, rows, _ in read_criteo(path, block_bytes=block_bytes, **options).blocks()]
    return tuple(np.concatenate([getattr(one, name) for one in found]) for name in ("labels", "numbers", "keys"))
