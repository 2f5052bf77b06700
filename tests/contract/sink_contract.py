"""What every sink must do, driven through its port as an aggregator drives it.

A connector's tests subclass :class:`SinkContract` and provide a fixture ``harness``, a :class:`SinkHarness`.
"""

from __future__ import annotations

import abc
import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from broadway_py.errors import PublishError
from broadway_py.publisher import Outgoing, Publisher, Sink
from tests.support.eventually import eventually

__all__ = ["Arrived", "SinkContract", "SinkHarness", "messages"]

#: Seconds after which something that should have been confirmed never will.
DEADLINE: Final = 20.0
#: Seconds of a caller that does not wait until the place is back.
SOON: Final = 0.5

#: The payload and the id of a message that has arrived.
Arrived = tuple[bytes, str | None]


class SinkHarness(abc.ABC):
    """One place under test: emptied and counted from outside, never through the sink."""

    #: A text that no error may show.
    secret: str
    #: How many messages of one call are enough that it can be broken in its middle.
    many: int = 1_000
    #: Whether messages of one key are taken out in the order in which they were published.
    keeps_order: bool = True
    #: What a handler may give, and the place never takes. None: it takes everything.
    unfit: object = None

    @abc.abstractmethod
    def sink(self) -> Sink:
        """A new sink of the place."""

    @abc.abstractmethod
    async def count(self) -> int:
        """How many messages have arrived and were not taken."""

    @abc.abstractmethod
    async def take(self) -> list[Arrived]:
        """All messages that have arrived, in the order of the place; they are taken out."""

    @abc.abstractmethod
    async def kill(self) -> None:
        """Break every connection of the sink. New ones work."""

    @abc.abstractmethod
    async def go_away(self) -> None:
        """The place is not available from now on, and every connection is broken."""

    @abc.abstractmethod
    async def come_back(self) -> None:
        """The place is available again."""


def messages(count: int, first: int = 0) -> list[Outgoing]:
    return [
        Outgoing(data=b'{"n":%d}' % number, message_id=f"w{number}#1", key=f"k{number % 3}")
        for number in range(first, first + count)
    ]


def named(sent: list[Outgoing]) -> list[Arrived]:
    return [(message.data, message.message_id) for message in sent]


@asynccontextmanager
async def publisher_of(harness: SinkHarness) -> AsyncIterator[Publisher]:
    publisher = harness.sink().create("shop.revenue")
    try:
        yield publisher
    finally:
        await publisher.close()


class SinkContract:
    """The suite. Each test gets a place of its own through the fixture ``harness``."""

    async def test_when_the_call_returns_all_have_arrived_with_their_ids(self, harness: SinkHarness) -> None:
        sent = messages(25)
        async with publisher_of(harness) as publisher:
            await publisher.publish(sent, timeout=DEADLINE)
            assert await harness.count() == 25

        assert Counter(await harness.take()) == Counter(named(sent))

    async def test_calls_may_run_side_by_side(self, harness: SinkHarness) -> None:
        sent = messages(60)
        async with publisher_of(harness) as publisher, asyncio.TaskGroup() as tasks:
            for start in range(0, 60, 12):
                tasks.create_task(publisher.publish(sent[start : start + 12], timeout=DEADLINE))

        assert Counter(await harness.take()) == Counter(named(sent))

    async def test_a_connection_that_breaks_in_the_middle_loses_nothing(self, harness: SinkHarness) -> None:
        sent = messages(harness.many)
        async with publisher_of(harness) as publisher:
            publishing = asyncio.ensure_future(publisher.publish(sent, timeout=2 * DEADLINE))

            async def has_begun() -> bool:
                return await harness.count() > 0 or publishing.done()

            await eventually(has_begun, timeout=DEADLINE, what="some messages have arrived")
            await harness.kill()
            await publishing

        arrived = Counter(await harness.take())
        assert arrived.keys() == set(named(sent))

    async def test_between_two_calls_a_connection_may_break(self, harness: SinkHarness) -> None:
        first, second = messages(3), messages(3, first=3)
        async with publisher_of(harness) as publisher:
            await publisher.publish(first, timeout=DEADLINE)
            await harness.kill()
            await publisher.publish(second, timeout=DEADLINE)

        assert set(await harness.take()) == set(named(first + second))

    async def test_while_the_place_is_away_the_error_says_that_nothing_is_confirmed(self, harness: SinkHarness) -> None:
        sent = messages(3)
        async with publisher_of(harness) as publisher:
            await harness.go_away()
            with pytest.raises(PublishError) as error:
                await publisher.publish(sent, timeout=SOON)
            assert str(error.value).startswith("3 of 3 messages were not confirmed: ")
            assert harness.secret not in str(error.value)
            assert error.value.unpublished == sent
            assert error.value.refused == []

            await harness.come_back()
            await publisher.publish(sent, timeout=DEADLINE)

        assert set(await harness.take()) == set(named(sent))

    async def test_a_place_that_comes_back_in_time_gets_what_waits(self, harness: SinkHarness) -> None:
        sent = messages(3)
        async with publisher_of(harness) as publisher:
            await harness.go_away()
            publishing = asyncio.ensure_future(publisher.publish(sent, timeout=DEADLINE))
            await asyncio.wait({publishing}, timeout=SOON)
            assert not publishing.done()
            await harness.come_back()
            await publishing

        assert set(await harness.take()) == set(named(sent))

    async def test_open_says_whether_the_place_is_there(self, harness: SinkHarness) -> None:
        async with publisher_of(harness) as publisher:
            await publisher.open()
            await publisher.publish(messages(1), timeout=DEADLINE)

        assert await harness.take() == named(messages(1))

    async def test_after_the_close_nothing_is_published(self, harness: SinkHarness) -> None:
        async with publisher_of(harness) as publisher:
            await publisher.publish(messages(1), timeout=DEADLINE)
            await publisher.close()
            with pytest.raises(
                PublishError, match=r"^1 of 1 messages were not confirmed: .*: the publisher is closed$"
            ):
                await publisher.publish(messages(1, first=1), timeout=DEADLINE)

        assert await harness.take() == named(messages(1))

    async def test_a_publisher_that_never_connected_can_be_closed(self, harness: SinkHarness) -> None:
        publisher = harness.sink().create("shop.revenue")

        await publisher.close()
        await publisher.close()

        assert await harness.count() == 0

    async def test_two_publishers_of_one_sink_do_not_share_their_end(self, harness: SinkHarness) -> None:
        sink = harness.sink()
        one, other = sink.create("shop.revenue"), sink.create("shop.costs")
        await one.publish(messages(1), timeout=DEADLINE)
        await one.close()
        await other.publish(messages(1, first=1), timeout=DEADLINE)
        await other.close()

        assert set(await harness.take()) == set(named(messages(2)))

    def test_a_sink_shows_no_secret(self, harness: SinkHarness) -> None:
        assert harness.secret not in repr(harness.sink())
