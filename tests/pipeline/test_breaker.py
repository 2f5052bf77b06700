"""The breaker at work: at which rates it opens in time, what opens nothing, what waits while it is open."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broadway_py import (
    Batcher,
    BatchInfo,
    FailurePolicy,
    Message,
    Pipeline,
    Processors,
    Unavailable,
)
from broadway_py.producers import MemoryProducer
from broadway_py.testing import FakeClock
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    in_flight,
    outcomes,
    running,
    soon,
)

Handle = Callable[[Message[Any]], object]


class Calls(Pipeline[Any]):
    """Calls what the test wrote; notes what came, in order, and as which attempt."""

    processors = Processors(concurrency=2, max_demand=10)

    def __init__(self, handle: Handle, **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle
        self.seen: list[Any] = []
        self.attempts: list[tuple[Any, int | None]] = []
        self.opened_at: list[float] = []

    async def handle_message(self, message: Message[Any]) -> None:
        self.seen.append(message.raw)
        self.attempts.append((message.raw, message.attempt))
        self.handle(message)

    def watch(self) -> None:
        """Note when the breaker was seen open."""
        if self.stats().breaker_open:
            self.opened_at.append(self.clock.monotonic())


class Batched(Calls):
    """Calls it with the first message of each batch that has a fault, which fails the batch whole."""

    batchers = {"default": Batcher(batch_size=50, batch_timeout=0.5)}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        for message in messages:
            self.handle(message)


async def at_a_rate(clock: FakeClock, per_second: float, seconds: float) -> AsyncIterator[int]:
    """So many numbers a second."""
    for number in range(round(per_second * seconds)):
        await clock.sleep(1.0 / per_second)
        yield number


async def run_with(pipeline: Calls, seconds: float) -> None:
    """Run *pipeline* to the end of its source, and look at the breaker and the books each quarter of a second."""
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    end = clock.monotonic() + seconds
    while pipeline.is_running and clock.monotonic() < end:
        await clock.advance(0.25)
        pipeline.watch()
    await soon(pipeline.wait())
    check_books(pipeline)
    assert in_flight(pipeline) == 0


def broken(message: Message[Any]) -> None:
    raise ConnectionError("connection refused")


# --- a sink that is away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Calls, Batched])
@pytest.mark.parametrize("from_s", [0.0, 5.0])
@pytest.mark.parametrize("per_second", [2, 5, 40])
async def test_a_sink_that_is_away_for_a_minute_costs_nothing_at_any_rate(
    kind: type[Calls], from_s: float, per_second: int
) -> None:
    clock = FakeClock()
    away_from = clock.monotonic() + from_s

    def handle(message: Message[Any]) -> None:
        if away_from <= clock.monotonic() < away_from + 60.0:
            broken(message)

    producer = MemoryProducer(at_a_rate(clock, per_second, 15.0 + from_s))
    pipeline = kind(handle, producer=producer)
    pipeline.clock = clock
    await run_with(pipeline, 500.0)

    ended = outcomes(pipeline)
    assert ended["acked"] == per_second * (15 + from_s)
    assert set(ended) == {"acked", "retried"}
    assert producer.dead_letters == []
    # Ten different ones in a row: at five messages a second that takes two, and no attempt was the last by then.
    assert away_from <= pipeline.opened_at[0] <= away_from + max(1.0, 10.0 / per_second) + 2.0


async def test_what_fails_while_the_sink_is_away_uses_up_no_attempt() -> None:
    clock = FakeClock()
    back_at = clock.monotonic() + 600.0
    faults: Counter[Any] = Counter()

    def handle(message: Message[Any]) -> None:
        if clock.monotonic() < back_at:
            raise Unavailable("the database")
        # Each has a fault of its own four times; with the fifth attempt it is done.
        faults[message.raw] += 1
        if faults[message.raw] < 4 and message.raw < 3:
            raise ValueError("not yet")

    producer = MemoryProducer(range(8))
    pipeline = Calls(handle, producer=producer)
    pipeline.clock = clock
    await run_with(pipeline, 4_000.0)

    assert outcomes(pipeline)["acked"] == 8
    assert producer.dead_letters == []
    assert max(attempt or 1 for _, attempt in pipeline.attempts) <= 5


# --- what opens nothing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Calls, Batched])
async def test_a_message_that_always_fails_opens_nothing(kind: type[Calls]) -> None:
    clock = FakeClock()

    def handle(message: Message[Any]) -> None:
        if message.raw == 77:
            broken(message)

    producer = MemoryProducer(at_a_rate(clock, 40, 15.0))
    pipeline = kind(handle, producer=producer, failure=FailurePolicy(attempts=3))
    pipeline.clock = clock
    await run_with(pipeline, 1_000.0)

    assert pipeline.opened_at == []
    assert 77 in [message.raw for message in producer.dead_letters]


async def test_messages_that_all_have_faults_of_their_own_open_nothing_while_they_are_few() -> None:
    def handle(message: Message[Any]) -> None:
        raise ValueError(message.raw)

    producer = MemoryProducer(range(50))
    pipeline = Calls(handle, producer=producer, failure=FailurePolicy(attempts=3))
    await run_with(pipeline, 1_000.0)

    assert pipeline.opened_at == []
    assert Counter(raw for raw, _ in pipeline.attempts) == dict.fromkeys(range(50), 3)
    assert sorted(message.raw for message in producer.dead_letters) == list(range(50))


async def test_a_message_that_always_fails_opens_nothing_where_there_is_no_other() -> None:
    producer = MemoryProducer([1])
    pipeline = Calls(broken, producer=producer, failure=FailurePolicy(attempts=50, backoff=(0.1, 0.2)))
    await run_with(pipeline, 100.0)

    assert pipeline.opened_at == []
    assert outcomes(pipeline) == {"retried": 49, "dead_lettered": 1}


@pytest.mark.parametrize("per_second", [5, 50])
async def test_a_fifth_that_fails_opens_nothing(per_second: int) -> None:
    clock = FakeClock()

    def handle(message: Message[Any]) -> None:
        if message.raw % 5 == 0:
            broken(message)

    producer = MemoryProducer(at_a_rate(clock, per_second, 20.0))
    pipeline = Calls(handle, producer=producer, failure=FailurePolicy(attempts=5))
    pipeline.clock = clock
    await run_with(pipeline, 200.0)

    assert pipeline.opened_at == []
    assert outcomes(pipeline)["dead_lettered"] == 4 * per_second


# --- children and parents -------------------------------------------------------------------------------------------


class Spawning(Pipeline[Any]):
    """Two children for each message; "bad" ones fail in their batch."""

    batchers = {"default": Batcher(batch_size=2, batch_timeout=1.0)}  # noqa: RUF012  # never changed
    processors = Processors(concurrency=1, max_demand=10)

    async def handle_message(self, message: Message[Any]) -> None:
        message.spawn(f"{message.data} 1")
        message.spawn(f"{message.data} 2")

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        for message in messages:
            if message.data.startswith("bad"):
                message.fail("bad")


async def test_a_child_and_its_parent_count_once() -> None:
    pipeline = Spawning(producer=ManualProducer(), failure=FailurePolicy(attempts=1))
    async with running(pipeline) as clock:
        settling = asyncio.ensure_future(pipeline.submit_batch(["good", "bad"]))
        await clock.advance(5.0)
        settled = await soon(settling)
        run = pipeline._life_cycle.run
        assert run is not None
        router = run.services.router
        assert router is not None
        assert router.breaker is not None
        # Four children, and neither of the two parents.
        assert (router.breaker._total, router.breaker._failures) == (4, 2)

    assert [message.data for message in settled.failed] == ["bad"]


async def test_where_order_counts_a_parent_is_not_tried_again_behind_those_that_came_later() -> None:
    producer = MemoryProducer(["bad", "good"])
    pipeline = Spawning(
        producer=producer,
        partition_by=lambda _: 1,
        ordered=True,
        failure=FailurePolicy(attempts=3, backoff=(1.0, 1.0)),
    )
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(100.0)
    await soon(pipeline.wait())

    assert outcomes(pipeline) == {"acked": 1, "dead_lettered": 1}
    assert [message.raw for message in producer.dead_letters] == ["bad"]


# --- what waits while it is open ------------------------------------------------------------------------------------


async def test_what_waits_when_it_opens_is_not_handled_before_it_has_closed() -> None:
    sink_is_away = True

    def handle(message: Message[Any]) -> None:
        if sink_is_away:
            raise Unavailable("the database")

    takes_back, stays = ReturningRecorder(), Recorder()
    producer = ManualProducer(*takes_back.messages(range(10)), *stays.messages(range(100, 110)))
    pipeline = Calls(handle, producer=producer, processors=Processors(concurrency=1, max_demand=20, min_demand=18))
    async with running(pipeline) as clock:
        await clock.advance(0.9)
        # The chunk that was in hand is all that was handled.
        assert pipeline.seen == [0, 1]
        assert takes_back.returned == list(range(10))
        assert in_flight(pipeline) == 10
        await clock.advance(0.2)
        # One probes; the others wait.
        assert pipeline.seen == [0, 1, 100]
        assert (stays.failed, in_flight(pipeline)) == ([100], 9)
        sink_is_away = False
        await clock.advance(10.0)
        assert pipeline.seen == [0, 1, *range(100, 110)]
        assert stays.successful == list(range(101, 110))
        check_books(pipeline)


async def test_what_waits_for_its_key_when_it_opens_goes_on_in_order() -> None:
    sink_is_away = True

    def handle(message: Message[Any]) -> None:
        if sink_is_away:
            raise Unavailable("the database")

    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(range(60)))
    pipeline = Calls(
        handle,
        producer=producer,
        partition_by=lambda message: message.raw % 3,
        processors=Processors(concurrency=2, max_demand=10, min_demand=9),
    )
    async with running(pipeline) as clock:
        await clock.advance(0.9)
        sink_is_away = False
        await clock.advance(30.0)

    for key in range(3):
        seen = [number for number in pipeline.seen if number % 3 == key]
        assert seen == list(range(key, 60, 3))


@pytest.mark.parametrize("returns", [True, False])
async def test_one_message_probes_also_where_the_source_was_asked_for_many_before(returns: bool) -> None:
    def handle(message: Message[Any]) -> None:
        raise Unavailable("the database")

    recorder = ReturningRecorder() if returns else Recorder()
    producer = ManualProducer(recorder.message("first"))
    pipeline = Calls(handle, producer=producer, processors=Processors(concurrency=2, max_demand=10))
    async with running(pipeline) as clock:
        # The source waits for something to give since it was asked the last time, for nearly twenty.
        await clock.advance(1.5)
        assert pipeline.stats().breaker_open
        producer.feed.put(*recorder.messages(range(15)))
        await clock.advance(0.0)
        assert len(pipeline.seen) == 2
        await clock.advance(1.0)
        assert len(pipeline.seen) == 2
        check_books(pipeline)
        await clock.advance(2.0)
        assert len(pipeline.seen) == (2 if returns else 3)

    # The first one, and all but the one that probed.
    assert len(recorder.returned) == (15 if returns else 0)


async def test_a_fetch_under_way_when_it_opens_starts_nothing() -> None:
    """The source hands over a list in the very turn in which the breaker opens."""

    def handle(message: Message[Any]) -> None:
        producer.feed.put(*recorder.messages(range(10)))
        raise Unavailable("the database")

    recorder = ReturningRecorder()
    producer = ManualProducer(recorder.message("first"))
    pipeline = Calls(handle, producer=producer)
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        assert pipeline.seen == ["first"]

    assert sorted(recorder.returned, key=str) == [*range(10), "first"]


# --- a policy that stops --------------------------------------------------------------------------------------------


async def test_what_is_given_back_because_a_policy_says_stop_is_not_handled_once_more() -> None:
    class Returning(ReturningRecorder):
        """Delivers again at once, as a broker does."""

        async def release(self, ref: Any, messages: Any) -> None:
            await super().release(ref, messages)
            producer.feed.put(*(self.message(message.data) for message in messages))

    recorder = Returning()
    producer = ManualProducer(recorder.message("a"))
    pipeline = Calls(broken, producer=producer, failure=FailurePolicy(attempts=1, final="stop"))
    clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.wait())

    check_books(pipeline)
    assert pipeline.seen == ["a"]
    assert set(recorder.returned) == {"a"}


# --- what a source is told ------------------------------------------------------------------------------------------


async def test_a_source_that_drains_is_not_told_to_fetch_again() -> None:
    """A slow handler keeps the drain waiting while probes become due."""
    gate = asyncio.Event()

    class Slow(Calls):
        async def handle_message(self, message: Message[Any]) -> None:
            await super().handle_message(message)
            if message.raw == "slow":
                await gate.wait()

    def handle(message: Message[Any]) -> None:
        if message.raw == "away":
            raise Unavailable("the database")

    recorder = ReturningRecorder()
    producer = ManualProducer(*recorder.messages(["slow", "away"]))
    pipeline = Slow(handle, producer=producer, processors=Processors(concurrency=2, max_demand=1))
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        assert pipeline.stats().breaker_open
        stopping = asyncio.ensure_future(pipeline.stop())
        await producer.feed.until("drain")
        heard = len(producer.feed.journal)
        await clock.advance(10.0)
        assert "resume" not in producer.feed.journal[heard:]
        gate.set()
        await soon(stopping)


class Hoarder(ManualProducer):
    """Can fetch ahead, and notes how much it is told to."""

    async def resume_for(self, most: int) -> None:
        self.feed.note(f"resume for {most}")


async def test_a_source_fetches_no_more_than_what_probes_until_all_goes_on() -> None:
    sink_is_away = True

    def handle(message: Message[Any]) -> None:
        if sink_is_away:
            raise Unavailable("the database")

    producer = Hoarder(*ReturningRecorder().messages(range(200)))
    pipeline = Calls(handle, producer=producer)
    async with running(pipeline) as clock:
        await clock.advance(3.5)
        journal = [what for what in producer.feed.journal if what.startswith(("pause", "resume"))]
        assert set(journal) == {"pause", "resume for 1"}
        # Between two probes nothing is fetched.
        assert journal[0] == journal[-1] == "pause"
        sink_is_away = False
        await clock.advance(10.0)
        assert not pipeline.stats().breaker_open
        assert producer.feed.journal.count("resume") == 1
        assert "pause" not in producer.feed.journal[producer.feed.journal.index("resume") :]


async def test_a_source_stops_fetching_before_it_gets_back_what_was_not_started() -> None:
    """Else it would hand that out again, and count it, for nothing."""
    recorder = ReturningRecorder()
    returned: list[int] = []

    class Counting(Hoarder):
        async def pause(self) -> None:
            returned.append(len(recorder.returned))

    def handle(message: Message[Any]) -> None:
        raise Unavailable("the database")

    producer = Counting(*recorder.messages(range(20)))
    pipeline = Calls(handle, producer=producer, processors=Processors(concurrency=1, max_demand=20, min_demand=18))
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        # The chunk that was in hand, and then the others.
        assert returned == [2]
        assert len(recorder.returned) == 20


async def test_what_is_fetched_as_it_opens_goes_back_when_the_source_has_stopped() -> None:
    recorder = ReturningRecorder()
    returned: list[int] = []

    class Counting(Hoarder):
        async def pause(self) -> None:
            # Long enough for everybody else to do what they do.
            await self.context.clock.sleep(0.1)
            returned.append(len(recorder.returned))

    def handle(message: Message[Any]) -> None:
        producer.feed.put(*recorder.messages(range(10)))
        raise Unavailable("the database")

    producer = Counting(recorder.message("first"))
    pipeline = Calls(handle, producer=producer)
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        assert returned[0] == 1
        assert len(recorder.returned) == 11


async def test_a_source_that_cannot_be_paused_keeps_nothing_from_going_back() -> None:
    class Stubborn(Hoarder):
        async def pause(self) -> None:
            raise OSError("no")

    def handle(message: Message[Any]) -> None:
        producer.feed.put(*recorder.messages(range(10)))
        raise Unavailable("the database")

    recorder = ReturningRecorder()
    producer = Stubborn(recorder.message("first"))
    pipeline = Calls(handle, producer=producer)
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        assert sorted(recorder.returned, key=str) == [*range(10), "first"]
        assert outcomes(pipeline) == {"returned": 11}


async def test_a_probe_that_found_nothing_before_the_breaker_closed_is_over() -> None:
    sink_is_away = True

    def handle(message: Message[Any]) -> None:
        if sink_is_away:
            raise Unavailable("the database")

    recorder = Recorder()
    producer = Hoarder()
    pipeline = Calls(handle, producer=producer)
    async with running(pipeline) as clock:
        assert (await soon(pipeline.submit_batch(["a"]))).failed
        await clock.advance(1.5)
        sink_is_away = False
        waiting = asyncio.ensure_future(pipeline.submit("b"))
        await clock.advance(2.0)
        assert (await soon(waiting)).ok
        assert not pipeline.stats().breaker_open
        producer.feed.journal.clear()
        producer.feed.put(*recorder.messages(range(50)))
        await recorder.until(50)
        assert {"pause", "resume", "resume for 1"}.isdisjoint(producer.feed.journal)
