"""The drain: stop fetching, give back what was not started, finish what was, flush, settle, close. One deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broadway_py import (
    Batcher,
    BatchInfo,
    DrainReport,
    Message,
    Pipeline,
    PipelineNotRunning,
    Processors,
    ProducerError,
    RateLimit,
    ack_immediately,
)
from broadway_py.producers import MemoryProducer, Producer, ProducerDescription
from tests.pipeline.support import (
    DEADLINE,
    Call,
    ManualProducer,
    Quiet,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    events_logged,
    finish,
    in_flight,
    outcomes,
    received,
    running,
    soon,
)
from tests.support.conformance import conforms

Messages = list[Message[Any]]


class Gated(Pipeline[Any]):
    """Handlers wait for the gate; notes who came in."""

    processors = Processors(concurrency=1, max_demand=4, min_demand=0)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = asyncio.Event()
        self.started: list[Any] = []
        self.inside = asyncio.Event()

    async def handle_message(self, message: Message[Any]) -> None:
        self.started.append(message.data)
        self.inside.set()
        await self.gate.wait()


class GatedBatch(Gated):
    """One batcher; batches wait for the gate, messages do not."""

    batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
        self.started.append([message.data for message in messages])
        self.inside.set()
        await self.gate.wait()


async def stop_out_of_time(pipeline: Pipeline[Any], *, seconds: float = 30.0) -> DrainReport:
    """Stop, and let all the time of the drain pass."""
    clock = clock_of(pipeline)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(seconds)
    report = await soon(stopping)
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    assert sum(report.outcomes.values()) == received(pipeline)
    return report


# --- in time


@conforms("B-041")
async def test_a_stop_waits_until_what_came_in_was_handled_and_settled() -> None:
    recorder = Recorder()
    pipeline = Gated(producer=ManualProducer(*recorder.messages([1, 2, 3, 4])))

    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(1.0)
        assert not stopping.done()
        pipeline.gate.set()
        report = await soon(stopping)

    assert report.in_time
    assert {name: count for name, count in report.outcomes.items() if count} == {"acked": 4}
    assert recorder.successful == [1, 2, 3, 4]


@conforms("B-088")
async def test_what_was_queued_is_handled_and_settled_in_one_batch_before_the_end() -> None:
    recorder = Recorder()
    pipeline = GatedBatch(
        producer=ManualProducer(*recorder.messages([1, 2, 3, 4])), batchers={"default": Batcher(batch_size=4)}
    )
    pipeline.gate.set()

    async with running(pipeline):
        await soon(pipeline.inside.wait())

    assert [call.data for call in recorder.calls] == [([1, 2, 3, 4], [])]


@conforms("B-089")
async def test_an_open_batch_is_flushed_and_settled() -> None:
    recorder = Recorder()
    triggers: list[str] = []

    class Flushed(Quiet):
        async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
            triggers.append(info.trigger)

    pipeline = Flushed(
        producer=ManualProducer(*recorder.messages([1, 2])),
        batchers={"default": Batcher(batch_size=4, batch_timeout=3600.0)},
    )

    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert recorder.count == 0

    assert [call.data for call in recorder.calls] == [([1, 2], [])]
    assert triggers == ["flush"]


@conforms("B-090")
async def test_what_a_producer_returns_while_draining_is_finished_and_later_things_are_not_taken() -> None:
    recorder = Recorder()

    class LastWords(ManualProducer):
        async def prepare_for_draining(self) -> None:
            self.feed.put(recorder.message("while draining"))
            await super().prepare_for_draining()

        async def close(self) -> None:
            self.feed.put(recorder.message("too late"))
            await super().close()

    producer = LastWords(recorder.message("before"))
    pipeline = Quiet(producer=producer)

    async with running(pipeline):
        await recorder.until(1)
        await producer.feed.until("demand", 2)

    assert recorder.successful == ["before", "while draining"]
    assert [item.data for item in producer.feed.items] == ["too late"]


async def test_what_was_never_started_is_given_back() -> None:
    recorder = ReturningRecorder()
    pipeline = Gated(producer=ManualProducer(*recorder.messages(range(20))))

    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(0.0)
        pipeline.gate.set()
        report = await soon(stopping)

    assert report.in_time
    assert pipeline.started == [0]
    assert recorder.successful == [0]
    assert recorder.returned == [1, 2, 3]
    assert outcomes(pipeline) == {"acked": 1, "returned": 3}
    recorder.check_once()


async def test_what_is_fetched_while_draining_is_given_back_if_it_can_be() -> None:
    recorder = ReturningRecorder()

    class LastWords(ManualProducer):
        async def prepare_for_draining(self) -> None:
            self.feed.put(recorder.message("late"))
            await super().prepare_for_draining()

    producer = LastWords()
    pipeline = Quiet(producer=producer)

    async with running(pipeline):
        await producer.feed.until("demand")

    assert recorder.returned == ["late"]
    assert outcomes(pipeline) == {"returned": 1}


async def test_what_has_been_handled_and_waits_for_its_batch_is_finished_and_not_given_back() -> None:
    recorder = ReturningRecorder()
    pipeline = GatedBatch(producer=ManualProducer(*recorder.messages(range(5))))
    pipeline.gate.set()

    async with running(pipeline) as clock:
        await clock.advance(0.5)

    assert outcomes(pipeline) == {"acked": 5}


@conforms("B-087")
async def test_after_a_stop_no_task_of_the_pipeline_is_left() -> None:
    before = asyncio.all_tasks()
    pipeline = GatedBatch(producer=ManualProducer(1, 2, 3))
    pipeline.gate.set()
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        assert asyncio.all_tasks() - before

    await clock.advance(0.0)
    assert asyncio.all_tasks() == before


async def test_after_an_interrupted_life_no_task_of_the_pipeline_is_left_either() -> None:
    before = asyncio.all_tasks()
    pipeline = Gated(producer=ManualProducer(1, 2, 3))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.inside.wait())
    await stop_out_of_time(pipeline)

    await clock.advance(0.0)
    assert asyncio.all_tasks() == before


async def test_the_steps_come_in_order() -> None:
    steps: list[str] = []

    class Noting(Recorder):
        async def ack(self, ref: Any, successful: Any, failed: Any) -> None:
            steps.append("ack")

    class Steps(GatedBatch):
        async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
            steps.append(f"batch {info.trigger}")

        async def teardown(self) -> None:
            steps.append(f"teardown {self.phase}")

    class Source(ManualProducer):
        async def prepare_for_draining(self) -> None:
            steps.append("drain")
            await super().prepare_for_draining()

        async def close(self) -> None:
            steps.append("close")

    recorder = Noting()
    pipeline = Steps(producer=Source(recorder.message(1)))
    async with running(pipeline) as clock:
        await clock.advance(0.5)

    assert steps == ["drain", "batch flush", "ack", "close", "teardown stopped"]


async def test_all_copies_are_closed_once_after_the_last_settlement() -> None:
    producer = ManualProducer(1, concurrency=3)
    pipeline = Quiet(producer=producer)
    async with running(pipeline):
        await producer.feed.until("opened", 3)

    assert producer.feed.journal.count("close") == 3
    assert producer.feed.journal.count("drain") == 3


# --- out of time


@conforms("B-091")
async def test_a_tiny_timeout_ends_even_with_a_handler_that_sleeps_for_ever() -> None:
    pipeline = Gated(producer=ManualProducer(1), shutdown_timeout=0.001)
    await soon(pipeline.start())
    await soon(pipeline.inside.wait())

    report = await soon(pipeline.stop())

    assert not report.in_time
    assert in_flight(pipeline) == 0


async def test_what_is_cut_off_at_the_deadline_goes_back_without_a_decision() -> None:
    recorder = ReturningRecorder()
    pipeline = Gated(
        producer=ManualProducer(*recorder.messages(range(6))),
        processors=Processors(concurrency=2, max_demand=2, min_demand=0),
    )
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())

    report = await stop_out_of_time(pipeline)

    assert not report.in_time
    assert outcomes(pipeline) == {"returned": 4}
    recorder.check_once()


async def test_what_cannot_be_given_back_fails_as_stopped() -> None:
    recorder = Recorder()
    pipeline = Gated(producer=ManualProducer(*recorder.messages([1])))
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())

    await stop_out_of_time(pipeline)

    status = recorder.statuses[1]
    assert (status.cause, status.reason) == ("stopped", "the pipeline stopped before this message was finished")
    assert outcomes(pipeline) == {"rejected": 1}
    assert stopped_at(pipeline) == {"processors": 1}


@pytest.mark.parametrize("batched", [False, True])
async def test_what_fails_as_stopped_is_counted_where_it_was(batched: bool) -> None:
    class Hangs(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            if not batched:
                await asyncio.Event().wait()

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            await asyncio.Event().wait()

    recorder = Recorder()
    pipeline = Hangs(
        producer=ManualProducer(*recorder.messages(range(7))),
        processors=Processors(concurrency=1, max_demand=10, min_demand=8),
        batchers={"default": Batcher(batch_size=2)} if batched else {},
    )
    await soon(clock_and_start(pipeline))
    await clock_of(pipeline).advance(0.1)

    await stop_out_of_time(pipeline)

    counted = stopped_at(pipeline)
    assert sum(counted.values()) == len(recorder.failed) == 7
    assert {status.cause for status in recorder.statuses.values()} == {"stopped"}
    assert (counted.get("batch_processors:default", 0) >= 2) == batched


def stopped_at(pipeline: Pipeline[Any]) -> dict[str, int]:
    """How many failed as stopped, by layer."""
    return {stage.name: stage.failed["stopped"] for stage in pipeline.stats().stages if stage.failed.get("stopped")}


async def test_what_was_finished_of_a_chunk_that_is_cut_off_stands() -> None:
    recorder = ReturningRecorder()

    class ThirdHangs(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == 2:
                message.fail("bad")
            if message.data == 3:
                await asyncio.Event().wait()

    pipeline = ThirdHangs(producer=ManualProducer(*recorder.messages([1, 2, 3, 4])))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(0.0)

    await stop_out_of_time(pipeline)

    assert recorder.successful == [1]
    assert recorder.failed == [2]
    assert sorted(recorder.returned) == [3, 4]
    recorder.check_once()


@pytest.mark.parametrize("returns", [True, False])
async def test_a_batch_that_is_cut_off_goes_back_with_all_that_waits_behind_it(returns: bool) -> None:
    recorder = ReturningRecorder() if returns else Recorder()
    pipeline = GatedBatch(producer=ManualProducer(*recorder.messages(range(50))))
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())
    await clock_of(pipeline).advance(2.0)

    await stop_out_of_time(pipeline)

    assert set(outcomes(pipeline)) == {"returned" if returns else "rejected"}
    recorder.check_once()
    assert recorder.count == received(pipeline)


async def test_the_cut_comes_early_enough_to_give_back_and_close_before_the_deadline() -> None:
    recorder = ReturningRecorder()
    producer = ManualProducer(*recorder.messages([1]))
    pipeline = Gated(producer=producer)
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())
    clock = clock_of(pipeline)

    stopping = asyncio.ensure_future(pipeline.stop(timeout=10.0))
    await clock.advance(7.9)
    assert recorder.returned == []
    await clock.advance(0.2)
    assert recorder.returned == [1]
    assert producer.feed.journal[-1] == "close"
    report = await soon(stopping)
    assert not report.in_time


async def test_a_second_stop_joins_the_first_with_its_deadline() -> None:
    pipeline = Gated(producer=ManualProducer(1))
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())
    clock = clock_of(pipeline)

    first = asyncio.ensure_future(pipeline.stop(timeout=5.0))
    await clock.advance(1.0)
    second = asyncio.ensure_future(pipeline.stop(timeout=500.0))
    await clock.advance(4.0)

    assert await soon(first) == await soon(second)


async def test_give_up_does_the_last_steps_now() -> None:
    recorder = ReturningRecorder()
    pipeline = Gated(producer=ManualProducer(*recorder.messages([1])))
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())

    stopping = asyncio.ensure_future(pipeline.stop(timeout=3600.0))
    await clock_of(pipeline).advance(1.0)
    pipeline.give_up()
    report = await soon(stopping)

    assert not report.in_time
    assert recorder.returned == [1]


async def test_a_handler_that_ignores_its_cancellation_is_left_behind_and_its_message_goes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = ReturningRecorder()
    release = asyncio.Event()

    class Stubborn(Gated):
        async def handle_message(self, message: Message[Any]) -> None:
            self.inside.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    pipeline = Stubborn(producer=ManualProducer(*recorder.messages([1])))
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())

    await stop_out_of_time(pipeline)

    assert recorder.returned == [1]
    assert "a callback ignored its cancellation; the drain does not wait for it" in events_logged(caplog)
    release.set()
    await clock_of(pipeline).advance(0.0)
    recorder.check_once()
    check_books(pipeline)


async def test_a_handler_that_finishes_when_it_is_cancelled_is_settled_as_finished() -> None:
    recorder = ReturningRecorder()

    class Tidy(Gated):
        async def handle_message(self, message: Message[Any]) -> None:
            self.inside.set()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                return

    pipeline = Tidy(producer=ManualProducer(*recorder.messages([1, 2])))
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())

    await stop_out_of_time(pipeline)

    assert recorder.successful == [1]
    assert recorder.returned == [2]


@pytest.mark.parametrize("callback", ["prepare_messages", "handle_failed"])
async def test_a_callback_around_the_handler_that_hangs_is_cut_off_too(callback: str) -> None:
    recorder = ReturningRecorder()

    async def hang(pipeline: Any, messages: Messages) -> None:
        await asyncio.Event().wait()

    async def fail(pipeline: Any, message: Message[Any]) -> None:
        message.fail("on purpose")

    hanging = type("Hanging", (Quiet,), {callback: hang, "handle_message": fail})
    pipeline: Pipeline[Any] = hanging(producer=ManualProducer(*recorder.messages([1])))
    await soon(clock_and_start(pipeline))
    await clock_of(pipeline).advance(0.0)

    await stop_out_of_time(pipeline)

    assert recorder.count == 1
    recorder.check_once()


# --- the acknowledger at the end


async def test_a_settlement_under_way_at_the_cut_is_left_alone() -> None:
    gate = asyncio.Event()

    async def slow(call: Call) -> None:
        await gate.wait()

    recorder = Recorder(slow)
    pipeline = Quiet(producer=ManualProducer(*recorder.messages([1])))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await recorder.until(1)

    stopping = asyncio.ensure_future(pipeline.stop(timeout=10.0))
    await clock.advance(8.5)
    gate.set()
    await soon(stopping)

    assert outcomes(pipeline) == {"acked": 1}


@pytest.mark.parametrize("stubborn", [False, True])
async def test_an_acknowledger_that_hangs_leaves_its_messages_unknown_at_the_deadline(stubborn: bool) -> None:
    over = asyncio.Event()

    async def hang(call: Call) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    recorder = Recorder(hang)
    pipeline = Quiet(producer=ManualProducer(*recorder.messages([1, 2])))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await recorder.until(1)

    await stop_out_of_time(pipeline)

    assert outcomes(pipeline)["unknown"] >= 1
    over.set()
    await clock.advance(0.0)
    check_books(pipeline)
    assert in_flight(pipeline) == 0


@pytest.mark.parametrize("fault", ["raise", "cancel", "hang"])
async def test_a_source_that_cannot_take_back_leaves_the_outcome_unknown(fault: str) -> None:
    async def broken(call: Call) -> None:
        if fault == "raise":
            raise ConnectionError("gone")
        if fault == "cancel":
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    recorder = ReturningRecorder(broken)
    pipeline = Gated(producer=ManualProducer(*recorder.messages([1, 2, 3])))
    await soon(clock_and_start(pipeline))
    await soon(pipeline.inside.wait())

    await stop_out_of_time(pipeline)

    assert outcomes(pipeline) == {"unknown": 3}
    recorder.check_once()


async def test_messages_of_two_kinds_all_have_an_outcome_when_giving_back_hangs() -> None:
    async def hang(call: Call) -> None:
        await asyncio.Event().wait()

    returning, keeping = ReturningRecorder(hang), Recorder()

    class Mixed(ManualProducer):
        async def prepare_for_draining(self) -> None:
            self.feed.put(*returning.messages([1, 2]), *keeping.messages([3, 4]))
            await super().prepare_for_draining()

    producer = Mixed()
    pipeline = Quiet(producer=producer)
    await soon(clock_and_start(pipeline))
    await producer.feed.until("demand")

    await stop_out_of_time(pipeline)

    assert received(pipeline) == 4
    assert outcomes(pipeline)["unknown"] == 2
    assert keeping.count == 2


# --- sources at the end


async def test_a_producer_that_hangs_while_it_prepares_does_not_keep_the_pipeline_for_ever() -> None:
    class Hangs(ManualProducer):
        async def prepare_for_draining(self) -> None:
            await asyncio.Event().wait()

    recorder = Recorder()
    producer = Hangs(*recorder.messages([1]))
    pipeline = Quiet(producer=producer)
    await soon(clock_and_start(pipeline))
    await recorder.until(1)

    report = await stop_out_of_time(pipeline)

    assert not report.in_time
    assert producer.feed.journal[-1] == "close"


@pytest.mark.parametrize("error", [RuntimeError("no"), asyncio.CancelledError()])
async def test_a_producer_that_cannot_prepare_does_not_keep_the_pipeline_from_draining(error: BaseException) -> None:
    class Fails(ManualProducer):
        async def prepare_for_draining(self) -> None:
            await super().prepare_for_draining()
            raise error

    recorder = Recorder()
    pipeline = Quiet(producer=Fails(*recorder.messages([1])))
    async with running(pipeline):
        await recorder.until(1)

    assert outcomes(pipeline) == {"acked": 1}


@pytest.mark.parametrize("error", [RuntimeError("no"), asyncio.CancelledError(), None])
async def test_a_producer_that_cannot_close_does_not_keep_the_pipeline_from_ending(
    error: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(ManualProducer):
        async def close(self) -> None:
            if error is None:
                await asyncio.Event().wait()
            else:
                raise error

    pipeline = Quiet(producer=Fails(1))
    await soon(clock_and_start(pipeline))
    await clock_of(pipeline).advance(0.0)

    await stop_out_of_time(pipeline)

    assert pipeline.phase == "stopped"
    said = "the producer did not close by the deadline of the stop; it was cancelled"
    assert (said in events_logged(caplog)) is (error is None)


@pytest.mark.parametrize("error", [RuntimeError("no"), asyncio.CancelledError()])
async def test_a_producer_that_cannot_end_its_lost_copies_keeps_nobody_from_closing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[int] = []

    class Closing(ManualProducer):
        async def close(self) -> None:
            await asyncio.sleep(0)
            closed.append(self.context.index)

    class Fails(ProducerDescription):
        concurrency = 2

        def create(self) -> Producer:
            return Closing()

        async def end_lost_copies(self) -> None:
            raise error

    pipeline = Quiet(producer=Fails())
    await soon(clock_and_start(pipeline))

    await soon(pipeline.stop())

    assert sorted(closed) == [0, 1]
    assert events_logged(caplog).count("the producer could not end its lost copies") == 2


async def test_a_fetch_that_ignores_draining_is_cut_off_at_the_deadline() -> None:
    class Deaf(ManualProducer):
        async def handle_demand(self, demand: int) -> Any:
            self.feed.note("demand")
            await asyncio.Event().wait()

    producer = Deaf()
    pipeline = Quiet(producer=producer)
    await soon(clock_and_start(pipeline))
    await producer.feed.until("demand")

    report = await stop_out_of_time(pipeline)

    assert not report.in_time


async def test_closing_after_the_end_of_all_sources_has_time() -> None:
    gate = asyncio.Event()

    class SlowClose(ManualProducer):
        async def close(self) -> None:
            self.feed.note("closing")
            await gate.wait()
            self.feed.note("closed")

    producer = SlowClose(1)
    producer.feed.end()
    pipeline = Quiet(producer=producer)
    async with running(pipeline) as clock:
        await producer.feed.until("closing")
        await clock.advance(2.0)
        gate.set()
        await soon(pipeline.wait())

    assert producer.feed.journal[-1] == "closed"


async def test_what_an_async_iterable_gives_at_the_last_moment_is_handled_or_not_taken() -> None:
    asked = asyncio.Event()

    class Items:
        def __init__(self) -> None:
            self.left = [1, 2, 3]
            self.more = asyncio.Event()

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            asked.set()
            await self.more.wait()
            return self.left.pop(0)

    items = Items()
    pipeline = Gated(producer=MemoryProducer(items))
    await soon(clock_and_start(pipeline))
    await soon(asked.wait())

    stopping = asyncio.ensure_future(pipeline.stop())
    items.more.set()
    await clock_of(pipeline).advance(0.0)
    pipeline.gate.set()
    await soon(stopping)

    assert received(pipeline) == 3 - len(items.left)
    assert outcomes(pipeline).get("acked", 0) == received(pipeline)


# --- stopping at odd moments


async def test_a_stop_while_the_source_connects_ends_at_once_and_closes_it() -> None:
    producer = ManualProducer()

    async def never() -> None:
        await asyncio.Event().wait()

    producer.feed.opening.append(never)
    pipeline = Quiet(producer=producer)
    async with running(pipeline):
        await producer.feed.until("open")

    assert producer.feed.journal == ["open", "close"]


async def test_a_stop_while_waiting_for_the_next_try_ends_at_once() -> None:
    producer = ManualProducer()
    producer.feed.opening.append(ProducerError("away"))
    pipeline = Quiet(producer=producer)
    async with running(pipeline) as clock:
        await producer.feed.until("close")
        await clock.advance(0.0)

    assert producer.feed.journal == ["open", "close"]


async def test_a_stop_behind_the_rate_limit_gives_back_what_was_not_let_through() -> None:
    recorder = ReturningRecorder()
    pipeline = Quiet(
        producer=ManualProducer(*recorder.messages(range(5))),
        rate_limit=RateLimit(allowed_messages=1, interval=3600.0),
    )
    async with running(pipeline):
        await recorder.until(1)

    assert recorder.successful == [0]
    assert recorder.returned == [1, 2, 3, 4]


async def test_a_stop_while_paused_ends_at_once() -> None:
    recorder = ReturningRecorder()
    pipeline = Quiet(producer=ManualProducer(*recorder.messages(range(5))))
    async with running(pipeline):
        await recorder.until(5)
        await soon(pipeline.pause())

    assert outcomes(pipeline) == {"acked": 5}


async def test_a_stop_before_the_start_leaves_nothing_to_start() -> None:
    pipeline = Quiet()

    report = await soon(pipeline.stop())

    assert (dict(report.outcomes), report.in_time) == ({}, True)
    with pytest.raises(PipelineNotRunning) as refused:
        await pipeline.start()
    assert str(refused.value) == ("pipeline 'Quiet' was started before; a pipeline runs once, make a new one")


@pytest.mark.parametrize("how", ["stop", "request_stop"])
async def test_a_stop_while_setup_runs_ends_the_pipeline(how: str) -> None:
    inside, gate = asyncio.Event(), asyncio.Event()

    class SlowSetup(Quiet):
        async def setup(self) -> None:
            inside.set()
            await gate.wait()

    pipeline = SlowSetup()
    clock_of(pipeline)
    starting = asyncio.ensure_future(pipeline.start())
    await soon(inside.wait())
    stopping = asyncio.ensure_future(pipeline.stop() if how == "stop" else asyncio.to_thread(pipeline.request_stop))
    if how == "request_stop":
        await soon(stopping)
    await clock_of(pipeline).advance(0.0)
    gate.set()
    await soon(asyncio.wait({starting}))
    await soon(stopping)
    if how == "request_stop" and starting.exception() is None:
        await soon(pipeline.wait())

    assert pipeline.phase == "stopped"


async def test_request_stop_works_from_another_thread_and_from_a_callback() -> None:
    class StopsItself(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == 3:
                self.request_stop()

    recorder = Recorder()
    pipeline = StopsItself(producer=ManualProducer(*recorder.messages([1, 2, 3, 4])))
    clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.wait())
    assert outcomes(pipeline) == {"acked": 4}

    other = Quiet(producer=ManualProducer(1))
    clock_of(other)
    await soon(other.start())
    thread = threading.Thread(target=other.request_stop)
    thread.start()
    await soon(other.wait())
    thread.join(DEADLINE)


def test_request_stop_after_the_end_of_everything_is_harmless() -> None:
    pipeline = Quiet(producer=MemoryProducer([1]))
    asyncio.run(finish(pipeline))

    pipeline.request_stop()
    pipeline.give_up()


async def test_a_cancelled_stop_does_not_interrupt_the_drain() -> None:
    recorder = Recorder()
    pipeline = Gated(producer=ManualProducer(*recorder.messages([1])))
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(0.0)
        stopping.cancel()
        await asyncio.wait({stopping})
        assert pipeline.phase == "draining"
        pipeline.gate.set()

    assert outcomes(pipeline) == {"acked": 1}


async def test_cancelling_the_start_ends_the_pipeline_and_runs_teardown() -> None:
    inside = asyncio.Event()
    torn_down = asyncio.Event()

    class SlowSetup(Quiet):
        async def setup(self) -> None:
            inside.set()
            await asyncio.Event().wait()

        async def teardown(self) -> None:
            torn_down.set()

    pipeline = SlowSetup()
    clock_of(pipeline)
    starting = asyncio.ensure_future(pipeline.start())
    await soon(inside.wait())
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(starting)

    await soon(torn_down.wait())
    assert not pipeline.is_running


async def test_an_early_settlement_that_hangs_ends_with_the_pipeline_whatever_else_hangs() -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def hang(call: Call) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    class Early(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await ack_immediately(message)

    recorder = Recorder(hang)
    processors = Processors(concurrency=1, max_demand=3)
    pipeline = Early(producer=ManualProducer(*recorder.messages([1, 2, 3])), processors=processors)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(0.1)
    # One is being settled early; those that wait behind it cannot be settled either.
    stopping = asyncio.ensure_future(pipeline.stop(timeout=1.0))
    await clock.advance(2.0)
    await soon(stopping)

    assert len(tasks) == 3
    assert all(task is not None and task.done() for task in tasks)
    assert outcomes(pipeline) == {"unknown": 3}


async def test_a_cancellation_in_the_last_steps_closes_the_books_all_the_same() -> None:
    """As when asyncio.run() ends: everything is cancelled once more, also what was giving back."""

    async def hang(call: Call) -> None:
        await asyncio.Event().wait()

    recorder = Recorder(hang)
    pipeline = Quiet(producer=ManualProducer(*recorder.messages([1, 2])))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(0.1)
    stopping = asyncio.ensure_future(pipeline.stop(timeout=10.0))
    # Past the cut, before the deadline.
    await clock.advance(9.5)
    assert not stopping.done()
    root = pipeline._life_cycle._root
    assert root is not None
    root.cancel()
    await soon(asyncio.wait({root}))

    await soon(stopping)
    check_books(pipeline)
    assert (in_flight(pipeline), outcomes(pipeline)) == (0, {"unknown": 2})


async def test_cancelling_everything_gives_back_what_is_in_hand() -> None:
    recorder = ReturningRecorder()
    pipeline = Gated(producer=ManualProducer(*recorder.messages([1, 2])))
    clock = clock_of(pipeline)
    before = asyncio.all_tasks()
    await soon(pipeline.start())
    await soon(pipeline.inside.wait())

    # What asyncio.run does at its end.
    mine = asyncio.all_tasks() - before
    for task in mine:
        task.cancel()
    ending = asyncio.ensure_future(asyncio.wait(mine))
    await clock.advance(30.0)
    await soon(ending)

    assert in_flight(pipeline) == 0
    assert recorder.count == received(pipeline)
    recorder.check_once()


# --- setup and teardown


async def test_setup_comes_first_and_teardown_last_once() -> None:
    calls: list[str] = []

    class Framed(Quiet):
        async def setup(self) -> None:
            calls.append("setup")

        async def handle_message(self, message: Message[Any]) -> None:
            calls.append(f"handle {message.data}")

        async def teardown(self) -> None:
            calls.append("teardown")

    await finish(Framed(producer=MemoryProducer([1, 2])))

    assert calls == ["setup", "handle 1", "handle 2", "teardown"]


@pytest.mark.parametrize("teardown_too", [False, True])
async def test_start_raises_what_setup_raised_and_teardown_has_run(teardown_too: bool) -> None:
    calls: list[str] = []

    class Broken(Quiet):
        async def setup(self) -> None:
            raise LookupError("no table")

        async def teardown(self) -> None:
            calls.append("teardown")
            if teardown_too:
                raise OSError("teardown too")

    pipeline = Broken()

    with pytest.raises(LookupError) as raised:
        await soon(pipeline.start())

    assert str(raised.value) == "no table"
    assert calls == ["teardown"]
    assert pipeline.phase in {"stopped", "crashed"}


async def test_what_teardown_raises_is_raised_by_stop() -> None:
    class Broken(Quiet):
        async def teardown(self) -> None:
            raise OSError("no")

    pipeline = Broken()
    clock_of(pipeline)
    await soon(pipeline.start())

    with pytest.raises(OSError, match="no"):
        await soon(pipeline.stop())


async def test_an_error_in_the_with_block_still_drains() -> None:
    recorder = Recorder()
    pipeline = Quiet(producer=ManualProducer(*recorder.messages([1])))

    with pytest.raises(LookupError):  # noqa: PT012  # the block is what this is about
        async with pipeline:
            await recorder.until(1)
            raise LookupError

    assert pipeline.phase == "stopped"


async def clock_and_start(pipeline: Pipeline[Any]) -> None:
    """Start on a fake clock."""
    clock_of(pipeline)
    await pipeline.start()


async def test_a_drain_handles_nothing_that_comes_after_what_it_gives_back() -> None:
    acks = ReturningRecorder()
    producer = ManualProducer(*acks.messages(range(8)))
    # All for one of two processors: the other one's demand lets half of them wait at the source.
    pipeline = Gated(
        producer=producer,
        processors=Processors(concurrency=2, max_demand=4, min_demand=2),
        partition_by=lambda _message: 0,
    )
    clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.inside.wait())
    stopping = asyncio.create_task(pipeline.stop())
    await producer.feed.until("drain")
    pipeline.gate.set()
    await soon(stopping)

    assert pipeline.started == [0]
    assert sorted(acks.returned) == list(range(1, 8))
