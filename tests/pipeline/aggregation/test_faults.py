"""Aggregators under faults: acks that hang, cancellations from nowhere, values that cannot be stored, early stops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Message, PipelineCrashed, Processors
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
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
        "pipeline 'Shop': CancelledError in aggregator:sums: nothing in memory is used any more; what is stored goes "
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
