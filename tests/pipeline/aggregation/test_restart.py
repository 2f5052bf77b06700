"""Aggregators go on after a restart: all kinds of windows, in a real file; values of an older version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broadway_py import FailurePolicy, Message, Pipeline, PipelineCrashed, Processors, Window
from broadway_py.pipeline.aggregation.result_facts import facts_of
from broadway_py.state.inspection import results
from broadway_py.state.wishes import ask_to_drop
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use, when
from tests.pipeline.support import ManualProducer, Recorder, clock_of, outcomes, running, soon


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


class PuttingOff(Recorder):
    """Takes retried messages back. The test delivers them again."""

    def __init__(self) -> None:
        super().__init__()
        self.put_off: list[Message[Any]] = []

    async def retry(self, ref: Any, messages: Any) -> None:
        self.put_off += [message for message, _ in messages]


class Unsteady(Shop):
    """Its handler fails while it is told to."""

    failure = FailurePolicy(attempts=5, backoff=(30.0, 30.0), breaker=None)
    fails = True

    async def handle_message(self, message: Message[Order]) -> None:
        if message.data.key == "unsteady" and self.fails:
            raise OSError("away")


@pytest.mark.parametrize("comes_back_after_s", [5.0, 100.0])
async def test_what_is_put_off_before_a_stop_is_awaited_in_the_next_process(
    monkeypatch: pytest.MonkeyPatch, comes_back_after_s: float
) -> None:
    use(monkeypatch, ObeyingStore())
    recorder = PuttingOff()
    source = ManualProducer(recorder.message(Order("unsteady", 1), message_id="1"))
    async with running(Unsteady(producer=source, aggregators={"sums": Sums()})) as clock:
        await clock.advance(1.0)
        source.feed.put(recorder.message(Order("de", 70), message_id="2"))
        await clock.advance(1.0)
    assert [message.data.at for message in recorder.put_off] == [1]

    source = ManualProducer(recorder.message(Order("de", 80), message_id="3"))
    made = Unsteady(producer=source, aggregators={"sums": Sums()})
    made.fails = False
    sums = made.aggregators["sums"]
    assert isinstance(sums, Sums)
    async with running(made) as clock:
        await clock.advance(comes_back_after_s)
        source.feed.put(recorder.message(Order("unsteady", 1), message_id="1"))
        await clock.advance(1.0)
        is_in_time = comes_back_after_s < 60
        assert made.stats().aggregators[0].late == {"event_time": 0, "held": 0 if is_in_time else 1}
        assert sums.values == ([("unsteady", 1)] if is_in_time else [])


async def test_a_message_that_was_retried_for_too_long_is_late_because_it_was_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, ObeyingStore())
    recorder = PuttingOff()
    source = ManualProducer(recorder.message(Order("unsteady", 1), message_id="1"))
    made = Unsteady(producer=source, aggregators={"sums": Sums()})
    async with running(made) as clock:
        await clock.advance(1.0)
        source.feed.put(recorder.message(Order("de", 70), message_id="2"))
        await clock.advance(100.0)
        made.fails = False
        source.feed.put(recorder.message(Order("de", 2), message_id="3"))
        source.feed.put(recorder.message(Order("unsteady", 1), message_id="1"))
        await clock.advance(1.0)
        assert made.stats().aggregators[0].late == {"event_time": 1, "held": 1}


class Leaving(Recorder):
    """Giving back takes so long that it is not over when the last checkpoint is made."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def release(self, ref: Any, messages: Any) -> None:
        await self.gate.wait()


async def test_a_stop_whose_messages_are_not_given_back_yet_is_not_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObeyingStore()
    use(monkeypatch, store)
    leaving, recorder = Leaving(), Recorder()
    gate = asyncio.Event()

    class Waiting(Shop):
        processors = Processors(concurrency=1, max_demand=2)

        async def handle_message(self, message: Message[Order]) -> None:
            await gate.wait()

    source = ManualProducer(recorder.message(Order("de", 1)), leaving.message(Order("de", 2)))
    made = Waiting(producer=source, aggregators={"sums": Sums()})
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock.advance(1.0)
    gate.set()
    await clock.advance(1.0)
    leaving.gate.set()
    await clock.advance(1.0)
    await soon(stopping)
    assert outcomes(made) == {"acked": 1, "returned": 1}
    assert json.loads(store.commits[-1].memory)["is_clean"] is False
