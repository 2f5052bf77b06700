"""Aggregators that run: nothing is acked or emitted before it is stored, and nothing stored is given back."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Any

import pytest

from broadway_py import Aggregator, Message, PipelineCrashed, Window, WindowResult
from broadway_py.producers import MemoryProducer
from broadway_py.storage.errors import StorageError
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use, when
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    events_logged,
    finish,
    in_flight,
    logged,
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


async def test_a_finite_source_ends_with_all_results_and_all_acks(store: ObeyingStore) -> None:
    orders = [Order("de", 1), Order("fr", 2), Order("de", 3, 5), Order("de", 61)]
    recorder = Recorder()
    made, sums = shop(ManualProducer(*recorder.messages(orders)))
    source = made.producer
    assert isinstance(source, ManualProducer)
    source.feed.end()
    assert await finish(made) == {"acked": 4}
    assert sorted(sums.values) == [("de", 1), ("de", 6), ("fr", 1)]
    assert {one.trigger for results in sums.emitted for one in results} <= {"end", "watermark"}
    recorder.check_once()
    assert all(vars(one).keys() == {each.name for each in fields(one)} for results in sums.emitted for one in results)
    # Nothing is left.
    loaded = await _reopened(store)
    assert (loaded.entries, await _results(store)) == (0, 0)


async def _reopened(store: ObeyingStore) -> Any:
    await store.inner.open({})
    return await store.inner.load("sums")


async def _results(store: ObeyingStore) -> int:
    return sum([len(part) async for part in store.inner.results("sums")])


async def test_others_run_between_two_calls_of_an_emit_that_never_waits(store: ObeyingStore) -> None:
    class Hurried(Sums):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.others = 0
            self.seen: list[int] = []

        async def emit(self, results: list[WindowResult[str, int]]) -> None:
            self.seen.append(self.others)
            asyncio.get_running_loop().call_soon(self.let_others_run)

        def let_others_run(self) -> None:
            self.others += 1

    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order(f"key {number}", 1) for number in range(20)]))
    source.feed.end()
    hurried = Hurried(emit_batch=2)
    made, own = shop(source, hurried)
    assert isinstance(own, Hurried)
    assert await finish(made) == {"acked": 20}
    assert own.seen == list(range(10))


async def test_a_message_is_acked_after_its_checkpoint_is_stored(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1)]))
    made, _ = shop(source)
    store.gate.clear()
    async with running(made) as clock:
        await clock.advance(0.05)
        assert not store.begun.is_set()
        await clock.advance(0.1)
        assert store.begun.is_set()
        assert recorder.count == 0
        assert in_flight(made) == 1
        store.gate.set()
        await recorder.until(1)
        assert outcomes(made) == {"acked": 1}


async def test_half_of_max_demand_begins_a_checkpoint_at_once(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer()
    made, _ = shop(source, Sums(max_demand=8))
    async with running(made):
        source.feed.put(*recorder.messages([Order("de", 1)] * 4))
        await recorder.until(4)


async def test_no_more_than_max_demand_is_held_and_adding_goes_on_while_a_checkpoint_is_stored(
    store: ObeyingStore,
) -> None:
    recorder = Recorder()
    source = ManualProducer()
    made, _ = shop(source, Sums(max_demand=8))
    store.gate.clear()
    async with running(made) as clock:
        source.feed.put(*recorder.messages([Order("de", 1)] * 100))
        await clock.advance(1.0)
        (stats,) = made.stats().aggregators
        assert 8 <= stats.held < 8 + 10
        assert stats.windows_open == 1
        assert recorder.count == 0
        store.gate.set()
        await clock.advance(1.0)
        await recorder.until(100)


async def test_a_result_is_emitted_after_it_is_stored(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1), Order("de", 61)]))
    made, sums = shop(source)
    store.gate.clear()
    async with running(made) as clock:
        await clock.advance(5.0)
        assert store.begun.is_set()
        assert sums.values == []
        store.gate.set()
        await recorder.until(2)
        await clock.advance(1.0)
        assert sums.values == [("de", 1)]
    assert [len(commit.results) for commit in store.commits[:2]] == [1, 0]
    assert list(store.commits[1].emitted) == [1]


async def test_a_commit_that_fails_acks_nothing_and_is_tried_again(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1)]))
    made, sums = shop(source)
    store.faults = [StorageError("state file var/shop.db: the disk is full: free some space")] * 2
    async with running(made) as clock:
        await clock.advance(0.15)
        assert recorder.count == 0
        expected = (
            "degraded: aggregator 'sums' cannot store its checkpoints: "
            "state file var/shop.db: the disk is full: free some space"
        )
        assert made.stats().trouble == expected
        source.feed.put(*recorder.messages([Order("de", 2)]))
        await clock.advance(0.05)
        (stats,) = made.stats().aggregators
        assert (stats.held, stats.checkpoint_failures) == (1, 1)  # the second message waits
        await clock.advance(2.0)
        await recorder.until(2)
        assert made.stats().trouble is None
    assert [commit.number for commit in store.commits] == [1, 2, 3]  # the last one ends the pipeline
    assert sums.values == []
    assert "the state cannot be stored or read; nothing more is added until it can" in events_logged(caplog)


async def test_a_commit_with_an_unknown_outcome_is_asked_for_and_not_written_twice(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1)]))
    made, _ = shop(source)
    store.faults = [StorageError("nobody knows", is_unknown=True)]
    async with running(made) as clock:
        await clock.advance(1.0)
        await recorder.until(1)
    assert store.steps == ["open", "stored 1", "asked", "stored 2", "close"]


async def test_a_stop_stores_and_acks_what_was_added_and_leaves_the_windows_open(store: ObeyingStore) -> None:
    recorder = ReturningRecorder()
    source = ManualProducer(*recorder.messages([Order("de", 1), Order("fr", 2)]))
    made, sums = shop(source)
    async with running(made) as clock:
        await clock.advance(0.01)
    assert outcomes(made) == {"acked": 2}
    assert sums.values == []
    again, sums = shop(ManualProducer(*recorder.messages([Order("de", 3, 10)])))
    feed = again.producer
    assert isinstance(feed, ManualProducer)
    feed.feed.end()
    await finish(again)
    assert sorted(sums.values) == [("de", 11), ("fr", 1)]
    assert all(one.firing == 1 for results in sums.emitted for one in results)


async def test_what_was_not_emitted_is_emitted_after_the_next_start(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1), Order("de", 61)]))
    made, sums = shop(source)
    sums.faults = [OSError("away")] * 1_000
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    await recorder.until(2)
    stopping = asyncio.ensure_future(made.stop())
    await clock.advance(30.0)
    await soon(stopping)
    check_books(made)
    assert outcomes(made) == {"acked": 2}
    again, sums = shop(ManualProducer())
    async with running(again) as clock:
        await clock.advance(1.0)
        assert sums.values == [("de", 1)]
        assert sums.emitted[0][0].id == 'sums/1699999980000000_1700000040000000/"de"'
        assert sums.emitted[0][0].firing == 1
    assert await _emitted_is_gone(store)


async def _emitted_is_gone(store: ObeyingStore) -> bool:
    await store.inner.open({})
    return await _results(store) == 0


async def test_nothing_that_may_be_stored_is_given_back_when_the_time_of_the_stop_is_over(store: ObeyingStore) -> None:
    recorder = ReturningRecorder()
    source = ManualProducer()
    made, _ = shop(source, Sums(max_demand=8))
    store.gate.clear()
    clock = clock_of(made)
    await soon(made.start())
    source.feed.put(*recorder.messages([Order("de", 1)] * 4))
    await clock.advance(1.0)
    assert store.begun.is_set()
    source.feed.put(*recorder.messages([Order("fr", 1)] * 3))
    await clock.advance(0.01)
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock.advance(11.0)
    store.gate.set()
    await soon(stopping)
    check_books(made)
    assert [order.key for order in recorder.returned] == ["fr"] * 3
    assert outcomes(made) == {"returned": 3, "unknown": 4}
    assert recorder.successful == []


async def test_a_commit_that_surely_failed_is_given_back_when_the_time_of_the_stop_is_over(store: ObeyingStore) -> None:
    recorder = ReturningRecorder()
    source = ManualProducer(*recorder.messages([Order("de", 1)] * 4))
    made, _ = shop(source, Sums(max_demand=8))
    store.faults = [StorageError("the disk is full")] * 1_000
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock.advance(11.0)
    await soon(stopping)
    assert outcomes(made) == {"returned": 4}


async def test_an_event_that_fails_is_settled_alone_with_its_cause(store: ObeyingStore) -> None:
    recorder = Recorder()
    orders = [Order("de", 1), Order("de", 2, -1), Order("de", 3), Order("de", 10_000)]
    source = ManualProducer(*recorder.messages(orders))
    made, sums = shop(source, failure=None)
    source.feed.end()
    await finish(made)
    assert outcomes(made) == {"acked": 2, "rejected": 2}
    assert {order.amount: status.cause for order, status in _statuses(recorder)} == {
        -1: "raised",
        1: "future_event_time",
    }
    assert [status.reason for _, status in _statuses(recorder) if status.cause == "future_event_time"] == [
        "its event time lies more than 3600 s (max_ahead) ahead of the clock"
    ]
    assert sums.values == [("de", 2)]


def _statuses(recorder: Recorder) -> list[tuple[Order, Any]]:
    return [(message.data, message.status) for call in recorder.calls for message in call.failed]


async def test_a_late_message_fails_as_late(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 61)]))
    made, _ = shop(source, failure=None)
    async with running(made) as clock:
        await clock.advance(1.0)
        source.feed.put(*recorder.messages([Order("de", 1)]))
        await recorder.until(2)
        assert made.stats().aggregators[0].late == {"event_time": 1, "held": 0}
    ((order, status),) = _statuses(recorder)
    assert (order.at, status.cause, status.reason) == (1, "late", "its windows have closed")


class Forgiving(Sums):
    """Takes late messages."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.taken: list[float] = []

    async def late(self, messages: list[Message[Order]]) -> None:
        if any(message.data.key == "bad" for message in messages):
            raise OSError("not this one")
        self.taken += [message.data.at for message in messages]


async def test_late_messages_go_to_late_and_are_acked(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 61)]))
    made, sums = shop(source, Forgiving(), failure=None)
    assert isinstance(sums, Forgiving)
    async with running(made) as clock:
        await clock.advance(1.0)
        source.feed.put(*recorder.messages([Order("de", 1)]))
        await recorder.until(2)
        source.feed.put(*recorder.messages([Order("bad", 2)]))
        await recorder.until(3)
    assert sums.taken == [1]
    assert outcomes(made) == {"acked": 2, "rejected": 1}
    assert [status.cause for _, status in _statuses(recorder)] == ["raised"]


async def test_a_list_that_emit_refuses_is_tried_one_by_one(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("a", 1), Order("b", 1), Order("c", 1), Order("a", 61)]))
    made, sums = shop(source)
    sums.faults = [OSError("all"), OSError("the first alone")]
    async with running(made) as clock:
        await clock.advance(0.3)
        await clock.advance(1.0)
        assert [len(results) for results in sums.emitted] == [1, 1, 1]
        assert sorted(sums.values) == [("a", 1), ("b", 1), ("c", 1)]
        assert made.stats().aggregators[0].emit_failures == 2
        assert made.stats().aggregators[0].results_pending == 0


async def test_an_emit_that_takes_too_long_is_cancelled_and_called_again(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(Sums):
        calls = 0

        async def emit(self, results: list[Any]) -> None:
            self.calls += 1
            if self.calls == 1:
                await asyncio.Event().wait()
            await super().emit(results)

    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("a", 1), Order("a", 61)]))
    made, sums = shop(source, Slow(emit_timeout=5))
    async with running(made) as clock:
        await clock.advance(5.0)
        assert sums.values == []
        await clock.advance(2.0)
        assert sums.values == [("a", 1)]
    (line,) = logged(caplog)
    assert line["exception"] == "TimeoutError"
    assert line["reason"] == (
        "aggregators.sums.emit_timeout: emit took longer than 5 s: make it faster, give it fewer results at a time "
        "(emit_batch), or raise emit_timeout"
    )
    assert " emit > " in line["at"]


async def test_a_timeout_error_that_emit_raises_in_time_is_not_taken_for_its_limit(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    source = ManualProducer(*Recorder().messages([Order("a", 1), Order("a", 61)]))
    made, sums = shop(source, Sums(emit_timeout=5))
    sums.faults = [TimeoutError("its own")]
    async with running(made) as clock:
        await clock.advance(2.0)
        assert sums.values == [("a", 1)]
    (line,) = logged(caplog)
    assert (line["exception"], line["reason"]) == (
        "TimeoutError",
        "not shown, it may quote the message; broadway_py.log.show_error_texts() shows it",
    )


async def test_max_open_stops_intake_and_says_so(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("a", 1), Order("b", 1)]))
    made, _ = shop(source, Sums(max_open=2))
    async with running(made) as clock:
        await clock.advance(1.0)
        source.feed.put(*recorder.messages([Order("c", 1)]))
        await clock.advance(1.0)
        assert recorder.count == 2
        assert made.stats().trouble == (
            "degraded: aggregator 'sums' has 2 open windows (max_open), counted for each key; "
            "intake goes on when some of them have closed: raise max_open if that takes long"
        )
        made.give_up()
        await clock.advance(5.0)


async def test_max_pending_stops_intake_until_emit_takes_results(store: ObeyingStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("a", 1), Order("b", 1), Order("a", 61)]))
    made, sums = shop(source, Sums(max_pending=2))
    sums.faults = [OSError("away")] * 4
    async with running(made) as clock:
        await clock.advance(0.25)
        source.feed.put(*recorder.messages([Order("c", 62)]))
        assert made.stats().trouble == (
            "degraded: aggregator 'sums' has 2 results that emit has not taken (max_pending); "
            "intake goes on when it takes them"
        )
        await clock.advance(10.0)
        await recorder.until(4)
        assert made.stats().trouble is None


async def test_an_error_of_our_own_ends_the_pipeline_and_acks_nothing(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = ReturningRecorder()
    source = ManualProducer(*recorder.messages([Order("a", 1)]))
    made, _ = shop(source)
    monkeypatch.setattr(
        "broadway_py._core.aggregation.aggregation.Aggregation.checkpoint", lambda *_: (_ for _ in ()).throw(KeyError())
    )
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    with pytest.raises(PipelineCrashed) as crash:
        await soon(made.wait())
    assert str(crash.value) == (
        "pipeline 'Shop', aggregator:sums: KeyError; nothing in memory is used any more, "
        "and what is stored goes on with the next start"
    )
    assert recorder.successful == []
    assert outcomes(made) == {"returned": 1}


async def test_the_sources_open_after_the_state_is_there(store: ObeyingStore) -> None:
    source = ManualProducer()
    made, _ = shop(source)
    store.waits_for_lock = asyncio.Event()
    async with running(made):
        await clock_of(made).advance(0.1)
        assert source.feed.journal == []
        assert made.stats().trouble == ("state file var/shop.db: process 4711 has it; standing by until it is free")
        store.waits_for_lock.set()
        await soon(made.ready())
        assert made.stats().trouble is None


async def test_a_pipeline_that_stands_by_can_be_stopped(store: ObeyingStore) -> None:
    source = ManualProducer()
    made, _ = shop(source)
    store.waits_for_lock = asyncio.Event()
    async with running(made):
        await clock_of(made).advance(0.1)
    assert source.feed.journal == []


async def test_a_state_that_cannot_be_opened_ends_the_pipeline_with_its_sentence(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise StorageError("state file var/shop.db: another program's file: choose another path")

    monkeypatch.setattr(store, "open", refuse)
    source = ManualProducer()
    made, _ = shop(source)
    clock_of(made)
    await soon(made.start())
    with pytest.raises(PipelineCrashed) as crash:
        await soon(made.wait())
    assert str(crash.value) == "pipeline 'Shop': state file var/shop.db: another program's file: choose another path"
    assert made.phase == "crashed"


class Marking(ReturningRecorder):
    """The acknowledger of a source that marks what it delivers again, in the details."""

    def is_repeat(self, data: Any) -> bool:
        return bool(data)

    def made(self, name: str, order: Order, *, is_repeat: bool) -> Message[Any]:
        return self.message(order, detail=is_repeat, message_id=name)


class Redelivering(ManualProducer):
    """Marks what it may have delivered before."""

    redelivers = True
    marks_repeats = True


async def test_a_repeat_of_a_stored_message_is_acked_and_not_added(store: ObeyingStore) -> None:
    recorder = Marking()
    source = Redelivering(recorder.made("1", Order("de", 1), is_repeat=False))
    made, sums = shop(source)
    async with running(made) as clock:
        await clock.advance(1.0)
        await recorder.until(1)
        source.feed.put(recorder.made("1", Order("de", 1), is_repeat=True))
        await recorder.until(2)
        assert made.stats().aggregators[0].duplicates == 1
    # After a restart, too: the identity lies in the file.
    again, sums = shop(
        Redelivering(
            recorder.made("1", Order("de", 1), is_repeat=True), recorder.made("2", Order("de", 2, 5), is_repeat=True)
        )
    )
    async with running(again) as clock:
        await clock.advance(1.0)
        await recorder.until(4)
        source = again.producer  # type: ignore[assignment]  # it was given
        source.feed.put(recorder.made("3", Order("de", 61), is_repeat=False))
        await clock.advance(1.0)
        assert sums.values == [("de", 6)]
        assert again.stats().aggregators[0].duplicates == 1
    assert outcomes(again) == {"acked": 3}


async def test_a_repeat_of_a_held_message_is_acked_with_it(store: ObeyingStore) -> None:
    recorder = Marking()
    source = Redelivering(recorder.made("1", Order("de", 1), is_repeat=False))
    made, _ = shop(source)
    store.gate.clear()
    async with running(made) as clock:
        await clock.advance(0.5)
        assert store.begun.is_set()
        source.feed.put(recorder.made("1", Order("de", 1), is_repeat=True))
        await clock.advance(0.5)
        assert recorder.count == 0
        store.gate.set()
        await recorder.until(2)
    assert [len(commit.identities) for commit in store.commits] == [16, 0]


async def test_messages_that_are_given_back_come_again_and_count_once(store: ObeyingStore) -> None:
    recorder = Marking()
    source = Redelivering(*(recorder.made(str(number), Order("de", 1), is_repeat=False) for number in range(3)))
    made, _ = shop(source)
    store.faults = [StorageError("the disk is full")] * 1_000
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock.advance(11.0)
    await soon(stopping)
    assert outcomes(made) == {"returned": 3}
    store.faults = []
    again, sums = shop(
        Redelivering(
            *(recorder.made(str(number), Order("de", 1), is_repeat=True) for number in range(3)),
            recorder.made("9", Order("de", 61), is_repeat=False),
        )
    )
    async with running(again) as clock:
        await clock.advance(1.0)
        assert sums.values == [("de", 3)]


async def test_a_memory_state_writes_no_windows_and_gives_all_results() -> None:
    made = Shop(
        producer=MemoryProducer([Order("de", 1), Order("de", 2), Order("fr", 61)]),
        aggregators={"sums": Sums()},
        state="memory",
    )
    sums = made.aggregators["sums"]
    assert isinstance(sums, Sums)
    assert await finish(made) == {"acked": 3}
    assert sorted(sums.values) == [("de", 2), ("fr", 1)]


async def test_a_memory_state_needs_no_checkpoint_for_what_was_handed_out() -> None:
    made = Shop(
        producer=MemoryProducer([Order(str(number), 1) for number in range(500)]),
        aggregators={"sums": Sums()},
        state="memory",
    )
    assert await finish(made) == {"acked": 500}
    (figures,) = made.stats().aggregators
    # Results are handed out a hundred at a time. The last checkpoint has them all.
    assert figures.results_pending == 0
    assert figures.checkpoints <= 2


async def test_setup_and_teardown_of_an_aggregator_run_around_all_of_it(store: ObeyingStore) -> None:
    steps: list[str] = []

    class Noting(Sums):
        async def setup(self) -> None:
            steps.append(f"setup {self.name}")

        async def teardown(self) -> None:
            steps.append("teardown")

        async def emit(self, results: list[Any]) -> None:
            steps.append("emit")

    source = ManualProducer(Order("de", 1))
    made, _ = shop(source, Noting())
    source.feed.end()
    await finish(made)
    assert steps == ["setup sums", "emit", "teardown"]
    assert store.steps[-1] == "close"


async def test_sessions_are_merged_and_say_what_they_replace(store: ObeyingStore) -> None:
    class Visits(Sums):
        window = Window.session(10, by=lambda message: 1_700_000_000 + message.data.at, delay=0, lateness=60)

        def merge(self, a: int, b: int) -> int:
            return a + b

    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("a", 0), Order("b", 15), Order("a", 16)]))
    made, sums = shop(source, Visits(max_ahead=None))
    source.feed.end()
    async with running(made) as clock:
        await clock.advance(1.0)
        await soon(made.wait())
    assert max(sums.values) == ("b", 1)
    assert sum(value for key, value in sums.values if key == "a") >= 2


async def test_the_commit_is_not_cancelled_when_the_pipeline_is_cut_off(store: ObeyingStore) -> None:
    recorder = ReturningRecorder()
    source = ManualProducer(*recorder.messages([Order("de", 1)] * 4))
    made, _ = shop(source, Sums(max_demand=8))
    store.gate.clear()
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(0.5)
    assert store.begun.is_set()
    made.give_up()
    await clock.advance(5.0)
    store.gate.set()
    await soon(made.stop())
    assert [commit.number for commit in store.commits] == [1]
    assert recorder.returned == []


async def test_an_add_that_returns_another_type_fails_its_message_alone(store: ObeyingStore) -> None:
    class Forgetting(Sums):
        def add(self, acc: int, message: Message[Order]) -> int:
            return None if message.data.amount == 7 else acc + 1  # type: ignore[return-value]  # the mistake

    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1), Order("de", 2, 7), Order("fr", 2, 7), Order("de", 3)]))
    made, sums = shop(source, Forgetting(), failure=None)
    source.feed.end()
    await finish(made)
    assert outcomes(made) == {"acked": 2, "rejected": 2}
    assert sums.values == [("de", 2)]
    assert {status.cause for _, status in _statuses(recorder)} == {"raised"}


async def test_a_key_of_another_type_fails_its_message_alone(store: ObeyingStore) -> None:
    recorder = Recorder()
    orders = [Order("de", 1), Order(7, 2), Order("de", 3)]  # type: ignore[arg-type]  # the mistake
    source = ManualProducer(*recorder.messages(orders))
    made, sums = shop(source, failure=None)
    source.feed.end()
    await finish(made)
    assert outcomes(made) == {"acked": 2, "rejected": 1}
    assert sums.values == [("de", 2)]


async def test_a_value_with_something_in_it_that_cannot_be_stored_ends_the_pipeline_if_nothing_is_stored() -> None:
    class Nested(Aggregator[str, Order, list[int]]):
        window = Window.fixed(60, by=when, delay=0, max_ahead=None)

        def key(self, message: Message[Order]) -> str:
            return message.data.key

        def initial(self) -> list[int]:
            return []

        def add(self, acc: list[int], message: Message[Order]) -> list[int]:
            acc.append("text" if message.data.amount == 7 else 1)  # type: ignore[arg-type]  # the mistake
            return acc

        async def emit(self, results: list[WindowResult[str, list[int]]]) -> None:
            """Nobody looks."""

    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1), Order("de", 2), Order("de", 3, 7), Order("de", 61)]))
    made = Shop(producer=source, aggregators={"nested": Nested()}, state="memory")
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    with pytest.raises(PipelineCrashed) as crash:
        await soon(made.wait())
    assert str(crash.value) == (
        "pipeline 'Shop', aggregator:nested: a value cannot be stored as list[int]: a list came, or something in it "
        "has another type than declared, or is text that UTF-8 cannot say; nothing in memory is used any more, and "
        "what is stored goes on with the next start"
    )
    assert "acked" not in outcomes(made)
