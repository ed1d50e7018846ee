"""What a person sees: tables on stdout, progress and messages on stderr, JSON instead of tables where asked."""

import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tenfold.json_text import json_text

QUIET_SECONDS = 20.0  # without a terminal, progress is a line when a step ends, and one in so many seconds before


SAME_WARNINGS = 2


@dataclass(frozen=True)
class Outcome:
    """What a command returns: its result as JSON values, and the same for a person."""

    data: dict[str, Any]
    shown: Sequence[RenderableType] = field(default_factory=tuple)

    def print(self, stdout: TextIO, *, as_json: bool) -> None:
        """Writes one of the two to stdout."""
        if as_json:
            stdout.write(json_text(self.data))
            return
        console = Console(file=stdout, highlight=False)
        if not console.is_terminal:
            console = Console(file=stdout, highlight=False, width=max(console.width, 160))
        for part in self.shown:
            if isinstance(part, str):
                console.print(part, soft_wrap=not console.is_terminal, markup=False)
            else:
                console.print(part)


def table(columns: Iterable[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, numbers: Iterable[str] = ()) -> Table:
    """A table; the columns named in `numbers` are aligned to the right."""
    right = set(numbers)
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for position, column in enumerate(columns):
        if column in right:
            made.add_column(column, justify="right", no_wrap=True)
        else:
            made.add_column(column, overflow="fold", no_wrap=position == 0, min_width=len(column))
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


class Steps:
    """Progress of a command on stderr: one bar for each step. Call it as the library's `progress`; use it as a context.

    Without a terminal (a log file, a pipe) it writes plain lines.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._running: dict[str, TaskID] = {}
        self._since: dict[str, float] = {}
        self._said = time.monotonic()
        self._prefix = ""

    def __enter__(self) -> "Steps":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def named(self, prefix: str) -> "Steps":
        """Itself, with the steps that follow shown as "prefix: step"."""
        self._prefix = prefix
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        name = f"{self._prefix}: {what}" if self._prefix else what
        if name not in self._running:
            self._running[name] = self._bars.add_task(name, total=total)
            self._since[name] = time.monotonic()
        self._bars.update(self._running[name], completed=done, total=total)
        is_last = done >= total
        if not self.console.is_terminal:
            self._say(name, done, total, is_last)
        if is_last:
            del self._running[name]

    def _say(self, name: str, done: int, total: int, is_last: bool) -> None:
        now = time.monotonic()
        if is_last or now - self._said >= QUIET_SECONDS:
            self._said = now
            self.console.print(f"{name}: {done}/{total} ({now - self._since[name]:.1f} s)", soft_wrap=True, markup=False)


def show_error(text: str) -> None:
    """A message on stderr, in one line where stderr is no terminal."""
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=not console.is_terminal)


def warnings_as_lines() -> None:
    """From here on a warning is one line on stderr, without the place in the code; of many that give the same advice some are shown."""
    seen: dict[str, int] = {}

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        if not issubclass(category, UserWarning):
            return
        advice = str(message).partition("; ")[2] or str(message)
        seen[advice] = seen.get(advice, 0) + 1
        if seen[advice] <= SAME_WARNINGS:
            more = " (others like it are not shown)" if seen[advice] == SAME_WARNINGS else ""
            sys.stderr.write(f"warning: {message}{more}\n")

    warnings.showwarning = show  # type: ignore[assignment]


def count(value: float | None) -> str:
    """A number as a person reads it: 9,408 or 81.3 M."""
    if value is None:
        return "-"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e5, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.1f} {unit}"
    return f"{value:,.0f}"


def change(before: float | None, after: float | None) -> str:
    """Two numbers, or one where nothing changes."""
    return count(before) if before == after else f"{count(before)} -> {count(after)}"


def share(after: float | None, before: float | None) -> str:
    """How much is kept: 0.25x."""
    return "-" if not before or after is None else f"{after / before:.2f}x"
