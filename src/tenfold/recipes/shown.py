"""Shown: what a recipe gives back, whatever it trains: a table for people, data for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tenfold.files import write_text
from tenfold.json_text import json_text


class Shown(Protocol):
    """The result of a recipe. `tenfold train` and `tenfold reproduce` know no more of it than this."""

    @property
    def recipe(self) -> str:
        """The name of the recipe."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The heads of the columns; the first one names a row, the others hold numbers."""
        ...

    def cells(self) -> Sequence[Sequence[str]]:
        """The rows of the table: a text for each column."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What has to be said with the table."""
        ...

    def data(self) -> dict[str, Any]:
        """JSON values."""
        ...

    def markdown(self) -> str:
        """The result as a section of a Markdown file."""
        ...


@dataclass(frozen=True)
class Table:
    """A result that is texts and JSON values already: for recipes that need no type of their own.

    values: what `data` gives besides the recipe's name.
    """

    recipe: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]
    values: Mapping[str, Any]

    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The rows."""
        return self.rows

    def notes(self) -> tuple[str, ...]:
        """The remarks."""
        return self.remarks

    def data(self) -> dict[str, Any]:
        """JSON values."""
        return {"recipe": self.recipe, **self.values}

    def markdown(self) -> str:
        """The result as a section of a Markdown file."""
        return section(self)

    def __str__(self) -> str:
        return self.markdown()


def section(result: Shown) -> str:
    """A result as a section of a Markdown file: its name, its table, its notes."""
    return "\n".join((f"## {result.recipe}", "", markdown_table(result.columns, result.cells()), "", *result.notes(), ""))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are aligned to the right."""
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_result(result: Shown, folder: Path | None) -> None:
    """Writes a result as JSON and as Markdown, under the recipe's name, into a folder; nothing without one."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{result.recipe}.json", json_text(result.data()))
        write_text(folder / f"{result.recipe}.md", result.markdown())
