"""A broker that knows just enough of AMQP to be connected to, and can be told to misbehave at any word."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pamqp import commands, frame

from tests.producers.amqp_bytes import method

__all__ = ["FakeBroker", "Peer"]

#: Called with the name of each method as it comes ("published" for the body of a message), its channel, and the
#: method itself. True: it has been answered.
Answer = Callable[["Peer", str, int, Any], Awaitable[bool]]


class Peer:
    """One connection, as the broker has it."""

    def __init__(self, broker: FakeBroker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._broker = broker
        self._reader = reader
        self._writer = writer
        #: As the client called it.
        self.name = ""
        #: Messages that came.
        self.published = 0
        #: The properties of the latest of them.
        self.properties = commands.Basic.Properties()

    def say(self, *frames: bytes) -> None:
        """Write *frames* at once."""
        self._writer.write(b"".join(frames))

    def hang_up(self, *frames: bytes) -> None:
        """Write *frames*, and the end of the stream right behind."""
        self.say(*frames)
        self._writer.close()

    async def serve(self) -> None:
        await self._reader.readexactly(8)
        features: dict[str, Any] = {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True}
        self.say(method(commands.Connection.Start(0, 9, {"capabilities": features}, "PLAIN", "en_US"), 0))
        while True:
            head = await self._reader.readexactly(7)
            kind, channel, size = struct.unpack(">BHI", head)
            word: Any = frame.unmarshal(head + await self._reader.readexactly(size + 1))[2]
            if kind == 2:
                self.properties = word.properties
            elif kind == 3:
                self.published += 1
                if not await self._broker.answer(self, "published", channel, word):
                    self.say(method(commands.Basic.Ack(self.published), channel))
            elif kind == 1 and not await self._broker.answer(self, word.name, channel, word):
                self._answer(word, channel)

    def _answer(self, word: Any, channel: int) -> None:
        match word:
            case commands.Connection.StartOk():
                self.name = str(word.client_properties["connection_name"])
                self.say(method(commands.Connection.Tune(2047, 131072, 60), 0))
            case commands.Connection.Open():
                self.say(method(commands.Connection.OpenOk(), 0))
            case commands.Channel.Open():
                self.say(method(commands.Channel.OpenOk(), channel))
            case commands.Confirm.Select():
                self.say(method(commands.Confirm.SelectOk(), channel))
            case commands.Basic.Qos():
                self.say(method(commands.Basic.QosOk(), channel))
            case commands.Queue.Declare():
                self.say(method(commands.Queue.DeclareOk(word.queue, 0, 0), channel))
            case commands.Basic.Consume():
                self.say(method(commands.Basic.ConsumeOk(word.consumer_tag), channel))
            case commands.Basic.Cancel():
                self.say(method(commands.Basic.CancelOk(word.consumer_tag), channel))
            case commands.Channel.Close():
                self.say(method(commands.Channel.CloseOk(), channel))
            case commands.Connection.Close():
                self.hang_up(method(commands.Connection.CloseOk(), 0))


class FakeBroker:
    """Where the peers of a test are."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        #: The connections that are open.
        self.peers: set[Peer] = set()
        self.url = ""

    @property
    def where(self) -> str:
        """The URL as errors show it."""
        return self.url.replace("guest:guest", "***")

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its end."""
        peer = Peer(self, reader, writer)
        self.peers.add(peer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await peer.serve()
        finally:
            self.peers.discard(peer)
            writer.close()

    @classmethod
    @contextlib.asynccontextmanager
    async def at_work(cls, answer: Answer) -> AsyncIterator[FakeBroker]:
        """One that listens on a port of this machine, and ends its connections at the end of the block."""
        broker = cls(answer)
        tasks: set[asyncio.Task[None]] = set()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            # A handler that ends by a cancellation is an error to asyncio's streams.
            with contextlib.suppress(asyncio.CancelledError):
                await broker.take(reader, writer)

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        broker.url = f"amqp://guest:guest@127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            yield broker
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
