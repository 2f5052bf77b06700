"""Connections of places that can only call each other: what is sent arrives once, whole and in order."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broadway_py.flow.running.runners.calls import (
    MOST_OPEN,
    Arriving,
    AskedConnection,
    CallingConnection,
    Leaving,
)
from broadway_py.process.frames import Frame
from tests.stage.support import run_until_idle

LONG = bytes(1 << 20)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=12), st.randoms())
def test_chunks_that_arrive_in_any_order_become_the_frames_that_were_sent(sent: list[Any], random: Any) -> None:
    leaving, arriving = Leaving(), Arriving()
    chunks = []
    for kind, body in sent:
        leaving.add(kind, body, job=7)
        if random.random() < 0.5:
            chunks.append(leaving.take())
    if leaving:
        chunks.append(leaving.take())
    random.shuffle(chunks)

    arrived = [frame for chunk in chunks for frame in arriving.feed(*chunk)]

    assert arrived == [Frame(kind, 7, 0, body) for kind, body in sent]


def test_a_frame_that_is_longer_than_a_chunk_goes_over_in_several() -> None:
    leaving, arriving = Leaving(), Arriving()
    leaving.add(1, LONG * 2)
    chunks = [leaving.take(), leaving.take(), leaving.take()]

    assert not leaving
    assert [len(data) for _, data in chunks][:2] == [1 << 20, 1 << 20]
    assert [frame.body for chunk in reversed(chunks) for frame in arriving.feed(*chunk)] == [LONG * 2]


class Calls:
    """The other place. It has a chunk when a test says so."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, bytes]] = []
        self.open: list[asyncio.Future[None]] = []

    def call(self, number: int, data: bytes) -> asyncio.Future[None]:
        self.chunks.append((number, data))
        self.open.append(asyncio.get_running_loop().create_future())
        return self.open[-1]

    def frames(self) -> list[Frame]:
        arriving = Arriving()
        return [frame for chunk in self.chunks for frame in arriving.feed(*chunk)]


async def test_no_more_calls_are_open_than_allowed_and_what_waits_is_gathered() -> None:
    other = Calls()
    lost: list[BaseException] = []
    connection = CallingConnection(lambda _: None, other.call, lost.append)
    for number in range(MOST_OPEN + 10):
        connection.send(1, position=number)
        await run_until_idle()

    assert len(other.open) == MOST_OPEN
    other.open[0].set_result(None)
    await run_until_idle()
    assert len(other.open) == MOST_OPEN + 1
    assert [frame.position for frame in other.frames()] == list(range(MOST_OPEN + 10))
    assert not lost


async def test_frames_that_the_loop_has_a_reason_for_now_go_over_together() -> None:
    other = Calls()
    connection = CallingConnection(lambda _: None, other.call, lambda _: None)
    connection.send(1)
    connection.send_soon(2)
    await run_until_idle()

    assert [frame.kind for frame in other.frames()] == [1, 2]
    assert len(other.chunks) == 1


async def test_a_call_that_fails_ends_the_connection_and_is_told_once() -> None:
    other = Calls()
    lost: list[BaseException] = []
    connection = CallingConnection(lambda _: None, other.call, lost.append)
    error = ConnectionError("gone")
    for _ in range(3):
        connection.send(1)
        await run_until_idle()
    for each in other.open:
        each.set_exception(error)
    await run_until_idle()
    connection.send(1)
    await run_until_idle()

    assert lost == [error]
    assert len(other.chunks) == 3


async def test_a_call_that_cannot_be_made_ends_the_connection_and_nothing_follows_its_chunk() -> None:
    other = Calls()
    lost: list[BaseException] = []
    error = MemoryError("no room for what the call carries")

    def call(number: int, data: bytes) -> asyncio.Future[None]:
        if number == 1:
            raise error
        return other.call(number, data)

    connection = CallingConnection(lambda _: None, call, lost.append)
    for _ in range(3):
        connection.send(1)
        await run_until_idle()
    other.open[0].set_result(None)
    await run_until_idle()

    assert lost == [error]
    assert len(other.chunks) == 1


async def test_nothing_goes_over_once_it_is_closed_and_nobody_is_told() -> None:
    other = Calls()
    lost: list[BaseException] = []
    connection = CallingConnection(lambda _: None, other.call, lost.append)
    connection.send(1)
    await run_until_idle()
    connection.close()
    connection.send(1)
    other.open[0].set_exception(ConnectionError("gone"))
    await run_until_idle()

    assert len(other.chunks) == 1
    assert lost == []


async def test_what_comes_before_it_is_opened_is_taken_then() -> None:
    taken: list[Frame] = []
    leaving = Leaving()
    leaving.add(5, b"early")
    connection = AskedConnection(taken.append)
    connection.arrived(*leaving.take())
    assert taken == []

    connection.open()

    assert taken == [Frame(5, 0, 0, b"early")]


async def test_who_asks_gets_what_there_is_and_is_told_of_the_end() -> None:
    connection = AskedConnection(lambda _: None)
    asked = [asyncio.ensure_future(connection.next()) for _ in range(2)]
    await run_until_idle()
    connection.send(1, b"one")
    await run_until_idle()
    assert [each.done() for each in asked] == [True, False]
    connection.send(1, b"two")
    connection.finish()

    asked += [asyncio.ensure_future(connection.next()) for _ in range(2)]
    chunks = await asyncio.gather(*asked)

    arriving = Arriving()
    assert chunks[2:] == [None, None]
    assert [frame.body for chunk in chunks if chunk for frame in arriving.feed(*chunk)] == [b"one", b"two"]
