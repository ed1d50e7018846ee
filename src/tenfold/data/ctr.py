"""Click-through data: layouts of the text files of the field, and blocks of their bytes -> arrays, without a Python loop over rows.

A value of a category is known by its key, a whole number of 64 bits: the bytes themselves where there are at most eight, which all hashed
values of Criteo and Avazu are, so that no two of them share one; a hash of longer ones. A missing value has the key 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

HEADS = {"label", "click", "clicked", "target"}  # what a header calls the column of the labels
LONGEST_NUMBER = 15  # digits and sign of a number that is read without a loop over fields
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Rows:
    """Rows of a file.

    labels: (n) float32, 0 or 1.
    numbers: (n, numbers); from `parse` float64 as written, nan where missing; after a layout's `finish` float32 inputs of a network.
    keys: (n, tables) uint64, the categories.
    n_missing, n_negative: numbers that were missing or negative.
    """

    labels: np.ndarray
    numbers: np.ndarray
    keys: np.ndarray
    n_missing: int = 0
    n_negative: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int | None = None) -> "Rows":
        """Some of the rows; the counts stay those of all."""
        return Rows(self.labels[start:stop], self.numbers[start:stop], self.keys[start:stop], self.n_missing, self.n_negative)


@dataclass(frozen=True)
class ClickLayout:
    """What stands in which column, and what becomes of it.

    columns: of the file, by name.
    label: the column of the labels.
    numbers, categories: the columns that are read as numbers, and as categories.
    inputs, tables: what `finish` makes of them: names of the numbers and of the categories that a model gets.
    """

    name: str
    columns: tuple[str, ...]
    label: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    inputs: tuple[str, ...]
    tables: tuple[str, ...]
    finish: Callable[[Rows], Rows] = field(compare=False)

    def is_header(self, line: bytes, separator: bytes) -> bool:
        """Whether a line holds names: a header has a word where the label stands."""
        place = self.columns.index(self.label)
        fields = line.strip().split(separator)
        return place < len(fields) and fields[place].strip(b'"').decode("latin-1").lower() in HEADS


@dataclass(frozen=True)
class BadRows:
    """Rows that were left out: how many, and line and reason of the first few."""

    count: int = 0
    first: tuple[tuple[str, int, str], ...] = ()

    def with_more(self, file: str, found: Sequence[tuple[int, str]], count: int) -> "BadRows":
        """These and others of the same pass."""
        return BadRows(self.count + count, (*self.first, *((file, line, reason) for line, reason in found))[:3])

    def __str__(self) -> str:
        shown = "; ".join(f"{file}, line {line}: {reason}" for file, line, reason in self.first)
        return shown + (f"; and {self.count - len(self.first):,} more" if self.count > len(self.first) else "")


@dataclass(frozen=True)
class Parsed:
    """A block: its good rows, its bad ones as (line, reason), at most three of them with their number, and its lines."""

    rows: Rows
    bad: tuple[tuple[int, str], ...]
    n_bad: int
    n_lines: int


def parse(layout: ClickLayout, block: bytes, separator: bytes, first_line: int = 1) -> Parsed:
    """The rows of a block of whole lines; lines without any text are no rows.

    Args:
        first_line: the number of its first line in the file, for messages.
    """
    text = np.frombuffer(block, np.uint8)
    line_ends = np.flatnonzero(text == 10)
    if len(text) and (not len(line_ends) or line_ends[-1] != len(text) - 1):
        line_ends = np.append(line_ends, len(text))
    starts = np.concatenate((np.zeros(1, np.int64), line_ends[:-1] + 1)) if len(line_ends) else np.zeros(0, np.int64)
    ends = line_ends - ((line_ends > starts) & (text[np.maximum(line_ends - 1, 0)] == 13) if len(text) else 0)
    lines = np.arange(first_line, first_line + len(starts))
    is_row = ends > starts
    starts, ends, lines = starts[is_row], ends[is_row], lines[is_row]
    marks = np.flatnonzero(text == separator[0])
    first = np.searchsorted(marks, starts)
    n_columns = np.searchsorted(marks, ends) - first + 1
    fits = n_columns == len(layout.columns)
    wrong = [(int(line), f"{n} columns, not {len(layout.columns)}") for line, n in zip(lines[~fits][:3], n_columns[~fits][:3], strict=True)]
    inner = (
        marks[first[fits, None] + np.arange(len(layout.columns) - 1)] if fits.any() else np.zeros((0, len(layout.columns) - 1), np.int64)
    )
    fields = _Fields(text, np.column_stack((starts[fits], inner + 1)), np.column_stack((inner, ends[fits])))
    rows, bad = _columns(layout, fields, lines[fits])
    n_bad = int((~fits).sum()) + int(fits.sum()) - len(rows)
    return Parsed(rows, tuple(sorted([*wrong, *bad])[:3]), n_bad, len(line_ends))


def _columns(layout: ClickLayout, fields: "_Fields", lines: np.ndarray) -> tuple[Rows, list[tuple[int, str]]]:
    """The rows whose fields can be read, and the first few others with their reasons."""
    place = layout.columns.index
    labels, is_good = fields.labels(place(layout.label))
    bad = [(int(lines[k]), f"the label {fields.text(k, place(layout.label))!r}, not 0 or 1") for k in np.flatnonzero(~is_good)[:3]]
    numbers = np.empty((len(lines), len(layout.numbers)))
    for column, name in enumerate(layout.numbers):
        numbers[:, column], is_number = fields.numbers(place(name))
        for k in np.flatnonzero(is_good & ~is_number)[:3]:
            bad.append((int(lines[k]), f"{fields.text(k, place(name))!r} in column {name!r}, which holds whole numbers"))
        is_good &= is_number
    keys = np.empty((len(lines), len(layout.categories)), np.uint64)
    for column, name in enumerate(layout.categories):
        keys[:, column] = fields.keys(place(name))
    return Rows(labels[is_good], numbers[is_good], keys[is_good]), bad


class _Fields:
    """The fields of rows: where each starts and ends in the text, (rows, columns)."""

    def __init__(self, text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self._text = np.append(text, np.uint8(0))  # a place to read from where a field has ended
        self._starts, self._ends = starts, ends

    def text(self, row: int, column: int) -> str:
        """A field as text, shortened."""
        raw = self._text[self._starts[row, column] : self._ends[row, column]].tobytes().decode("utf-8", "replace")
        return raw if len(raw) <= 20 else f"{raw[:20]}.."

    def labels(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """(labels, which of them are 0 or 1)."""
        start, end = self._starts[:, column], self._ends[:, column]
        values = self._text[start]
        return (values == 49).astype(np.float32), (end - start == 1) & ((values == 48) | (values == 49))

    def numbers(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """(values with nan where a field is empty, which fields are numbers or empty)."""
        start, end = self._starts[:, column], self._ends[:, column]
        length = end - start
        is_negative = (self._text[start] == 45) & (length > 1)
        values, is_whole = np.zeros(len(start)), length <= LONGEST_NUMBER
        for offset in range(min(LONGEST_NUMBER, int(length.max(initial=0)))):
            digits, inside = self._text[np.minimum(start + offset, end)].astype(np.int64) - 48, offset < length
            is_sign = is_negative if offset == 0 else np.zeros(1, bool)
            is_digit = (digits >= 0) & (digits <= 9)
            is_whole &= ~inside | is_digit | is_sign
            values = np.where(inside & is_digit, 10 * values + digits, values)
        values = np.where(length == 0, np.nan, np.where(is_negative, -values, values))
        is_good = is_whole.copy()
        for k in np.flatnonzero(~is_whole):  # rare: 3.0, 1e6, or no number
            values[k], is_good[k] = _number(self._text[start[k] : end[k]].tobytes())
        return values, is_good

    def keys(self, column: int) -> np.ndarray:
        """The key of every field."""
        start, end = self._starts[:, column], self._ends[:, column]
        keys = self._eight(start, end)
        rest, offset = np.flatnonzero(end - start > 8), 8
        while len(rest):  # only fields that go on are looked at again: a long one would else cost its length in every row
            keys[rest] = mixed(mixed(keys[rest]) ^ self._eight(start[rest] + offset, end[rest]))
            offset += 8
            rest = rest[end[rest] - start[rest] > offset]
        return keys

    def _eight(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Up to eight bytes from `start` on as one number."""
        places = start[:, None] + np.arange(8)
        inside = places < end[:, None]
        found = np.where(inside, self._text[np.where(inside, places, 0)], np.uint8(0))
        return found.view("<u8")[:, 0].astype(np.uint64)


def _number(raw: bytes) -> tuple[float, bool]:
    try:
        value = float(raw.replace(b"_", b"?"))  # Python reads 1_000 as a number
    except ValueError:
        return 0.0, False
    return (value, True) if np.isfinite(value) else (0.0, False)


def mixed(keys: np.ndarray) -> np.ndarray:
    """Keys whose bits all depend on all bits of the given ones, as different as those are.

    Source: the finaliser of splitmix64 (Steele et al. 2014, doi:10.1145/2660193.2660195).
    """
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def key_of(value: str) -> int:
    """The key of one value, as `parse` gives it.

    >>> key_of(""), hex(key_of("ab"))
    (0, '0x6261')
    """
    raw = value.encode()
    fields = _Fields(np.frombuffer(raw, np.uint8), np.zeros((1, 1), np.int64), np.full((1, 1), len(raw)))
    return int(fields.keys(0)[0])


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after another."""
    if len(parts) == 1:
        return parts[0]
    labels, numbers, keys = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "numbers", "keys"))
    return Rows(labels, numbers, keys, sum(part.n_missing for part in parts), sum(part.n_negative for part in parts))
