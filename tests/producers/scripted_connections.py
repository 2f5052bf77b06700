"""Connections that only publish, to a broker that follows a script: there is no socket, and no client library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
from aiormq.exceptions import DeliveryError, PublishError
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq.retries import publisher as module
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.retries.outcomes import Told
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.testing import FakeClock, settle

__all__ = [
    "SILENT",
    "WHERE",
    "Broker",
    "Line",
    "Published",
    "ScriptedChannel",
    "letters",
    "publisher",
    "publishing",
    "told",
]

URL: Final = "amqp://guest:guest@broker/"
WHERE: Final = "amqp://***@broker:5672/"

#: Stands for no answer at all.
SILENT: Final = Exception("no answer")


@dataclass(frozen=True)
class Published:
    """A message as the broker has read it."""

    tag: int
    exchange: str
    routing_key: str
    mandatory: bool
    properties: Basic.Properties
    body: bytes


class ScriptedChannel:
    """A channel with confirms, and the writer of its connection.

    It reads what is written as a broker does, and answers in the next turn of the event loop.

    Args:
        answer: says for each message what becomes of it: None confirms it. :data:`SILENT` leaves it without an answer.
            An error of the client library about this message is its answer, and any other ends the channel.
    """

    number = 1
    max_content_size = 131_064

    def __init__(self, answer: Callable[[Published], BaseException | None]) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self.confirmations: dict[int, asyncio.Future[Any]] = {}
        self.message_id_delivery_tag: dict[str, int] = {}
        self.closing: asyncio.Future[None] = self._loop.create_future()
        self.published: list[Published] = []
        #: How many messages each write had.
        self.writes: list[int] = []
        #: Whether the socket is about to close, which the channel does not know yet.
        self.is_going = False

    @property
    def is_closed(self) -> bool:
        return self.closing.done()

    def is_closing(self) -> bool:
        """For the writer."""
        return self.is_going or self.is_closed

    def write(self, data: bytes) -> None:
        """For the writer."""
        before = len(self.published)
        while data:
            data, publish = self._frame(data, Basic.Publish)
            data, header = self._frame(data, ContentHeader)
            body = b""
            while len(body) < header.body_size:
                data, part = self._frame(data, ContentBody)
                body += part.value
            tag = len(self.published) + 1
            assert self.message_id_delivery_tag[header.properties.message_id] == tag
            self.published.append(
                Published(tag, publish.exchange, publish.routing_key, publish.mandatory, header.properties, body)
            )
        self.writes.append(len(self.published) - before)
        for message in self.published[before:]:
            self._loop.call_soon(self.tell, message.tag, self._answer(message))

    def _frame(self, data: bytes, kind: type[Any]) -> tuple[bytes, Any]:
        size, channel, found = frame.unmarshal(data)
        assert channel == self.number
        assert isinstance(found, kind)
        return data[size:], found

    def tell(self, tag: int, answer: BaseException | None = None) -> None:
        """Answer the message with that *tag*, as the library passes answers on."""
        if self.is_closed or answer is SILENT:
            return
        confirmation = self.confirmations[tag]
        if answer is not None and not isinstance(answer, DeliveryError | PublishError):
            self.end(answer)
        elif confirmation.done():
            return
        elif answer is None:
            confirmation.set_result(Basic.Ack(tag))
        else:
            confirmation.set_exception(answer)

    def end(self, error: BaseException | None = None) -> None:
        """The channel is over; without an *error* because we end it."""
        if self.closing.done():
            return
        if error is None:
            self.closing.set_result(None)
        else:
            self.closing.set_exception(error)


class Line:
    """A connection: it confirms what is published, unless that or opening has an *error*.

    Args:
        error: ends the channel when something is published.
        unopened: what opening a channel raises.
        answer: says what becomes of each message; see :class:`ScriptedChannel`.
    """

    where = WHERE

    def __init__(
        self,
        *,
        error: Exception | None = None,
        unopened: Exception | None = None,
        answer: Callable[[Published], BaseException | None] | None = None,
    ) -> None:
        self._unopened = unopened
        #: The channel with confirms, and its writer.
        self.writer = ScriptedChannel(answer or (lambda _: error))
        self.version = (3, 10)
        self.blocked = False
        #: Rises each time that somebody looks whether it is blocked.
        self.looks = asyncio.Semaphore(0)
        #: Each declaration of a queue takes until its future is done.
        self.declarations: list[asyncio.Future[None]] = []
        #: How it ended: with "abort", "end", or one after the other.
        self.ends: list[str] = []

    @property
    def bodies(self) -> list[bytes]:
        """What was published."""
        return [message.body for message in self.writer.published]

    async def channel(self, **_: Any) -> Line:
        if self._unopened is not None:
            raise self._unopened
        return self

    async def get_underlay_channel(self) -> ScriptedChannel:
        return self.writer

    async def declare_queue(self, *_: object, **__: object) -> None:
        self.declarations.append(asyncio.get_running_loop().create_future())
        await self.declarations[-1]

    async def close(self) -> None:
        pass

    async def is_blocked(self) -> bool:
        self.looks.release()
        return self.blocked

    def abort(self) -> None:
        self.ends.append("abort")

    async def end(self) -> None:
        self.writer.end()
        self.ends.append("end")


class Broker:
    """What is connected to: each connect takes until it is let, and has the outcome that it is given then."""

    def __init__(self) -> None:
        self.connects: list[asyncio.Future[Line]] = []

    @classmethod
    def replacing(cls, monkeypatch: pytest.MonkeyPatch) -> Broker:
        """Make one that publishers connect to."""
        made = cls()
        monkeypatch.setattr(module, "connect", made.connect)
        return made

    async def connect(self, *_: object, **__: object) -> Line:
        self.connects.append(asyncio.get_running_loop().create_future())
        return await self.connects[-1]


def publisher(clock: FakeClock | None = None, **settings: Any) -> Publisher:
    return Publisher(RabbitMQOptions(queue="work", url=URL, **settings), "test.publisher", clock or FakeClock())


def letters(count: int, first: int = 0) -> list[Letter]:
    return [Letter("work.dead", b"%d" % n, Basic.Properties(message_id=str(n))) for n in range(first, first + count)]


def told(reasons: list[ProducerError | None]) -> list[str | None]:
    return [None if reason is None else str(reason) for reason in reasons]


async def publishing(
    post: Publisher, broker: Broker, line: Line, given: Sequence[Letter], tell: Told | None = None
) -> asyncio.Task[list[ProducerError | None]]:
    """A call that waits for the answers on *line*, the first connection."""
    task = asyncio.ensure_future(post.publish(given, tell))
    await settle()
    broker.connects[0].set_result(line)
    await settle()
    return task
