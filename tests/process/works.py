"""What runs in the worker processes of the tests."""

from __future__ import annotations

import sys
import threading
from queue import SimpleQueue
from typing import Final, Never

from broadway_py.process.frames import Frame, dumps
from broadway_py.process.packed_errors import pack_error
from broadway_py.process.parent_socket import ParentSocket

SAID: Final = 1
STOP: Final = 2


class Unhandy(Exception):
    """Pickles, but cannot be unpickled as a whole."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")
        self.second = second


def say_modules(parent: ParentSocket) -> None:
    """Send the names of all modules that this process has loaded."""
    parent.send(SAID, dumps(sorted(sys.modules)))


def answer(parent: ParentSocket, greeting: str) -> None:
    """Send *greeting*, then each frame back, also those that came before the answers began."""
    parent.send(SAID, greeting.encode())
    first = parent.wait()
    frames: SimpleQueue[Frame] = SimpleQueue()
    parent.listen(frames.put)
    frame = first
    while frame.kind != STOP:
        parent.send(SAID, frame.body, job=frame.job, position=frame.position)
        frame = frames.get()


def fail(parent: ParentSocket) -> None:
    """Send an error, then raise another one."""
    try:
        raise Unhandy("this", "that")
    except Unhandy as error:
        parent.send(SAID, dumps(pack_error(error)))
    raise ValueError("nobody catches this")


def never_return(parent: ParentSocket) -> Never:
    """Say so, then block the main thread."""
    parent.send(SAID)
    threading.Event().wait()
    raise AssertionError("the event is never set")


def refuse_frames(parent: ParentSocket) -> Never:
    """Raise in the thread that reads, then block the main thread."""

    def refuse(frame: Frame) -> None:
        raise ValueError(f"nobody takes {frame.body!r}")

    parent.listen(refuse)
    never_return(parent)
