"""A stop tries results that fail once more. Then it ends, because they lie in the file."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import WindowResult
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.support import ManualProducer, Recorder, check_books, clock_of, events_logged, logged, soon

REFUSED = "results could not be handed out; they stay stored and are handed out again"
LEFT = "some results were not taken; they stay stored and are handed out after the next start"


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    store = ObeyingStore()
    use(monkeypatch, store)
    return store


class Picky(Sums):
    """Refuses results of the keys that are in :attr:`bad`."""

    window = Sums.window.trigger_every(2)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.bad = {"bad", "worse"}
        self.calls: list[list[str]] = []
        #: The call waits for it, if the test says so.
        self.gate = asyncio.Event()
        self.gate.set()

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        self.calls.append([one.key for one in results])
        await self.gate.wait()
        if not self.bad.isdisjoint(self.calls[-1]):
            raise ValueError("refused")
        await super().emit(results)


def shop(source: ManualProducer, **options: Any) -> tuple[Shop, Picky]:
    made = Shop(producer=source, aggregators={"sums": Picky()}, **options)
    own = made.aggregators["sums"]
    assert isinstance(own, Picky)
    return made, own


async def started(source: ManualProducer, **options: Any) -> tuple[Shop, Picky]:
    """A pipeline that has tried the results of both bad keys alone, and waits long until it tries them again."""
    made, sums = shop(source, **options)
    clock = clock_of(made)
    await soon(made.start())
    # Their window fires twice: for the second message, and when it closes. One more lies in a window that stays open.
    orders = [Order(key, 1) for key in ("good", "bad", "worse") for _ in range(3)]
    source.feed.put(*Recorder().messages([*orders, Order("good", 61)]))
    await clock.advance(60.0)
    assert sums.values == [("good", 2), ("good", 3)]
    assert made.stats().aggregators[0].results_pending == 4
    sums.calls.clear()
    return made, sums


async def test_each_has_one_more_try_and_the_stop_ends(store: ObeyingStore, caplog: pytest.LogCaptureFixture) -> None:
    source = ManualProducer()
    made, sums = await started(source)
    caplog.clear()
    report = await soon(made.stop())

    assert report.in_time
    assert sums.calls == [["bad"], ["worse"]]
    # It waits for no time at all.
    assert events_logged(caplog) == [REFUSED, REFUSED, LEFT]
    line = logged(caplog)[-1]
    assert (line["pipeline"], line["aggregator"], line["results"]) == ("Shop", "sums", 4)
    check_books(made)

    again, later = shop(ManualProducer())
    later.bad = set()
    clock = clock_of(again)
    await soon(again.start())
    await clock.advance(1.0)
    assert later.values == [("bad", 2), ("worse", 2), ("bad", 3), ("worse", 3)]
    await soon(again.stop())
    await store.inner.open({})
    assert [row async for rows in store.inner.results("sums") for row in rows] == []


async def test_what_is_taken_at_last_leaves_the_file_with_the_firings_behind_it(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    made, sums = await started(ManualProducer())
    caplog.clear()
    sums.bad = {"worse"}
    report = await soon(made.stop())

    assert report.in_time
    assert sums.calls == [["bad"], ["bad"], ["worse"]]
    assert sums.values == [("good", 2), ("good", 3), ("bad", 2), ("bad", 3)]
    assert logged(caplog)[-1]["results"] == 2
    await store.inner.open({})
    assert len([row async for rows in store.inner.results("sums") for row in rows]) == 2


async def test_results_that_a_stop_finds_untried_are_tried_alone_once(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    source = ManualProducer()
    made, sums = shop(source)
    clock = clock_of(made)
    await soon(made.start())
    sums.gate.clear()
    source.feed.put(*Recorder().messages([Order(key, 1) for key in ("first", "first")]))
    await clock.advance(1.0)
    # While the first call runs, more results come.
    source.feed.put(*Recorder().messages([Order(key, 1) for key in ("bad", "good", "worse") for _ in range(2)]))
    await clock.advance(1.0)
    stopping = asyncio.ensure_future(made.stop())
    await clock.advance(1.0)
    assert not stopping.done()
    sums.gate.set()
    report = await soon(stopping)

    assert report.in_time
    assert sums.calls == [["first"], ["bad", "good", "worse"], ["bad"], ["good"], ["worse"]]
    assert events_logged(caplog) == [REFUSED] * 3 + [LEFT]
    assert logged(caplog)[-1]["results"] == 2


async def test_with_state_in_memory_they_are_tried_until_the_time_of_the_stop_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They would be lost when the process ends."""
    made, sums = await started(ManualProducer(), state="memory")
    clock = clock_of(made)
    stopping = asyncio.ensure_future(made.stop(100.0))
    await clock.advance(40.0)
    assert not stopping.done()
    sums.bad = set()
    await clock.advance(40.0)
    report = await soon(stopping)
    assert report.in_time
    assert sorted(sums.values) == [(key, value) for key in ("bad", "good", "worse") for value in (2, 3)]
    assert set(events_logged(caplog)) == {
        "results could not be handed out; they stay in memory and are handed out again"
    }


async def test_the_end_of_the_sources_alone_gives_up_nothing_and_a_stop_after_it_ends(store: ObeyingStore) -> None:
    source = ManualProducer()
    made, sums = await started(source)
    source.feed.end()
    clock = clock_of(made)
    waiting = asyncio.ensure_future(made.wait())
    await clock.advance(300.0)
    assert not waiting.done()
    assert len(sums.calls) > 10
    sums.calls.clear()
    report = await soon(made.stop())
    assert report.in_time
    assert sums.calls == [["bad"], ["worse"]]
    await soon(waiting)


async def test_a_last_try_that_takes_too_long_is_cut_off_and_its_result_stays_stored(store: ObeyingStore) -> None:
    made, sums = await started(ManualProducer())
    sums.gate.clear()
    clock = clock_of(made)
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock.advance(11.0)
    report = await soon(stopping)
    assert not report.in_time
    assert sums.calls == [["bad"]]
    await store.inner.open({})
    assert len([row async for rows in store.inner.results("sums") for row in rows]) == 4
