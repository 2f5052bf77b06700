"""Reads text as editors save it: in UTF-8, or marked as UTF-16 or UTF-32; with or without a line break at the end."""

from __future__ import annotations

import codecs
from typing import Final

__all__ = ["NotText", "decoded", "without_end"]

# UTF-32 comes before UTF-16, because the mark of UTF-16 is the beginning of that of UTF-32.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class NotText(ValueError):
    """The bytes at *line* and *column* (both from 1) are not text in *encoding*. The error text does not show them."""

    def __init__(self, encoding: str, line: int, column: int) -> None:
        self.encoding = encoding
        self.line = line
        self.column = column
        super().__init__(f"line {line}, column {column} is no {encoding} text")


def decoded(raw: bytes) -> str:
    """Returns *raw* as text, without the mark that names its encoding.

    Raises:
        NotText: a byte does not fit; the error names the place of the first one.
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
    """Returns *text* without the line breaks at its end, which editors, ``echo`` and secret stores add."""
    return text.rstrip("\r\n")
