"""What a stage and its worker process send each other: the kinds of frames, and their bodies."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from broadway_py.message import BatchInfo

__all__ = ["BatchBody", "ChunkBody", "Headers", "Kind", "Recipe"]

#: The headers that tell the trace of a message or batch, so that the worker process goes on with it.
Headers = Mapping[str, str]


class Kind(enum.IntEnum):
    """The kinds of frames. The unpickled body is given in square brackets."""

    # To the worker process.
    CHUNK = 1  # messages for handle_message; each is answered by a RESULT [ChunkBody]
    BATCH = 2  # messages for handle_batch; answered by one BATCH_RESULT [BatchBody]
    TAKE_BACK = 3  # do not start these messages; answered by TAKEN [list of positions]
    CLOSE = 4  # end when all work is done
    # From the worker process.
    READY = 5  # the pipeline object is made and set up
    REFUSED = 6  # the pipeline object could not be made: the step and the error [(str, PackedError)]
    RESULT = 7  # the result of the message at this position [see pickling]
    BATCH_RESULT = 8  # the results of all messages of a batch [list of results]
    TAKEN = 9  # these messages will not be started [list of positions]
    STOP = 10  # the callback called request_stop()


@dataclass(frozen=True, slots=True)
class Recipe:
    """The data from which a worker process makes its pipeline object."""

    module: str
    qualname: str
    #: The pipeline's name.
    name: str
    #: The context, pickled separately: to unpickle it, the module may have to be imported first.
    context: bytes
    #: True: the callbacks run in the spans of their messages.
    tracing: bool = False


class ChunkBody(NamedTuple):
    """A chunk's messages, each pickled separately, so that one that cannot be unpickled does not affect the others."""

    messages: list[bytes]
    #: For each message the headers of its trace. Empty: there are none.
    headers: list[Headers]


class BatchBody(NamedTuple):
    """A batch's messages, each pickled separately."""

    messages: list[bytes]
    info: BatchInfo
    #: The headers of the trace of the batch; None: it has none.
    headers: Headers | None
