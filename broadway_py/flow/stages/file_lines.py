"""The lines of files, in lists. A file is read by ranges of bytes, so that several readers can share it."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from broadway_py.flow.failure import FilePlace, LinePlace
from broadway_py.flow.stages.read_bytes import CountedFile, ReadBytes

__all__ = ["FileRange", "UnreadableLineError", "lists_of", "ranges_of"]

_BLOCK_BYTES: Final = 1 << 18
#: Encodings in which what a byte means depends on those before.
_WITH_STATES: Final = ("utf-7", "iso2022", "hz")

_Lines = tuple[list[str], FilePlace | LinePlace]


class FileRange(NamedTuple):
    """A part of a file: the lines that begin at the byte *start* or later, and before *end*."""

    path: str
    start: int
    #: None: the end of the file.
    end: int | None


class UnreadableLineError(Exception):
    """A line does not decode. The cause says why, *first* and *index* say which line it is."""

    def __init__(self, first: FilePlace | LinePlace, index: int, cause: UnicodeDecodeError) -> None:
        super().__init__()
        self.first = first
        self.index = index
        self.__cause__ = cause


def ranges_of(paths: tuple[str, ...], encoding: str, range_bytes: int) -> Iterator[FileRange]:
    """Yields the ranges of all files. Packed files, and those in some encodings, are one range."""
    is_divided = _keeps_lines_apart(encoding)
    for path in paths:
        if not is_divided or path.endswith(".gz"):
            yield FileRange(path, 0, None)
            continue
        size = os.stat(path).st_size  # noqa: PTH116  # worker processes start faster without pathlib
        for start in range(0, max(1, size), range_bytes):
            end = start + range_bytes
            yield FileRange(path, start, end if end < size else None)


def lists_of(
    part: FileRange, encoding: str, most: Callable[[], int], counted: ReadBytes | None = None
) -> Iterator[_Lines]:
    """Yields the lines of *part*, without their ends (LF or CRLF), in lists, with the place of the first line.

    Args:
        part: what is read.
        encoding: of the file.
        most: called before each list; returns how many lines it has at most.
        counted: what was read is added to it.

    Raises:
        UnreadableLineError: a line is not in this encoding.
    """
    counted = counted or ReadBytes()
    if not _keeps_lines_apart(encoding):
        yield from _decoded_lists(part, encoding, most, counted)
        return
    is_signed = codecs.lookup(encoding).name == "utf-8-sig"
    with counted.opened(*part) as file:
        for block, offset in _blocks(file, part, codecs.BOM_UTF8 if is_signed else b""):
            place = FilePlace(part.path, offset, 0)
            # Only the first line of a file may have the signature.
            lines = _decoded(block, "utf-8" if is_signed and offset else encoding, place)
            skipped = 0
            while skipped < len(lines):
                cut = lines[skipped : skipped + most()]
                yield cut, place._replace(lines=skipped)
                skipped += len(cut)


def _keeps_lines_apart(encoding: str) -> bool:
    """Returns True if the byte 10 is always the end of a line, and each line can be decoded by itself."""
    name = codecs.lookup(encoding).name
    if name == "utf-8-sig":
        return True
    return "\n".encode(name) == b"\n" and not name.startswith(_WITH_STATES)


def _blocks(file: CountedFile, part: FileRange, signature: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields whole lines without the end of the last one, and where they begin. A *signature* alone is no line."""
    begins = _first_line(file, part)
    if begins is None:
        return
    pieces: list[bytes] = []
    position = begins
    while block := file.read(_BLOCK_BYTES):
        if part.end is not None and position + len(block) >= part.end:
            # The line that begins before the end of the range is the last one, however long it is.
            last = block.find(b"\n", max(0, part.end - 1 - position))
            if last >= 0:
                yield b"".join([*pieces, block[:last]]), begins
                return
        cut = block.rfind(b"\n")
        if cut < 0:
            pieces.append(block)
        else:
            yield b"".join([*pieces, block[:cut]]), begins
            pieces = [block[cut + 1 :]]
            begins = position + cut + 1
        position += len(block)
    rest = b"".join(pieces)
    if rest and (begins or rest != signature):
        yield rest, begins


def _first_line(file: CountedFile, part: FileRange) -> int | None:
    """Goes to the first line that begins in *part*. Returns where it is; None if there is none."""
    if not part.start:
        return 0
    position = part.start - 1
    file.seek(position)
    while part.end is None or position < part.end - 1:
        size = _BLOCK_BYTES if part.end is None else min(_BLOCK_BYTES, part.end - 1 - position)
        block = file.read(size)
        if not block:
            return None
        if (cut := block.find(b"\n")) >= 0:
            file.seek(position + cut + 1)
            return position + cut + 1
        position += len(block)
    return None


def _decoded(block: bytes, encoding: str, place: FilePlace) -> list[str]:
    try:
        text = block.decode(encoding)
    except UnicodeDecodeError:
        for index, line in enumerate(block.split(b"\n")):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                raise UnreadableLineError(place, index, error) from error
        raise
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in lines] if "\r" in text else lines


def _decoded_lists(part: FileRange, encoding: str, most: Callable[[], int], counted: ReadBytes) -> Iterator[_Lines]:
    """Yields the same for an encoding in which lines cannot be found in the bytes."""
    place = LinePlace(part.path, 1)
    decoder = codecs.getincrementaldecoder(encoding)()
    rest = ""
    with counted.opened(*part) as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            state = decoder.getstate()
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                decoder.setstate(state)
                raise UnreadableLineError(place, _lines_before_error(decoder, block), error) from error
            *lines, rest = (rest + text).split("\n")
            if not block and rest:
                lines.append(rest)
            skipped = 0
            while skipped < len(lines):
                cut = [line.removesuffix("\r") for line in lines[skipped : skipped + most()]]
                yield cut, place
                skipped += len(cut)
                place = place._replace(line=place.line + len(cut))
            if not block:
                return


def _lines_before_error(decoder: codecs.IncrementalDecoder, block: bytes) -> int:
    """Returns how many lines of *block* end before what does not decode."""
    lines = 0
    try:
        for byte in block:
            lines += decoder.decode(bytes([byte])).count("\n")
    except UnicodeDecodeError:
        pass
    return lines
