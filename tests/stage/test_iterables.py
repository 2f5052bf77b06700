"""Iterables as producers: what is in memory, what blocks in a thread, what is awaited; and how they are closed."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, cast

import pytest

from broadway_py.errors import OptionsError
from broadway_py.stage import PartitionDispatcher, from_iterable, stream, subscribe
from tests.stage.support import Recorder, run_until_idle, soon
from tests.support.conformance import conforms
from tests.support.eventually import eventually


async def counted(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def awaited(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number
    await asyncio.sleep(0)


def generated(count: int) -> Iterator[int]:
    yield from range(count)


@conforms("G-114")
@pytest.mark.parametrize(
    "make",
    [
        lambda: range(10),
        lambda: list(range(10)),
        lambda: dict.fromkeys(range(10)),
        lambda: generated(10),
        lambda: iter(range(10)),
        lambda: counted(10),
        lambda: awaited(10),
    ],
)
@pytest.mark.parametrize("options", [{}, {"max_demand": 1}, {"max_demand": 5}, {"max_demand": 10}])
async def test_every_kind_of_iterable_is_emitted_and_then_ends(make: Any, options: dict[str, Any]) -> None:
    async with from_iterable(make()) as source:
        assert await soon(collected(stream(source, **options))) == list(range(10))
        await soon(source.wait())


async def collected(events: AsyncIterator[Any], most: int | None = None) -> list[Any]:
    found = []
    async for event in events:
        found.append(event)
        if len(found) == most:
            break
    return found


@conforms("G-113", "G-118")
@pytest.mark.parametrize(("on_cancel", "lives"), [("continue", True), ("stop", False)])
async def test_an_endless_one_lives_on_when_its_last_consumer_leaves_or_ends(on_cancel: Any, lives: bool) -> None:
    async with from_iterable(itertools.cycle([1, 2, 3]), on_cancel=on_cancel) as source:
        assert await soon(collected(stream(source), 5)) == [1, 2, 3, 1, 2]
        if lives:
            await run_until_idle()
            assert repr(source) == "<from_iterable running>"
            assert len(await soon(collected(stream(source), 5))) == 5
        else:
            await soon(source.wait())


async def test_an_async_one_that_waits_ends_when_its_last_consumer_leaves_and_not_when_it_resubscribes() -> None:
    closed: list[int] = []
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def waiting() -> AsyncIterator[int]:
        try:
            while True:
                yield await queue.get()
        finally:
            closed.append(1)

    async with from_iterable(waiting(), on_cancel="stop") as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, cancel="temporary")
        await run_until_idle()
        subscription = await subscription.resubscribe(max_demand=2)
        await run_until_idle()
        queue.put_nowait(1)
        await run_until_idle()
        assert (recorder.events, closed) == ([1], [])

        subscription.cancel()
        await soon(source.wait())
        assert closed == [1]


async def test_it_is_read_on_where_the_last_consumer_left_it() -> None:
    async with from_iterable(range(10)) as source, Recorder() as first, Recorder() as second:
        subscription = await subscribe(first, to=source, max_demand=3, cancel="temporary", mode="manual")
        subscription.ask(4)
        await run_until_idle()
        subscription.cancel()
        await subscribe(second, to=source)
        await soon(source.wait())
        await run_until_idle()

        assert first.events + second.events == list(range(10))


async def test_no_more_is_read_than_was_asked_for() -> None:
    read: list[int] = []

    def reading() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    async with from_iterable(reading()) as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, mode="manual")
        subscription.ask(3)
        await eventually(lambda: len(recorder.events) == 3, what="three events have come")

        assert read == [0, 1, 2]


class Gated:
    """An iterator whose ``next`` blocks until it is let through. Notes how many are under way at once."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.under_way = self.most = self.count = 0
        self.is_closed = threading.Event()

    def __iter__(self) -> Gated:
        return self

    def __next__(self) -> int:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.gate.acquire()
        self.under_way -= 1
        self.count += 1
        return self.count

    def close(self) -> None:
        self.is_closed.set()


async def test_a_slow_one_hands_over_each_element_as_it_comes_and_blocks_nobody() -> None:
    slow = Gated()
    async with from_iterable(slow) as source, Recorder() as recorder:
        await subscribe(recorder, to=source)
        waiting = [1, 2, 3]
        while waiting:
            slow.gate.release()
            await eventually(lambda: recorder.events[-1:] == waiting[:1], what="the element has come")
            del waiting[0]

        assert recorder.batches == [[1], [2], [3]]
        assert slow.most == 1
    assert not slow.is_closed.is_set()  # a next is under way, and nobody waits for it
    slow.gate.release()
    assert await asyncio.to_thread(slow.is_closed.wait, 10)


async def test_a_slow_async_one_hands_over_each_element_as_it_comes() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def slow() -> AsyncIterator[int]:
        while True:
            yield await queue.get()

    async with from_iterable(slow()) as source, Recorder() as recorder:
        await subscribe(recorder, to=source)
        for number in range(3):
            queue.put_nowait(number)
            await run_until_idle()

        assert recorder.batches == [[0], [1], [2]]


async def test_elements_of_an_async_one_that_come_without_a_wait_come_in_one_list() -> None:
    may_go_on = asyncio.Event()

    async def in_parts() -> AsyncIterator[int]:
        for number in range(4):
            yield number
        await asyncio.sleep(0)
        await may_go_on.wait()
        for number in range(4, 7):
            yield number

    async with from_iterable(in_parts()) as source, Recorder() as recorder:
        await subscribe(recorder, to=source, max_demand=100, min_demand=0)
        await run_until_idle()
        assert recorder.batches == [[0, 1, 2, 3]]
        may_go_on.set()
        await soon(source.wait())
        await run_until_idle()

        assert recorder.batches == [[0, 1, 2, 3], [4, 5, 6]]


async def test_a_wait_of_an_async_one_may_time_out_and_go_on() -> None:
    class Patient:
        """Waits in vain, catches it, and gives a number."""

        def __init__(self) -> None:
            self.count = 0

        def __aiter__(self) -> Patient:
            return self

        async def __anext__(self) -> int:
            self.count += 1
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                return self.count
            return 0

    async with from_iterable(Patient()) as source:
        assert await soon(collected(stream(source), 3)) == [1, 2, 3]


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_generator_is_closed_when_the_stage_ends(is_async: bool) -> None:
    closed: list[str] = []

    def plain() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append("plain")

    async def closing() -> AsyncIterator[int]:
        try:
            for number in range(1000):
                yield number
        finally:
            closed.append("async")

    async with from_iterable(closing() if is_async else plain()) as source:
        assert await soon(collected(stream(source, max_demand=2), 3)) == [0, 1, 2]
        await run_until_idle()
        if not is_async:
            # Nobody would wait for a thread that is within the generator.
            reader = cast("Any", source)._reader
            await eventually(lambda: reader._asks.empty() and not reader._is_reading, what="the thread has read all")
        assert closed == []

    assert closed == ["async" if is_async else "plain"]


@pytest.mark.parametrize("cleans_up", ["at once", "later", "with an error", "by an element"])
async def test_an_async_generator_that_waits_is_closed_when_its_elements_cannot_be_handed_over(cleans_up: str) -> None:
    closed: list[str] = []

    async def waiting() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if cleans_up == "by an element":
                yield 2
            raise
        finally:
            if cleans_up == "later":
                await asyncio.sleep(0)
            closed.append(cleans_up)
            if cleans_up == "with an error":
                raise LookupError

    def nowhere(event: int) -> int:
        raise ValueError("nowhere")

    dispatcher = PartitionDispatcher[Any, int](1, hash=nowhere)
    async with from_iterable(waiting(), dispatcher=dispatcher) as source, Recorder() as recorder:
        await subscribe(recorder, to=source, partition=0, cancel="temporary")
        with pytest.raises(ValueError, match="nowhere"):
            await soon(source.wait())

        assert (closed, recorder.events) == ([cleans_up], [])


async def test_a_generator_that_was_never_asked_is_not_started() -> None:
    begun: list[str] = []

    def reading() -> Iterator[int]:
        begun.append("begun")
        yield 1

    async with from_iterable(reading()):
        pass

    assert begun == []


def failing() -> Iterator[int]:
    yield 1
    raise ValueError("the user's")


async def failing_after_a_wait() -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(0)
    raise ValueError("the user's")


async def failing_async() -> AsyncIterator[int]:
    yield 1
    raise ValueError("the user's")


class FailsInside:
    """Has a length, so it is read in the event loop."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[int]:
        return failing()


class FailsAtOnce:
    def __iter__(self) -> Iterator[int]:
        raise ValueError("the user's")


@pytest.mark.parametrize(
    ("make", "before"),
    [(failing, [1]), (failing_async, [1]), (failing_after_a_wait, [1]), (FailsInside, [1]), (FailsAtOnce, [])],
)
async def test_an_iterable_that_raises_kills_its_stage_behind_its_elements(make: Any, before: list[int]) -> None:
    async with from_iterable(make()) as source, Recorder() as recorder:
        await subscribe(recorder, to=source, cancel="temporary")
        with pytest.raises(ValueError, match="the user's"):
            await soon(source.wait())
        await run_until_idle()

        assert recorder.events == before


async def test_a_generator_that_raises_while_it_is_closed_kills_its_stage() -> None:
    def stubborn() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise ValueError("the user's")

    async with from_iterable(stubborn()) as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, mode="manual", cancel="temporary")
        subscription.ask(1)
        await eventually(lambda: recorder.events == [1], what="the event has come")

    with pytest.raises(ValueError, match="the user's"):
        await source.wait()


@pytest.mark.parametrize(
    ("items", "options", "sentence"),
    [
        (3, {}, "items: expected an iterable or async iterable, got an int"),
        ([], {"on_cancel": "halt"}, "on_cancel: expected 'continue' or 'stop', got 'halt'"),
        (
            [],
            {"buffer_kep": 1},
            (
                "buffer_kep: unknown setting; known here: buffer_keep, buffer_size, clock, demand, dispatcher, "
                "on_discard; did you mean 'buffer_keep'?"
            ),
        ),
    ],
)
def test_wrong_options_are_refused(items: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        from_iterable(items, **options)

    assert str(refused.value) == sentence


async def test_many_stages_of_threads_leave_no_thread_behind() -> None:
    before = threading.active_count()
    for _ in range(5):
        async with from_iterable(generated(100)) as source:
            await soon(collected(stream(source)))

    await eventually(lambda: threading.active_count() <= before, what="the threads have ended")


@pytest.mark.parametrize("items", [[], range(0), generated(0)])
async def test_an_empty_one_ends_at_once(items: Iterable[int]) -> None:
    async with from_iterable(items) as source:
        assert await soon(collected(stream(source))) == []
