"""Text as editors save it: in UTF-8, or marked as UTF-16 or UTF-32; with a line break at the end, or without."""

from __future__ import annotations

import codecs
from typing import Final

__all__ = ["NotText", "decoded", "without_end"]

# UTF-32 before UTF-16, whose mark begins the same way.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class NotText(ValueError):
    """Bytes that are no text, found on *line* in *column*, both from 1. Shows none of them."""

    def __init__(self, encoding: str, line: int, column: int) -> None:
        self.encoding = encoding
        self.line = line
        self.column = column
        super().__init__(f"line {line}, column {column} is no {encoding} text")


def decoded(raw: bytes) -> str:
    """*raw* as text, without the mark that says how it is encoded.

    Raises:
        NotText: with the place of the first byte that does not fit.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", "utf-8"))
    body = raw[len(mark) :]
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as wrong:
        before = body[: wrong.start].decode(encoding, errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        name = "-".join(encoding.upper().split("-")[:2])
        raise NotText(name, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1) from None


def without_end(text: str) -> str:
    """*text* without the line breaks at its end: editors, ``echo`` and secret stores add one that is not meant."""
    return text.rstrip("\r\n")
