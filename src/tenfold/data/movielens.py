"""MovieLens: ratings of films, and the ranking test that leaves one out.

    ratings (u.data, ratings.dat, .npz with user, item, rating)   -> FeatureRows: user, item -> rating from 1 to 5
    candidates (.npz with user, items; NCF's test.negative file)  -> Candidates: for each user one film that was seen, then those not seen

Source: Harper and Konstan 2015, doi:10.1145/2827872 (the ratings); He et al. 2017, arXiv 1708.05031, section 4.1 (the ranking test: the
last film of each user among 99 that the user has not rated).
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tenfold.data.feature_rows import FeatureRows, FieldGroup
from tenfold.data.npz import int64s, read_npz, whole_numbers

CANDIDATES = re.compile(r"\s*\(\d+,\s*\d+\)(\s+\d+)*\s*", re.ASCII)


@dataclass(frozen=True)
class Candidates:
    """A ranking test: users (n), items (n, candidates), both from 0; the first item of each row is the right one."""

    users: Tensor
    items: Tensor


def read_ratings(path: str | os.PathLike[str], *, n_users: int | None = None, n_items: int | None = None) -> FeatureRows:
    """The ratings of a MovieLens file as rows of (user, item); items are numbered after users.

    Files number both from 1. u.data has lines ``user item rating time`` with tabs, ratings.dat with ``::``; an .npz file has the arrays
    user, item and rating.

    Args:
        n_users, n_items: how many there are; the largest numbers where left out.

    Raises:
        ValueError: the file is missing or damaged, or holds numbers that cannot be.
    """
    place = Path(path)
    users, items, ratings = _from_npz(place) if place.suffix == ".npz" else _from_lines(place)
    if not len(users):
        raise ValueError(f"the file {place} has no ratings; at least one is needed: check the path")
    if min(users.min(), items.min()) < 1:
        raise ValueError(
            f"the file {place} has a user or an item numbered {min(users.min(), items.min())}; MovieLens starts from 1: check the file"
        )
    if not (np.isfinite(ratings).all() and 0 < ratings.min() <= ratings.max() <= 5):
        raise ValueError(
            f"the file {place} has ratings from {ratings.min()} to {ratings.max()}; numbers above 0 up to 5 are needed: check it"
        )
    n_users, n_items = n_users or int(users.max()), n_items or int(items.max())
    if users.max() > n_users or items.max() > n_items:
        raise ValueError(
            f"the file {place} has user {users.max()} and item {items.max()}, but {n_users} users and {n_items} items were given; give at "
            "least those numbers, or none"
        )
    ids = torch.from_numpy(np.stack([users - 1, items - 1 + n_users], axis=1))
    groups = (FieldGroup("user", 0, 1, 0, n_users), FieldGroup("item", 1, 2, n_users, n_items))
    return FeatureRows(ids, torch.from_numpy(ratings.astype(np.float32)), n_users + n_items, ("user", "item"), groups)


def read_candidates(path: str | os.PathLike[str]) -> Candidates:
    """A ranking test: an .npz file with the arrays user (n) and items (n, candidates), or lines ``(user,item) item item ..`` with tabs.

    Raises:
        ValueError: the file is missing or damaged, or its rows differ in length.
    """
    place = Path(path)
    if place.suffix == ".npz":
        arrays = read_npz(place)
        _need(place, arrays, ("user", "items"))
        users, items = whole_numbers(place, "user", arrays["user"]), whole_numbers(place, "item", arrays["items"])
    else:
        rows = [_candidates(place, number, line) for number, line in _lines(place)]
        if len({len(row) for row in rows}) != 1:
            raise ValueError(
                f"the file {place} has rows of different lengths, or none; (user,item) and as many others each are needed: check it"
            )
        numbers = int64s(place, "user or item", rows)
        users, items = numbers[:, 0], numbers[:, 1:]
    if users.ndim != 1 or items.ndim != 2 or len(users) != len(items) or items.shape[1] < 2 or not len(users):
        raise ValueError(
            f"the file {place} has users of shape {users.shape} and items of shape {items.shape}; (n) and (n, at least 2) are needed: "
            "check it, and that there is a row"
        )
    if min(users.min(), items.min()) < 0:
        raise ValueError(f"the file {place} has negative numbers; users and items are numbered from 0: check the file")
    return Candidates(torch.from_numpy(users), torch.from_numpy(items))


def _candidates(place: Path, number: int, line: str) -> list[int]:
    """The user, the right item and the others of a line."""
    if not CANDIDATES.fullmatch(line):
        raise ValueError(f"line {number} of {place} is {line[:60]!r}; '(user,item) item item ..' is needed, numbers from 0: check the file")
    return [int(one) for one in re.findall(r"\d+", line)]


def _from_npz(place: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = read_npz(place)
    _need(place, arrays, ("user", "item", "rating"))
    users, items, ratings = (arrays[name] for name in ("user", "item", "rating"))
    if not users.shape == items.shape == ratings.shape or users.ndim != 1:
        raise ValueError(
            f"the file {place} has arrays of the shapes {users.shape}, {items.shape}, {ratings.shape}; vectors of one length are needed: "
            "check the file"
        )
    if ratings.dtype.kind not in "iuf":
        raise ValueError(f"the file {place} has the rating {ratings[0]!s}; numbers above 0 up to 5 are needed: check it")
    return whole_numbers(place, "user", users), whole_numbers(place, "item", items), ratings.astype(np.float64)


def _from_lines(place: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = []
    for number, line in _lines(place):
        parts = line.replace("::", "\t").split()
        try:
            if "_" in line:  # int and float take 1_0 for 10
                raise ValueError
            rows.append((int(parts[0]), int(parts[1]), float(parts[2])))
        except (ValueError, IndexError):
            raise ValueError(
                f"line {number} of {place} is {line[:60]!r}; 'user item rating time' is needed: check that it is u.data or ratings.dat"
            ) from None
    ids = int64s(place, "user or item", [row[:2] for row in rows]).reshape(-1, 2)
    return ids[:, 0], ids[:, 1], np.array([row[2] for row in rows])


def _lines(place: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    if not place.is_file():
        raise ValueError(f"the file {place} does not exist; a file of MovieLens is needed: check the path")
    return [(number, line) for number, line in enumerate(place.read_text("latin-1").splitlines(), 1) if line.strip()]


def _need(place: Path, arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> None:
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(
            f"the file {place} has no array {', '.join(missing)}; {', '.join(names)} are needed: check that it is this data set"
        )
