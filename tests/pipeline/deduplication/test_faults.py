"""``deduplicate_by`` while ids cannot be stored: nothing is lost, and nothing is acked that is not stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from broadway_py import PipelineCrashed, Processors
from broadway_py.state.store import AggregatorFacts, StoredIdentities
from broadway_py.storage.errors import StorageError
from tests.pipeline.aggregation.support import ObeyingStore, use
from tests.pipeline.deduplication.support import Once, figures, sent
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    in_flight,
    logged,
    outcomes,
    running,
    soon,
)

FULL = "state file var/ids.db: the disk is full; nothing of this call was stored: free some space and try again"


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    made = ObeyingStore()
    use(monkeypatch, made)
    return made


async def test_nothing_is_acked_while_ids_cannot_be_stored(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    store.faults = [StorageError(FULL) for _ in range(3)]
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("b", 2))))
    async with running(pipeline) as clock:
        await soon(store.begun.wait())
        await clock.advance(0.0)
        assert recorder.count == 0
        assert in_flight(pipeline) == 2
        assert pipeline.stats().trouble == f"degraded: the ids of handled messages cannot be stored: {FULL}"
        await clock.advance(1.0)
        await recorder.until(2)
        assert pipeline.stats().trouble is None
        assert figures(pipeline).checkpoint_failures == 3

    assert pipeline.handled == [1, 2]
    assert outcomes(pipeline) == {"acked": 2}
    assert [(line["event"], line["reason"]) for line in logged(caplog)] == [
        ("the ids of handled messages cannot be stored; nothing is acked until they can", FULL)
    ]


async def test_intake_is_bounded_while_ids_cannot_be_stored(store: ObeyingStore) -> None:
    recorder = Recorder()
    store.gate.clear()
    pipeline = Once(
        producer=ManualProducer(*sent(recorder, *((str(number), number) for number in range(100)))),
        processors=Processors(concurrency=2, max_demand=4),
    )
    async with running(pipeline) as clock:
        await clock.advance(100.0)
        assert in_flight(pipeline) == 8
        store.gate.set()
        await recorder.until(100)

    assert outcomes(pipeline) == {"acked": 100}


async def test_what_is_not_stored_at_the_deadline_of_a_stop_is_left_to_the_source(store: ObeyingStore) -> None:
    recorder = ReturningRecorder()
    store.faults = [StorageError(FULL) for _ in range(100)]
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("a", 1))), shutdown_timeout=5.0)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await soon(store.begun.wait())
    pipeline.request_stop()
    await clock.advance(10.0)
    await soon(pipeline.wait())

    check_books(pipeline)
    assert outcomes(pipeline) == {"unknown": 1, "returned": 1}
    assert recorder.calls == []
    assert store.steps[-1] == "close"

    again = Once(producer=ManualProducer(*sent(recorder, ("a", 1))))
    store.faults = []
    async with running(again):
        await recorder.until(2)
    assert again.handled == [1]


async def test_what_may_be_stored_at_the_deadline_of_a_stop_is_not_acked_and_recognised_later(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_knows(_: str) -> int:
        raise StorageError(FULL)

    recorder = Recorder()
    store.faults = [StorageError(FULL, is_unknown=True)]
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1))), shutdown_timeout=5.0)
    with monkeypatch.context() as patched:
        patched.setattr(store, "last_number", nobody_knows)
        clock = clock_of(pipeline)
        await soon(pipeline.start())
        await soon(store.begun.wait())
        pipeline.request_stop()
        await clock.advance(10.0)
        await soon(pipeline.wait())
    assert outcomes(pipeline) == {"unknown": 1}
    assert recorder.calls == []

    again = Once(producer=ManualProducer(*sent(recorder, ("a", 1))))
    async with running(again):
        await recorder.until(1)
    assert again.handled == []


async def test_a_commit_of_which_nobody_knew_is_not_made_twice(store: ObeyingStore) -> None:
    recorder = Recorder()
    store.faults = [StorageError(FULL, is_unknown=True)]
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1))))
    async with running(pipeline) as clock:
        await soon(store.begun.wait())
        await clock.advance(1.0)
        await recorder.until(1)

    assert store.steps == ["open", "stored 1", "asked", "close"]


async def test_a_stop_that_is_over_while_an_id_is_being_stored_acks_nothing(store: ObeyingStore) -> None:
    recorder = Recorder()
    store.gate.clear()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1))), shutdown_timeout=5.0)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await soon(store.begun.wait())
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(10.0)
    assert outcomes(pipeline) == {"unknown": 1}
    store.gate.set()
    await soon(stopping)

    check_books(pipeline)
    assert recorder.calls == []
    # What was being stored was not cancelled: it is known to the next process.
    assert store.steps[-2:] == ["stored 1", "close"]


async def test_a_store_that_cannot_be_opened_stops_the_pipeline_before_it_reads(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise StorageError(FULL)

    monkeypatch.setattr(store, "open", refuse)
    producer = ManualProducer(*sent(Recorder(), ("a", 1)))
    pipeline = Once(producer=producer)
    await soon(pipeline.start())

    with pytest.raises(Exception, match="the disk is full"):
        await soon(pipeline.wait())
    assert producer.feed.journal == []


async def test_the_state_says_that_the_ids_are_being_loaded(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    first = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("b", 2))))
    async with running(first):
        await recorder.until(2)
    go_on, inside = asyncio.Event(), asyncio.Event()
    identities = store.inner.identities

    async def slowly(aggregator: str) -> AsyncIterator[list[StoredIdentities]]:
        async for part in identities(aggregator):
            yield part
            inside.set()
            await go_on.wait()

    monkeypatch.setattr(store.inner, "identities", slowly)
    second = Once(producer=ManualProducer())
    async with running(second):
        await soon(inside.wait())
        assert second.stats().trouble == "the ids of handled messages are being loaded: 2 of 2"
        go_on.set()
        await soon(second.ready())
        assert second.stats().trouble is None


async def test_until_the_state_is_open_nobody_knows_how_much_there_is_to_load(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may have the file locked then."""
    go_on, inside, opened = asyncio.Event(), asyncio.Event(), store.inner.open

    async def slowly(aggregators: Mapping[str, AggregatorFacts]) -> None:
        inside.set()
        await go_on.wait()
        await opened(aggregators)

    monkeypatch.setattr(store.inner, "open", slowly)
    pipeline = Once(producer=ManualProducer())
    async with running(pipeline):
        await soon(inside.wait())
        assert pipeline.stats().trouble == "the state is being opened"
        go_on.set()
        await soon(pipeline.ready())
        assert pipeline.stats().trouble is None


async def test_a_state_that_cannot_be_opened_is_told_without_aggregators(
    store: ObeyingStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(_: Mapping[str, AggregatorFacts]) -> None:
        raise StorageError(FULL)

    monkeypatch.setattr(store.inner, "open", full)
    pipeline = Once(producer=ManualProducer())
    await soon(pipeline.start())
    with pytest.raises(PipelineCrashed) as crashed:
        await soon(pipeline.wait())
    assert str(crashed.value) == f"pipeline 'Once': {FULL}"
    assert [(line["event"], line["reason"]) for line in logged(caplog)] == [("the state could not be opened", FULL)]


async def test_a_pipeline_that_stands_by_reads_nothing(store: ObeyingStore) -> None:
    store.waits_for_lock = asyncio.Event()
    producer = ManualProducer(*sent(Recorder(), ("a", 1)))
    pipeline = Once(producer=producer)
    async with running(pipeline) as clock:
        await clock.advance(100.0)
        assert producer.feed.journal == []
        assert pipeline.stats().trouble == ("state file var/shop.db: process 4711 has it; standing by until it is free")
        store.waits_for_lock.set()
        await producer.feed.until("demand")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_round_whose_acknowledger_fails_keeps_its_ids(store: ObeyingStore, fails: bool) -> None:
    async def broken(_: object) -> None:
        if fails:
            raise ConnectionError

    recorder = Recorder(broken)
    producer = ManualProducer(*sent(recorder, ("a", 1), ("a", 1)))
    pipeline = Once(producer=producer)
    async with running(pipeline):
        await recorder.until(2)

    assert pipeline.handled == [1]
    assert outcomes(pipeline) == ({"unknown": 2} if fails else {"acked": 2})
