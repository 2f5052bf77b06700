"""``max_in_flight_bytes``: fetching pauses while as many payload bytes are in flight."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, OptionsError, Pipeline, Processors
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ManualProducer, Quiet, Recorder, check_books, finish, outcomes, received, running

KILO = b"x" * 1000


class Held(Pipeline[Any]):
    """Each message takes one second; one after the other."""

    processors = Processors(concurrency=1, max_demand=1)
    max_in_flight_bytes = 2500

    async def handle_message(self, message: Message[Any]) -> None:
        await self.clock.sleep(1.0)


def bytes_in_flight(pipeline: Pipeline[Any]) -> int:
    return sum(producer.bytes_in_flight for producer in pipeline.stats().producers)


async def test_fetching_pauses_at_the_cap_and_goes_on_below_it() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([KILO] * 8))
    # Nine may be held by demand alone.
    processors = Processors(concurrency=9, max_demand=1)
    pipeline = Held(producer=producer, processors=processors)
    producer.feed.items.clear()
    async with running(pipeline) as clock:
        for _ in range(8):
            producer.feed.put(recorder.message(KILO))
            await clock.advance(0.01)
        assert (received(pipeline), bytes_in_flight(pipeline), len(producer.feed.items)) == (3, 3000, 5)
        await clock.advance(0.98)  # the first is done
        assert received(pipeline) >= 4
        assert bytes_in_flight(pipeline) <= 8000
        check_books(pipeline)
        await clock.advance(10.0)

    assert outcomes(pipeline) == {"acked": 8}
    recorder.check_once()


async def test_the_cap_is_soft_by_one_list() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([KILO] * 20))
    pipeline = Held(producer=producer, processors=Processors(concurrency=1, max_demand=10, min_demand=9))
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        # One list of ten, all of it, and no second one.
        assert (received(pipeline), producer.feed.demands) == (10, [10])
        await clock.advance(7.0)
        assert len(producer.feed.demands) == 1
        await clock.advance(30.0)

    assert outcomes(pipeline) == {"acked": 20}
    recorder.check_once()


async def test_the_cap_is_over_all_producers() -> None:
    recorder = Recorder()
    one = ManualProducer(*recorder.messages([KILO] * 3), name="one")
    other = ManualProducer(name="other")
    pipeline = Held(producer=[one, other], processors=Processors(concurrency=6, max_demand=1))
    async with running(pipeline) as clock:
        await clock.advance(0.1)
        other.feed.put(recorder.message(KILO), recorder.message(KILO))
        await clock.advance(0.1)
        assert (received(pipeline), len(other.feed.items)) == (3, 2)
        await clock.advance(10.0)

    assert outcomes(pipeline) == {"acked": 5}
    recorder.check_once()


async def test_bytes_that_wait_in_an_open_batch_count_until_the_batch_is_settled() -> None:
    class Gathering(Pipeline[Any]):
        processors = Processors(concurrency=1, max_demand=1)
        batchers = {"default": Batcher(batch_size=100, batch_timeout=3.0)}  # noqa: RUF012  # never changed
        max_in_flight_bytes = 2500

        async def handle_message(self, message: Message[Any]) -> None:
            pass

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            sizes.append(len(messages))

    sizes: list[int] = []
    recorder = Recorder()
    pipeline = Gathering(producer=ManualProducer(*recorder.messages([KILO] * 6)))
    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert (received(pipeline), recorder.count) == (3, 0)
        await clock.advance(2.5)
        assert (received(pipeline), recorder.count) == (6, 3)
        await clock.advance(3.5)

    assert sizes == [3, 3]
    recorder.check_once()


async def test_a_single_payload_above_the_cap_goes_through() -> None:
    pipeline = Quiet(producer=MemoryProducer([KILO * 9, KILO * 9]), max_in_flight_bytes=1)

    assert await finish(pipeline) == {"acked": 2}


async def test_a_stop_does_not_wait_for_room() -> None:
    hold = asyncio.Event()

    class Holding(Held):
        async def handle_message(self, message: Message[Any]) -> None:
            await hold.wait()

    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([KILO] * 3))
    pipeline = Holding(producer=producer, max_in_flight_bytes=1, processors=Processors(concurrency=1, max_demand=1))
    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert received(pipeline) == 1
        hold.set()
        await clock.advance(0.0)

    assert outcomes(pipeline)["acked"] == 3 - len(producer.feed.items)


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_cap_is_a_positive_whole_number(wrong: int) -> None:
    with pytest.raises(OptionsError) as raised:
        Quiet(max_in_flight_bytes=wrong)
    assert str(raised.value) == f"max_in_flight_bytes: expected greater than or equal to 1, got {wrong}"
