"""Reads files as editors save them: as UTF-8, UTF-16 or UTF-32; with or without a line break at the end."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Final

__all__ = ["NotText", "content_of", "decoded", "without_end", "without_line_break"]

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
        super().__init__(f"line {line}, column {column} is not {encoding} text")


def content_of(file: str) -> bytes:
    """Returns the content of *file*, whose name is in the settings. Blocks while it reads.

    Raises:
        ValueError: the file cannot be read. The error text names the file and says why.
    """
    try:
        return Path(file).read_bytes()
    except OSError as failed:
        raise ValueError(f"the file {file!r} cannot be read: {failed.strerror}") from None
    except ValueError:
        raise ValueError(f"the file {file!r} cannot be read: no file can have that name") from None


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


def without_line_break(text: str) -> str:
    """Returns *text* without one line break at its end. A secret may itself end in a further one."""
    return re.sub(r"(\r\n|\n|\r)\Z", "", text)
