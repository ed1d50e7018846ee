"""Ids: what numbers the values of categories get: by a vocabulary that was counted, or by hashing into a given size."""

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from tenfold.data.ctr import MULTIPLIER, BadRows, ClickLayout, mixed
from tenfold.data.ctr_file import ClickFiles
from tenfold.files import replacing

VERSION = "tenfold vocabulary 1"
PENDING = 1 << 21  # keys of a column that are collected before they are counted


class IdMap(Protocol):
    """Numbers for the keys of a layout's tables."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many ids each table has."""
        ...

    def check(self, layout: ClickLayout) -> None:
        """Raises ValueError where this is not for the tables of a layout."""
        ...

    def encode(self, keys: np.ndarray) -> np.ndarray:
        """(n, tables) int64 ids, each below the size of its table, from keys (n, tables)."""
        ...


@dataclass(frozen=True)
class HashedIds:
    """Ids by hashing: no pass over the data, any size, and values that share an id by chance.

    sizes: of the tables; the control for a factorised table is a hashed one that stores as many values.

    Raises:
        ValueError: there are not as many sizes as tables, or one is below 1.
    """

    tables: tuple[str, ...]
    sizes: tuple[int, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.tables) or min(self.sizes, default=0) < 1:
            raise ValueError(
                f"{len(self.tables)} tables were given {len(self.sizes)} sizes, the smallest {min(self.sizes, default=0)}; each table "
                "needs a size of at least 1: give as many as there are tables"
            )

    @staticmethod
    def of(layout: ClickLayout, size: int | Sequence[int], seed: int = 0) -> "HashedIds":
        """For all tables of a layout, of one size or of a size each."""
        return HashedIds(layout.tables, (size,) * len(layout.tables) if isinstance(size, int) else tuple(size), seed)

    def check(self, layout: ClickLayout) -> None:
        _check_tables("these hashed ids are", self.tables, layout)

    def encode(self, keys: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            columns = [
                mixed(keys[:, table] + MULTIPLIER * np.uint64((1 + table + len(self.sizes) * self.seed) % (1 << 64))) % np.uint64(size)
                for table, size in enumerate(self.sizes)
            ]
        return np.stack(columns, 1).astype(np.int64)


@dataclass(frozen=True)
class IdVocabulary:
    """The values that were seen often enough, for each table in the order of their counts; id 0 stands for all others.

    keys, counts: of each table; the value of id k + 1 and how often it was seen.
    undercount: by how much a count may be too low, where the memory of counting was bounded.
    """

    layout: str
    tables: tuple[str, ...]
    keys: tuple[np.ndarray, ...]
    counts: tuple[np.ndarray, ...]
    min_count: int
    source: str
    undercount: int = 0
    _sorted: list[tuple[np.ndarray, np.ndarray]] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        for keys in self.keys:
            order = np.argsort(keys)
            self._sorted.append((keys[order], order + 1))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(keys) + 1 for keys in self.keys)

    def check(self, layout: ClickLayout) -> None:
        _check_tables(f"the vocabulary of {self.layout} data ({self.source}) is", self.tables, layout)

    def encode(self, keys: np.ndarray) -> np.ndarray:
        ids = np.zeros(keys.shape, np.int64)
        for table, (known, numbers) in enumerate(self._sorted):
            if len(known):
                places = np.minimum(np.searchsorted(known, keys[:, table]), len(known) - 1)
                ids[:, table] = np.where(known[places] == keys[:, table], numbers[places], 0)
        return ids

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocabulary as an .npz file, the whole of it or nothing.

        Raises:
            OSError: the folder is missing or cannot be written.
        """
        about = {"version": VERSION, "layout": self.layout, "tables": self.tables, "min_count": self.min_count, "source": self.source}
        text = json.dumps({**about, "undercount": self.undercount})
        arrays = {f"{name}_{k}": one for name, found in (("keys", self.keys), ("counts", self.counts)) for k, one in enumerate(found)}
        with replacing(path) as part, part.open("xb") as file:
            np.savez(file, about=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "IdVocabulary":
        """The vocabulary of a file that `save` wrote.

        Raises:
            ValueError: the file is missing, damaged or something else.
        """
        place = Path(path)
        try:
            with np.load(place, allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                if about["version"] != VERSION:
                    raise ValueError(f"version {about['version']!r}")
                keys, counts = (tuple(file[f"{name}_{k}"] for k in range(len(about["tables"]))) for name in ("keys", "counts"))
            return IdVocabulary(
                about["layout"], tuple(about["tables"]), keys, counts, about["min_count"], about["source"], about["undercount"]
            )  # fmt: skip
        except Exception as error:  # zipfile, numpy and zlib each raise their own
            raise ValueError(
                f"{place} is no vocabulary that can be read ({type(error).__name__}: {error}); a whole file of {VERSION!r} is needed: "
                "build it again with build_vocabulary"
            ) from error


def build_vocabulary(files: ClickFiles, *, min_count: int = 1, most_values: int | None = None, n_rows: int | None = None) -> IdVocabulary:
    """The vocabulary of one pass over the files, or over their first rows; a warning counts the bad rows that were left out.

    Args:
        min_count: values seen less often share id 0.
        most_values: values of a table that are counted at one time. Where there are more, the rarest are forgotten, which bounds the
            memory (16 bytes each) and makes counts too low by at most `undercount`.
        n_rows: rows that are counted: leave out those that a test needs.

    Raises:
        ValueError: a number is too small, or more rows are bad than the files allow.
    """
    if min_count < 1 or (most_values is not None and most_values < 2):
        raise ValueError(f"build_vocabulary got min_count={min_count}, most_values={most_values}; at least 1 and 2 are needed: raise them")
    if n_rows is not None and n_rows < 1:
        raise ValueError(f"build_vocabulary got n_rows={n_rows}; at least 1 row is needed: raise it, or leave it out for all rows")
    counters = [_Counter(most_values) for _ in files.layout.tables]
    done, bad = 0, BadRows()
    for _, rows, after in files.blocks():
        keys = rows.keys if n_rows is None else rows.keys[: n_rows - done]
        done, bad = done + len(keys), after.bad
        for table, counter in enumerate(counters):
            counter.add(keys[:, table])
        if n_rows is not None and done >= n_rows:
            break
    if bad.count:
        warnings.warn(f"{bad.count:,} bad rows were left out: {bad}; repair the file if they matter", stacklevel=2)
    found = [counter.result(min_count) for counter in counters]
    return IdVocabulary(
        files.layout.name,
        files.layout.tables,
        tuple(keys for keys, _ in found),
        tuple(counts for _, counts in found),
        min_count,
        files.name,
        max(counter.undercount for counter in counters),
    )


class _Counter:
    """Counts of keys, sorted by key; what is new is collected and merged in."""

    def __init__(self, most: int | None) -> None:
        self.most, self.undercount = most, 0
        self._keys, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._n_pending = 0

    def add(self, keys: np.ndarray) -> None:
        self._pending.append(keys.copy())
        self._n_pending += len(keys)
        if self._n_pending >= max(PENDING, len(self._keys) // 2):
            self._merge()

    def result(self, min_count: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and counts, falling, keys of one count in their order."""
        self._merge()
        is_kept = self._counts >= min_count
        keys, counts = self._keys[is_kept], self._counts[is_kept]
        order = np.lexsort((keys, -counts))
        return keys[order], counts[order]

    def _merge(self) -> None:
        if not self._pending:
            return
        new, counts = np.unique(np.concatenate(self._pending), return_counts=True)
        self._pending, self._n_pending = [], 0
        both = np.concatenate((self._keys, new))
        self._keys, place = np.unique(both, return_inverse=True)
        total = np.zeros(len(self._keys), np.int64)
        np.add.at(total, place, np.concatenate((self._counts, counts)))
        self._counts = total
        if self.most is not None and len(self._keys) > self.most:
            floor = int(np.partition(self._counts, -(self.most // 2))[-(self.most // 2)])  # so that half are left, at most
            is_kept = self._counts > floor
            self._keys, self._counts = self._keys[is_kept], self._counts[is_kept]
            self.undercount += floor


def _check_tables(what: str, tables: Iterable[str], layout: ClickLayout) -> None:
    mine = tuple(tables)
    if mine != layout.tables:
        raise ValueError(
            f"{what} for {len(mine)} tables, {mine[0]} to {mine[-1]}; {layout.name} data have {len(layout.tables)}, {layout.tables[0]} to "
            f"{layout.tables[-1]}: build one from these data"
        )
