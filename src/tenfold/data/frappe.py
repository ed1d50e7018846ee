"""Frappe: which app was used in which context, with two drawn negatives for each use -> FeatureRows of ten fields, targets 0 and 1.

Source: Baltrunas et al. 2015, arXiv 1505.03014 (the log); He and Chua 2017, doi:10.1145/3077136.3080777 (the ten fields and negatives).
"""

import os
from pathlib import Path

import numpy as np
import torch

from tenfold.data.feature_rows import FeatureRows, FieldGroup
from tenfold.data.npz import int64s, read_npz, whole_numbers

FIELDS = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
N_FEATURES = 5382
GROUPS = (FieldGroup("user", 0, 1, 0, 957), FieldGroup("item", 1, 2, 957, 4082), FieldGroup("context", 2, 10, 5039, 343))


def read_frappe(path: str | os.PathLike[str]) -> FeatureRows:
    """The rows of an .npz file with x (n, 10) and y (n), or of a libfm file: lines ``1 451:1 4149:1 ..`` with the target first.

    Targets may be 0 and 1 or -1 and 1.

    Raises:
        ValueError: the file is missing or damaged, or has other fields or targets.
    """
    place = Path(path)
    if place.suffix == ".npz":
        arrays = read_npz(place)
        if missing := [name for name in ("x", "y") if name not in arrays]:
            raise ValueError(f"the file {place} has no array {', '.join(missing)}; x and y are needed: check that it is this data set")
        ids, targets = whole_numbers(place, "feature", arrays["x"]), arrays["y"]
    else:
        ids, targets = _from_lines(place)
    if ids.ndim != 2 or ids.shape[1] != len(FIELDS) or targets.shape != ids.shape[:1]:
        raise ValueError(
            f"the file {place} has rows of shape {ids.shape} and targets of shape {targets.shape}; (n, {len(FIELDS)}) and (n) are needed: "
            "check that it is this data set"
        )
    if not len(ids):
        raise ValueError(f"the file {place} has no rows; at least one is needed: check the path")
    if not set(np.unique(targets)) <= {-1, 0, 1}:
        raise ValueError(f"the file {place} has the targets {np.unique(targets)[:5].tolist()}; 0 or -1 and 1 are needed: check the file")
    _check_groups(place, ids)
    return FeatureRows(torch.from_numpy(ids), torch.from_numpy((targets > 0).astype(np.float32)), N_FEATURES, FIELDS, GROUPS)


def _from_lines(place: Path) -> tuple[np.ndarray, np.ndarray]:
    if not place.is_file():
        raise ValueError(f"the file {place} does not exist; a libfm or .npz file of Frappe is needed: check the path")
    try:
        text = place.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the file {place} holds no text; a libfm or .npz file of Frappe is needed: unpack a compressed file, or check the path"
        ) from error
    ids, targets = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        target, *features = line.split()
        try:
            if "_" in line:  # int and float take 1_0 for 10
                raise ValueError
            targets.append(float(target))
            ids.append([int(one.partition(":")[0]) for one in features])
        except ValueError:
            raise ValueError(
                f"line {number} of {place} is {line[:60]!r}; 'target feature:1 feature:1 ..' is needed: check the file"
            ) from None
        if targets[-1] not in (-1, 0, 1):
            raise ValueError(f"line {number} of {place} has the target {target}; 0 or -1 and 1 are needed: check the file")
        if len(ids[-1]) != len(FIELDS):
            raise ValueError(
                f"line {number} of {place} has {len(ids[-1])} features; {len(FIELDS)} are needed: check that it is this data set"
            )
    return int64s(place, "feature", ids).reshape(-1, len(FIELDS)), np.array(targets)


def _check_groups(place: Path, ids: np.ndarray) -> None:
    """Raises ValueError where a field has a feature of another one."""
    for group in GROUPS:
        part, stop = ids[:, group.first : group.last], group.start + group.size
        wrong = np.argwhere((part < group.start) | (part >= stop))
        if len(wrong):
            row, column = wrong[0]
            raise ValueError(
                f"row {row + 1} of {place} has the feature {part[row, column]} in the field {FIELDS[group.first + column]!r}; its features "
                f"are numbered from {group.start} to {stop - 1}: check that it is this data set"
            )
