"""The connection that only publishes, on one that is scripted: there is no broker, and no client library."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pamqp.commands import Basic

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq import publisher as module
from broadway_py.producers.rabbitmq.letters import Letter
from broadway_py.producers.rabbitmq.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.publisher import Publisher
from broadway_py.testing import FakeClock, settle

URL = "amqp://guest:guest@broker/"
WHERE = "amqp://***@broker:5672/"
CLOSED = f"the connection to {WHERE} was closed"


class Line:
    """A connection and its channels, in one: it confirms what is published."""

    where = WHERE

    def __init__(self) -> None:
        self.published: list[bytes] = []
        self.confirmations: dict[int, object] = {}
        self.is_closed = False
        #: How it ended: with "abort", "end", or one after the other.
        self.ends: list[str] = []

    async def channel(self, **_: Any) -> Line:
        return self

    async def get_underlay_channel(self) -> Line:
        return self

    async def basic_publish(self, body: bytes, **_: Any) -> None:
        self.published.append(body)

    def abort(self) -> None:
        self.ends.append("abort")

    async def end(self) -> None:
        self.is_closed = True
        self.ends.append("end")


class Broker:
    """What is connected to: each connect takes until it is let, and has the outcome that it is given then."""

    def __init__(self) -> None:
        self.connects: list[asyncio.Future[Line]] = []

    async def connect(self, *_: object) -> Line:
        self.connects.append(asyncio.get_running_loop().create_future())
        return await self.connects[-1]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()
    monkeypatch.setattr(module, "connect", made.connect)
    return made


def publisher(**settings: Any) -> Publisher:
    return Publisher(RabbitMQOptions(queue="work", url=URL, **settings), "test.publisher", FakeClock())


def letters(count: int) -> list[Letter]:
    return [Letter("work.dead", b"%d" % n, Basic.Properties(message_id=str(n))) for n in range(count)]


def told(reasons: list[ProducerError | None]) -> list[str | None]:
    return [None if reason is None else str(reason) for reason in reasons]


async def test_letters_are_published_on_one_connection(broker: Broker) -> None:
    post, line = publisher(), Line()
    publishing = asyncio.ensure_future(post.publish(letters(3)))
    await settle()
    (connect,) = broker.connects
    connect.set_result(line)
    assert await publishing == [None] * 3
    assert line.published == [b"0", b"1", b"2"]
    await post.close()
    assert line.ends == ["end"]


async def test_a_connect_that_succeeds_after_the_close_is_ended_and_publishes_nothing(broker: Broker) -> None:
    post, line = publisher(), Line()
    publishing = asyncio.ensure_future(post.publish(letters(2)))
    await settle()
    await post.close()
    broker.connects[0].set_result(line)
    assert told(await publishing) == [CLOSED] * 2
    assert line.ends == ["abort", "end"]
    assert line.published == []
    assert len(broker.connects) == 1
