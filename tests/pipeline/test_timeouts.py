"""``timeout=``: how long a handler may take, and what becomes of one that takes longer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors, ack_immediately
from broadway_py.producers import MemoryProducer
from broadway_py.testing import FakeClock, settle
from tests.pipeline.support import (
    DEADLINE,
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    finish,
    in_flight,
    outcomes,
    received,
    running,
    soon,
)
from tests.support.eventually import eventually

LATE = "the callback did not finish within its time-out of 2 s"

TWO_SECONDS = Processors(concurrency=1, max_demand=10, min_demand=0, timeout=2.0)


class Limited(Pipeline[Any]):
    """Calls what the test wrote, which has two seconds; remembers what failed, as handle_failed saw it."""

    processors = TWO_SECONDS

    def __init__(self, handle: Callable[[Message[Any]], Awaitable[None]], **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle
        self.failures: list[tuple[Any, str]] = []

    async def handle_message(self, message: Message[Any]) -> None:
        await self.handle(message)

    async def handle_failed(self, messages: list[Message[Any]]) -> None:
        self.failures += [(message.data, message.status.cause) for message in messages if message.status]


class LimitedThread(Pipeline[Any]):
    """The same with a plain function, which runs in a thread."""

    processors = TWO_SECONDS

    def __init__(self, handle: Callable[[Message[Any]], None], **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle
        self.failures: list[tuple[Any, dict[str, Any], str]] = []

    def handle_message(self, message: Message[Any]) -> None:
        self.handle(message)

    async def handle_failed(self, messages: list[Message[Any]]) -> None:
        self.failures += [(m.data, dict(m.metadata), m.status.cause) for m in messages if m.status]


class Blocking:
    """A handler that blocks at the payloads in *blocks* until it is let go, and knows how many run side by side."""

    def __init__(self, *blocks: Any) -> None:
        self.blocks = set(blocks)
        self.go = threading.Event()
        self.started: list[Any] = []
        self.blocked = threading.Semaphore(0)
        self.live = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, message: Message[Any]) -> None:
        with self._lock:
            self.live += 1
            self.most = max(self.most, self.live)
            self.started.append(message.data)
        if message.data in self.blocks:
            self.blocked.release()
            self.go.wait(DEADLINE)
            message.data = "written too late"
            message.metadata["late"] = True
            message.batcher = "nowhere"
            message.status = None
        with self._lock:
            self.live -= 1

    async def until_blocked(self) -> None:
        """Wait until one more call blocks."""
        assert await asyncio.to_thread(self.blocked.acquire, True, DEADLINE)


@contextmanager
def blocking(*blocks: Any) -> Iterator[Blocking]:
    """A blocking handler that is let go at the latest when the block is left."""
    handler = Blocking(*blocks)
    try:
        yield handler
    finally:
        handler.go.set()


def stuck(pipeline: Pipeline[Any]) -> int:
    return pipeline.stats().stuck_handlers


async def returned(pipeline: Pipeline[Any]) -> None:
    """Wait until no thread is left behind."""
    await eventually(lambda: stuck(pipeline) == 0, timeout=DEADLINE, what="the threads to return")
    await settle()


# --- async handlers -------------------------------------------------------------------------------------------------


async def test_an_async_handler_past_its_time_out_is_cancelled_and_its_message_fails_alone() -> None:
    cancelled: list[Any] = []

    async def handle(message: Message[Any]) -> None:
        if message.data == 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(message.data)
                raise

    recorder = Recorder()
    pipeline = Limited(handle, producer=ManualProducer(*recorder.messages([1, 2, 3])))
    async with running(pipeline) as clock:
        await clock.advance(1.9)
        assert (recorder.count, cancelled) == (0, [])
        await clock.advance(0.2)
        assert (recorder.successful, recorder.failed, cancelled) == ([1, 3], [2], [2])

    status = recorder.statuses[2]
    assert (status.cause, status.reason, status.exception) == ("timeout", LATE, None)
    assert pipeline.failures == [(2, "timeout")]
    assert pipeline.stats().stages[0].failed == {"timeout": 1}
    recorder.check_once()


async def test_each_message_has_the_whole_time_for_itself() -> None:
    async def handle(message: Message[Any]) -> None:
        await pipeline.clock.sleep(1.5)

    pipeline = Limited(handle, producer=ManualProducer(1, 2, 3, 4))
    async with running(pipeline) as clock:
        await clock.advance(6.1)
        assert outcomes(pipeline) == {"acked": 4}


async def test_one_that_ignores_its_cancellation_keeps_its_slot_and_its_message_fails() -> None:
    async def handle(message: Message[Any]) -> None:
        if message.data == 1:
            try:
                await pipeline.clock.sleep(10.0)
            except asyncio.CancelledError:
                await pipeline.clock.sleep(3.0)

    recorder = Recorder()
    pipeline = Limited(handle, producer=ManualProducer(*recorder.messages([1, 2])))
    async with running(pipeline) as clock:
        await clock.advance(4.9)
        assert (recorder.count, in_flight(pipeline)) == (0, 2)
        await clock.advance(0.2)
        assert (recorder.successful, recorder.failed) == ([2], [1])

    assert recorder.statuses[1].reason == LATE
    recorder.check_once()


async def test_a_swallowed_cancellation_leaves_nothing_behind_for_the_next_message() -> None:
    pending: list[int] = []

    async def handle(message: Message[Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        pending.append(task.cancelling())
        if message.data == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return

    async def fault(call: Any) -> None:
        raise asyncio.CancelledError  # as client libraries do when their connection dies; nobody asked us to stop

    recorder = Recorder(fault)
    pipeline = Limited(handle, producer=ManualProducer(*recorder.messages([1, 2])))
    async with running(pipeline) as clock:
        await clock.advance(2.0)
        assert pending == [0, 0]
        assert outcomes(pipeline) == {"unknown": 2}


async def test_what_a_late_handler_raises_is_a_time_out_too() -> None:
    async def handle(message: Message[Any]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("while giving up") from None

    recorder = Recorder()
    pipeline = Limited(handle, producer=ManualProducer(*recorder.messages([1])))
    async with running(pipeline) as clock:
        await clock.advance(2.0)
        assert recorder.statuses[1].cause == "timeout"


async def test_ack_immediately_is_not_interrupted_by_a_time_out() -> None:
    async def slow(call: Any) -> None:
        await pipeline.clock.sleep(5.0)

    async def handle(message: Message[Any]) -> None:
        await ack_immediately(message)

    recorder = Recorder(slow)
    pipeline = Limited(handle, producer=ManualProducer(*recorder.messages([1])))
    async with running(pipeline) as clock:
        await clock.advance(2.1)
        assert pipeline.failures == [(1, "timeout")]
        assert in_flight(pipeline) == 1
        await clock.advance(3.0)
        assert outcomes(pipeline) == {"acked": 1}

    assert (recorder.successful, recorder.failed) == ([1], [])
    recorder.check_once()


async def test_a_time_out_counts_during_the_drain_too() -> None:
    async def handle(message: Message[Any]) -> None:
        await asyncio.Event().wait()

    recorder = ReturningRecorder()
    pipeline = Limited(handle, producer=ManualProducer(*recorder.messages([1, 2])))
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(1.0)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(1.1)
    report = await soon(stopping)

    assert report.in_time
    assert (recorder.failed, recorder.returned) == ([1], [2])
    assert recorder.statuses[1].cause == "timeout"
    recorder.check_once()
    check_books(pipeline)


class CountingClock(FakeClock):
    """Knows how many timers were set."""

    timers = 0

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:
        self.timers += 1
        return super().call_at(when, callback)


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_processor_has_one_deadline_and_not_a_timer_for_each_message(in_thread: bool) -> None:
    async def handle(message: Message[Any]) -> None:
        await asyncio.sleep(0)

    producer = MemoryProducer(range(1000))
    pipeline: Pipeline[Any] = (
        LimitedThread(lambda _: None, producer=producer) if in_thread else Limited(handle, producer=producer)
    )
    clock = pipeline.clock = CountingClock()

    assert await finish(pipeline) == {"acked": 1000}
    assert clock.timers < 5


async def test_the_deadline_moves_along_while_time_passes_without_more_timers() -> None:
    async def handle(message: Message[Any]) -> None:
        await asyncio.sleep(0)
        pipeline.clock._now += 0.01  # type: ignore[attr-defined]  # a clock that moves while the handler works

    pipeline = Limited(handle, producer=MemoryProducer(range(1000)))
    clock = pipeline.clock = CountingClock()

    assert await finish(pipeline) == {"acked": 1000}
    assert clock.timers < 5


# --- threads --------------------------------------------------------------------------------------------------------


async def test_in_a_thread_the_message_fails_at_the_deadline_and_later_writes_to_it_have_no_effect() -> None:
    recorder = Recorder()
    with blocking(2) as handler:
        pipeline = LimitedThread(handler, producer=ManualProducer(*recorder.messages([1, 2])))
        async with running(pipeline) as clock:
            await handler.until_blocked()
            await clock.advance(2.0)
            assert (recorder.successful, recorder.failed) == ([1], [2])
            assert stuck(pipeline) == 1
            handler.go.set()
            await returned(pipeline)

    assert pipeline.failures == [(2, {}, "timeout")]
    (failed,) = [message for call in recorder.calls for message in call.failed]
    assert (failed.data, failed.metadata, failed.batcher) == (2, {}, "default")
    assert recorder.statuses[2].reason == LATE
    assert outcomes(pipeline) == {"acked": 1, "rejected": 1}
    recorder.check_once()


async def test_in_a_thread_too_each_message_of_the_chunk_has_the_whole_time_for_itself() -> None:
    recorder = Recorder()
    with blocking(1) as slow, blocking(2) as slower:
        pipeline = LimitedThread(
            lambda message: (slow if message.data == 1 else slower)(message),
            producer=ManualProducer(*recorder.messages([1, 2])),
        )
        async with running(pipeline) as clock:
            await slow.until_blocked()
            await clock.advance(1.5)
            slow.go.set()
            await slower.until_blocked()
            await clock.advance(1.9)
            assert recorder.count == 0
            await clock.advance(0.2)
            assert recorder.failed == [2]

    assert len(recorder.successful) == 1
    recorder.check_once()


async def test_the_slot_stays_taken_until_the_thread_returns_and_those_that_cannot_go_back_wait() -> None:
    recorder = Recorder()
    with blocking(2) as handler:
        pipeline = LimitedThread(handler, producer=ManualProducer(*recorder.messages([1, 2, 3, 4])))
        async with running(pipeline) as clock:
            await handler.until_blocked()
            await clock.advance(60.0)
            assert handler.started == [1, 2]
            assert in_flight(pipeline) == 2
            check_books(pipeline)
            handler.go.set()
            await recorder.until(4)

    assert handler.started == [1, 2, 3, 4]
    assert (recorder.successful, recorder.failed) == ([1, 3, 4], [2])
    recorder.check_once()


async def test_those_of_the_chunk_that_were_not_started_go_back_where_they_can() -> None:
    recorder = ReturningRecorder()
    with blocking(2) as handler:
        pipeline = LimitedThread(handler, producer=ManualProducer(*recorder.messages([1, 2, 3, 4])))
        async with running(pipeline) as clock:
            await handler.until_blocked()
            await clock.advance(2.0)
            assert (recorder.successful, recorder.failed, recorder.returned) == ([1], [2], [3, 4])

    recorder.check_once()
    assert handler.started == [1, 2]


async def test_there_are_never_more_live_threads_than_processors() -> None:
    recorder = Recorder()
    processors = Processors(concurrency=2, max_demand=4, min_demand=0, timeout=2.0)
    with blocking(*range(0, 40, 5)) as handler:
        producer = ManualProducer(*recorder.messages(range(40)))
        pipeline = LimitedThread(handler, producer=producer, processors=processors)
        async with running(pipeline) as clock:
            await handler.until_blocked()
            await handler.until_blocked()
            await clock.advance(30.0)
            assert (handler.most, stuck(pipeline)) == (2, 2)
            handler.go.set()
            await recorder.until(40)

    assert handler.most <= 2
    assert sorted(handler.started) == list(range(40))
    recorder.check_once()


async def test_while_a_slot_is_stuck_the_other_processors_do_all_the_work() -> None:
    recorder = Recorder()
    processors = Processors(concurrency=2, max_demand=6, min_demand=4, timeout=2.0)
    with blocking(0, 60, 61) as handler:
        producer = ManualProducer(*recorder.messages(range(40)))
        pipeline = LimitedThread(handler, producer=producer, processors=processors)
        async with running(pipeline) as clock:
            await handler.until_blocked()
            # The other one has nothing to do when the time is up.
            await recorder.until(34)
            await clock.advance(2.0)
            # Also what had come to the stuck one already, and the rest of the chunk that it had in hand.
            await recorder.until(40)
            assert (sorted(recorder.successful), recorder.failed) == (list(range(1, 40)), [0])
            assert in_flight(pipeline) == 0
            producer.feed.put(*recorder.messages(range(40, 60)))
            await recorder.until(60)
            check_books(pipeline)
            assert stuck(pipeline) == 1

            handler.go.set()
            await returned(pipeline)
            handler.go.clear()
            producer.feed.put(*recorder.messages([60, 61]))
            # Both work again.
            await handler.until_blocked()
            await handler.until_blocked()
            handler.go.set()
            await recorder.until(62)

    recorder.check_once()
    assert handler.most == 2


async def test_what_has_been_prepared_for_a_stuck_slot_is_prepared_anew_from_the_payload() -> None:
    class Prepared(LimitedThread):
        schema = int

        async def prepare_messages(self, messages: list[Message[Any]]) -> None:
            for message in messages:
                message.data = f"{message.data + 1}"

    recorder = Recorder()
    seen: list[Any] = []
    with blocking("1") as handler:

        def handle(message: Message[Any]) -> None:
            seen.append(message.data)
            handler(message)

        producer = MemoryProducer(recorder.messages([b"0", b"10", b"20"]))
        pipeline = Prepared(handle, producer=producer, processors=Processors(concurrency=1, max_demand=3, timeout=2.0))
        async with running(pipeline) as clock:
            await handler.until_blocked()
            await clock.advance(2.0)
            handler.go.set()
            await recorder.until(3)

    assert sorted(seen) == ["1", "11", "21"]
    assert len(recorder.failed) == 1


async def test_the_keys_of_a_stuck_slot_wait_for_it_and_the_others_go_on() -> None:
    recorder = Recorder()
    processors = Processors(concurrency=2, max_demand=4, min_demand=0, timeout=2.0)
    with blocking(0) as handler:
        pipeline = LimitedThread(
            handler,
            producer=ManualProducer(*recorder.messages(range(8))),
            processors=processors,
            partition_by=lambda message: message.data % 2,
        )
        async with running(pipeline) as clock:
            await handler.until_blocked()
            await recorder.until(4)
            await clock.advance(10.0)
            assert sorted(recorder.successful) == [1, 3, 5, 7]
            assert recorder.failed == [0]
            handler.go.set()
            await recorder.until(8)

    recorder.check_once()
    assert [data for data in handler.started if data % 2 == 0] == [0, 2, 4, 6]


async def test_while_a_batch_processor_is_stuck_the_other_one_takes_the_batches() -> None:
    recorder = Recorder()
    go = threading.Event()
    blocked = threading.Event()

    class Batched(Pipeline[Any]):
        processors = Processors(concurrency=1, max_demand=10)

        async def handle_message(self, message: Message[Any]) -> None:
            pass

        def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            if messages[0].data == 0:
                blocked.set()
                go.wait(DEADLINE)

    batchers = {"default": Batcher(batch_size=1, concurrency=2, timeout=2.0)}
    try:
        producer = ManualProducer(*recorder.messages(range(10)))
        pipeline = Batched(producer=producer, batchers=batchers)
        async with running(pipeline) as clock:
            assert await asyncio.to_thread(blocked.wait, DEADLINE)
            await recorder.until(9)
            await clock.advance(2.0)
            producer.feed.put(*recorder.messages(range(10, 20)))
            await recorder.until(20)
            check_books(pipeline)
            assert (sorted(recorder.successful), recorder.failed) == (list(range(1, 20)), [0])
            assert stuck(pipeline) == 1
    finally:
        go.set()
    recorder.check_once()


async def test_the_drain_does_not_wait_for_a_thread_that_is_past_its_deadline() -> None:
    recorder = Recorder()
    with blocking(1) as handler:
        pipeline = LimitedThread(handler, producer=ManualProducer(*recorder.messages([1, 2])))
        clock = clock_of(pipeline)
        await pipeline.start()
        await handler.until_blocked()
        await clock.advance(2.0)
        report = await soon(pipeline.stop())

    assert report.in_time
    assert {data: status.cause for data, status in recorder.statuses.items()} == {1: "timeout", 2: "stopped"}
    recorder.check_once()
    check_books(pipeline)
    assert received(pipeline) == 2


async def test_a_drain_that_began_before_the_deadline_ends_with_it() -> None:
    recorder = ReturningRecorder()
    with blocking(1) as handler:
        pipeline = LimitedThread(handler, producer=ManualProducer(*recorder.messages([1, 2])))
        clock = clock_of(pipeline)
        await pipeline.start()
        await handler.until_blocked()
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(1.9)
        assert not stopping.done()
        await clock.advance(0.2)
        report = await soon(stopping)

    assert report.in_time
    assert (recorder.failed, recorder.returned) == ([1], [2])
    recorder.check_once()
    check_books(pipeline)


@pytest.mark.parametrize("partitioned", [False, True])
async def test_the_drain_does_not_wait_for_what_is_queued_before_a_stuck_thread(partitioned: bool) -> None:
    recorder = Recorder()
    with blocking(0) as handler:
        pipeline = LimitedThread(
            handler,
            producer=MemoryProducer(recorder.messages(range(30))),
            processors=Processors(concurrency=2, max_demand=2, min_demand=0, timeout=2.0),
            partition_by=(lambda _: 0) if partitioned else None,
        )
        clock = clock_of(pipeline)
        await pipeline.start()
        await handler.until_blocked()
        await clock.advance(2.0)
        report = await soon(pipeline.stop())

    assert report.in_time
    recorder.check_once()
    check_books(pipeline)
    assert in_flight(pipeline) == 0


async def test_an_async_handler_in_disguise_has_a_time_limit_too() -> None:
    class Disguised(LimitedThread):
        def handle_message(self, message: Message[Any]) -> Any:
            return asyncio.Event().wait() if message.data == 1 else None

    recorder = Recorder()
    pipeline = Disguised(lambda _: None, producer=ManualProducer(*recorder.messages([1, 2])))
    clock = clock_of(pipeline)
    await pipeline.start()
    await eventually(lambda: _advanced(clock, recorder, 2), timeout=DEADLINE, what="the time-out")
    await soon(pipeline.stop())

    assert (recorder.successful, recorder.failed) == ([2], [1])
    assert recorder.statuses[1].cause == "timeout"
    recorder.check_once()


# --- batches --------------------------------------------------------------------------------------------------------


class Batched(Pipeline[Any]):
    """Batches of two, which have two seconds."""

    processors = Processors(concurrency=1, max_demand=10)
    batchers = {"default": Batcher(batch_size=2, timeout=2.0)}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[Any]) -> None:
        pass


async def test_an_async_batch_past_its_time_out_is_cancelled_and_fails_whole() -> None:
    class Slow(Batched):
        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            if messages[0].data == 1:
                await asyncio.Event().wait()

    recorder = Recorder()
    pipeline = Slow(producer=ManualProducer(*recorder.messages([1, 2, 3, 4])))
    async with running(pipeline) as clock:
        await clock.advance(2.0)
        assert (recorder.successful, recorder.failed) == ([3, 4], [1, 2])

    assert {(status.cause, status.reason) for status in recorder.statuses.values()} == {("timeout", LATE)}
    recorder.check_once()


async def test_a_batch_in_a_thread_fails_at_the_deadline_and_later_writes_have_no_effect() -> None:
    class Slow(Batched):
        def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            for message in messages:
                handler(message)

    recorder = Recorder()
    with blocking(1) as handler:
        pipeline = Slow(producer=ManualProducer(*recorder.messages([1, 2, 3, 4])))
        async with running(pipeline) as clock:
            await handler.until_blocked()
            await clock.advance(2.0)
            assert (recorder.failed, stuck(pipeline)) == ([1, 2], 1)
            await clock.advance(10.0)
            assert recorder.count == 2
            assert handler.started == [1]
            handler.go.set()
            await recorder.until(4)

    assert (recorder.successful, recorder.failed, handler.most) == ([3, 4], [1, 2], 1)
    recorder.check_once()


async def test_the_drain_does_not_wait_for_a_batch_in_a_thread_that_is_past_its_deadline() -> None:
    class Slow(Batched):
        def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            handler(messages[0])

    recorder = ReturningRecorder()
    with blocking(1) as handler:
        pipeline = Slow(producer=ManualProducer(*recorder.messages(range(1, 9))))
        clock = clock_of(pipeline)
        await pipeline.start()
        await handler.until_blocked()
        await clock.advance(2.0)
        report = await soon(pipeline.stop())

    assert report.in_time
    assert (recorder.failed, recorder.returned) == ([1, 2], [3, 4, 5, 6, 7, 8])
    recorder.check_once()
    check_books(pipeline)


async def test_a_thread_that_returns_at_the_very_deadline_does_not_take_its_slot_for_ever() -> None:
    class Awaiting(Batched):
        def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> Any:
            # An async function in disguise: the thread has returned, and the time-out comes while it is awaited.
            return asyncio.Event().wait() if messages[0].data == 1 else None

    recorder = Recorder()
    pipeline = Awaiting(producer=ManualProducer(*recorder.messages([1, 2, 3, 4])))
    clock = clock_of(pipeline)
    await pipeline.start()
    # Real threads: the clock moves once the first batch is at work in the event loop again.
    await eventually(
        lambda: pipeline.stats().stages[2].busy_seconds == 0.0 and in_flight(pipeline) == 4,
        timeout=DEADLINE,
        what="the batches",
    )
    await eventually(lambda: _advanced(clock, recorder, 4), timeout=DEADLINE, what="the second batch")
    await soon(pipeline.stop())

    assert (recorder.successful, recorder.failed) == ([3, 4], [1, 2])
    recorder.check_once()


async def _advanced(clock: FakeClock, recorder: Recorder, count: int) -> bool:
    await clock.advance(1.0)
    return recorder.count == count
