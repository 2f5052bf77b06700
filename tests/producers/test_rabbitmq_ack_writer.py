"""How settlements get straight to the transport."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq.settlements.ack_writer import DirectSettlements, encode
from broadway_py.producers.rabbitmq.settlements.ledger import Settlement, TagLedger
from broadway_py.testing import settle as until_settled

tags = st.integers(1, 2**63 - 1)
flags = st.booleans()


@given(st.integers(1, 65535), st.lists(st.tuples(tags, flags), max_size=3), st.lists(st.tuples(tags, flags)))
def test_the_frames_are_those_of_the_library(
    channel: int, acks: list[tuple[int, bool]], others: list[tuple[int, bool]]
) -> None:
    settlements = [Settlement("ack", tag, multiple=flag) for tag, flag in acks]
    settlements += [Settlement("reject", tag, requeue=flag) for tag, flag in others]
    settlements += [Settlement("nack", tag, requeue=flag) for tag, flag in others]
    expected: list[Any] = [commands.Basic.Ack(tag, flag) for tag, flag in acks]
    expected += [commands.Basic.Reject(tag, flag) for tag, flag in others]
    expected += [commands.Basic.Nack(tag, requeue=flag) for tag, flag in others]
    assert encode(channel, settlements) == b"".join(frame.marshal(command, channel) for command in expected)


class Writer:
    """A stream writer and its transport in one; what is written stays in its buffer while the socket is full."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_full = False
        self.has_ended = False
        self.room = asyncio.Event()

    @property
    def transport(self) -> Writer:
        return self

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.has_ended

    def get_write_buffer_size(self) -> int:
        return 21 if self.is_full else 0

    async def drain(self) -> None:
        await self.room.wait()
        if self.has_ended:
            raise ConnectionResetError


def direct(ledger: TagLedger) -> tuple[DirectSettlements, Writer]:
    writer = Writer()
    return DirectSettlements(7, ledger, cast("asyncio.StreamWriter", writer), "amqp://here:5672/"), writer


def ledger_of(count: int) -> TagLedger:
    ledger = TagLedger()
    ledger.delivered_run(1, count)
    return ledger


async def test_what_is_settled_in_one_turn_is_one_write() -> None:
    ledger = ledger_of(5)
    settlements, writer = direct(ledger)

    async def settle(tag: int) -> None:
        ledger.ack(tag)
        await settlements.told()

    await asyncio.gather(*(settle(tag) for tag in (2, 1, 3, 5)))
    assert writer.writes == [encode(7, [Settlement("ack", 3, multiple=True), Settlement("ack", 5)])]


async def test_it_returns_when_the_socket_has_taken_the_bytes() -> None:
    ledger = ledger_of(1)
    settlements, writer = direct(ledger)
    writer.is_full = True
    ledger.ack(1)
    told = asyncio.ensure_future(settlements.told())
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(writer.writes) == 1
    assert not told.done()
    writer.room.set()
    await told


async def test_a_connection_that_dies_meanwhile_is_told() -> None:
    ledger = ledger_of(1)
    settlements, writer = direct(ledger)
    writer.is_full = True
    ledger.ack(1)
    told = asyncio.ensure_future(settlements.told())
    for _ in range(5):
        await asyncio.sleep(0)
    writer.has_ended = True
    writer.room.set()
    with pytest.raises(ProducerError, match=r"^the connection to amqp://here:5672/ was cut$"):
        await told


async def test_nothing_is_written_once_the_channel_is_gone_although_it_was_settled_before() -> None:
    ledger = ledger_of(2)
    settlements, writer = direct(ledger)
    ledger.ack(1)
    told = asyncio.ensure_future(settlements.told())
    await asyncio.sleep(0)  # it waits for the end of its turn
    settlements.stop(ProducerError("the channel is gone"))
    settlements.tell_soon()
    with pytest.raises(ProducerError, match=r"^the channel is gone$"):
        await told
    with pytest.raises(ProducerError, match=r"^the channel is gone$"):
        await settlements.told()
    assert writer.writes == []


async def test_nothing_is_written_to_a_transport_that_is_closing() -> None:
    ledger = ledger_of(1)
    settlements, writer = direct(ledger)
    writer.has_ended = True
    ledger.ack(1)
    with pytest.raises(ProducerError, match=r"^the connection to amqp://here:5672/ was cut$"):
        await settlements.told()
    assert writer.writes == []


async def test_who_is_cancelled_disturbs_nobody_and_its_settlement_is_written() -> None:
    ledger = ledger_of(2)
    settlements, writer = direct(ledger)
    ledger.ack(1)
    first = asyncio.ensure_future(settlements.told())
    ledger.ack(2)
    second = asyncio.ensure_future(settlements.told())
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()
    assert writer.writes == [encode(7, [Settlement("ack", 2, multiple=True)])]


async def test_finishing_writes_what_is_noted_and_waits_a_while_for_the_socket() -> None:
    ledger = ledger_of(1)
    settlements, writer = direct(ledger)
    ledger.ack(1)
    settlements.tell_soon()
    writer.is_full = True
    await settlements.finish(0.01)
    assert writer.writes == [encode(7, [Settlement("ack", 1)])]


async def test_who_waits_for_the_socket_is_told_when_we_drop_the_connection_ourselves() -> None:
    ledger = ledger_of(1)
    settlements, writer = direct(ledger)
    writer.is_full = True
    ledger.ack(1)
    told = asyncio.ensure_future(settlements.told())
    await until_settled()
    settlements.stop(ProducerError("the connection was closed"))
    # After an abort of our own, asyncio's drain() returns as if all had been taken.
    writer.room.set()
    with pytest.raises(ProducerError, match=r"^the connection was closed$"):
        await told
