"""Clicks: batches ((numbers, ids), labels) of click-through data, streamed; a pass that was killed goes on at the same row."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tenfold.data.ctr import Rows, joined
from tenfold.data.ctr_file import ClickFiles, Position, state_of
from tenfold.data.ids import IdMap

Clicked = tuple[tuple[Tensor, Tensor], Tensor]


class Clicks:
    """An iterable of batches, as `tenfold.batches` and `tenfold.evaluate` take it; every `iter` is a new pass, in the order of the file.

    Numbers are (n, inputs) float32, ids (n, tables) int64, labels (n) float32. Memory: a block of the file and its arrays, about 50 MB.

    Args:
        ids: a vocabulary or hashed ids.
        rows: the first row and the one after the last (None: to the end), of good rows: parts of a file for training and testing.

    Raises:
        ValueError: `ids` are for other tables, or the rows or the batch size are out of range.
    """

    def __init__(self, files: ClickFiles, ids: IdMap, batch_size: int, *, rows: tuple[int, int | None] = (0, None)) -> None:
        ids.check(files.layout)
        start, stop = rows
        if batch_size < 1 or start < 0 or (stop is not None and stop <= start):
            raise ValueError(
                f"Clicks got batch_size={batch_size} and rows={rows}; a batch and the rows need at least one row: correct them"
            )
        self.files, self.ids, self.batch_size, self.rows = files, ids, batch_size, (start, stop)
        self._at, self._skip, self._given = Position(), start, 0
        self._seen = self._at
        self._is_resumed = False

    def __iter__(self) -> Iterator[Clicked]:
        if not self._is_resumed:
            self._at, self._skip, self._given = Position(), self.rows[0], 0
        self._is_resumed = False
        self._seen = self._at
        rest: list[Rows] = []  # fewer rows than the next batch needs
        for before, block, after in self.files.blocks(self._at):
            self._seen = after
            new, skip, n_rest = block.part(self._skip), min(self._skip, len(block)), sum(map(len, rest))
            rows, used = joined([*rest, new]), 0
            self._skip -= skip
            while (size := min(self.batch_size, self._left())) and len(rows) - used >= size:
                used += size
                self._at, self._skip, self._given = before, skip + used - n_rest, self._given + size
                yield self._batch(rows.part(used - size, used))
            if used:
                self._skip = 0
            rest = [rows.part(used)]
            if not self._left():
                break
        if self._left() and rest and len(rest[0]):
            self._at, self._skip, self._given = self._seen, 0, self._given + len(rest[0])
            yield self._batch(rest[0])
        self._finish()

    def _left(self) -> int:
        """Rows of the part that are still to be given; a large number where the part has no end."""
        start, stop = self.rows
        return (1 << 62) - self._given if stop is None else stop - start - self._given

    def _batch(self, rows: Rows) -> Clicked:
        ids = torch.from_numpy(self.ids.encode(rows.keys))
        return (torch.from_numpy(rows.numbers), ids), torch.from_numpy(rows.labels)

    def _finish(self) -> None:
        """Says what a pass has left out."""
        if self._given == 0:
            raise ValueError(
                f"no row was found from row {self.rows[0]:,} on in {self.files.name}; at least one is needed: give another part of the rows"
            )
        if self._seen.bad.count:
            warnings.warn(
                f"{self._seen.bad.count:,} bad rows were left out: {self._seen.bad}; repair the file if they matter", stacklevel=3
            )

    @property
    def position(self) -> Position:
        """The end of the block that was read last, with the rows, the bad ones, the missing and the negative numbers up to there."""
        return self._seen

    def state_dict(self) -> dict[str, Any]:
        """Where the pass is, as plain values: after the batch that was given last."""
        return {"files": self.files.name, "at": state_of(self._at), "skip": self._skip, "given": self._given, "rows": list(self.rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next `iter` go on behind the batch after which the state was taken.

        Raises:
            ValueError: the state is of other files, or of another part of them, or no state of this class.
        """
        try:
            files, rows = state["files"], tuple(state["rows"])
            at, skip, given = Position.of(state["at"]), state["skip"], state["given"]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"the state is none of Clicks ({type(error).__name__}: {error}); what state_dict() gave is needed: give that, unchanged"
            ) from error
        if (files, rows) != (self.files.name, self.rows):
            raise ValueError(
                f"the state is of rows {rows} of {files}, but these are rows {self.rows} of {self.files.name}; a "
                "pass goes on in the files that it began in: give them, unchanged"
            )
        self._at, self._skip, self._given = at, skip, given
        self._is_resumed = True
