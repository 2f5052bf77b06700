"""Writes settlements to the connection. All settlements of one turn of the event loop go out in one write."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from aiormq import Channel
from aiormq.abc import ChannelFrame
from pamqp.commands import Basic

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq.connection import errors
from broadway_py.producers.rabbitmq.settlements.ledger import Settlement, TagLedger

__all__ = ["AckWriter", "DirectSettlements", "QueuedSettlements", "encode"]

_FRAMES: Final[Mapping[str, Callable[[Settlement], Basic.Ack | Basic.Nack | Basic.Reject]]] = {
    "ack": lambda said: Basic.Ack(said.tag, said.multiple),
    "reject": lambda said: Basic.Reject(said.tag, said.requeue),
    "nack": lambda said: Basic.Nack(said.tag, requeue=said.requeue),
}

# The whole frame of a basic.ack, .reject or .nack: type, channel, size; class, method, tag, flags; end mark.
_frame = struct.Struct(">BHIHHQBB")
_METHODS: Final = {"ack": 80, "reject": 90, "nack": 120}


class AckWriter(Protocol):
    """Writes the settlements of a ledger for one channel, until it is stopped."""

    def tell_soon(self) -> None:
        """Starts writing everything noted so far. Does not wait for it."""

    async def told(self) -> None:
        """Writes everything noted so far, and returns when it is written.

        Raises:
            ProducerError: the channel is gone.
        """

    def stop(self, reason: ProducerError) -> None:
        """Notes that the channel is gone: nothing more is written, and every waiting caller gets *reason*."""

    async def finish(self, timeout: float) -> None:
        """Waits until everything noted is written, *timeout* seconds at most."""

    async def ended(self) -> None:
        """Waits until the tasks that :meth:`stop` cancelled have ended."""


class QueuedSettlements:
    """Writes through the client library, which has its own write queue."""

    def __init__(self, channel: Channel, ledger: TagLedger, name: str) -> None:
        self._channel = channel
        self._ledger = ledger
        self._gone: ProducerError | None = None
        self._unwritten = asyncio.Event()
        self._turn: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._writer = asyncio.create_task(self._write_all(), name=f"settlements of {name}")

    def tell_soon(self) -> None:
        """See :class:`AckWriter`."""
        self._next_turn()

    async def told(self) -> None:
        """See :class:`AckWriter`."""
        if self._gone is not None:
            raise self._gone
        # Others wait for the same future, so our cancellation must not cancel it.
        await asyncio.shield(self._next_turn())

    def _next_turn(self) -> asyncio.Future[None]:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
            # Reads the error even if nobody waits, so that asyncio does not log it.
            self._turn.add_done_callback(_retrieve)
            self._unwritten.set()
        return self._turn

    async def _write_all(self) -> None:
        """Writes batch after batch. What is settled during a write goes into the next one."""
        while True:
            await self._unwritten.wait()
            self._unwritten.clear()
            self._writing, self._turn = self._turn, None
            frames = [_FRAMES[said.method](said) for said in self._ledger.take()]
            try:
                await self._write(frames)
            except Exception as error:
                if not errors.is_of_library(error):
                    raise
                return  # the session learns of the channel's end, and stops the waiting futures
            if self._writing is not None and not self._writing.done():
                self._writing.set_result(None)

    async def _write(self, frames: list[Basic.Ack | Basic.Nack | Basic.Reject]) -> None:
        channel = self._channel
        written: asyncio.Future[None] = channel.create_future()
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames, drain_future=written))
        await written

    def stop(self, reason: ProducerError) -> None:
        """See :class:`AckWriter`."""
        self._gone = reason
        self._writer.cancel()
        for turn in (self._turn, self._writing):
            if turn is not None and not turn.done():
                turn.set_exception(reason)

    async def finish(self, timeout: float) -> None:
        """See :class:`AckWriter`."""
        unwritten = [turn for turn in (self._writing, self._turn) if turn is not None and not turn.done()]
        if unwritten:
            await asyncio.wait(unwritten, timeout=timeout)

    async def ended(self) -> None:
        """See :class:`AckWriter`."""
        await asyncio.wait([self._writer])


class DirectSettlements:
    """Writes directly to the transport. Checking that the channel is ours and writing are one synchronous step.

    The client library writes whole frames to the same transport, and so do we, so frames never mix. The transport's
    buffer limit must be set so that a drain waits until the socket has taken everything.

    Args:
        channel: the number of the channel.
        ledger: holds the settlements to write.
        writer: the connection's writer.
        where: the broker's address as it may be shown.
    """

    def __init__(self, channel: int, ledger: TagLedger, writer: asyncio.StreamWriter, where: str) -> None:
        self._channel = channel
        self._ledger = ledger
        self._writer = writer
        self._transport = writer.transport
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._gone: ProducerError | None = None
        self._turn: asyncio.Handle | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def tell_soon(self) -> None:
        """See :class:`AckWriter`."""
        if self._turn is None and self._gone is None:
            self._turn = self._loop.call_soon(self._write)

    async def told(self) -> None:
        """See :class:`AckWriter`. Returns when the socket has taken the bytes."""
        if self._gone is not None:
            raise self._gone
        self.tell_soon()
        written = self._loop.create_future()
        self._waiting.append(written)
        await written
        if self._transport.get_write_buffer_size():
            await self._drain()

    def _write(self) -> None:
        self._turn = None
        if self._transport.is_closing():
            self.stop(ProducerError(f"the connection to {self._where} was cut"))
            return
        frames = encode(self._channel, self._ledger.take())
        if frames:
            self._transport.write(frames)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError:
            raise self._gone or ProducerError(f"the connection to {self._where} was cut") from None
        if self._gone is not None:
            # asyncio raises nothing if it was us who dropped the connection.
            raise self._gone

    def stop(self, reason: ProducerError) -> None:
        """See :class:`AckWriter`."""
        if self._gone is None:
            self._gone = reason
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_exception(reason)

    async def finish(self, timeout: float) -> None:
        """See :class:`AckWriter`."""
        if self._turn is not None:
            self._turn.cancel()
            self._write()
        if self._gone is None and self._transport.get_write_buffer_size():
            try:
                async with asyncio.timeout(timeout):
                    await self._drain()
            except (TimeoutError, ProducerError):
                return  # the connection is dead, and its end tells every waiting caller

    async def ended(self) -> None:
        """Does nothing: there is no task to wait for."""


def encode(channel: int, settlements: list[Settlement]) -> bytes:
    """Returns the frames that send *settlements* on *channel*."""
    return b"".join(
        [_frame.pack(1, channel, 13, 60, _METHODS[said.method], said.tag, _flags(said), 0xCE) for said in settlements]
    )


def _flags(said: Settlement) -> int:
    if said.method == "nack":
        return said.multiple | said.requeue << 1
    return said.multiple or said.requeue


def _retrieve(turn: asyncio.Future[None]) -> None:
    if not turn.cancelled():
        turn.exception()
