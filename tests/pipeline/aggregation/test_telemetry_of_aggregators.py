"""What telemetry hears of aggregators: checkpoints, windows that fire, late messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import PipelineCrashed, telemetry
from broadway_py.events import EVENTS
from broadway_py.storage.errors import StorageError
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.support import ManualProducer, Recorder, clock_of, running, soon, telemetry_events

CHECKPOINT = "broadway.aggregator.checkpoint"
CHECKPOINTS = (f"{CHECKPOINT}.start", f"{CHECKPOINT}.stop", f"{CHECKPOINT}.exception")
FIRED = "broadway.aggregator.fired"
LATE = "broadway.aggregator.late"
MINUTE = 'sums/1699999980000000_1700000040000000/"de"'


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    store = ObeyingStore()
    use(monkeypatch, store)
    return store


class Breaking(Exception):
    """No error that stores raise."""

    is_unknown = False


class Contextual(Shop):
    """Has something to tell telemetry."""

    context = "the context"


def shop(*orders: Order, sums: Sums | None = None, **options: Any) -> tuple[Shop, ManualProducer, Recorder]:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages(orders))
    return Contextual(name="shop", producer=source, aggregators={"sums": sums or Sums()}, **options), source, recorder


async def test_each_event_of_an_aggregator_comes_with_what_its_page_says(store: ObeyingStore) -> None:
    made, source, recorder = shop(Order("de", 1), Order("de", 61), failure=None)
    with telemetry_events(*(event for event in EVENTS if event.startswith("broadway.aggregator."))) as seen:
        async with running(made) as clock:
            await clock.advance(1.0)
            source.feed.put(*recorder.messages([Order("de", 2)]))
            await recorder.until(3)
            store.faults = [Breaking()]  # type: ignore[list-item]  # no error of a store, on purpose
            source.feed.put(*recorder.messages([Order("de", 62)]))
            await clock.advance(1.0)
            with pytest.raises(PipelineCrashed):
                await soon(made.wait())

    about = {"pipeline", "context", "index", "aggregator"}
    checkpoint = {*about, "number", "messages"}
    carries = {
        CHECKPOINTS[0]: checkpoint,
        CHECKPOINTS[1]: checkpoint,
        CHECKPOINTS[2]: {*checkpoint, "exception"},
        FIRED: {*about, "number", "results", "triggers"},
        LATE: {*about, "messages", "why"},
    }
    assert {event: set(metadata) for event, _, metadata in seen} == carries
    for event, measured, metadata in seen:
        ends = event in CHECKPOINTS[1:]
        assert set(measured) == {"duration" if ends else "system_time", "monotonic_time"}, event
        assert [metadata[each] for each in ("pipeline", "context", "index", "aggregator")] == [
            "shop",
            "the context",
            0,
            "sums",
        ]
    assert isinstance(seen[-1][2]["exception"], Breaking)


async def test_a_checkpoint_is_told_with_its_messages_and_how_long_it_was_stored(store: ObeyingStore) -> None:
    made, _, recorder = shop(Order("de", 1), Order("fr", 2))
    store.gate.clear()
    with telemetry_events(*CHECKPOINTS) as seen:
        async with running(made) as clock:
            await clock.advance(0.2)
            assert [event for event, _, _ in seen] == [CHECKPOINTS[0]]
            await clock.advance(2.0)
            store.gate.set()
            await recorder.until(2)

    (_, start, before), (_, stop, after) = seen[:2]
    assert stop["duration"] == pytest.approx(stop["monotonic_time"] - start["monotonic_time"])
    assert 2.0 <= stop["duration"] <= 2.2
    assert [message.data.key for message in before["messages"]] == ["de", "fr"]
    assert (before["number"], after["number"]) == (1, 1)
    assert [event for event, _, _ in seen] == [*CHECKPOINTS[:2]] * len(store.commits)


async def test_a_try_that_fails_is_no_end_of_a_checkpoint(store: ObeyingStore) -> None:
    made, _, recorder = shop(Order("de", 1))
    store.faults = [StorageError("the disk is full")] * 2
    with telemetry_events(*CHECKPOINTS) as seen:
        async with running(made) as clock:
            await clock.advance(1.0)
            await recorder.until(1)
            assert [event for event, _, _ in seen] == [*CHECKPOINTS[:2]]


@pytest.mark.parametrize("is_unknown", [False, True])
async def test_a_checkpoint_that_a_stop_gives_up_ends_with_the_error(store: ObeyingStore, is_unknown: bool) -> None:
    made, _, _ = shop(Order("de", 1))

    async def refuse(aggregator: str) -> int:
        raise StorageError("nobody can read it")

    if is_unknown:
        store.last_number = refuse  # type: ignore[method-assign]  # for this test alone
    store.faults = [StorageError("the disk is full", is_unknown=is_unknown)] * 1_000
    clock = clock_of(made)
    with telemetry_events(*CHECKPOINTS, FIRED) as seen:
        await soon(made.start())
        await clock.advance(1.0)
        stopping = asyncio.ensure_future(made.stop(10.0))
        await clock.advance(11.0)
        await soon(stopping)

    assert [event for event, _, _ in seen] == [CHECKPOINTS[0], CHECKPOINTS[2]]
    assert str(seen[1][2]["exception"]) == ("nobody can read it" if is_unknown else "the disk is full")


async def test_windows_that_fire_are_told_when_their_results_are_stored(store: ObeyingStore) -> None:
    made, source, recorder = shop(Order("de", 1), Order("fr", 1), Order("de", 61))
    store.gate.clear()
    with telemetry_events(CHECKPOINTS[1], FIRED) as seen:
        async with running(made) as clock:
            await clock.advance(1.0)
            assert seen == []
            store.gate.set()
            await recorder.until(3)
            source.feed.put(*recorder.messages([Order("de", 62)]))
            await clock.advance(1.0)

    told = [metadata for event, _, metadata in seen if event == FIRED]
    assert [(one["number"], sorted(one["results"]), one["triggers"]) for one in told] == [
        (1, [f"{MINUTE}#1", f'{MINUTE.removesuffix("de" + chr(34))}fr"#1'], {"watermark": 2})
    ]
    assert [event for event, _, _ in seen[:2]] == [CHECKPOINTS[1], FIRED]
    assert len(store.commits) > 1


async def test_late_messages_are_told_before_they_fail(store: ObeyingStore) -> None:
    made, source, recorder = shop(Order("de", 61), failure=None)
    failed_before: list[int] = []
    telemetry.attach("a check", LATE, lambda *_: failed_before.append(recorder.count))
    try:
        with telemetry_events(LATE) as seen:
            async with running(made) as clock:
                await clock.advance(1.0)
                source.feed.put(*recorder.messages([Order("de", 1), Order("de", 63), Order("de", 2)]))
                await clock.advance(1.0)
                await recorder.until(4)
    finally:
        telemetry.detach("a check")

    ((_, _, metadata),) = seen
    assert [message.data.at for message in metadata["messages"]] == [1, 2]
    assert metadata["why"] == "event_time"
    assert failed_before == [1]
    assert made.stats().aggregators[0].late == {"event_time": 2, "held": 0}


async def test_a_handler_that_raises_changes_nothing(store: ObeyingStore) -> None:
    made, source, recorder = shop(Order("de", 1), Order("de", 61), failure=None)

    def broken(*_: object) -> None:
        raise ValueError("broken")

    telemetry.attach("broken", [*CHECKPOINTS, FIRED, LATE], broken)
    async with running(made) as clock:
        await clock.advance(1.0)
        source.feed.put(*recorder.messages([Order("de", 1)]))
        await recorder.until(3)
        sums = made.aggregators["sums"]
        assert isinstance(sums, Sums)
        assert sums.values == [("de", 1)]
    assert not telemetry.active()
