"""What stages hold stays the same, however much passes through them."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from broadway_py.stage import (
    BroadcastDispatcher,
    ConsumerStage,
    ConsumerSupervisor,
    PartitionDispatcher,
    ProducerConsumerStage,
    ProducerStage,
    from_iterable,
    stream,
    subscribe,
)
from tests.stage.support import Doubler, Forwarder, Recorder, run_until_idle


class Endless(ProducerStage[int]):
    """Gives as many numbers as it is asked for, and some more, until *most*."""

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(on_discard=lambda _: False, **options)
        self.next, self.most = 0, most

    def handle_demand(self, demand: int) -> list[int] | None:
        if self.next >= self.most:
            self.stop()
            return []
        first, self.next = self.next, self.next + demand + 3
        return list(range(first, self.next))


class Twice(ProducerConsumerStage[int, int]):
    def handle_events(self, events: list[int]) -> list[int]:
        return events + events


class Slow(ConsumerStage[int]):
    async def handle_events(self, events: list[int]) -> None:
        await asyncio.sleep(0)


async def a_slow_consumer(most: int) -> None:
    async with Endless(most, buffer_size=100) as source, Twice() as twice, Slow() as slow:
        await subscribe(slow, to=twice, max_demand=100)
        await subscribe(twice, to=source, max_demand=50)
        await slow.wait()


async def a_hungry_and_a_dead_partition(most: int) -> None:
    dispatcher = PartitionDispatcher[Any, int](2)
    # A queue that is shorter than the demand overflows. A longer one would use the demand up, and stop the source.
    async with Endless(most, dispatcher=dispatcher, buffer_size=20) as source, Slow() as slow:
        await subscribe(slow, to=source, partition=1, max_demand=50)
        await slow.wait()


async def a_broadcast_whose_listeners_come_and_go(most: int) -> None:
    async with Endless(most, dispatcher=BroadcastDispatcher(), buffer_size=100) as source:
        while source.next < most:
            async with Slow() as passing:
                await subscribe(passing, to=source, max_demand=50)
                for _ in range(20):
                    await asyncio.sleep(0)
            gc.collect()  # a stage and its links refer to each other


async def a_task_for_each_event(most: int) -> None:
    async def child(event: int) -> None:
        await asyncio.sleep(0)

    async with Endless(most // 10, buffer_size=100) as source, ConsumerSupervisor(child) as supervisor:
        await subscribe(supervisor, to=source, max_demand=20)
        await supervisor.wait()


async def a_generator_and_a_stream(most: int) -> None:
    async with from_iterable(number for number in range(most)) as source:
        async for _ in stream(source, max_demand=100):
            pass


def peak(run: Callable[[int], Coroutine[Any, Any, None]], most: int) -> int:
    gc.collect()
    # What other tests have left in this process is not looked through again each time that a run collects.
    gc.freeze()
    tracemalloc.start()
    try:
        asyncio.run(run(most))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "run",
    [
        a_slow_consumer,
        a_hungry_and_a_dead_partition,
        a_broadcast_whose_listeners_come_and_go,
        a_task_for_each_event,
        a_generator_and_a_stream,
    ],
)
def test_eight_times_the_events_need_no_more_memory(run: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    peak(run, 1_000)  # what is loaded and cached by the first run

    assert peak(run, 40_000) < peak(run, 5_000) + 60_000


async def test_a_stage_in_the_middle_forgets_the_lists_that_it_has_handled() -> None:
    async with Forwarder() as source, Doubler() as doubler, Recorder() as recorder:
        await subscribe(recorder, to=doubler, max_demand=1000)
        await subscribe(doubler, to=source, max_demand=4)
        for _ in range(20):
            await run_until_idle()
            source.emit([1, 2, 3, 4])
        await run_until_idle()

        # Each list was cut into two chunks, and there was demand for all of them.
        assert doubler.batches == [[1, 2], [3, 4]] * 20
        assert not doubler.inlet.lists
