"""Counts how many bytes of files were read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

__all__ = ["CountedFile", "ReadBytes"]

_PACKED: Final = ".gz"


class CountedFile:
    """A file that is read, and notes how far it was read in the file itself, also if it is packed."""

    def __init__(self, raw: IO[bytes], *, is_packed: bool) -> None:
        self._raw = raw
        self._file = _unpacked(raw) if is_packed else raw
        self._has_places = raw.seekable()
        #: The place behind what was read.
        self.at = 0

    def read(self, size: int) -> bytes:
        """Returns at most *size* bytes of what is in the file."""
        block = self._file.read(size)
        self.at = self._raw.tell() if self._has_places else self.at + len(block)
        return block

    def seek(self, place: int) -> None:
        """Goes to another place."""
        self._file.seek(place)


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    import gzip  # noqa: PLC0415  # only packed files need it

    return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]  # it is one but for its declaration


class ReadBytes:
    """How many bytes of ranges of files were read; of packed files, the packed ones.

    It may be asked by another thread than the one that reads.
    """

    def __init__(self) -> None:
        self._done = 0
        # The range that is being read.
        self._current: tuple[CountedFile, int, int | None] | None = None

    @property
    def count(self) -> int:
        """How many bytes were read."""
        done, current = self._done, self._current
        if current is None:
            return done
        file, start, end = current
        return done + max(0, (file.at if end is None else min(file.at, end)) - start)

    @contextmanager
    def opened(self, path: str, start: int, end: int | None) -> Iterator[CountedFile]:
        """Opens a file, to read from the place *start* to *end*; None: to its end."""
        with open(path, "rb") as raw:  # noqa: PTH123  # worker processes start faster without pathlib
            file = CountedFile(raw, is_packed=path.endswith(_PACKED))
            self._current = file, start, end
            yield file
            # All of it counts, also if no line begins in its last bytes.
            self._current = None
            self._done += max(0, (file.at if end is None else end) - start)
