"""How settlements get onto the wire: all of one loop turn in one write."""

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
    """Writes what a ledger has collected, for one channel, until it is stopped."""

    def tell_soon(self) -> None:
        """Have everything noted so far written, without waiting for it."""

    async def told(self) -> None:
        """Have everything noted so far written; returns when it has been.

        Raises:
            ProducerError: the channel is gone.
        """

    def stop(self, reason: ProducerError) -> None:
        """The channel is gone: nothing is written from now on, and whoever waits gets *reason*."""

    async def finish(self, timeout: float) -> None:
        """Wait until everything noted is written, *timeout* seconds at most."""

    async def ended(self) -> None:
        """Wait for the end of what :meth:`stop` has called off."""


class QueuedSettlements:
    """By way of the client library, which puts what is written into a queue of its own."""

    def __init__(self, channel: Channel, ledger: TagLedger, name: str) -> None:
        self._channel = channel
        self._ledger = ledger
        self._gone: ProducerError | None = None
        self._unwritten = asyncio.Event()
        self._turn: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._writer = asyncio.create_task(self._write_all(), name=f"settlements of {name}")

    def tell_soon(self) -> None:
        """As the protocol says."""
        self._next_turn()

    async def told(self) -> None:
        """As the protocol says."""
        if self._gone is not None:
            raise self._gone
        # Others wait for the same turn, so our own cancellation must not reach it.
        await asyncio.shield(self._next_turn())

    def _next_turn(self) -> asyncio.Future[None]:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
            # Perhaps nobody waits for it.
            self._turn.add_done_callback(_retrieve)
            self._unwritten.set()
        return self._turn

    async def _write_all(self) -> None:
        """What is settled while a write is under way goes into the next one."""
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
                return  # the channel's end is reported to the session, which also ends the turns
            if self._writing is not None and not self._writing.done():
                self._writing.set_result(None)

    async def _write(self, frames: list[Basic.Ack | Basic.Nack | Basic.Reject]) -> None:
        channel = self._channel
        written: asyncio.Future[None] = channel.create_future()
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames, drain_future=written))
        await written

    def stop(self, reason: ProducerError) -> None:
        """As the protocol says."""
        self._gone = reason
        self._writer.cancel()
        for turn in (self._turn, self._writing):
            if turn is not None and not turn.done():
                turn.set_exception(reason)

    async def finish(self, timeout: float) -> None:
        """As the protocol says."""
        unwritten = [turn for turn in (self._writing, self._turn) if turn is not None and not turn.done()]
        if unwritten:
            await asyncio.wait(unwritten, timeout=timeout)

    async def ended(self) -> None:
        """As the protocol says."""
        await asyncio.wait([self._writer])


class DirectSettlements:
    """Straight to the transport: the look whether the channel is still ours and the write are one synchronous step.

    The client library writes whole frames to the same transport, and so do we, so the two never mix. The transport's
    limit for its buffer must be set such that a drain waits until the socket has taken everything.

    Args:
        channel: the number of the channel.
        ledger: what is to be written.
        writer: of the connection.
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
        """As the protocol says."""
        if self._turn is None and self._gone is None:
            self._turn = self._loop.call_soon(self._write)

    async def told(self) -> None:
        """As the protocol says. Returns when the socket has taken the bytes."""
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
            # Nor does asyncio say a word when it was us who dropped the connection.
            raise self._gone

    def stop(self, reason: ProducerError) -> None:
        """As the protocol says."""
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
        """As the protocol says."""
        if self._turn is not None:
            self._turn.cancel()
            self._write()
        if self._gone is None and self._transport.get_write_buffer_size():
            try:
                async with asyncio.timeout(timeout):
                    await self._drain()
            except (TimeoutError, ProducerError):
                return  # it is dead: whoever waits for it is told by its end

    async def ended(self) -> None:
        """Nothing runs here."""


def encode(channel: int, settlements: list[Settlement]) -> bytes:
    """The frames that tell *settlements* on *channel*."""
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
