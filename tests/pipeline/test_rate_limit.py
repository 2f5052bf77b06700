"""``rate_limit``: so many messages in each interval, and no more, wherever they come from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Message, OptionsError, ProducerError, RateLimit
from tests.pipeline.support import (
    ManualProducer,
    Quiet,
    Recorder,
    ReturningRecorder,
    in_flight,
    outcomes,
    running,
    soon,
)
from tests.support.conformance import conforms


class Timed(Quiet):
    """Notes when each message was handled, in seconds since the start."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handled: list[tuple[float, Any]] = []

    async def setup(self) -> None:
        self.began = self.clock.monotonic()

    async def handle_message(self, message: Message[Any]) -> None:
        self.handled.append((round(self.clock.monotonic() - self.began, 6), message.data))


@conforms("B-093")
async def test_so_many_messages_start_in_each_interval_and_the_rest_waits() -> None:
    recorder = Recorder()
    pipeline = Timed(
        producer=ManualProducer(*recorder.messages([1, 2, 3, 4, 5])),
        rate_limit=RateLimit(allowed_messages=2, interval=0.05),
    )

    async with running(pipeline) as clock:
        await clock.advance(1.0)

    assert pipeline.handled == [(0.0, 1), (0.0, 2), (0.05, 3), (0.05, 4), (0.1, 5)]
    assert recorder.successful == [1, 2, 3, 4, 5]


@conforms("B-092")
async def test_a_reset_lets_the_next_message_flow_at_once() -> None:
    pipeline = Timed(producer=ManualProducer(1, 2), rate_limit=RateLimit(allowed_messages=1, interval=3600.0))

    async with running(pipeline) as clock:
        await clock.advance(10.0)
        assert pipeline.handled == [(0.0, 1)]
        pipeline.update_rate_limit(allowed_messages=1, interval=3600.0, reset=True)
        await clock.advance(0.0)
        assert pipeline.handled == [(0.0, 1), (10.0, 2)]


@conforms("B-094")
async def test_while_closed_nothing_is_fetched_and_after_a_reset_it_is() -> None:
    producer = ManualProducer(*range(15))
    pipeline = Timed(producer=producer, rate_limit=RateLimit(allowed_messages=2, interval=3600.0))

    async with running(pipeline) as clock:
        await clock.advance(10.0)
        assert len(producer.feed.demands) == 1
        for _ in range(5):
            pipeline.update_rate_limit(reset=True)
            await clock.advance(0.0)
        assert len(producer.feed.demands) == 2
        pipeline.update_rate_limit(allowed_messages=1000, reset=True)

    assert outcomes(pipeline) == {"acked": 15}


@conforms("B-095")
async def test_a_drain_waits_for_the_rate_limit_where_nothing_can_be_given_back() -> None:
    recorder = Recorder()

    class LastWords(ManualProducer):
        async def prepare_for_draining(self) -> None:
            await super().prepare_for_draining()
            await self.push([recorder.message("while draining")])

    pipeline = Timed(
        producer=LastWords(*recorder.messages(["first", "second"])),
        rate_limit=RateLimit(allowed_messages=1, interval=5.0),
    )

    async with running(pipeline) as clock:
        await clock.advance(1.0)
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(1.0)
        assert recorder.successful == ["first"]
        pipeline.update_rate_limit(reset=True)
        await clock.advance(0.0)
        assert recorder.successful == ["first", "second"]
        await clock.advance(4.9)
        assert recorder.successful == ["first", "second"]
        await clock.advance(0.2)
        report = await soon(stopping)

    assert report.in_time
    assert recorder.successful == ["first", "second", "while draining"]


async def test_a_drain_gives_back_what_waits_where_that_is_possible() -> None:
    recorder = ReturningRecorder()
    pipeline = Timed(
        producer=ManualProducer(*recorder.messages(range(5))),
        rate_limit=RateLimit(allowed_messages=2, interval=3600.0),
    )

    async with running(pipeline):
        await recorder.until(2)

    assert outcomes(pipeline) == {"acked": 2, "returned": 3}


@conforms("B-096")
async def test_the_settings_can_be_read_and_changed_with_and_without_reset() -> None:
    pipeline = Timed(producer=ManualProducer(*range(30)), rate_limit=RateLimit(allowed_messages=1, interval=10.0))

    async with running(pipeline) as clock:
        assert pipeline.rate_limit == RateLimit(allowed_messages=1, interval=10.0)
        await clock.advance(0.0)
        pipeline.update_rate_limit(allowed_messages=3, reset=True)
        await clock.advance(0.0)
        assert pipeline.rate_limit == RateLimit(allowed_messages=3, interval=10.0)
        assert len(pipeline.handled) == 1 + 3
        pipeline.update_rate_limit(allowed_messages=5, interval=20.0)
        await clock.advance(9.9)
        assert len(pipeline.handled) == 4
        await clock.advance(0.2)
        assert len(pipeline.handled) == 4 + 5
        await clock.advance(19.0)
        assert len(pipeline.handled) == 9
        pipeline.update_rate_limit(allowed_messages=1000, reset=True)


@conforms("B-097")
async def test_a_wrong_change_is_refused_with_the_whole_sentence() -> None:
    pipeline = Timed(producer=ManualProducer(), rate_limit=RateLimit(allowed_messages=1, interval=10.0))

    with pytest.raises(OptionsError) as refused:
        pipeline.update_rate_limit(allowed_messages=0)
    assert str(refused.value) == "allowed_messages: expected greater than or equal to 1, got 0"
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'allowed'"):
        pipeline.update_rate_limit(allowed=3)  # type: ignore[call-arg]  # the mistake this test is about
    with pytest.raises(OptionsError) as none:
        Quiet(name="free").update_rate_limit(allowed_messages=2)
    assert str(none.value) == "rate_limit: pipeline 'free' was built without one; nothing to update"
    assert pipeline.rate_limit == RateLimit(allowed_messages=1, interval=10.0)


async def test_a_change_before_the_start_counts_from_the_start() -> None:
    pipeline = Timed(producer=ManualProducer(*range(5)), rate_limit=RateLimit(allowed_messages=1, interval=10.0))
    pipeline.update_rate_limit(allowed_messages=4)

    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert len(pipeline.handled) == 4
        pipeline.update_rate_limit(reset=True)


async def test_one_budget_is_shared_by_all_producers_and_copies() -> None:
    pipeline = Timed(
        producer=[ManualProducer(*range(10), name="one", concurrency=2), ManualProducer(*range(10), name="two")],
        rate_limit=RateLimit(allowed_messages=3, interval=1.0),
    )

    async with running(pipeline) as clock:
        for second in range(1, 7):
            await clock.advance(0.5)
            assert len(pipeline.handled) == min(20, 3 * second)
            await clock.advance(0.5)
        pipeline.update_rate_limit(allowed_messages=1000, reset=True)

    assert outcomes(pipeline) == {"acked": 20}


async def test_pushed_messages_are_limited_too() -> None:
    recorder = Recorder()
    pipeline = Timed(rate_limit=RateLimit(allowed_messages=2, interval=1.0))

    async with running(pipeline) as clock:
        await soon(pipeline.push_messages(recorder.messages(range(5))))
        await clock.advance(0.5)
        assert recorder.successful == [0, 1]
        await clock.advance(0.5)
        assert recorder.successful == [0, 1, 2, 3]
        await clock.advance(1.0)

    assert recorder.successful == [0, 1, 2, 3, 4]


async def test_a_push_that_waits_behind_the_limit_at_the_stop_loses_nothing_and_keeps_its_place() -> None:
    recorder = Recorder()
    pipeline = Timed(rate_limit=RateLimit(allowed_messages=2, interval=1.0))

    async with running(pipeline) as clock:
        await soon(pipeline.push_messages(recorder.messages(range(5))))
        later = asyncio.ensure_future(pipeline.push_messages(recorder.messages([5, 6])))
        await clock.advance(0.5)
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(10.0)
        await soon(later)
        await soon(stopping)

    assert recorder.successful == [0, 1, 2, 3, 4, 5, 6]
    assert outcomes(pipeline) == {"acked": 7}


async def test_nothing_is_carried_over_from_an_idle_interval() -> None:
    producer = ManualProducer(1)
    pipeline = Timed(producer=producer, rate_limit=RateLimit(allowed_messages=2, interval=1.0))

    async with running(pipeline) as clock:
        await clock.advance(100.0)
        producer.feed.put(*range(10))
        await clock.advance(0.5)
        assert len(pipeline.handled) == 1 + 2
        pipeline.update_rate_limit(allowed_messages=1000, reset=True)


async def test_the_wait_is_counted() -> None:
    pipeline = Timed(producer=ManualProducer(1, 2), rate_limit=RateLimit(allowed_messages=1, interval=4.0))

    async with running(pipeline) as clock:
        await clock.advance(10.0)

    assert pipeline.stats().rate_limit_wait_seconds == pytest.approx(4.0)


async def test_a_source_that_is_lost_behind_the_limit_loses_nothing() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(range(4)))
    pipeline = Timed(producer=producer, rate_limit=RateLimit(allowed_messages=1, interval=1.0))

    async with running(pipeline) as clock:
        await recorder.until(1)
        producer.feed.copies[0].context.lost(ProducerError("gone"))
        await clock.advance(60.0)
        assert producer.feed.journal.count("opened") == 2

    assert recorder.successful == [0, 1, 2, 3]
    assert in_flight(pipeline) == 0


@pytest.mark.parametrize(
    ("limit", "share", "expected"),
    [
        (RateLimit(allowed_messages=10, interval=1.0), (0, 1), (10, 1.0)),
        (RateLimit(allowed_messages=10, interval=1.0), (0, 4), (3, 1.0)),
        (RateLimit(allowed_messages=10, interval=1.0), (3, 4), (2, 1.0)),
        (RateLimit(allowed_messages=1, interval=1.0), (2, 4), (1, 4.0)),
        (RateLimit(allowed_messages=10, interval=1.0, scope="worker"), (3, 4), (10, 1.0)),
    ],
)
def test_workers_share_the_limit(limit: RateLimit, share: tuple[int, int], expected: tuple[int, float]) -> None:
    class Limited(Quiet):
        rate_limit = limit

    pipeline = Limited.from_settings({}, name="limited", share=share)

    assert (pipeline.rate_limit.allowed_messages, pipeline.rate_limit.interval) == expected
