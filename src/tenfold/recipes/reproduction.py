"""Reproduction: what is asked of the numbers of a paper, and what each paper gives back: data, tables and sentences."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tenfold.progress import Progress, silent
from tenfold.recipes.shown import markdown_table


@dataclass(frozen=True)
class Request:
    """What is asked of a paper.

    data: the folder that holds the data sets; None: there is none.
    out: a folder for results, pictures and finished runs; None: nothing is written.
    seeds: of all that is random.
    only: names of parts (networks, recipes, experiments), which narrow the work; empty: all of them.
    budgets: fractions of FLOP that are kept, for papers that compress; empty: the paper's own.
    is_quick: as little as shows that everything works, no result.
    """

    data: Path | None = None
    out: Path | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()
    budgets: tuple[float, ...] = ()
    is_quick: bool = False
    progress: Progress = field(default=silent, compare=False)

    def chosen(self, parts: Sequence[str]) -> tuple[str, ...]:
        """Those of the parts of a paper that are asked for, in the paper's order.

        Raises:
            ValueError: a part is asked for that the paper does not have.
        """
        if wrong := [name for name in self.only if name not in parts]:
            raise ValueError(f"the parts {', '.join(wrong)} are asked for; some of {', '.join(parts)} are needed: choose among them")
        return tuple(part for part in parts if not self.only or part in self.only)


@dataclass(frozen=True)
class Table:
    """A table as texts, with the sentences that belong under it.

    words: columns that hold no numbers, besides the first.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns that hold numbers."""
        return tuple(column for column in self.columns[1:] if column not in self.words)

    def markdown(self) -> str:
        """The table as a section of a Markdown file; all columns but the first are aligned to the right."""
        lines = [f"## {self.title}", "", markdown_table(self.columns, self.rows), "", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


class Reproduction(Protocol):
    """The numbers of a paper as found here. A paper returns a class of its own with these."""

    def data(self) -> dict[str, Any]:
        """JSON values: all that was found."""
        ...

    def markdown(self) -> str:
        """All of it as one Markdown file."""
        ...

    def tables(self) -> Sequence[Table]:
        """The tables that a person sees on the screen."""
        ...

    def notes(self) -> Sequence[str]:
        """Sentences that end the screen: what is missing, what to keep in mind."""
        ...


def markdown_file(title: str, tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Title, tables and sentences as one Markdown file."""
    parts = [f"# {title}", *(table.markdown().rstrip() for table in tables), "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def data_folder(given: str | os.PathLike[str] | None) -> Path | None:
    """The folder of data: the given one, that of $TENFOLD_DATA, or none.

    Raises:
        ValueError: it does not exist.
    """
    folder = Path(given) if given is not None else Path(os.environ["TENFOLD_DATA"]) if os.environ.get("TENFOLD_DATA") else None
    if folder is not None and not folder.is_dir():
        raise ValueError(f"the folder of data {folder} does not exist; a folder that holds data sets is needed: check the path")
    return folder
