"""Lines and tables of text, which are the same on a terminal and in a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from broadway_py.cli.top.formats import cut

__all__ = ["BAD", "DIM", "GOOD", "HEAD", "WARN", "Cell", "Column", "fitted", "row", "table"]

#: The styles. Each also has a word beside it, so nothing is lost without colours.
GOOD: Final = "green"
WARN: Final = "yellow"
BAD: Final = "bold red"
DIM: Final = "dim"
HEAD: Final = "bold"

#: A text with its style.
Cell = tuple[str, str]


class Column(NamedTuple):
    """A column of a table. *width* is the number of cells that it takes."""

    title: str
    width: int
    is_number: bool = True


def row(columns: Sequence[Column], cells: Sequence[Cell]) -> Text:
    """Returns one row. Numbers are at the right of their column, and what does not fit is cut."""
    line = Text(no_wrap=True)
    for column, (text, style) in zip(columns, cells, strict=True):
        fit = cut(text, column.width)
        space = " " * (column.width - cell_len(fit))
        line.append(space if column.is_number else "")
        line.append(fit, style)
        line.append("" if column.is_number else space)
        line.append(" ")
    line.rstrip()
    return line


def table(head: Sequence[tuple[str, bool]], rows: Sequence[Sequence[Cell]], indent: str = "  ") -> Iterable[Text]:
    """Yields a table as wide as its texts. *head* has the title of each column, and whether it has numbers."""
    columns = [
        Column(title, max([cell_len(title), *(cell_len(cells[at][0]) for cells in rows)]), is_number)
        for at, (title, is_number) in enumerate(head)
    ]
    for cells in ([(title, DIM) for title, _ in head], *rows):
        yield Text(indent, no_wrap=True).append_text(row(columns, cells))


def fitted(line: Text, width: int) -> Text:
    """Returns *line* in at most *width* cells."""
    if line.cell_len <= width:
        return line
    short = line.copy()
    short.truncate(max(0, width - 1))
    return short.append("~" if width > 0 else "")
