"""Avazu's click data: an id, a label, an hour and 21 categories in each row.

The hour (YYMMDDHH) becomes two numbers, cosine and sine of the time of day, and a category, the day of the week; the id is left out.

Source: the format of Avazu's click-through rate prediction challenge (Kaggle 2014).
"""

import os
from collections.abc import Sequence

import numpy as np

from tenfold.data.ctr import ClickLayout, Rows
from tenfold.data.ctr_file import BLOCK_BYTES, MOST_BAD, ClickFiles

_CATEGORIES = (
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category", "device_id", "device_ip",
    "device_model", "device_type", "device_conn_type", "C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21",
)  # fmt: skip


def hours(rows: Rows) -> Rows:
    """The rows with the hour as cosine, sine and a category of the day of the week; all 0 where it is missing or no date."""
    hour = rows.numbers[:, 0]
    with np.errstate(invalid="ignore"):
        whole = np.where(np.isnan(hour), 0, hour).astype(np.int64)
    year, month, day, time = whole // 1_000_000, whole // 10_000 % 100, whole // 100 % 100, whole % 100
    is_date = (whole > 0) & (year < 100) & (month >= 1) & (month <= 12) & (time < 24)
    months = (np.where(is_date, year, 0) + 30) * 12 + np.where(is_date, month, 1) - 1  # since 1970, of the years 2000 to 2099
    first, after = ((months + n).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) for n in (0, 1))
    is_date &= (day >= 1) & (day <= after - first)
    days = first + np.where(is_date, day, 1) - 1
    angle = 2 * np.pi * time / 24
    inputs = np.where(is_date[:, None], np.stack((np.cos(angle), np.sin(angle)), 1), 0.0).astype(np.float32)
    weekday = np.where(is_date, (days + 3) % 7 + 1, 0).astype(np.uint64)  # 1970-01-01 was a Thursday; 1 is Monday
    keys = np.column_stack((rows.keys, weekday))
    return Rows(rows.labels, inputs, keys, int((~is_date & (whole <= 0)).sum()), int((~is_date & (whole > 0)).sum()))


AVAZU = ClickLayout(
    name="avazu",
    columns=("id", "click", "hour", *_CATEGORIES),
    label="click",
    numbers=("hour",),
    categories=_CATEGORIES,
    inputs=("cos hour", "sin hour"),
    tables=(*_CATEGORIES, "weekday"),
    finish=hours,
)


def read_avazu(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, most_bad: float = MOST_BAD, block_bytes: int = BLOCK_BYTES
) -> ClickFiles:
    """The rows of a file in Avazu's format, or of several; plain or gzipped, with its header or without."""
    return ClickFiles(paths, AVAZU, most_bad=most_bad, block_bytes=block_bytes)
