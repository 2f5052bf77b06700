"""Aggregators go on after a restart: all kinds of windows, in a real file; values of an older version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Message, Pipeline, PipelineCrashed, Window
from broadway_py.pipeline.aggregation.records import facts_of
from broadway_py.state.inspection import results
from broadway_py.state.wishes import ask_to_drop
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use, when
from tests.pipeline.support import ManualProducer, Recorder, clock_of, running, soon


class Merging(Sums):
    """Has what sessions need."""

    def merge(self, a: int, b: int) -> int:
        return a + b


KINDS: dict[str, Callable[[], Window]] = {
    "fixed": lambda: Window.fixed(60, by=when, delay=0, max_ahead=None),
    "sliding": lambda: Window.sliding(60, 60, by=when, delay=0, max_ahead=None),
    "session": lambda: Window.session(30, by=when, delay=0, max_ahead=None),
    "calendar": lambda: Window.calendar("day", tz="UTC", by=when, delay=0, max_ahead=None),
    "count": lambda: Window.count(4),
    "periodic": lambda: Window.periodic("1h"),
    "early": lambda: Window.fixed(60, by=when, delay=0, max_ahead=None).trigger_every(3),
}


def total(sums: Sums) -> dict[str, int]:
    """The newest value of each key."""
    return {one.key: one.value for results in sums.emitted for one in sorted(results, key=lambda one: one.firing)}


@pytest.mark.parametrize("kind", KINDS)
async def test_windows_go_on_in_the_next_process(kind: str, tmp_path: Path) -> None:
    made = type("Made", (Merging,), {"window": KINDS[kind]()})
    recorder = Recorder()
    emitted: dict[str, int] = {}
    for round_number in range(3):
        source = ManualProducer(*recorder.messages([Order("a", round_number + 1), Order("b", round_number + 1, 5)]))
        shop = Shop(producer=source, aggregators={"sums": made}, state=tmp_path / "state.db")
        sums = shop.aggregators["sums"]
        assert isinstance(sums, Sums)
        if round_number == 2:
            source.feed.put(*recorder.messages([Order("a", 4)]))
            source.feed.end()
            await soon(shop.start())
            await soon(shop.wait())
        else:
            await soon(shop.start())
            await recorder.until(2 * round_number + 2)
            assert shop.stats().aggregators[0].windows_open == 2
            await soon(shop.stop())
        emitted |= total(sums)
    assert emitted == {"a": 4, "b": 15}
    assert recorder.count == 7


async def test_a_dropped_result_is_never_handed_out_and_the_next_one_of_its_window_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    made = type("Made", (Sums,), {"window": KINDS["early"]()})
    recorder = Recorder()
    orders = [Order("a", 1), Order("b", 1), Order("a", 2), Order("b", 2), Order("a", 3), Order("b", 3)]
    shop = Shop(producer=ManualProducer(*recorder.messages(orders)), aggregators={"sums": made}, state=path)
    sums = shop.aggregators["sums"]
    assert isinstance(sums, Sums)
    sums.faults = [OSError("away")] * 1_000
    await soon(shop.start())
    await recorder.until(6)
    await soon(shop.stop(0.1))
    assert sums.values == []
    due = {facts_of(one.content).id: (one.aggregator, one.sequence) for one in results(str(path))}
    ask_to_drop(str(path), [place for name, place in due.items() if name.endswith('"a"')])

    source = ManualProducer(*recorder.messages([Order("a", 4)]))
    source.feed.end()
    again = Shop(producer=source, aggregators={"sums": made}, state=path)
    sums = again.aggregators["sums"]
    assert isinstance(sums, Sums)
    await soon(again.start())
    await soon(again.wait())
    assert len(due) == 2
    emitted = [(one.key, one.firing, one.value) for results in sums.emitted for one in results]
    assert sorted(emitted) == [("a", 2, 4), ("b", 1, 3), ("b", 2, 3)]
    assert list(results(str(path))) == []


class Newer(Sums):
    """The next version of :class:`Sums`: it counts in hundredths."""

    version = 2

    def add(self, acc: int, message: Message[Order]) -> int:
        return acc + 100 * message.data.amount

    def upgrade(self, version: int, value: Any) -> int:
        if value == 7:
            raise ValueError("seven")
        return int(value) * 100


async def _first_part(store: ObeyingStore, monkeypatch: pytest.MonkeyPatch, amount: int) -> None:
    use(monkeypatch, store)
    recorder = Recorder()
    shop = Shop(producer=ManualProducer(*recorder.messages([Order("a", 1, amount)])), aggregators={"sums": Sums()})
    async with running(shop) as clock:
        await clock.advance(1.0)
        await recorder.until(1)


async def test_values_of_an_older_version_are_made_new(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObeyingStore()
    await _first_part(store, monkeypatch, 3)
    source = ManualProducer(Order("a", 2, 1))
    source.feed.end()
    shop = Shop(producer=source, aggregators={"sums": Newer()})
    clock_of(shop)
    await soon(shop.start())
    await soon(shop.wait())
    sums = shop.aggregators["sums"]
    assert isinstance(sums, Sums)
    assert sums.values == [("a", 400)]


async def test_an_upgrade_that_raises_ends_the_pipeline_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObeyingStore()
    await _first_part(store, monkeypatch, 7)
    before = len(store.commits)
    source = ManualProducer(Order("a", 2, 1))
    shop: Pipeline[Order] = Shop(producer=source, aggregators={"sums": Newer()})
    clock_of(shop)
    await soon(shop.start())
    with pytest.raises(PipelineCrashed) as crash:
        await soon(shop.wait())
    assert str(crash.value) == (
        "pipeline 'Shop': upgrade() of aggregator 'sums' raised ValueError for a value of version 1: correct it; "
        "the state is as it was"
    )
    assert len(store.commits) == before
    assert source.feed.journal == []


async def test_an_aggregator_without_upgrade_refuses_values_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changed(Sums):
        version = 2

    store = ObeyingStore()
    await _first_part(store, monkeypatch, 3)
    shop = Shop(producer=ManualProducer(), aggregators={"sums": Changed()})
    clock_of(shop)
    await soon(shop.start())
    with pytest.raises(PipelineCrashed) as crash:
        await soon(shop.wait())
    assert str(crash.value) == (
        "pipeline 'Shop': state in memory: the values of aggregator 'sums' have version 1, and this program has "
        "version 2: write upgrade(version, value) in the aggregator, or use another file"
    )
