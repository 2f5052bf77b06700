"""A close that is cancelled, as by the deadline of a stop, leaves no connection behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pamqp import commands

from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.producers.rabbitmq.connection.connection import connect
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.testing import settle
from broadway_py.testing.driving import copy_of
from tests.producers.fake_broker import FakeBroker, Peer
from tests.support.eventually import eventually

pytestmark = pytest.mark.faults


@asynccontextmanager
async def opened_copy() -> AsyncIterator[tuple[FakeBroker, Any]]:
    """A copy that has both its connections, to a broker that does not answer a farewell."""

    async def answer(peer: Peer, name: str, channel: int, word: Any) -> bool:
        return isinstance(word, commands.Connection.Close | commands.Channel.Close)

    async with FakeBroker.at_work(answer) as broker:
        copy: Any = copy_of(RabbitMQProducer("work", broker.url), capacity=5, pipeline="ours", lost=print)
        await copy.open()
        await copy._publisher._connected()
        assert {peer.name for peer in broker.peers} == {"ours.rabbitmq.0", "ours.rabbitmq.0.publisher"}
        yield broker, copy


async def never(*_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("slow", ["publisher", "settlements", "asides"])
async def test_a_close_that_is_cancelled_drops_the_connections(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened_copy() as (broker, copy):
        session = copy._session
        if slow == "settlements":
            monkeypatch.setattr(session._acknowledger, "finish", never)
        elif slow == "asides":
            monkeypatch.setattr(session._acknowledger, "ended", never)
        if slow != "publisher":
            monkeypatch.setattr(copy._publisher, "close", copy._publisher._opened.connection.end)
            copy._publisher._opened.connection.abort()
        closing = asyncio.create_task(copy.close())
        await eventually(lambda: slow == "publisher" or len(broker.peers) == 1, what="the publisher has gone")
        await settle()
        assert not closing.done()
        closing.cancel()
        async with asyncio.timeout(2):
            await asyncio.wait({closing})
        assert closing.cancelled()
        await eventually(lambda: not broker.peers, what="both connections are gone")
        assert session.trouble is not None


async def test_a_connection_whose_farewell_is_cut_short_is_gone_with_its_tasks() -> None:
    """The library's finalizer would bring it back to life, to close it in a task that nobody owns."""

    async def answer(peer: Peer, name: str, channel: int, word: Any) -> bool:
        return isinstance(word, commands.Connection.Close)

    async with FakeBroker.at_work(answer) as broker:
        tasks = asyncio.all_tasks()
        connection = await connect(RabbitMQOptions(queue="work", url=broker.url), "ours")
        ending = asyncio.create_task(connection.end())
        await settle()
        assert not ending.done()
        ending.cancel()
        await asyncio.wait({ending})
        assert ending.cancelled()
        left = weakref.ref(connection)
        del connection, ending
        await eventually(lambda: not broker.peers, what="it is gone for the broker")
        await eventually(lambda: asyncio.all_tasks() <= tasks, what="the library's tasks have ended")
        gc.collect()
        assert left() is None
        assert asyncio.all_tasks() <= tasks
