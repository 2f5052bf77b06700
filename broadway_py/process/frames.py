"""Frames: what processes send each other over a socket. Each has a kind, a job, a position and a body."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["HEADER", "Frame", "FrameReader", "dumps", "frame"]

#: Kind, number of the job, position in the job, bytes of the body.
HEADER: Final = struct.Struct("<BIIQ")

_JOB_NUMBERS: Final = 2**32


class Frame(NamedTuple):
    """One received frame. Those who exchange frames give the kinds their numbers."""

    kind: int
    job: int
    position: int
    body: bytes


def frame(kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> bytes:
    """Returns the bytes to send for a frame."""
    return HEADER.pack(kind, job % _JOB_NUMBERS, position, len(body)) + body


def dumps(value: object) -> bytes:
    """Returns *value* as a body, pickled in the newest protocol that every supported Python reads."""
    return pickle.dumps(value, 5)


class FrameReader:
    """Divides the bytes from a socket into frames. It holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that *data* completes."""
        self._bytes += data
        start = 0
        while len(self._bytes) - start >= HEADER.size:
            kind, job, position, size = HEADER.unpack_from(self._bytes, start)
            end = start + HEADER.size + size
            if len(self._bytes) < end:
                break
            yield Frame(kind, job, position, bytes(self._bytes[start + HEADER.size : end]))
            start = end
        del self._bytes[:start]
