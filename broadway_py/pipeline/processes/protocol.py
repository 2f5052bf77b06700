"""What goes over the socket between a stage and its worker process: frames of a kind, for a job, with a body."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from broadway_py.message import BatchInfo

__all__ = ["HEADER", "BatchBody", "ChunkBody", "Frame", "FrameReader", "Kind", "Recipe", "frame"]


class Kind(enum.IntEnum):
    """What a frame says; in brackets what its body is, once unpickled."""

    # To the worker process.
    RECIPE = 1  # how to make the pipeline object [Recipe]
    CHUNK = 2  # messages for handle_message, each answered by a RESULT [ChunkBody]
    BATCH = 3  # messages for handle_batch, answered by one BATCH_RESULT [BatchBody]
    TAKE_BACK = 4  # do not start these any more, answered by TAKEN [list of positions]
    CLOSE = 5  # end when nothing is left to do
    # From the worker process.
    READY = 6  # the pipeline object is made and set up
    REFUSED = 7  # it could not be: the step, and the error [(str, PackedError)]
    RESULT = 8  # of the message at this position [see pickling]
    BATCH_RESULT = 9  # of all messages of a batch [list of results]
    TAKEN = 10  # these will not be started [list of positions]
    STOP = 11  # the callback called request_stop()


#: Kind, number of the job, position of the message in it, bytes of the body.
HEADER: Final = struct.Struct("<BIIQ")

_JOB_NUMBERS: Final = 2**32


class Frame(NamedTuple):
    """One of them, as it came."""

    kind: Kind
    job: int
    position: int
    body: bytes


def frame(kind: Kind, body: bytes = b"", *, job: int = 0, position: int = 0) -> bytes:
    """The bytes to send."""
    return HEADER.pack(kind, job % _JOB_NUMBERS, position, len(body)) + body


class FrameReader:
    """Cuts what comes from a socket into frames. Holds one incomplete frame at most."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that *data* completes."""
        self._bytes += data
        start = 0
        while len(self._bytes) - start >= HEADER.size:
            kind, job, position, size = HEADER.unpack_from(self._bytes, start)
            end = start + HEADER.size + size
            if len(self._bytes) < end:
                break
            yield Frame(Kind(kind), job, position, bytes(self._bytes[start + HEADER.size : end]))
            start = end
        del self._bytes[:start]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a worker process needs to make its pipeline object."""

    module: str
    qualname: str
    #: The pipeline's name.
    name: str
    #: Pickled by itself: it may need what importing the module does.
    context: bytes
    #: Pickled: what places the lines of its log, called first; None: nobody has said.
    log_setup: bytes | None = None


class ChunkBody(NamedTuple):
    """A chunk's messages, each pickled by itself: one that cannot be unpickled is alone with that."""

    messages: list[bytes]


class BatchBody(NamedTuple):
    """A batch's messages, each pickled by itself."""

    messages: list[bytes]
    info: BatchInfo
