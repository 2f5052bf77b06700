"""Sources, processors and settlements tell the watermarks what has come in, what has arrived, and what comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from broadway_py import Acknowledgement, Batcher, BatchInfo, FailurePolicy, Message, Pipeline, Processors
from broadway_py._core.aggregation.event_clock import EventClock
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.tracked_ledger import ChildrenLedger, TrackedLedger
from broadway_py._core.identity import identity_of
from broadway_py._core.ledger import Ledger
from broadway_py.errors import ProducerError
from broadway_py.pipeline.runtime import build
from broadway_py.pipeline.stages import services
from broadway_py.pipeline.stages.processor import Processor
from broadway_py.pipeline.stages.services import SUBMITTED
from broadway_py.testing import FakeClock
from tests.pipeline.support import ManualProducer, Quiet, Recorder, events_logged, running

DELAY = 10.0


def us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def with_revenue(*arguments: Any, **options: Any) -> Processor:
    """Makes a processor that takes the batcher ``revenue`` for an aggregator."""
    return Processor(*arguments, **{**options, "aggregators": ("revenue",)})


class Followed:
    """The progress of each producer of the pipelines in a test, and an event clock over them."""

    def __init__(self) -> None:
        self.progresses: dict[str, Progress] = {}
        self.idle_timeout: float | None = None
        self._clock: EventClock | None = None

    def ledger(self, producer: str, settler: Any = None) -> Ledger:
        """Takes the place of the plain ledgers that a pipeline without aggregators has."""
        if producer == SUBMITTED:
            return Ledger(producer, settler)
        progress = self.progresses.setdefault(producer, Progress())
        return TrackedLedger(producer, settler, progress=progress, identity_of=partial(identity_of, pipeline="shop"))

    def clock(self, now: float) -> EventClock:
        if self._clock is None:
            self._clock = EventClock(
                list(self.progresses.values()),
                now,
                delay=DELAY,
                hold_timeout=60.0,
                idle_timeout=self.idle_timeout,
                changed=lambda: None,
            )
        return self._clock

    def mark(self, clock: FakeClock) -> float | None:
        value = self.clock(clock.monotonic()).watermark(clock.monotonic(), clock.wall())
        return None if value is None else value / 1_000_000


@asynccontextmanager
async def following(shop: Shop) -> AsyncIterator[FakeClock]:
    """Run *shop*, and follow it from its start."""
    async with running(shop) as clock:
        shop.followed.clock(clock.monotonic())
        yield clock


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Followed:
    followed = Followed()
    monkeypatch.setattr(build, "Ledger", followed.ledger)
    return followed


class Shop(Pipeline[Any]):
    """Adds the time of each message, which is its payload, when its handler ends."""

    processors = Processors(concurrency=3, max_demand=1)
    name = "shop"

    def __init__(self, producer: Any, followed: Followed) -> None:
        self.producer = producer
        self.followed = followed
        self.gates: dict[Any, asyncio.Event] = {}
        super().__init__()

    def hold(self, *payloads: Any) -> None:
        for payload in payloads:
            self.gates[payload] = asyncio.Event()

    async def handle_message(self, message: Message[Any]) -> None:
        if message.data in self.gates:
            await self.gates[message.data].wait()
        self.note(message)

    def note(self, message: Message[Any]) -> None:
        self.followed.clock(self.clock.monotonic()).note(message._ledger_entry, us(message.data))


class Lossy(ManualProducer):
    """Its messages stay away for five seconds after a loss."""

    def returns_within(self, *, process_died: bool) -> float:
        return 30.0 if process_died else 5.0


async def test_a_message_in_work_holds_the_watermark(followed: Followed) -> None:
    producer = ManualProducer()
    shop = Shop(producer, followed)
    shop.hold(100)
    async with following(shop) as clock:
        producer.feed.put(100)
        await clock.advance(0)
        producer.feed.put(500)
        await clock.advance(1)
        assert followed.mark(clock) is None
        assert followed.clock(0.0).held(clock.monotonic())["in_work"] == 1.0

        shop.gates[100].set()
        await clock.advance(0)
        assert followed.mark(clock) == 490.0


async def test_after_a_loss_it_stands_until_what_was_held_can_be_back(followed: Followed) -> None:
    producer = Lossy()
    shop = Shop(producer, followed)
    async with following(shop) as clock:
        producer.feed.put(100)
        await clock.advance(0)
        assert followed.mark(clock) == 90.0

        broker_is_back = asyncio.Event()
        producer.feed.opening.append(broker_is_back.wait)
        producer.feed.fail(ProducerError("the connection is gone"))
        await clock.advance(100)
        producer.feed.put(500)
        broker_is_back.set()
        await clock.advance(1)
        assert not producer.feed.items
        assert followed.mark(clock) == 90.0
        assert followed.clock(0.0).held(clock.monotonic())["reconnect"] == 101.0

        await clock.advance(4)
        assert followed.mark(clock) == 490.0


@pytest.mark.parametrize("may_have_delivered", [True, False])
async def test_it_stands_if_the_source_may_have_delivered_to_a_copy_that_could_not_be_opened(
    followed: Followed, *, may_have_delivered: bool
) -> None:
    error = ProducerError("the connection is gone")
    error.may_have_delivered = may_have_delivered
    producer = Lossy()
    producer.feed.opening.append(error)
    shop = Shop(producer, followed)
    async with following(shop) as clock:
        await producer.feed.until("close")
        producer.feed.put(500)
        await clock.advance(2)  # it tries again within a second
        assert not producer.feed.items
        assert followed.mark(clock) == (None if may_have_delivered else 490.0)
        assert (followed.clock(0.0).held(clock.monotonic())["reconnect"] > 0) == may_have_delivered

        await clock.advance(5)
        assert followed.mark(clock) == 490.0


async def test_it_stands_before_the_messages_of_the_lost_copy_are_let_go(followed: Followed) -> None:
    """The copy reports the loss while one of its messages is in work."""
    producer = Lossy()
    shop = Shop(producer, followed)
    shop.hold(100)
    async with following(shop) as clock:
        producer.feed.put(100)
        await clock.advance(0)

        producer.feed.copies[0].context.lost(ProducerError("the connection is gone"))
        shop.gates[100].set()
        await clock.advance(0)
        assert followed.mark(clock) == 90.0
        assert followed.clock(0.0).held(clock.monotonic())["reconnect"] == 0.0
        await clock.advance(1)
        assert followed.clock(0.0).held(clock.monotonic())["reconnect"] == 1.0
        assert followed.progresses["manual"].quiet_since(clock.monotonic()) is None


@pytest.mark.parametrize("said", ["soon", OSError("no")], ids=repr)
async def test_a_producer_that_does_not_say_how_soon_its_messages_return(
    followed: Followed, caplog: pytest.LogCaptureFixture, said: Any
) -> None:
    class Odd(ManualProducer):
        def returns_within(self, *, process_died: bool) -> float:
            if isinstance(said, Exception):
                raise said
            answer: float = said
            return answer

    producer = Odd()
    shop = Shop(producer, followed)
    async with following(shop) as clock:
        await clock.advance(0)
        broker_is_back = asyncio.Event()
        producer.feed.opening.append(broker_is_back.wait)
        producer.feed.fail(ProducerError("the connection is gone"))
        await clock.advance(30)
        producer.feed.put(500)
        broker_is_back.set()
        await clock.advance(0)
        await clock.advance(59)
        assert followed.mark(clock) is None
        await clock.advance(1)
        assert followed.mark(clock) == 490.0
    assert "the producer does not say how soon the messages of a lost connection return; waiting 60 s" in events_logged(
        caplog
    )


async def test_a_quiet_source_goes_with_the_wall_clock_unless_it_is_paused(followed: Followed) -> None:
    followed.idle_timeout = 60.0
    shop = Shop(ManualProducer(), followed)
    async with following(shop) as clock:
        assert followed.mark(clock) is None
        await clock.advance(59)
        await shop.pause()
        await clock.advance(100)
        assert followed.mark(clock) is None

        await shop.resume()
        await clock.advance(59)
        assert followed.mark(clock) is None
        await clock.advance(1)
        assert followed.mark(clock) == clock.wall() - 70.0


async def test_a_source_is_not_idle_while_the_pipeline_is_full(followed: Followed) -> None:
    followed.idle_timeout = 10.0
    producer = ManualProducer()
    shop = Shop(producer, followed)
    shop.processors = Processors(concurrency=1, max_demand=1)
    shop.hold(100)
    async with following(shop) as clock:
        producer.feed.put(100)
        await clock.advance(0)
        assert not followed.progresses["manual"].readers[0].is_wanted
        await clock.advance(50)
        assert followed.mark(clock) is None

        shop.gates[100].set()
        await clock.advance(0)
        assert followed.mark(clock) == 90.0
        await clock.advance(9.9)
        assert followed.mark(clock) == 90.0
        await clock.advance(0.1)
        assert followed.mark(clock) == clock.wall() - 20.0


async def test_a_source_with_an_obstacle_is_not_idle(followed: Followed) -> None:
    class Obstructed(ManualProducer):
        obstacle = "the queue for retries is full"

    followed.idle_timeout = 10.0
    shop = Shop(Obstructed(), followed)
    async with following(shop) as clock:
        await clock.advance(50)
        assert followed.mark(clock) is None


async def test_a_source_that_has_ended_is_waited_for_no_longer(followed: Followed) -> None:
    ending, other = ManualProducer(name="ending"), ManualProducer(name="other")
    shop = Shop([ending, other], followed)
    async with following(shop) as clock:
        ending.feed.put(100)
        other.feed.put(500)
        await clock.advance(0)
        assert followed.mark(clock) == 90.0

        ending.feed.end()
        await clock.advance(0)
        assert followed.mark(clock) == 490.0


async def test_submitted_messages_hold_and_move_nothing(followed: Followed) -> None:
    producer = ManualProducer()
    shop = Shop(producer, followed)
    shop.hold(900)
    async with following(shop) as clock:
        producer.feed.put(500)
        await clock.advance(0)
        submitting = asyncio.ensure_future(shop.submit(900))
        await clock.advance(1)
        assert followed.mark(clock) == 490.0
        assert not any(followed.clock(0.0).held(clock.monotonic()).values())

        shop.gates[900].set()
        await submitting
        assert followed.mark(clock) == 490.0


class Retrying(Recorder):
    """Takes messages for a retry."""

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        pass


def named(recorder: Recorder, data: Any) -> Message[Any]:
    return Message(data, {"message_id": str(data)}, Acknowledgement(recorder))


@pytest.mark.parametrize("how", ["retried", "unknown"])
async def test_what_will_be_delivered_again_holds_the_watermark_until_it_has_arrived(
    followed: Followed, how: str
) -> None:
    class Failing(Shop):
        failure = FailurePolicy(attempts=3)
        is_failing = True

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == 100 and self.is_failing:
                raise OSError("not yet")
            self.note(message)

    async def refuses(call: Any) -> None:
        if 100 in call.data[1]:
            raise OSError("the channel is closed")

    recorder = Retrying(refuses if how == "unknown" else None)
    producer = ManualProducer()
    shop = Failing(producer, followed)
    if how == "unknown":
        shop.failure = FailurePolicy(attempts=1, final="reject")
    async with following(shop) as clock:
        producer.feed.put(named(recorder, 100))
        await clock.advance(0)
        producer.feed.put(named(recorder, 500))
        await clock.advance(1)
        assert followed.mark(clock) is None
        assert followed.clock(0.0).held(clock.monotonic())["retry"] == 1.0

        shop.is_failing = False
        producer.feed.put(named(recorder, 100))
        await clock.advance(0)
        assert followed.mark(clock) == 490.0


async def test_what_goes_to_a_batcher_holds_nothing(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sorting(Shop):
        batchers = {"slow": Batcher(batch_timeout=50.0), "revenue": Batcher(batch_timeout=20.0)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            message.batcher = "slow" if message.data == 100 else "revenue"
            self.note(message)

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            pass

    monkeypatch.setattr(build, "Processor", with_revenue)
    producer = ManualProducer()
    shop = Sorting(producer, followed)
    async with following(shop) as clock:
        producer.feed.put(100)
        await clock.advance(0)
        assert followed.mark(clock) == 90.0

        producer.feed.put(500)
        await clock.advance(1)
        assert followed.mark(clock) == 90.0
        await clock.advance(20)
        assert followed.mark(clock) == 490.0
        await clock.advance(50)


def children_ledger(producer: str, settler: Any = None) -> Ledger:
    return ChildrenLedger(producer, settler)


async def test_a_parent_has_arrived_when_its_children_have(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parents(Shop):
        batchers = {"slow": Batcher(batch_timeout=50.0), "revenue": Batcher(batch_timeout=20.0)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == 100:
                for batcher in ("slow", "revenue"):
                    message.spawn(100, batcher=batcher)
            else:
                message.batcher = "slow"
            self.note(message)

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            if info.batcher == "revenue":
                for message in messages:
                    self.followed.clock(0.0).note(message._ledger_entry, us(300))

    monkeypatch.setattr(build, "Processor", with_revenue)
    monkeypatch.setattr(services, "Ledger", children_ledger)
    producer = ManualProducer()
    shop = Parents(producer, followed)
    async with following(shop) as clock:
        producer.feed.put(100)
        await clock.advance(0)
        assert followed.mark(clock) is None

        # Its child is settled with the batch; the other one waits in the slow batcher, and so does the parent.
        await clock.advance(20)
        assert followed.mark(clock) == 290.0
        assert shop.stats().producers[0].in_flight == 1
        await clock.advance(50)
        assert shop.stats().producers[0].in_flight == 0


async def test_a_pipeline_without_aggregators_follows_nothing() -> None:
    quiet = Quiet()
    async with running(quiet):
        run = quiet._life_cycle.needs_run("stats")
        assert all(type(ledger) is Ledger for ledger in run.stages.ledgers)
        assert [source._reader for source in [*run.stages.sources, run.stages.submissions]] == [None, None]
