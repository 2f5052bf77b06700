"""Where an element comes from, and the error of a flow that fails on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, Final, Literal, NamedTuple

from broadway_py.errors import FlowFailed
from broadway_py.flow.operator_errors import Failed

__all__ = ["ElementPlace", "FilePlace", "LinePlace", "flow_failed", "place_after", "place_of"]

_BLOCK_BYTES: Final = 1 << 20


class ElementPlace(NamedTuple):
    """The place of the first element of a list: its number in its source. Both are counted from 0."""

    source: int
    number: int


class FilePlace(NamedTuple):
    """The place of the first line of a list: *lines* lines behind the line that begins at the byte *offset*.

    In a packed file, the bytes are those of what is in it.
    """

    path: str
    offset: int
    lines: int


class LinePlace(NamedTuple):
    """The place of the first line of a list: its number in its file, from 1."""

    path: str
    line: int


def place_after(first: Any, count: int) -> Any:
    """Returns the place that is *count* elements behind the place *first*."""
    if isinstance(first, ElementPlace):
        return first._replace(number=first.number + count)
    if isinstance(first, LinePlace):
        return first._replace(line=first.line + count)
    return first._replace(lines=first.lines + count) if isinstance(first, FilePlace) else None


def place_of(first: Any, index: int) -> str | None:
    """Returns the place of an element as text.

    Args:
        first: the place of the first element of its list; None: it is not known.
        index: how many elements of the list are before it.
    """
    if isinstance(first, ElementPlace):
        return f"element {first.number + index} of source {first.source}"
    if isinstance(first, LinePlace):
        return f"{first.path}, line {first.line + index}"
    if isinstance(first, FilePlace):
        try:
            return f"{first.path}, line {_lines_before(first) + first.lines + index + 1}"
        except OSError:  # it is not there any more
            return f"{first.path}, {first.lines + index} lines behind byte {first.offset}"
    return None


def _lines_before(place: FilePlace) -> int:
    """Counts the lines before a place. Nobody needs their number unless something goes wrong."""
    opened: Callable[[str, Literal["rb"]], BinaryIO] = open
    if place.path.endswith(".gz"):
        import gzip  # noqa: PLC0415  # only packed files need it

        opened = gzip.open  # type: ignore[assignment]  # it returns a BinaryIO but for its declaration
    lines, left = 0, place.offset
    with opened(place.path, "rb") as file:
        while left and (block := file.read(min(left, _BLOCK_BYTES))):
            lines += block.count(b"\n")
            left -= len(block)
    return lines


def flow_failed(failed: Failed, stage: int) -> FlowFailed:
    """Returns the error of the flow for *failed*, which happened in the stage with this index."""
    place = None if failed.index is None else place_of(failed.first, failed.index)
    return FlowFailed(failed.operator, failed.error, stage=stage, place=place, element=failed.element)
