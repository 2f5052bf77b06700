"""While ``late`` runs, its aggregator goes on. Late messages are bounded, and keep their outcome at a stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Message, Processors
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.support import ManualProducer, Recorder, ReturningRecorder, clock_of, outcomes, running, soon


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    store = ObeyingStore()
    use(monkeypatch, store)
    return store


class Slow(Sums):
    """Its ``late`` waits for a gate."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = asyncio.Event()
        self.taken: list[list[float]] = []

    async def late(self, messages: list[Message[Order]]) -> None:
        self.taken.append([message.data.at for message in messages])
        await self.gate.wait()


def shop(source: ManualProducer, **options: Any) -> tuple[Shop, Slow]:
    made = Shop(producer=source, aggregators={"sums": Slow(**options)}, failure=None)
    own = made.aggregators["sums"]
    assert isinstance(own, Slow)
    return made, own


async def test_messages_are_added_and_stored_while_late_runs(store: ObeyingStore) -> None:
    source, recorder, late = ManualProducer(), Recorder(), Recorder()
    made, sums = shop(source)
    async with running(made) as clock:
        source.feed.put(recorder.message(Order("de", 61)))
        await clock.advance(1.0)
        source.feed.put(late.message(Order("de", 1)))
        await clock.advance(1.0)
        source.feed.put(*recorder.messages([Order("de", 62), Order("de", 121)]))
        await clock.advance(1.0)
        assert sums.taken == [[1]]
        assert sums.values == [("de", 2)]
        assert (recorder.count, late.count) == (3, 0)
        sums.gate.set()
        await clock.advance(1.0)
        assert late.count == 1
    assert outcomes(made) == {"acked": 4}


async def test_late_messages_count_as_held(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    made, sums = shop(source, max_demand=2)
    async with running(made) as clock:
        source.feed.put(recorder.message(Order("de", 61)))
        await clock.advance(1.0)
        source.feed.put(*recorder.messages([Order("de", 1), Order("de", 2)]))
        await clock.advance(1.0)
        source.feed.put(*recorder.messages([Order("de", 62), Order("de", 3), Order("de", 4), Order("de", 5)]))
        await clock.advance(10.0)
        assert recorder.count == 1
        assert made.stats().aggregators[0].late == {"event_time": 2, "held": 0}
        sums.gate.set()
        await clock.advance(1.0)
        assert sums.taken[0] == [1, 2]
        assert [at for one in sums.taken for at in one] == [1, 2, 3, 4, 5]
        assert all(len(one) <= 2 for one in sums.taken)
        assert recorder.count == 7


class Gated(Shop):
    """Its handler keeps one message back."""

    processors = Processors(concurrency=2, max_demand=1)

    def __init__(self, **options: Any) -> None:
        self.gate = asyncio.Event()
        super().__init__(**options)

    async def handle_message(self, message: Message[Order]) -> None:
        if message.data.key == "gated":
            await self.gate.wait()


async def test_no_message_is_late_because_it_has_waited_for_late(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    slow = Slow(max_demand=1, hold_timeout=10, emit_timeout=1_000)
    made = Gated(producer=source, aggregators={"sums": slow}, failure=None)
    sums = made.aggregators["sums"]
    assert isinstance(sums, Slow)
    async with running(made) as clock:
        source.feed.put(recorder.message(Order("de", 61)))
        await clock.advance(1.0)
        source.feed.put(recorder.message(Order("gated", 62)))
        await clock.advance(1.0)
        source.feed.put(recorder.message(Order("de", 1)))
        await clock.advance(1.0)
        # Nothing can be added now. This one comes out of its handler first, and closes the window of the gated one.
        source.feed.put(recorder.message(Order("de", 200)))
        await clock.advance(1.0)
        made.gate.set()
        await clock.advance(100.0)
        sums.gate.set()
        await clock.advance(1.0)
        assert made.stats().aggregators[0].late == {"event_time": 1, "held": 0}
    assert outcomes(made) == {"acked": 4}


async def test_a_stop_waits_for_late(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), ReturningRecorder()
    made, sums = shop(source)
    async with running(made) as clock:
        source.feed.put(recorder.message(Order("de", 61)))
        await clock.advance(1.0)
        source.feed.put(recorder.message(Order("de", 1)))
        await clock.advance(1.0)
        source.feed.put(recorder.message(Order("de", 2)))
        await clock.advance(1.0)
        stopping = asyncio.ensure_future(made.stop(20.0))
        await clock.advance(10.0)
        assert not stopping.done()
        sums.gate.set()
        await clock.advance(1.0)
        await soon(stopping)
    assert sums.taken == [[1], [2]]
    assert outcomes(made) == {"acked": 3}


async def test_what_late_has_not_taken_is_given_back_when_the_time_of_the_stop_is_over(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), ReturningRecorder()
    made, sums = shop(source)
    clock = clock_of(made)
    await soon(made.start())
    source.feed.put(recorder.message(Order("de", 61)))
    await clock.advance(1.0)
    for at in (1, 2):
        source.feed.put(recorder.message(Order("de", at)))
        await clock.advance(1.0)
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock.advance(11.0)
    await soon(stopping)
    assert sums.taken == [[1]]
    assert outcomes(made) == {"acked": 1, "returned": 2}


async def test_late_is_cut_off_after_emit_timeout(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    made, sums = shop(source, emit_timeout=5)
    async with running(made) as clock:
        source.feed.put(recorder.message(Order("de", 61)))
        await clock.advance(1.0)
        source.feed.put(recorder.message(Order("de", 1)))
        await clock.advance(4.5)
        assert recorder.count == 1
        await clock.advance(1.0)
        assert recorder.count == 2
        sums.gate.set()
        source.feed.put(recorder.message(Order("de", 2)))
        await clock.advance(1.0)
    assert sums.taken == [[1], [2]]
    assert outcomes(made) == {"acked": 2, "rejected": 1}
    ((cause, reason),) = [
        (message.status.cause, message.status.reason)
        for call in recorder.calls
        for message in call.failed
        if message.status is not None
    ]
    assert (cause, reason) == (
        "timeout",
        "aggregators.sums.emit_timeout: late took longer than 5 s: make it faster, or raise emit_timeout",
    )


async def test_a_crash_while_late_runs_fails_its_messages_and_late_goes_on(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, recorder = ManualProducer(), Recorder()
    made, sums = shop(source)
    sums.gate.set()
    async with running(made) as clock:
        source.feed.put(recorder.message(Order("de", 61)))
        await clock.advance(1.0)
        run = made._life_cycle.run
        assert run is not None
        stage = run.stages.aggregators[0].late
        assert stage is not None
        hand_out = stage._hand_out
        crashes = [ValueError("a defect")]

        async def crash_once(messages: Any) -> None:
            if crashes:
                raise crashes.pop()
            await hand_out(messages)

        monkeypatch.setattr(stage, "_hand_out", crash_once)
        for at in (1, 2):
            source.feed.put(recorder.message(Order("de", at)))
            await clock.advance(1.0)
    assert sums.taken == [[2]]
    assert outcomes(made) == {"acked": 2, "rejected": 1}
