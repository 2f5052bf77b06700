"""What the live page shows besides counts: load of each processor, last failures, breaker, rate limit."""

from __future__ import annotations

import asyncio
from typing import Any

from broadway_py import Breaker, FailurePolicy, Message, Pipeline, Processors, RateLimit, Unavailable
from broadway_py.message import Failed, Plain
from broadway_py.pipeline.settlement.recent_failures import MOST_KINDS, RecentFailures
from broadway_py.pipeline.stats import RateLimitStats
from broadway_py.producers import MemoryProducer
from broadway_py.testing import FakeClock
from tests.pipeline.support import ManualProducer, Quiet, clock_of, finish, running
from tests.pipeline.test_failure_policy import Broker

CANARY = "canary-77a2"


async def test_each_processor_has_its_own_load() -> None:
    gate = asyncio.Event()

    class OneHangs(Pipeline[Any]):
        processors = Processors(concurrency=3, max_demand=1)

        async def handle_message(self, message: Message[Any]) -> None:
            await gate.wait()

    pipeline = OneHangs(producer=ManualProducer("a"))
    async with running(pipeline) as clock:
        await clock.advance(2.0)
        shares = sorted(pipeline.stats().processors_busy)
        assert shares[:2] == [0.0, 0.0]
        assert shares[2] > 0.99
        gate.set()
        await clock.advance(10.0)
        pipeline.stats()
        await clock.advance(10.0)
        assert pipeline.stats().processors_busy == (0.0, 0.0, 0.0)


async def test_the_load_follows_the_number_of_processors() -> None:
    pipeline = Quiet(producer=ManualProducer("a"))
    async with running(pipeline) as clock:
        pipeline.set_concurrency(processors=4)
        await clock.advance(1.0)
        assert len(pipeline.stats().processors_busy) == 4


class Picky(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        if message.data == "late":
            raise TimeoutError(CANARY)
        if message.data == "odd":
            message.fail(f"it is odd: {CANARY}")


async def test_failures_say_type_place_count_and_what_comes_next_and_nothing_of_the_message() -> None:
    clock = FakeClock()
    broker = Broker(clock, ["late", "fine", "late", "odd"])
    pipeline = Picky(producer=broker.producer(), failure=FailurePolicy(attempts=2, backoff=(10.0, 10.0)))
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(0.1)
        said, late = pipeline.stats().failures
        assert (late.type, late.stage, late.cause, late.count, late.becomes) == (
            "TimeoutError",
            "processors",
            "raised",
            2,
            "retry",
        )
        assert "test_live_figures.py:" in late.place
        assert late.place.endswith("handle_message")
        assert late.next is not None
        assert late.next.startswith("retry in ")
        assert late.last == clock.wall() - 0.1
        assert (said.type, said.cause, said.count) == ("", "failed", 1)
        assert "handle_message" in said.place
        await clock.advance(30.0)
        after = {(one.type, one.becomes): one for one in pipeline.stats().failures}
        assert after["TimeoutError", "retry"].count == 2
        assert after["TimeoutError", "dead_letter"].count == 2
        assert (after["TimeoutError", "dead_letter"].next or "").startswith("dead-lettered")
        assert CANARY not in repr(pipeline.stats().failures)


async def test_a_crash_of_a_stage_is_a_failure_too() -> None:
    pipeline = Quiet(producer=MemoryProducer(["a"]))
    clock_of(pipeline)
    await pipeline.start()
    run = pipeline._life_cycle.run
    assert run is not None
    crashed = Message("a")
    crashed.status = Failed("crashed", Plain("processors crashed: ValueError"), ValueError(CANARY))
    run.services.failures.note_crash("processors", [crashed], lambda _: ("rejected", "rejected"))
    (one,) = pipeline.stats().failures
    assert (one.type, one.cause, one.next) == ("ValueError", "crashed", "rejected")
    await pipeline.stop()


def test_only_the_latest_kinds_of_failures_are_kept() -> None:
    kept = RecentFailures()
    for number in range(3 * MOST_KINDS):
        kept.note(("processors", "raised", f"Error{number}", "retry"), "retry in 1 s", "a.py:1 f", float(number))
        kept.note(("processors", "raised", "Error0", "retry"), "retry in 2 s", None, number + 0.5)
    found = kept.snapshot()
    assert len(found) == MOST_KINDS
    assert [one.type for one in found[:2]] == ["Error0", f"Error{3 * MOST_KINDS - 1}"]
    assert (found[0].count, found[0].place, found[0].next) == (3 * MOST_KINDS + 1, "a.py:1 f", "retry in 2 s")


class NeedsSink(Pipeline[int]):
    is_away = True

    async def handle_message(self, message: Message[int]) -> None:
        if self.is_away:
            raise Unavailable("the sink is away")


async def test_an_open_breaker_says_where_it_was_opened_and_when_it_tries_again() -> None:
    clock = FakeClock()
    broker = Broker(clock, range(50))
    pipeline = NeedsSink(producer=broker.producer(), failure=FailurePolicy(breaker=Breaker(ratio=0.5, over=20)))
    pipeline.clock = clock
    async with running(pipeline):
        await clock.advance(0.25)
        stats = pipeline.stats()
        assert stats.breaker_open
        assert "handle_message" in stats.breaker_opened_at
        assert stats.breaker_next_try_seconds is not None
        assert 0.0 < stats.breaker_next_try_seconds <= 1.0
        pipeline.is_away = False
        await clock.advance(5.0)
        stats = pipeline.stats()
        assert (stats.breaker_open, stats.breaker_opened_at, stats.breaker_next_try_seconds) == (False, "", None)


async def test_the_rate_limit_is_the_one_that_holds_now() -> None:
    pipeline = Quiet(producer=ManualProducer("a"), rate_limit=RateLimit(allowed_messages=5, interval=2.0))
    async with running(pipeline):
        assert pipeline.stats().rate_limit == RateLimitStats(5, 2.0)
        pipeline.update_rate_limit(allowed_messages=7)
        assert pipeline.stats().rate_limit == RateLimitStats(7, 2.0)


async def test_a_pipeline_without_a_rate_limit_has_none() -> None:
    pipeline = Quiet(producer=MemoryProducer([1]))
    await finish(pipeline)
    assert pipeline.stats().rate_limit is None
