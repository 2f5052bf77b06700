"""The frames that go over the socket between a stage and its worker process. Each has a kind, a job and a body."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from broadway_py.message import BatchInfo

__all__ = ["HEADER", "BatchBody", "ChunkBody", "Frame", "FrameReader", "Kind", "Recipe", "frame"]


class Kind(enum.IntEnum):
    """The kinds of frames. The unpickled body is given in square brackets."""

    # To the worker process.
    RECIPE = 1  # how to make the pipeline object [Recipe]
    CHUNK = 2  # messages for handle_message; each is answered by a RESULT [ChunkBody]
    BATCH = 3  # messages for handle_batch; answered by one BATCH_RESULT [BatchBody]
    TAKE_BACK = 4  # do not start these messages; answered by TAKEN [list of positions]
    CLOSE = 5  # end when all work is done
    # From the worker process.
    READY = 6  # the pipeline object is made and set up
    REFUSED = 7  # the pipeline object could not be made: the step and the error [(str, PackedError)]
    RESULT = 8  # the result of the message at this position [see pickling]
    BATCH_RESULT = 9  # the results of all messages of a batch [list of results]
    TAKEN = 10  # these messages will not be started [list of positions]
    STOP = 11  # the callback called request_stop()


#: Kind, number of the job, position of the message in it, bytes of the body.
HEADER: Final = struct.Struct("<BIIQ")

_JOB_NUMBERS: Final = 2**32


class Frame(NamedTuple):
    """One received frame."""

    kind: Kind
    job: int
    position: int
    body: bytes


def frame(kind: Kind, body: bytes = b"", *, job: int = 0, position: int = 0) -> bytes:
    """Returns the bytes to send for a frame."""
    return HEADER.pack(kind, job % _JOB_NUMBERS, position, len(body)) + body


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
            yield Frame(Kind(kind), job, position, bytes(self._bytes[start + HEADER.size : end]))
            start = end
        del self._bytes[:start]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The data from which a worker process makes its pipeline object."""

    module: str
    qualname: str
    #: The pipeline's name.
    name: str
    #: The context, pickled separately: to unpickle it, the module may have to be imported first.
    context: bytes
    #: A pickled function that sets up the log and is called first; None if there is none.
    log_setup: bytes | None = None


class ChunkBody(NamedTuple):
    """A chunk's messages, each pickled separately, so that one that cannot be unpickled does not affect the others."""

    messages: list[bytes]


class BatchBody(NamedTuple):
    """A batch's messages, each pickled separately."""

    messages: list[bytes]
    info: BatchInfo
