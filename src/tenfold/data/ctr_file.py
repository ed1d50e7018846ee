"""ClickFiles: text files of click-through data, read once from front to back in blocks, from any position on."""

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from tenfold.data.ctr import BadRows, ClickLayout, Parsed, Rows, parse

BLOCK_BYTES = 4 << 20  # of text; with its arrays a block takes about ten times as much
LONGEST_LINE = 1 << 20
MOST_BAD = 1e-3
N_PROBED = 16  # lines at the start of a file that tell how it is separated, and whether it has a header
EARLY = 10_000  # rows that the first bad ones of a pass are measured against
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # what some programs begin a file of UTF-8 text with


@dataclass(frozen=True)
class Position:
    """Where a pass is: in front of a block of a file, with what it has counted so far.

    offset: of the text, uncompressed.
    """

    file: int = 0
    offset: int = 0
    line: int = 1
    rows: int = 0
    missing: int = 0
    negative: int = 0
    bad: BadRows = field(default_factory=BadRows)

    @staticmethod
    def of(state: dict[str, Any]) -> "Position":
        """The position of which `dataclasses.asdict` made a state."""
        bad = BadRows(state["bad"]["count"], tuple((file, line, reason) for file, line, reason in state["bad"]["first"]))
        return Position(**{**state, "bad": bad})


class ClickFiles:
    """Files of one layout, plain or gzipped, separated by tabs or commas, with or without a header: told from each file itself.

    Args:
        paths: of a file, or of several that follow each other.
        most_bad: the largest part of the rows that may be bad. Those are left out, counted, and named in a warning after a pass.

    Raises:
        ValueError: a file is missing, or `most_bad` is out of range.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        layout: ClickLayout,
        *,
        most_bad: float = MOST_BAD,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.paths = [Path(one) for one in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
        self.layout, self.most_bad, self.block_bytes = layout, most_bad, block_bytes
        if not 0 <= most_bad < 1:
            raise ValueError(f"most_bad={most_bad}; it is the part of the rows that may be bad, from 0 and below 1: give one like 0.001")
        if missing := [str(one) for one in self.paths if not one.is_file()]:
            what = f"{missing[0]} is a folder" if Path(missing[0]).is_dir() else f"the file {missing[0]} does not exist"
            raise ValueError(f"{what}; a file of {layout.name} rows, plain or .gz, is needed: check the path, or list a folder's files")
        if not self.paths:
            raise ValueError(f"no file was given; at least one file of {layout.name} rows is needed: give its path")

    @property
    def name(self) -> str:
        """The names and sizes of the files: a state is for these."""
        return ", ".join(f"{one.name} ({one.stat().st_size:,} bytes)" for one in self.paths)

    def blocks(self, start: Position | None = None) -> Iterator[tuple[Position, Rows, Position]]:
        """(where a block starts, its good rows as the layout finishes them, where it ends), from a position on.

        A gzipped file is decompressed again up to the position, which takes a small part of the time that reading rows takes.

        Raises:
            ValueError: a file is empty or damaged, or too many rows are bad.
        """
        at = start or Position()
        for number in range(at.file, len(self.paths)):
            if number > at.file:
                at = Position(number, 0, 1, at.rows, at.missing, at.negative, at.bad)
            for before, rows, after in self._file(at):
                yield before, rows, after
                at = after
        self._check(at)
        if at.rows + at.bad.count == 0:
            raise ValueError(
                f"{self.name} holds no rows; rows of {len(self.layout.columns)} columns, as {self.layout.name} has them, are needed: "
                "check that the file is whole"
            )

    def _file(self, at: Position) -> Iterator[tuple[Position, Rows, Position]]:
        path = self.paths[at.file]
        with _opened(path) as file:
            try:
                head = [file.readline(LONGEST_LINE) for _ in range(N_PROBED)]
                n_mark = len(BYTE_ORDER_MARK) if head[0].startswith(BYTE_ORDER_MARK) else 0
                head[0] = head[0][n_mark:]
                separator = _separator(head, len(self.layout.columns))
                n_empty = len(list(itertools.takewhile(lambda line: line and not line.strip(), head)))
                if at.offset == 0:
                    n_head = n_empty + 1 if n_empty < N_PROBED and self.layout.is_header(head[n_empty], separator) else 0
                    at = replace(at, offset=n_mark + sum(map(len, head[:n_head])), line=1 + n_head)
                file.seek(at.offset)
                for block in self._texts(file, at):
                    after, rows = self._counted(at, parse(self.layout, block, separator, at.line), len(block))
                    self._check(after, EARLY)
                    yield at, rows, after
                    at = after
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(
                    f"the file {path} breaks off or is damaged after line {at.line:,} ({type(error).__name__}: {error}); a whole gzip file "
                    "is needed: copy or download it again"
                ) from error

    def _texts(self, file: BinaryIO, at: Position) -> Iterator[bytes]:
        """Blocks of whole lines; the same ones whatever block a pass begins with."""
        rest = b""
        while more := file.read(self.block_bytes - len(rest) if len(rest) < self.block_bytes else self.block_bytes):
            text = rest + more
            end = text.rfind(b"\n") + 1
            if not end and len(text) > LONGEST_LINE:
                raise ValueError(
                    f"{self.paths[at.file]} has a line of more than {LONGEST_LINE:,} bytes; lines of {len(self.layout.columns)} columns "
                    "are needed: it is no text file of rows, so check what it is"
                )
            if end:
                yield text[:end]
            rest = text[end:]
        if rest:
            yield rest

    def _counted(self, at: Position, found: Parsed, n_bytes: int) -> tuple[Position, Rows]:
        rows = self.layout.finish(found.rows)
        after = Position(
            at.file,
            at.offset + n_bytes,
            at.line + found.n_lines,
            at.rows + len(rows),
            at.missing + rows.n_missing,
            at.negative + rows.n_negative,
            at.bad.with_more(self.paths[at.file].name, found.bad, found.n_bad),
        )
        return after, rows

    def _check(self, at: Position, least: int = 0) -> None:
        """Raises ValueError where more rows are bad than may be, of at least so many rows."""
        total = at.rows + at.bad.count
        if at.bad.count > self.most_bad * max(total, least):
            raise ValueError(
                f"{at.bad.count:,} of {total:,} rows are bad ({at.bad}); at most {self.most_bad:.2%} may be, of {len(self.layout.columns)} "
                f"columns each, as {self.layout.name} has them: repair the file, or raise most_bad to leave such rows out"
            )


def _separator(lines: Sequence[bytes], n_columns: int) -> bytes:
    """Tab or comma: what gives more of the lines so many columns, and where that does not tell, what is in more of them."""
    return max(b"\t", b",", key=lambda one: (sum(line.count(one) == n_columns - 1 for line in lines), sum(one in line for line in lines)))


def _opened(path: Path) -> BinaryIO:
    """The file, unpacked where it starts as a gzip file does."""
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if is_packed else path.open("rb")


def state_of(position: Position) -> dict[str, Any]:
    """Plain values from which `Position.of` makes the position again."""
    return asdict(position)
