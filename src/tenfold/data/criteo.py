"""Criteo's click data, Kaggle and Terabyte format: a label, 13 whole numbers and 26 hashed categories in each row.

Numbers become log(1 + x), the usual input of DLRM: a missing one 0, a negative one (a few columns count from -3 on) 0 too; both are
counted in the `Position` of a pass.

Source: the format of Criteo's display advertising challenge (Kaggle 2014) and of its Terabyte click logs; log(1 + x) as in Naumov et al.
2019, arXiv 1906.00091.
"""

import os
from collections.abc import Sequence

import numpy as np

from tenfold.data.ctr import ClickLayout, Rows
from tenfold.data.ctr_file import BLOCK_BYTES, MOST_BAD, ClickFiles

N_NUMBERS, N_TABLES = 13, 26
KAGGLE_ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18,
    15, 286181, 105, 142572,
)  # fmt: skip
"""Distinct values of each category in the Kaggle data, as DLRM counts them: 33,762,577."""


def log_numbers(rows: Rows) -> Rows:
    """The rows with numbers as log(1 + x), 0 where x is missing or negative."""
    is_missing, is_negative = np.isnan(rows.numbers), rows.numbers < 0
    with np.errstate(invalid="ignore"):
        inputs = np.log1p(np.where(is_missing | is_negative, 0.0, rows.numbers)).astype(np.float32)
    return Rows(rows.labels, inputs, rows.keys, int(is_missing.sum()), int(is_negative.sum()))


_NUMBERS = tuple(f"I{k}" for k in range(1, N_NUMBERS + 1))
_CATEGORIES = tuple(f"C{k}" for k in range(1, N_TABLES + 1))
CRITEO = ClickLayout(
    name="criteo",
    columns=("label", *_NUMBERS, *_CATEGORIES),
    label="label",
    numbers=_NUMBERS,
    categories=_CATEGORIES,
    inputs=_NUMBERS,
    tables=_CATEGORIES,
    finish=log_numbers,
)


def read_criteo(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, most_bad: float = MOST_BAD, block_bytes: int = BLOCK_BYTES
) -> ClickFiles:
    """The rows of a file in Criteo's format, or of several (day_0, day_1, ..); tabs or commas, plain or gzipped, header or none."""
    return ClickFiles(paths, CRITEO, most_bad=most_bad, block_bytes=block_bytes)
