"""Worker processes: what they run, what goes over, and how they end."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Callable
from typing import Any

import pytest

from broadway_py.process.connection import FrameConnection
from broadway_py.process.frames import Frame
from broadway_py.process.packed_errors import WorkerError, pack_error, unpack_error
from broadway_py.process.worker_process import WorkerProcess
from tests.process import works
from tests.process.works import SAID, STOP, Unhandy
from tests.stage.support import soon
from tests.test_front_door import HEAVY


class Taken:
    """The frames that came from a process, and its end."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.count = 0
        #: How many frames had come at each end.
        self.ends: list[int] = []

    def start(self, work: Callable[..., object], *arguments: Any) -> WorkerProcess:
        self.process = WorkerProcess(work, arguments, self._take, lambda: self.ends.append(self.count))
        return self.process

    def _take(self, frame: Frame) -> None:
        self.count += 1
        self.frames.put_nowait(frame)

    async def next(self) -> Frame:
        return await soon(self.frames.get())


async def test_a_worker_process_runs_a_function_with_its_arguments_and_frames_go_both_ways_in_order() -> None:
    taken = Taken()
    process = taken.start(works.answer, "hello")
    bodies = [b"x" * size for size in (0, 1, 300, 2_000_000)]
    for position, body in enumerate(bodies):
        process.send(SAID, body, job=7, position=position)
    process.send(STOP)

    assert (await taken.next()).body == b"hello"
    assert [await taken.next() for _ in bodies] == [Frame(SAID, 7, number, body) for number, body in enumerate(bodies)]
    await soon(process.exited())
    assert (process.exit, taken.ends) == (0, [1 + len(bodies)])


async def test_a_worker_process_loads_little() -> None:
    taken = Taken()
    process = taken.start(works.say_modules)
    loaded = set(pickle.loads((await taken.next()).body))  # noqa: S301  # from our own worker process
    await soon(process.exited())

    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("broadway_py.")} <= {
        "broadway_py.error_text",
        "broadway_py.errors",
        "broadway_py.foreign",
        "broadway_py.forks",
        "broadway_py.process",
        "broadway_py.process.child",
        "broadway_py.process.frames",
        "broadway_py.process.packed_errors",
        "broadway_py.process.parent_socket",
    }


async def test_an_error_comes_back_as_itself_and_what_the_function_raises_ends_the_process() -> None:
    taken = Taken()
    process = taken.start(works.fail)
    error = unpack_error(pickle.loads((await taken.next()).body))  # noqa: S301  # the same
    await soon(process.exited())

    assert isinstance(error, Unhandy)
    assert (str(error), error.second) == ("this and that", "that")
    assert error.__notes__[0].startswith("raised in a worker process, at works.py:")
    assert process.exit == 1


def test_an_error_that_cannot_be_rebuilt_is_replaced_by_one_of_its_name() -> None:
    class Local(Exception):
        pass

    error = unpack_error(pack_error(Local("gone")))

    assert isinstance(error, WorkerError)
    assert (type(error).__name__, str(error)) == ("Local", "gone")


async def test_a_killed_process_is_told_once_after_its_last_frame() -> None:
    taken = Taken()
    process = taken.start(works.never_return)
    await taken.next()
    process.kill()
    await soon(process.exited())
    process.send(SAID, b"nobody is there")

    assert (process.exit, taken.ends) == (-9, [1])


async def test_a_process_ends_when_its_parent_is_gone_also_while_its_function_does_not_return() -> None:
    taken = Taken()
    process = taken.start(works.never_return)
    await taken.next()
    process._connection.close()
    await soon(process.exited())

    assert process.exit == 1


async def test_a_process_that_can_take_no_more_frames_says_why_and_ends(capfd: pytest.CaptureFixture[str]) -> None:
    taken = Taken()
    process = taken.start(works.refuse_frames)
    await taken.next()
    process.send(SAID, b"this")
    await soon(process.exited())

    assert process.exit == 1
    assert "ValueError: nobody takes b'this'" in capfd.readouterr().err


async def test_both_ends_of_a_connection_may_be_in_event_loops() -> None:
    one, other = socket.socketpair()
    came: asyncio.Queue[Frame] = asyncio.Queue()
    lost = asyncio.Event()
    left = FrameConnection(one, came.put_nowait, lost.set)
    right = FrameConnection(other, lambda each: right.send(each.kind, each.body[::-1]), lambda: None)
    left.open()
    right.open()
    left.send(3, b"ab" * 1_000_000, job=1, position=2)
    left.send(4, b"cd")
    assert await soon(came.get()) == Frame(3, 0, 0, b"ba" * 1_000_000)
    assert await soon(came.get()) == Frame(4, 0, 0, b"dc")
    right.close()
    await soon(lost.wait())

    left.close()
    left.close()
    left.send(5, b"no error, and nobody gets it")
    assert (left.is_open, right.is_open) == (False, False)


async def test_a_short_frame_goes_with_the_next_one_or_soon_after() -> None:
    one, other = socket.socketpair()
    came: asyncio.Queue[Frame] = asyncio.Queue()
    left = FrameConnection(one, came.put_nowait, lambda: None)
    right = FrameConnection(other, came.put_nowait, lambda: None)
    right.open()

    left.send_soon(1)
    right.read()
    assert came.empty()
    left.send_soon(2)
    left.send(3)
    right.read()
    assert [came.get_nowait().kind for _ in range(3)] == [1, 2, 3]
    left.send_soon(4)
    assert (await soon(came.get())).kind == 4
    left.send_soon(5)
    left.close()
    right.close()
    left.send_soon(6)
    await asyncio.sleep(0)
    assert came.empty()
