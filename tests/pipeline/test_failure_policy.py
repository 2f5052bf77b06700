"""The failure policy and the breaker, in whole pipelines on a clock that only moves when told."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from broadway_py import (
    Acknowledgement,
    Acknowledger,
    Batcher,
    BatchInfo,
    Breaker,
    FailurePolicy,
    Message,
    OptionsError,
    Pipeline,
    Processors,
    Reject,
    RetryLater,
    Unavailable,
)
from broadway_py.log import show_error_texts
from broadway_py.producers import MemoryProducer, Producer, QueueProducer
from broadway_py.queue import Queue
from broadway_py.stage import Wake
from broadway_py.testing import FakeClock
from tests.pipeline.support import (
    ONE,
    ManualProducer,
    Quiet,
    Recorder,
    check_books,
    clock_of,
    events_logged,
    in_flight,
    logged,
    outcomes,
    received,
    running,
    soon,
)

Handle = Callable[[Message[Any]], object]


class Calls(Pipeline[Any]):
    """Calls what the test wrote; notes when each message came, and as which attempt."""

    processors = ONE

    def __init__(self, handle: Handle, **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle
        self.seen: defaultdict[Any, list[float]] = defaultdict(list)
        self.attempts: defaultdict[Any, list[int | None]] = defaultdict(list)

    async def handle_message(self, message: Message[Any]) -> None:
        self.seen[message.raw].append(self.clock.monotonic())
        self.attempts[message.raw].append(message.attempt)
        self.handle(message)


def broken(message: Message[Any]) -> None:
    """Always fails."""
    raise ValueError("no good")


def raising(error: BaseException) -> Handle:
    def handle(message: Message[Any]) -> None:
        raise error

    return handle


def well(message: Message[Any]) -> None:
    """Never fails."""


async def finish_in(pipeline: Pipeline[Any], seconds: float = 10_000.0) -> dict[str, int]:
    """Run *pipeline* to its end, which must come within *seconds* of its clock; its outcomes."""
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(seconds)
    await soon(pipeline.wait())
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    return outcomes(pipeline)


class Broker:
    """A broker in this process: what it has goes out once, comes back when it was given back or is to be retried."""

    def __init__(self, clock: FakeClock, items: Iterable[Any] = ()) -> None:
        self.clock = clock
        self.order = itertools.count()
        # What is ready, or when it will be; in which order; which item; the number of its last attempt.
        self.rows: list[tuple[float, int, Any, int]] = []
        self.wake = Wake()
        self.counts: Counter[str] = Counter()
        self.acked: list[Any] = []
        self.dead: list[Any] = []
        self.demands: list[int] = []
        #: Raised by the next ``retry``.
        self.retry_error: Exception | None = None
        for item in items:
            self.put(item)

    def put(self, item: Any, attempts: int = 0, delay_s: float = 0.0) -> None:
        heapq.heappush(self.rows, (self.clock.monotonic() + delay_s, next(self.order), item, attempts))
        self.wake.set()

    def producer(self, name: str = "broker") -> BrokerProducer:
        return BrokerProducer(self, name)


class BrokerAcknowledger(Acknowledger):
    """All that an acknowledger can offer."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        self.broker.acked += [message.raw for message in successful]
        self.broker.counts["rejected"] += len(failed)

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        self.broker.counts["released"] += len(messages)
        for message in messages:
            self.broker.put(message.raw, (message.attempt or 1) - 1)

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        error, self.broker.retry_error = self.broker.retry_error, None
        if error is not None:
            raise error
        for message, delay_s in messages_and_delays:
            self.broker.put(message.raw, message.attempt or 1, delay_s)

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        self.broker.dead += [message.raw for message in messages]


class BrokerProducer(Producer):
    """Hands out what a :class:`Broker` has."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.name = name
        self.broker = broker
        self.paused = False
        self.acknowledgement = Acknowledgement(BrokerAcknowledger(broker))

    async def handle_demand(self, demand: int) -> list[Message[Any]]:
        broker = self.broker
        while not self.draining.is_set():
            broker.demands.append(demand)
            now = broker.clock.monotonic()
            due: list[Message[Any]] = []
            while not self.paused and broker.rows and broker.rows[0][0] <= now and len(due) < demand:
                _, _, item, attempts = heapq.heappop(broker.rows)
                message = Message(item, None, self.acknowledgement)
                message.attempt = attempts + 1
                due.append(message)
            if due:
                return due
            await broker.wake.wait_until(None if self.paused or not broker.rows else broker.rows[0][0], broker.clock)
        return []

    async def pause(self) -> None:
        self.paused = True

    async def resume(self) -> None:
        self.paused = False
        self.broker.wake.set()

    async def prepare_for_draining(self) -> None:
        self.broker.wake.set()


# --- attempts and delays


async def test_a_message_that_always_fails_is_dead_lettered_after_its_attempts_with_growing_gaps() -> None:
    producer = MemoryProducer(["poison", *range(20)])

    def handle(message: Message[Any]) -> None:
        if message.data == "poison":
            broken(message)

    pipeline = Calls(handle, producer=producer)

    assert await finish_in(pipeline) == {"acked": 20, "retried": 4, "dead_lettered": 1}
    assert received(pipeline) == 25
    assert pipeline.attempts["poison"] in ([None, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    gaps = [later - earlier for earlier, later in itertools.pairwise(pipeline.seen["poison"])]
    assert gaps == sorted(gaps)
    assert all(2.0**n / 2.0 <= gap <= 2.0**n for n, gap in enumerate(gaps))
    assert [message.data for message in producer.dead_letters] == ["poison"]
    (dead,) = producer.dead_letters
    assert dead.status is not None
    assert (dead.status.cause, type(dead.status.exception)) == ("raised", ValueError)


async def test_a_message_that_fails_at_first_is_acked_in_the_end() -> None:
    def handle(message: Message[Any]) -> None:
        if (message.attempt or 1) < 3:
            message.fail("not yet")

    pipeline = Calls(handle, producer=MemoryProducer(["a"]))

    assert await finish_in(pipeline) == {"retried": 2, "acked": 1}


async def test_what_comes_again_is_the_original_and_not_what_the_handler_made_of_it() -> None:
    data: list[Any] = []

    def handle(message: Message[Any]) -> None:
        data.append(message.data)
        message.data = f"{message.data}!"
        if len(data) < 3:
            raise OSError

    assert await finish_in(Calls(handle, producer=MemoryProducer(["a"]))) == {"retried": 2, "acked": 1}
    assert data == ["a", "a", "a"]


@pytest.mark.parametrize(("came_as", "attempts"), [(1, 3), (2, 2), (3, 1), (7, 1)])
async def test_attempts_that_the_source_has_counted_count(came_as: int, attempts: int) -> None:
    broker = Broker(FakeClock())
    broker.put("a", came_as - 1)
    pipeline = Calls(broken, failure=FailurePolicy(attempts=3), producer=broker.producer())
    pipeline.clock = broker.clock
    async with running(pipeline) as clock:
        await clock.advance(100.0)

    assert len(pipeline.seen["a"]) == attempts
    assert broker.dead == ["a"]


async def test_a_batch_that_fails_is_retried_and_dead_lettered_too() -> None:
    class Batched(Quiet):
        batchers = {"default": Batcher(batch_size=3)}  # noqa: RUF012  # never changed

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            raise OSError("the sink")

    producer = MemoryProducer(range(3))
    pipeline = Batched(producer=producer, failure=FailurePolicy(attempts=2))

    assert await finish_in(pipeline) == {"retried": 3, "dead_lettered": 3}


# --- what decides


class Poison(ValueError):
    """Has an entry of its own."""


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (Poison(), {"dead_lettered": 1}),
        (ValueError(), {"dropped": 1}),
        (UnicodeError(), {"dropped": 1}),
        (KeyError(), {"rejected": 1}),
        (ConnectionResetError(), {"retried": 2, "dead_lettered": 1}),
        (TypeError(), {"retried": 2, "dead_lettered": 1}),
    ],
)
async def test_the_type_of_an_exception_decides_by_its_closest_base(error: Exception, ended: dict[str, int]) -> None:
    policy = FailurePolicy(
        attempts=3,
        classify={Poison: "dead_letter", ValueError: "drop", LookupError: "reject", OSError: "retry"},
    )

    assert await finish_in(Calls(raising(error), producer=MemoryProducer(["a"]), failure=policy)) == ended


@pytest.mark.parametrize(
    ("final", "ended"), [("dead_letter", "dead_lettered"), ("drop", "dropped"), ("reject", "rejected")]
)
async def test_the_last_attempt_is_followed_by_what_final_says(final: Any, ended: str) -> None:
    policy = FailurePolicy(attempts=2, final=final)

    assert await finish_in(Calls(broken, producer=MemoryProducer(["a"]), failure=policy)) == {"retried": 1, ended: 1}


@pytest.mark.parametrize(
    "policy", [FailurePolicy(attempts=1, final="stop"), FailurePolicy(classify={ValueError: "stop"})]
)
async def test_a_policy_may_stop_the_pipeline_and_the_message_goes_back(policy: FailurePolicy) -> None:
    clock = FakeClock()
    broker = Broker(clock, ["a"])
    pipeline = Calls(broken, producer=broker.producer(), failure=policy)
    pipeline.clock = clock
    await soon(pipeline.start())
    await soon(pipeline.wait())

    check_books(pipeline)
    assert set(outcomes(pipeline)) == {"returned"}
    assert [(item, attempts) for _, _, item, attempts in broker.rows] == [("a", 0)]


async def test_a_handler_may_say_when_it_wants_its_message_again() -> None:
    pipeline = Calls(raising(RetryLater(after=60.0)), producer=MemoryProducer(["a"]), failure=FailurePolicy(attempts=3))

    assert await finish_in(pipeline) == {"retried": 2, "dead_lettered": 1}
    first = pipeline.seen["a"][0]
    assert [at - first for at in pipeline.seen["a"]] == [0.0, 60.0, 120.0]


async def test_a_handler_may_say_that_its_message_will_never_succeed() -> None:
    pipeline = Calls(raising(Reject("no such customer")), producer=MemoryProducer(["a"]))

    assert await finish_in(pipeline) == {"dead_lettered": 1}


async def test_data_that_does_not_fit_the_schema_is_never_tried_again() -> None:
    producer = MemoryProducer(["many", "3"])
    pipeline = Calls(well, producer=producer, schema=int)

    assert await finish_in(pipeline) == {"acked": 1, "dead_lettered": 1}
    (dead,) = producer.dead_letters
    assert (dead.raw, dead.status and dead.status.cause) == ("many", "invalid")


async def test_without_a_policy_a_failure_is_the_connectors_own() -> None:
    assert await finish_in(Calls(broken, producer=MemoryProducer(["a"]), failure=None)) == {"rejected": 1}


async def test_an_acknowledger_that_offers_neither_gets_failures_as_before() -> None:
    recorder = Recorder()
    pipeline = Calls(broken, producer=MemoryProducer(recorder.messages(["a", "b"])))

    assert await finish_in(pipeline) == {"rejected": 2}
    assert recorder.failed == ["a", "b"]


async def test_a_submitted_message_that_fails_is_answered_at_once() -> None:
    pipeline = Calls(broken, producer=ManualProducer())
    async with running(pipeline):
        settled = await soon(pipeline.submit_batch(["a", "b"]))

    assert [message.data for message in settled.failed] == ["a", "b"]
    assert outcomes(pipeline) == {"rejected": 2}


# --- a source that ends


async def test_a_finite_source_ends_only_after_its_retries() -> None:
    def handle(message: Message[Any]) -> None:
        if message.attempt in (None, 1):
            raise RetryLater(after=500.0)

    pipeline = Calls(handle, producer=MemoryProducer(range(3)))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(499.0)
    assert pipeline.is_running
    assert outcomes(pipeline) == {"retried": 3}
    await clock.advance(1.5)
    await soon(pipeline.wait())

    assert outcomes(pipeline) == {"retried": 3, "acked": 3}


async def test_what_is_due_again_does_not_wait_for_the_next_item_of_an_async_iterable() -> None:
    more = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "a"
        await more.wait()

    def handle(message: Message[Any]) -> None:
        if message.attempt != 3:
            raise RetryLater(after=10.0)

    pipeline = Calls(handle, producer=MemoryProducer(items()))
    async with running(pipeline) as clock:
        await clock.advance(25.0)
        assert outcomes(pipeline) == {"retried": 2, "acked": 1}
        more.set()


async def test_open_batches_leave_when_only_retries_are_still_to_come() -> None:
    batches: list[list[Any]] = []

    class Batched(Quiet):
        batchers = {"default": Batcher(batch_size=100, batch_timeout=3_600.0)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == "late" and message.attempt != 2:
                raise RetryLater(after=1_000.0)

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            batches.append([message.data for message in messages])

    pipeline = Batched(producer=MemoryProducer(["a", "late", "b"]))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(1.0)
    assert batches == [["a", "b"]]
    await clock.advance(1_000.0)
    await soon(pipeline.wait())

    assert batches == [["a", "b"], ["late"]]
    assert outcomes(pipeline) == {"retried": 1, "acked": 3}


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_endless_source_is_read_no_further_while_ten_thousand_wait_for_their_next_attempt(
    is_async: bool,
) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in itertools.count():
            yield number

    policy = FailurePolicy(attempts=100, backoff=(50_000.0, 50_000.0), breaker=None)
    pipeline = Calls(
        broken,
        producer=MemoryProducer(numbers() if is_async else itertools.count()),
        processors=Processors(concurrency=1, max_demand=1_000),
        failure=policy,
    )
    async with running(pipeline) as clock:
        async with asyncio.timeout(30):
            while received(pipeline) < 10_000:
                await clock.advance(0.1)
        read = len(pipeline.seen)
        # One demand may have been under way.
        assert 10_000 <= read <= 11_000
        await clock.advance(10.0)
        assert len(pipeline.seen) == read
        # What is due goes on, and makes room.
        await clock.advance(30_000.0)
        assert max(map(len, pipeline.seen.values())) > 1


async def test_what_is_still_to_be_retried_at_a_stop_is_kept_for_the_next_run() -> None:
    producer = MemoryProducer(["a", "b"])
    first = Calls(raising(RetryLater(after=50.0)), producer=producer)
    async with running(first) as clock:
        await clock.advance(1.0)
    assert outcomes(first) == {"retried": 2}

    second = Calls(well, producer=producer)
    second.clock = clock
    assert await finish_in(second, 60.0) == {"acked": 2}
    assert second.attempts == {"a": [2], "b": [2]}


async def test_a_retry_that_raises_leaves_the_outcome_unknown() -> None:
    clock = FakeClock()
    broker = Broker(clock, ["a"])
    broker.retry_error = OSError("the connection died")
    pipeline = Calls(broken, producer=broker.producer())
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(10.0)
        check_books(pipeline)

    assert outcomes(pipeline) == {"unknown": 1}


# --- the breaker


class Sink:
    """What the handlers need; away until it is back."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.is_away = True

    def use(self, message: Message[Any]) -> None:
        if self.is_away:
            raise self.error


@pytest.mark.parametrize("error", [Unavailable("the database"), OSError("connection refused")])
async def test_a_sink_that_is_away_for_a_minute_costs_no_message(error: Exception) -> None:
    clock, sink = FakeClock(), Sink(error)
    broker = Broker(clock, range(2_000))
    pipeline = Calls(
        sink.use,
        producer=broker.producer(),
        processors=Processors(concurrency=4, max_demand=10),
        failure=FailurePolicy(breaker=Breaker(over=20)),
    )
    pipeline.clock = clock
    async with running(pipeline):
        for _ in range(60):
            await clock.advance(1.0)
            check_books(pipeline)
            assert pipeline.stats().breaker_open
        assert broker.dead == []
        sink.is_away = False
        await clock.advance(400.0)
        check_books(pipeline)
        assert not pipeline.stats().breaker_open

    assert sorted(broker.acked) == list(range(2_000))
    assert broker.dead == []
    assert broker.counts["rejected"] == 0


@pytest.mark.parametrize("error", [Unavailable("the database"), OSError("connection refused")])
async def test_a_sink_that_is_away_costs_no_message_its_last_attempt(error: Exception) -> None:
    clock, sink = FakeClock(), Sink(error)
    broker = Broker(clock)
    for number in range(200):
        broker.put(number, attempts=3)
    pipeline = Calls(sink.use, producer=broker.producer(), failure=FailurePolicy(breaker=Breaker(over=10)))
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(600.0)
        sink.is_away = False
        await clock.advance(1_000.0)

    assert sorted(broker.acked) == list(range(200))
    assert broker.dead == []


@pytest.mark.parametrize("error", [Unavailable("the database"), OSError("connection refused")])
async def test_items_of_an_iterable_outlive_a_sink_that_is_away(error: Exception) -> None:
    sink, producer = Sink(error), MemoryProducer(range(300))
    pipeline = Calls(sink.use, producer=producer, failure=FailurePolicy(breaker=Breaker(over=20)))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    for _ in range(60):
        await clock.advance(1.0)
        check_books(pipeline)
        assert pipeline.stats().breaker_open
    sink.is_away = False
    await clock.advance(1_000.0)
    await soon(pipeline.wait())

    assert outcomes(pipeline)["acked"] == 300
    assert producer.dead_letters == []


async def test_a_message_with_a_fault_of_its_own_does_not_keep_the_breaker_open(tmp_path: Path) -> None:
    sink = Sink(Unavailable("the database"))

    def handle(message: Message[Any]) -> None:
        sink.use(message)
        if message.data == b"poison":
            broken(message)

    async with Queue(tmp_path / "q.db", "q") as queue:
        await queue.put_many([b"poison", *(str(number) for number in range(100))])
        pipeline = Calls(handle, producer=QueueProducer(tmp_path / "q.db", "q"))
        clock = clock_of(pipeline)
        await soon(pipeline.start())
        start = clock.monotonic()
        await until(pipeline, lambda: clock.monotonic() - start >= 20.0, 0.25)
        sink.is_away = False
        await until(pipeline, lambda: outcomes(pipeline).get("acked") == 100, 0.5)
        await until(pipeline, lambda: outcomes(pipeline).get("dead_lettered") == 1, 1.0)
        assert pipeline.stats().trouble is None
        await soon(pipeline.stop())
        check_books(pipeline)

        assert (await queue.counts()) == (0, 0, 0, 1)


@pytest.mark.parametrize("error", [RetryLater(after=1.0), Reject("no such customer")])
async def test_what_handlers_say_of_their_messages_does_not_open_the_breaker(error: Exception) -> None:
    pipeline = Calls(raising(error), producer=MemoryProducer(range(500)), failure=FailurePolicy(attempts=2))

    assert (await finish_in(pipeline))["dead_lettered"] == 500


async def test_a_breaker_that_opens_says_so_stops_fetching_and_gives_back_what_was_not_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, sink = FakeClock(), Sink(Unavailable("the database"))
    broker = Broker(clock, range(100))
    pipeline = Calls(sink.use, producer=broker.producer(), processors=Processors(concurrency=1, max_demand=10))
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(0.5)
        assert pipeline.stats().trouble == (
            "degraded: too many messages failed (Unavailable in processors); fetching has stopped until a probe "
            "succeeds"
        )
        assert in_flight(pipeline) == 0
        assert outcomes(pipeline) == {"returned": received(pipeline)}
        assert len(broker.rows) == 100
        assert max(attempts for _, _, _, attempts in broker.rows) == 0
        before = received(pipeline)
        await clock.advance(0.4)
        assert received(pipeline) == before

        sink.is_away = False
        await clock.advance(5.0)
        assert pipeline.stats().trouble is None

    assert sorted(broker.acked) == list(range(100))
    said = events_logged(caplog)
    assert said.count("the breaker opened: too many messages fail; fetching stops until a probe succeeds") == 1
    assert said.count("the breaker closed: a probe succeeded; fetching goes on") == 1


class InTwoStages(Pipeline[int]):
    """Its batches fail, two of three; the processors fail nothing."""

    processors = Processors(concurrency=1, max_demand=10)
    batchers = {"sink": Batcher(batch_size=1)}  # noqa: RUF012  # as users write it

    async def handle_message(self, message: Message[int]) -> None:
        message.batcher = "sink"

    async def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> None:
        if messages[0].data % 3:
            raise ConnectionError("no route to 10.0.0.7")


@pytest.mark.parametrize("shown", [False, True], ids=["types", "texts"])
async def test_a_breaker_that_opened_says_by_what(
    caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest, *, shown: bool
) -> None:
    clock = FakeClock()
    broker = Broker(clock, range(100))
    policy = FailurePolicy(breaker=Breaker(ratio=0.5, over=20))
    pipeline = InTwoStages(producer=broker.producer(), failure=policy)
    pipeline.clock = clock
    if shown:
        show_error_texts()
        request.addfinalizer(lambda: show_error_texts(False))
    async with running(pipeline):
        await clock.advance(0.5)
        stats = pipeline.stats()
        found = re.fullmatch(
            r"(\d+) of (\d+), the last by ConnectionError in batch_processors:sink", stats.breaker_opened_by
        )
        assert found is not None
        failed, total = map(int, found.groups())
        assert 10 < failed <= total
        assert total >= 20
        assert stats.trouble == (
            f"degraded: too many messages failed ({stats.breaker_opened_by}); fetching has stopped until a probe "
            "succeeds"
        )

    (line,) = [line for line in logged(caplog) if str(line["event"]).startswith("the breaker opened")]
    assert line["by"] == stats.breaker_opened_by
    assert "handle_batch" in line["at"]
    assert ("no route to" in line["reason"]) == shown


async def test_one_message_probes_after_waits_that_double() -> None:
    clock, sink = FakeClock(), Sink(Unavailable("the database"))
    broker = Broker(clock, range(50))
    pipeline = Calls(sink.use, producer=broker.producer())
    pipeline.clock = clock
    async with running(pipeline):
        start = clock.monotonic()
        await clock.advance(0.0)
        taken = received(pipeline)
        probes: list[float] = []
        for _ in range(400):
            await clock.advance(0.25)
            if received(pipeline) > taken:
                assert received(pipeline) == taken + 1
                taken = received(pipeline)
                probes.append(clock.monotonic() - start)

    assert probes == [1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0]


async def test_a_source_that_has_nothing_does_not_keep_the_others_from_probing() -> None:
    clock, sink = FakeClock(), Sink(Unavailable("the database"))
    broker, empty = Broker(clock, range(3)), Broker(clock)
    pipeline = Calls(sink.use, producer=[empty.producer("empty"), broker.producer()])
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(0.5)
        sink.is_away = False
        await clock.advance(3.0)
        assert sorted(broker.acked) == [0, 1, 2]


async def test_a_producer_that_cannot_be_paused_does_not_keep_the_breaker_from_closing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = [OSError("no")]

    class Stubborn(BrokerProducer):
        async def pause(self) -> None:
            if refusals:
                raise refusals.pop()
            await super().pause()

    clock, sink = FakeClock(), Sink(Unavailable("the database"))
    broker = Broker(clock, range(20))
    pipeline = Calls(sink.use, producer=Stubborn(broker, "stubborn"))
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(0.5)
        assert "a producer could not be paused or resumed" in events_logged(caplog)
        sink.is_away = False
        await clock.advance(60.0)
        assert pipeline.stats().trouble is None

    assert sorted(broker.acked) == list(range(20))


async def test_a_submitted_message_probes_too() -> None:
    sink = Sink(Unavailable("the database"))
    pipeline = Calls(sink.use, producer=ManualProducer())
    async with running(pipeline) as clock:
        assert (await soon(pipeline.submit_batch(["a"]))).failed
        await clock.advance(1.5)
        assert pipeline.stats().breaker_open
        sink.is_away = False
        waiting = asyncio.ensure_future(pipeline.submit("b"))
        await clock.advance(1.0)
        assert (await soon(waiting)).ok
        await clock.advance(0.0)
        assert not pipeline.stats().breaker_open


async def test_a_message_with_a_fault_of_its_own_does_not_open_the_breaker() -> None:
    producer = MemoryProducer(["many"] * 500)
    pipeline = Calls(well, producer=producer, schema=int)

    assert await finish_in(pipeline) == {"dead_lettered": 500}


async def test_without_a_breaker_everything_goes_on_being_tried() -> None:
    pipeline = Calls(broken, producer=MemoryProducer(range(300)), failure=FailurePolicy(attempts=2, breaker=None))

    assert await finish_in(pipeline) == {"retried": 300, "dead_lettered": 300}


async def test_a_pipeline_with_an_open_breaker_stops_at_once() -> None:
    clock = FakeClock()
    broker = Broker(clock, range(50))
    pipeline = Calls(raising(Unavailable("the database")), producer=broker.producer())
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(1.5)

    assert len(broker.rows) == 50


async def test_pausing_while_the_breaker_is_open_keeps_it_paused_after_it_has_closed() -> None:
    clock, sink = FakeClock(), Sink(Unavailable("the database"))
    broker = Broker(clock, range(50))
    pipeline = Calls(sink.use, producer=broker.producer())
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(0.5)
        await soon(pipeline.pause())
        sink.is_away = False
        await clock.advance(100.0)
        assert broker.acked == []
        await soon(pipeline.resume())
        await clock.advance(100.0)
        assert sorted(broker.acked) == list(range(50))


# --- the embedded queue, with its real file


async def until(pipeline: Pipeline[Any], is_so: Callable[[], bool], step_s: float) -> None:
    """Let the clock of *pipeline* pass in steps until *is_so*; its file is written by a thread of real time."""
    clock = clock_of(pipeline)
    async with asyncio.timeout(30):
        while not is_so():
            await clock.advance(step_s)
            await asyncio.sleep(0.002)


async def test_a_message_of_the_embedded_queue_is_dead_lettered_after_its_attempts(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    async with Queue(path, "q") as queue:
        await queue.put_many([b"poison", b"good"])

        def handle(message: Message[Any]) -> None:
            if message.data == b"poison":
                broken(message)

        pipeline = Calls(handle, producer=QueueProducer(path, "q"))
        clock = clock_of(pipeline)
        await soon(pipeline.start())
        await until(pipeline, lambda: outcomes(pipeline).get("dead_lettered") == 1, 0.25)
        check_books(pipeline)
        stopping = asyncio.ensure_future(pipeline.stop())
        await soon(stopping)

        assert pipeline.attempts == {b"poison": [1, 2, 3, 4, 5], b"good": [1]}
        gaps = [later - earlier for earlier, later in itertools.pairwise(pipeline.seen[b"poison"])]
        # Its file is written in real time, while the clock goes on: a gap may be seen late, but never early.
        assert all(gap >= 2.0**n / 2.0 for n, gap in enumerate(gaps))
        assert outcomes(pipeline) == {"acked": 1, "retried": 4, "dead_lettered": 1}
        (letter,) = await queue.dead_letters()
        assert (letter.data, letter.cause, letter.exception, letter.attempts) == (b"poison", "raised", "ValueError", 5)
        assert (await queue.counts()) == (0, 0, 0, 1)
        assert clock.monotonic() > 1_000.0


@pytest.mark.parametrize("error", [Unavailable("the database"), OSError("connection refused")])
async def test_the_embedded_queue_loses_nothing_to_its_dead_letters_while_the_sink_is_away(
    tmp_path: Path, error: Exception
) -> None:
    path, sink = tmp_path / "q.db", Sink(error)
    handled: Counter[int] = Counter()

    def handle(message: Message[Any]) -> None:
        sink.use(message)
        handled[int(message.data)] += 1

    async with Queue(path, "q") as queue:
        await queue.put_many([str(number) for number in range(1_000)])
        pipeline = Calls(
            handle,
            producer=QueueProducer(path, "q"),
            processors=Processors(concurrency=2, max_demand=50),
            failure=FailurePolicy(breaker=Breaker(over=20)),
        )
        clock = clock_of(pipeline)
        await soon(pipeline.start())
        start = clock.monotonic()
        await until(pipeline, lambda: clock.monotonic() - start >= 60.0, 0.5)
        check_books(pipeline)
        assert pipeline.stats().breaker_open
        assert not handled
        sink.is_away = False
        await until(pipeline, lambda: outcomes(pipeline).get("acked") == 1_000, 0.5)
        check_books(pipeline)
        await soon(pipeline.stop())

        assert handled == Counter(range(1_000))
        assert (await queue.counts()) == (0, 0, 0, 0)


@pytest.mark.parametrize("failure", [FailurePolicy(), FailurePolicy(breaker=Breaker(over=1))])
@pytest.mark.parametrize("error", [Unavailable("the database"), OSError("connection refused")])
async def test_the_only_message_of_an_embedded_queue_probes_too(
    tmp_path: Path, error: Exception, failure: FailurePolicy
) -> None:
    path, sink = tmp_path / "q.db", Sink(error)
    async with Queue(path, "q") as queue:
        await queue.put(b"only")
        pipeline = Calls(sink.use, producer=QueueProducer(path, "q"), failure=failure)
        clock = clock_of(pipeline)
        await soon(pipeline.start())
        start = clock.monotonic()
        await until(pipeline, lambda: clock.monotonic() - start >= 6.0, 0.25)
        sink.is_away = False
        await until(pipeline, lambda: outcomes(pipeline).get("acked") == 1, 0.25)
        await until(pipeline, lambda: pipeline.stats().trouble is None, 0.25)
        await soon(pipeline.stop())

        assert (await queue.counts()) == (0, 0, 0, 0)


# --- settings


def policy_of(section: Any) -> FailurePolicy | None:
    return Quiet.from_settings({"failure": section}, name="p", path=("pipelines", "p")).failure


def test_a_file_says_it_field_by_field() -> None:
    policy = policy_of(
        {
            "attempts": 3,
            "backoff": ["500ms", "1m"],
            "final": "reject",
            "classify": {"ValueError": "drop", "tests.pipeline.test_failure_policy:Poison": "dead_letter"},
            "breaker": {"ratio": 0.9, "over": 10},
        }
    )

    assert policy == FailurePolicy(
        attempts=3,
        backoff=(0.5, 60.0),
        final="reject",
        classify={ValueError: "drop", Poison: "dead_letter"},
        breaker=Breaker(ratio=0.9, over=10),
    )


def test_a_file_adds_to_what_the_class_says() -> None:
    class Own(Quiet):
        failure = FailurePolicy(attempts=2, final="drop")

    own = Own.from_settings({"failure": {"final": "reject"}}, name="p", path=("pipelines", "p"))
    assert own.failure == FailurePolicy(attempts=2, final="reject")


def test_null_removes_the_policy_or_its_breaker() -> None:
    assert policy_of(None) is None
    assert policy_of({"breaker": None}) == FailurePolicy(breaker=None)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (3, "pipelines.p.failure: expected a section of settings, got int"),
        (
            {"atempts": 3},
            (
                "pipelines.p.failure.atempts: unknown setting; known here: attempts, backoff, breaker, classify, "
                "dead_letter, final; did you mean 'attempts'?"
            ),
        ),
        ({"attempts": 0}, "pipelines.p.failure.attempts: expected greater than or equal to 1, got 0"),
        (
            {"final": "retry"},
            "pipelines.p.failure.final: expected 'dead_letter', 'drop', 'reject' or 'stop', got 'retry'",
        ),
        (
            {"backoff": [10, 1]},
            "pipelines.p.failure.backoff: expected (first, most) with first <= most, got (10.0, 1.0)",
        ),
        (
            {"classify": {"NoSuchError": "drop"}},
            (
                "pipelines.p.failure.classify.NoSuchError: expected an exception type, or its place as text "
                "'package.module:Name', got 'NoSuchError'"
            ),
        ),
        (
            {"classify": {"int": "drop"}},
            (
                "pipelines.p.failure.classify.int: expected an exception type, or its place as text "
                "'package.module:Name', got 'int'"
            ),
        ),
        (
            {"classify": {"ValueError": "ignore"}},
            (
                "pipelines.p.failure.classify.ValueError: expected 'retry', 'dead_letter', 'drop', 'reject' or 'stop', "
                "got 'ignore'"
            ),
        ),
        ({"breaker": {"ratio": 1}}, "pipelines.p.failure.breaker.ratio: expected less than 1, got 1"),
        ({"breaker": {"over": "all"}}, "pipelines.p.failure.breaker.over: expected a valid integer, got 'all'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_whole_path(section: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        policy_of(section)

    assert str(refused.value) == sentence
