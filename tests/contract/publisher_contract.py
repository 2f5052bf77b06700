"""What every publisher does for the handlers of a pipeline, driven as handlers drive it.

A connector's tests subclass :class:`PublisherContract` and provide a fixture ``harness``, a
:class:`~tests.contract.sink_contract.SinkHarness`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broadway_py import Message, Pipeline, PublishError, Unavailable
from broadway_py.producers import DummyProducer
from broadway_py.publisher import Sink
from tests.contract.sink_contract import DEADLINE, SOON, Arrived, SinkHarness
from tests.support.eventually import eventually

__all__ = ["PublisherContract"]


class Relaying(Pipeline[Any]):
    """Publishes each message."""

    producer = DummyProducer()

    async def handle_message(self, message: Message[Any]) -> None:
        await self.publishers["out"].publish(message, key="k", message_id=f"w{message.data}#1", timeout=DEADLINE)


@asynccontextmanager
async def running(harness: SinkHarness) -> AsyncIterator[tuple[Relaying, Sink]]:
    async with Relaying(publishers={"out": harness.sink()}) as pipeline:
        yield pipeline, pipeline.publishers["out"]


def arrived(numbers: Iterable[int]) -> list[Arrived]:
    return [(b"%d" % number, f"w{number}#1") for number in numbers]


def named(item: int) -> str:
    return f"w{item}#1"


class PublisherContract:
    """The suite. Each test gets a place of its own through the fixture ``harness``."""

    async def test_a_message_is_handled_when_what_it_published_has_arrived(self, harness: SinkHarness) -> None:
        async with running(harness) as (pipeline, _):
            await pipeline.submit(7)
            assert await harness.count() == 1
            (figures,) = pipeline.stats().publishers
            assert (figures.published, figures.connected) == ({"confirmed": 1, "refused": 0, "unconfirmed": 0}, 1)
            assert pipeline.stats().trouble is None

        assert await harness.take() == arrived([7])

    async def test_many_handlers_publish_at_the_same_time(self, harness: SinkHarness) -> None:
        async with running(harness) as (pipeline, out):
            await pipeline.submit_batch(range(60))
            async with asyncio.TaskGroup() as tasks:
                for number in range(60, 120):
                    tasks.create_task(out.publish(number, message_id=named(number), timeout=DEADLINE))
            (figures,) = pipeline.stats().publishers
            assert (figures.waiting, figures.in_flight) == (0, 0)

        assert Counter(await harness.take()) == Counter(arrived(range(120)))

    async def test_many_items_of_one_key_arrive_in_their_order(self, harness: SinkHarness) -> None:
        async with running(harness) as (_, out):
            await out.publish_many(range(45), key="k", message_id=named, timeout=DEADLINE)

        came = await harness.take()
        assert (came if harness.keeps_order else sorted(came)) == (
            arrived(range(45)) if harness.keeps_order else sorted(arrived(range(45)))
        )

    async def test_a_connection_that_breaks_in_the_middle_loses_nothing(self, harness: SinkHarness) -> None:
        async with running(harness) as (_, out):
            many = out.publish_many(range(harness.many), message_id=named, timeout=2 * DEADLINE)
            publishing = asyncio.ensure_future(many)

            async def has_begun() -> bool:
                return await harness.count() > 0 or publishing.done()

            await eventually(has_begun, timeout=DEADLINE, what="some messages have arrived")
            await harness.kill()
            await publishing

        assert set(await harness.take()) == set(arrived(range(harness.many)))

    async def test_while_the_place_is_away_the_error_is_not_the_fault_of_the_message(
        self, harness: SinkHarness
    ) -> None:
        async with running(harness) as (pipeline, out):
            await out.publish(1, message_id=named(1), timeout=DEADLINE)
            await harness.go_away()
            with pytest.raises(PublishError) as error:
                await out.publish(2, message_id=named(2), timeout=SOON)
            assert isinstance(error.value, Unavailable)
            assert str(error.value).startswith("publisher 'out': the message was not confirmed: ")
            assert harness.secret not in str(error.value)
            assert (error.value.unpublished, error.value.refused) == ([2], [])
            trouble = pipeline.stats().trouble or ""
            assert trouble.startswith("degraded: publisher 'out': ")
            assert harness.secret not in trouble

            await harness.come_back()
            await out.publish(3, message_id=named(3), timeout=DEADLINE)

        # What the error was about may have arrived nevertheless.
        assert set(await harness.take()) - set(arrived([2])) == set(arrived([1, 3]))

    async def test_a_place_that_comes_back_is_found_although_nobody_publishes(self, harness: SinkHarness) -> None:
        async with running(harness) as (pipeline, out):
            await harness.go_away()
            with pytest.raises(PublishError):
                await out.publish(1, message_id=named(1), timeout=SOON)
            await harness.come_back()

            async def is_ready() -> bool:
                return pipeline.stats().trouble is None

            await eventually(is_ready, timeout=DEADLINE, what="the pipeline is ready again")

    async def test_a_message_that_the_place_never_takes_holds_up_no_other(self, harness: SinkHarness) -> None:
        if harness.unfit is None:
            return  # this place takes everything
        async with running(harness) as (_, out):
            with pytest.raises(PublishError) as error:
                await out.publish_many(
                    [1, harness.unfit, 2],
                    message_id=lambda item: named(item) if item in (1, 2) else "",
                    timeout=DEADLINE,
                )
            assert not isinstance(error.value, Unavailable)
            assert str(error.value).startswith("publisher 'out': 1 of 3 messages were not confirmed: ")
            assert error.value.unpublished == error.value.refused == [harness.unfit]

        assert set(await harness.take()) == set(arrived([1, 2]))

    async def test_a_stop_waits_for_what_is_on_its_way(self, harness: SinkHarness) -> None:
        async with running(harness) as (_, out):
            publishing = asyncio.ensure_future(out.publish_many(range(30), message_id=named, timeout=DEADLINE))
            await asyncio.sleep(0)
        await publishing

        assert Counter(await harness.take()) == Counter(arrived(range(30)))

    async def test_a_cancelled_call_leaves_the_publisher_usable(self, harness: SinkHarness) -> None:
        async with running(harness) as (_, out):
            for turns in range(0, 12, 2):
                publishing = asyncio.ensure_future(out.publish(turns, message_id=named(turns), timeout=DEADLINE))
                for _ in range(turns):
                    await asyncio.sleep(0)
                publishing.cancel()
                await asyncio.wait({publishing})
            await out.publish(100, message_id=named(100), timeout=DEADLINE)

        assert set(arrived([100])) <= set(await harness.take()) <= set(arrived([*range(0, 12, 2), 100]))
