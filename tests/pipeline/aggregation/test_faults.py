"""Aggregators under faults: acks that hang, cancellations from nowhere, values that cannot be stored, early stops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Aggregator, Message, PipelineCrashed, Processors, Window, WindowResult
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.pipeline.stages.aggregator import AggregatorStage
from broadway_py.producers import MemoryProducer
from broadway_py.state.codec import CodecError
from broadway_py.storage.errors import StorageError
from tests.pipeline.aggregation.support import START, ObeyingStore, Order, Shop, Sums, use, when
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    events_logged,
    finish,
    outcomes,
    running,
    soon,
)


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    store = ObeyingStore()
    use(monkeypatch, store)
    return store


def shop(source: ManualProducer, sums: Sums | None = None, **options: Any) -> tuple[Shop, Sums]:
    made = Shop(producer=source, aggregators={"sums": sums or Sums()}, **options)
    own = made.aggregators["sums"]
    assert isinstance(own, Sums)
    return made, own


def stage_of(made: Shop) -> AggregatorStage:
    run = made._life_cycle.run
    assert run is not None
    return run.stages.aggregators[0]


async def test_an_ack_that_hangs_does_not_hold_up_the_end_of_a_stop(store: ObeyingStore) -> None:
    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    recorder = Recorder(hang)
    source = ManualProducer(*recorder.messages([Order("de", 1)]))
    made, _ = shop(source)
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    assert recorder.count == 1
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock.advance(11.0)
    await soon(stopping)
    check_books(made)
    assert outcomes(made) == {"unknown": 1}
    assert store.steps[-1] == "close"


async def test_a_cancellation_that_add_raises_fails_its_message_alone(store: ObeyingStore) -> None:
    class Odd(Sums):
        def add(self, acc: int, message: Message[Order]) -> int:
            if message.data.key == "odd":
                raise asyncio.CancelledError
            return super().add(acc, message)

    recorder = ReturningRecorder()
    source = ManualProducer(*recorder.messages([Order("de", 1), Order("odd", 2), Order("de", 61)]))
    made, sums = shop(source, Odd(), failure=None)
    async with running(made) as clock:
        await clock.advance(1.0)
        assert sums.values == [("de", 1)]
    assert outcomes(made) == {"acked": 2, "rejected": 1}


async def test_a_checkpoint_that_a_stranger_cancels_ends_the_pipeline(store: ObeyingStore) -> None:
    recorder = ReturningRecorder()
    made, _ = shop(ManualProducer(*recorder.messages([Order("de", 1)])))
    store.gate.clear()
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    for task in asyncio.all_tasks():
        if task.get_name().endswith(".checkpoint"):
            task.cancel()
    with pytest.raises(PipelineCrashed) as caught:
        await soon(made.wait())
    assert str(caught.value) == (
        "pipeline 'Shop', aggregator:sums: CancelledError; nothing in memory is used any more, and what is stored goes "
        "on with the next start"
    )
    assert outcomes(made) == {"unknown": 1}


async def test_a_setup_that_raises_a_cancellation_is_an_error(store: ObeyingStore) -> None:
    class Odd(Sums):
        async def setup(self) -> None:
            raise asyncio.CancelledError

    made, _ = shop(ManualProducer(), Odd())
    clock_of(made)
    await soon(made.start())
    with pytest.raises(PipelineCrashed):
        await soon(made.wait())


async def test_processors_can_be_added_while_the_pipeline_stands_by(store: ObeyingStore) -> None:
    store.waits_for_lock = asyncio.Event()
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1)] * 5))
    made, _ = shop(source)
    async with running(made) as clock:
        made.set_concurrency(processors=3)
        store.waits_for_lock.set()
        await clock.advance(1.0)
        await recorder.until(5)


async def test_processors_can_be_taken_away_while_the_pipeline_stands_by(store: ObeyingStore) -> None:
    store.waits_for_lock = asyncio.Event()
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1)] * 5))
    made, _ = shop(source, processors=Processors(concurrency=3))
    async with running(made) as clock:
        made.set_concurrency(processors=1)
        store.waits_for_lock.set()
        await clock.advance(1.0)
        await recorder.until(5)


class Texts(Aggregator[str, Order, list[str]]):
    """Keeps a text of each message, in place. Half a character cannot be stored."""

    window = Window.sliding(60, 30, by=when, delay=0, max_ahead=3600)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.emitted: list[tuple[str, float, list[str]]] = []

    def key(self, message: Message[Order]) -> str:
        return message.data.key

    def initial(self) -> list[str]:
        return []

    def add(self, acc: list[str], message: Message[Order]) -> list[str]:
        acc.append("\ud800" if message.data.amount < 0 else f"{message.data.at:g}")
        return acc

    async def emit(self, results: list[WindowResult[str, list[str]]]) -> None:
        for one in results:
            assert isinstance(one.start, float)
            self.emitted.append((one.key, one.start - START, one.value))


async def test_a_value_that_cannot_be_stored_fails_its_message_alone(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 31), Order("fr", 31)]))
    made = Shop(producer=source, aggregators={"texts": Texts()}, failure=None)
    texts = made.aggregators["texts"]
    assert isinstance(texts, Texts)
    async with running(made) as clock:
        await recorder.until(0)
        await clock.advance(1.0)
        assert recorder.count == 2
        # The last one closes windows before the next checkpoint.
        source.feed.put(*recorder.messages([Order("de", 32), Order("de", 33, -1), Order("de", 34), Order("de", 95)]))
        await clock.advance(1.0)
        await recorder.until(6)
        assert sorted(texts.emitted) == [
            ("de", 0, ["31", "32", "34"]),
            ("de", 30, ["31", "32", "34"]),
            ("fr", 0, ["31"]),
            ("fr", 30, ["31"]),
        ]
    assert outcomes(made) == {"acked": 5, "rejected": 1}
    ((message,),) = [call.failed for call in recorder.calls if call.failed]
    assert message.data.at == 33
    assert message.status is not None
    assert message.status.cause == "raised"
    assert "a value cannot be stored; the messages since the last checkpoint are added again, one by one" in (
        events_logged(caplog)
    )
    assert [commit.number for commit in store.commits] == list(range(1, len(store.commits) + 1))


class Products(Sums):
    """Multiplies, so numbers can become very long."""

    def initial(self) -> int:
        return 1

    def add(self, acc: int, message: Message[Order]) -> int:
        return acc * message.data.amount


LONG = 10**4_000


@pytest.mark.parametrize("is_open", [True, False], ids=["the window is open", "the window closes at once"])
async def test_a_number_too_long_to_be_read_again_fails_its_message_alone(
    store: ObeyingStore, *, is_open: bool
) -> None:
    recorder = Recorder()
    source = ManualProducer()
    made = Shop(producer=source, aggregators={"sums": Products()}, failure=None)
    own = made.aggregators["sums"]
    assert isinstance(own, Products)
    async with running(made) as clock:
        orders = [Order("de", 1, LONG), Order("de", 2, LONG), Order("de", 3, 7), Order("fr", 4, 5)]
        source.feed.put(*recorder.messages(orders if is_open else [*orders, Order("next", 61)]))
        await clock.advance(1.0)
        await recorder.until(4 if is_open else 5)
        source.feed.put(*recorder.messages([Order("next", 62)]))
        await clock.advance(1.0)
        assert own.values == [("de", 7 * LONG), ("fr", 5)]
    ((message,),) = [call.failed for call in recorder.calls if call.failed]
    assert message.data.at == 2
    assert message.status is not None
    assert message.status.cause == "raised"
    assert message.status.reason == (
        "CodecError: a value cannot be stored as int: it has a whole number of more than 4,300 digits, which could not "
        "be read again"
    )


async def test_with_state_in_memory_a_number_may_have_any_length() -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([*(Order("de", at, LONG) for at in (1, 2, 3)), Order("de", 61)]))
    made = Shop(producer=source, aggregators={"sums": Products()}, state="memory")
    own = made.aggregators["sums"]
    assert isinstance(own, Products)
    async with running(made) as clock:
        await clock.advance(1.0)
        assert own.values == [("de", LONG**3)]


@pytest.mark.parametrize(
    ("kind", "outcome", "stopped"), [(ReturningRecorder, "returned", 0), (Recorder, "rejected", 2)]
)
async def test_what_is_added_again_is_added_once_and_given_back_once_if_a_stop_cuts_it_off(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch, kind: type[Recorder], outcome: str, stopped: int
) -> None:
    recorder = kind()
    source = ManualProducer(*recorder.messages([Order("fr", 31), Order("de", 31, -1)]))
    made = Shop(producer=source, aggregators={"texts": Texts()}, failure=None)

    async def load(_: str) -> Any:
        raise StorageError("the disk is away")

    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(0.01)
    monkeypatch.setattr(store, "load", load)
    await clock.advance(1.0)
    assert made.stats().trouble == "degraded: aggregator 'texts' cannot store its checkpoints: the disk is away"
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock.advance(11.0)
    await soon(stopping)
    assert outcomes(made) == {outcome: 2}
    assert sum(layer.failed.get("stopped", 0) for layer in made.stats().stages) == stopped
    assert store.commits == []


async def test_the_windows_of_sources_that_have_ended_close_although_a_value_cannot_be_stored(
    store: ObeyingStore,
) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 31), Order("de", 32, -1), Order("de", 33)]))
    source.feed.end()
    made = Shop(producer=source, aggregators={"texts": Texts()}, failure=None)
    texts = made.aggregators["texts"]
    assert isinstance(texts, Texts)
    assert await finish(made) == {"acked": 2, "rejected": 1}
    assert texts.emitted == [("de", 0, ["31", "33"]), ("de", 30, ["31", "33"])]
    assert made.stats().aggregators[0].results == {"end": 2}


async def test_windows_that_cannot_be_stored_although_each_value_can_end_the_pipeline(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(*_: Any) -> bytes:
        raise CodecError("a value was changed by somebody else")

    monkeypatch.setattr(Records, "part", part)
    recorder = ReturningRecorder()
    made, _ = shop(ManualProducer(*recorder.messages([Order("de", 31)])))
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    with pytest.raises(PipelineCrashed):
        await soon(made.wait())
    assert outcomes(made) == {"returned": 1}


class Away(ManualProducer):
    """Its messages come back 30 s after a process has died."""

    def returns_within(self, *, process_died: bool) -> float:
        return 30.0


async def test_a_process_that_dies_before_its_first_checkpoint_is_noticed(store: ObeyingStore) -> None:
    made, _ = shop(Away())
    async with running(made) as clock:
        await clock.advance(1.0)
    # The second process takes messages, and dies while they are handled.
    handling = asyncio.Event()

    class Slow(Shop):
        async def handle_message(self, message: Message[Order]) -> None:
            await handling.wait()

    recorder = ReturningRecorder()
    second = Slow(producer=Away(*recorder.messages([Order("de", 1)])), aggregators={"sums": Sums()})
    clock = clock_of(second)
    await soon(second.start())
    await clock.advance(1.0)
    # What the second one does from now on is of no importance.
    made, sums = shop(Away(*recorder.messages([Order("de", 61)])))
    third = clock_of(made)
    await soon(made.start())
    await third.advance(10.0)
    (stats,) = made.stats().aggregators
    assert stats.watermark_held_seconds["reconnect"] == 10.0
    assert sums.values == []
    for one, its in ((second, clock), (made, third)):
        one.give_up()
        await its.advance(30.0)


async def test_connected_time_goes_on_when_one_of_two_sources_has_ended(store: ObeyingStore) -> None:
    ended, going = ManualProducer(name="ended"), ManualProducer(name="going")
    ended.feed.end()
    made = Shop(producer=[ended, going], aggregators={"sums": Sums()})
    async with running(made) as clock:
        await clock.advance(5.0)
        assert stage_of(made).keeper.time.connected_s == 5.0


async def test_a_stop_does_not_wait_for_room_for_windows(store: ObeyingStore) -> None:
    recorder = ReturningRecorder()
    source = ManualProducer(*recorder.messages([Order(name, 1) for name in "abcdef"]))
    made, _ = shop(source, Sums(max_open=2, max_demand=2))
    async with running(made) as clock:
        await clock.advance(1.0)


async def test_a_sink_that_cannot_be_closed_does_not_keep_the_state_locked(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = shop(ManualProducer())
    clock_of(made)
    await soon(made.start())

    async def close() -> None:
        raise OSError("no")

    monkeypatch.setattr(stage_of(made).emitter.output, "close", close)
    await soon(made.stop())
    assert store.steps[-1] == "close"


async def test_an_upgrade_that_returns_another_type_ends_the_start(store: ObeyingStore) -> None:
    class Newer(Sums):
        version = 2

        def upgrade(self, version: int, value: Any) -> int:
            return f"{value}"  # type: ignore[return-value]  # the mistake

    recorder = ReturningRecorder()
    made, _ = shop(ManualProducer(*recorder.messages([Order("de", 1)])))
    async with running(made) as clock:
        await clock.advance(1.0)
    newer, _ = shop(ManualProducer(*recorder.messages([Order("de", 2)])), Newer())
    clock_of(newer)
    await soon(newer.start())
    with pytest.raises(PipelineCrashed) as caught:
        await soon(newer.wait())
    assert str(caught.value) == (
        "pipeline 'Shop': upgrade() of aggregator 'sums' returned for a value of version 1 what cannot be stored: "
        "expected a value of type int; correct it; the state is as it was"
    )
    assert outcomes(newer) == {}


class Vague(ManualProducer):
    """Does not know when its messages are back."""

    def returns_within(self, *, process_died: bool) -> float:
        return "soon"  # type: ignore[return-value]  # the mistake


async def test_a_producer_that_does_not_say_when_messages_return_is_given_60_s_at_the_start(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = shop(Vague())
    async with running(made) as clock:
        await clock.advance(59.0)
        assert made.stats().aggregators[0].watermark_held_seconds["reconnect"] == 59.0
        await clock.advance(2.0)
        assert made.stats().aggregators[0].watermark_held_seconds["reconnect"] == 0.0
    assert "the producer does not say how soon the messages of a lost connection return; waiting 60 s" in (
        events_logged(caplog)
    )


async def test_no_message_is_late_because_nothing_could_be_stored(store: ObeyingStore) -> None:
    handled = asyncio.Event()

    class Waiting(Shop):
        processors = Processors(concurrency=2, max_demand=1)

        async def handle_message(self, message: Message[Order]) -> None:
            if message.data.key == "slow":
                await handled.wait()

    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("slow", 1)]))
    made = Waiting(producer=source, aggregators={"sums": Sums(max_demand=1)}, failure=None)
    store.faults = [StorageError("the disk is full")] * 25
    async with running(made) as clock:
        source.feed.put(*recorder.messages([Order("de", 2), Order("de", 200)]))
        await clock.advance(1.0)
        handled.set()
        # Longer than hold_timeout.
        await clock.advance(100.0)
        assert made.stats().trouble is not None
        await clock.advance(100.0)
        assert made.stats().trouble is None
        await recorder.until(3)
    assert outcomes(made) == {"acked": 3}


async def test_a_crash_of_the_emitter_does_not_let_the_aggregator_end_before_its_results(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Shop(producer=MemoryProducer([Order("de", 1), Order("fr", 2)]), aggregators={"sums": Sums()})
    own: Any = made.aggregators["sums"]
    clock = clock_of(made)
    await soon(made.start())
    pending = stage_of(made).emitter.pending
    take = pending.take
    crashes = [ValueError("a defect")]

    def crash_once(now: float) -> Any:
        if len(pending) and crashes:
            raise crashes.pop()
        return take(now)

    monkeypatch.setattr(pending, "take", crash_once)
    for _ in range(20):
        await clock.advance(0.1)
    await soon(made.wait())
    assert crashes == []
    assert own.values == [("de", 1), ("fr", 1)]
    assert [list(commit.emitted) for commit in store.commits if commit.emitted] == [[1, 2]]
