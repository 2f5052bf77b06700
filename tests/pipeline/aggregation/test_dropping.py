"""Results that an operator drops: never half way, noticed before the next try, and nobody asks the file in vain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Window, WindowResult
from broadway_py.pipeline.aggregation.result_facts import facts_of
from broadway_py.state.inspection import results, verify
from broadway_py.state.wishes import ask_to_drop
from broadway_py.storage.errors import StorageError
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.support import ManualProducer, Recorder, running, soon
from tests.support.eventually import eventually


class Each(Sums):
    """Gives a result for each message. Cannot emit those of refused keys, and waits while its gate is shut."""

    window = Window.count(1)

    def __init__(self, *refused: str, **options: Any) -> None:
        super().__init__(**options)
        self.refused = set(refused)
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        self.calls += 1
        await self.gate.wait()
        if not self.refused.isdisjoint(one.key for one in results):
            raise OSError("refused")
        await super().emit(results)


def shop(each: Each, *keys: str, **options: Any) -> tuple[Shop, Each, ManualProducer]:
    source = ManualProducer(*Recorder().messages([Order(key, 1) for key in keys]))
    made = Shop(producer=source, aggregators={"sums": each}, **options)
    own = made.aggregators["sums"]
    assert isinstance(own, Each)
    return made, own, source


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    store = ObeyingStore()
    use(monkeypatch, store)
    return store


def pending(made: Shop) -> int:
    return made.stats().aggregators[0].results_pending


async def test_a_running_pipeline_drops_a_result_before_it_tries_it_again(
    store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    made, each, _ = shop(Each("bad"), "good", "bad", "fine")
    async with running(made) as clock:
        await clock.advance(10.0)
        assert each.values == [("good", 1), ("fine", 1)]
        calls = each.calls
        store.unwanted_results = [2]
        await clock.advance(30.0)
        assert each.calls == calls
        assert pending(made) == 0
        assert 2 in [sequence for commit in store.commits for sequence in commit.emitted]
        assert caplog.text.count("results were dropped because an operator asked for it") == 1
    assert each.values == [("good", 1), ("fine", 1)]


async def test_a_result_that_is_being_emitted_is_not_dropped_half_way(store: ObeyingStore) -> None:
    made, each, _ = shop(Each(), "good")
    each.gate.clear()
    async with running(made) as clock:
        await clock.advance(1.0)
        assert each.calls == 1
        store.unwanted_results = [1]
        await clock.advance(1.0)
        assert pending(made) == 1
        each.gate.set()
        await clock.advance(1.0)
        assert each.values == [("good", 1)]
        assert pending(made) == 0
    assert [commit.emitted for commit in store.commits if commit.emitted] == [[1]]


async def test_a_result_whose_emit_fails_after_the_wish_is_dropped(store: ObeyingStore) -> None:
    made, each, _ = shop(Each("bad"), "bad")
    each.gate.clear()
    async with running(made) as clock:
        await clock.advance(1.0)
        store.unwanted_results = [1]
        each.gate.set()
        await clock.advance(1.0)
        assert (each.calls, pending(made)) == (1, 0)


async def test_while_the_file_cannot_be_asked_results_are_tried_as_ever(store: ObeyingStore) -> None:
    made, each, _ = shop(Each("bad"), "bad")
    store.unwanted_results = StorageError("the disk reports an error")
    async with running(made) as clock:
        await clock.advance(10.0)
        assert each.calls > 3
        store.unwanted_results = [1]
        await clock.advance(30.0)
        assert pending(made) == 0


async def test_the_file_is_asked_once_where_no_result_fails(store: ObeyingStore) -> None:
    made, each, source = shop(Each(), "a", "b")
    async with running(made) as clock:
        await clock.advance(100.0)
        source.feed.put(*Recorder().messages([Order("c", 1)]))
        await clock.advance(100.0)
        assert len(each.values) == 3
        assert store.asked_for_unwanted == 1


async def test_an_operator_drops_a_result_beside_the_process_that_has_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    made, each, source = shop(Each("bad"), "bad", state=path)
    await soon(made.start())
    await eventually(lambda: made.stats().aggregators[0].results_failing == 1, what="the result failed")
    (due,) = results(str(path))
    assert facts_of(due.content).id.endswith('"bad"')
    ask_to_drop(str(path), [(due.aggregator, due.sequence)])
    await eventually(lambda: list(results(str(path))) == [], what="it is dropped")
    assert pending(made) == 0
    source.feed.put(*Recorder().messages([Order("good", 1)]))
    await eventually(lambda: each.values == [("good", 1)], what="others go on")
    await soon(made.stop())
    assert verify(str(path)) == []


async def test_those_of_many_results_that_were_refused_come_again_in_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    made, each, _ = shop(Each("key 3", "key 7"), *(f"key {number}" for number in range(10)), state=path)
    await soon(made.start())
    await eventually(lambda: made.stats().aggregators[0].results_failing == 2, what="these failed")
    await eventually(lambda: len(list(results(str(path)))) == 2, what="the others are removed")
    left = [facts_of(one.content) for one in results(str(path))]
    await soon(made.stop(0.1))
    assert sorted(key for key, _ in each.values) == [f"key {number}" for number in range(10) if number not in {3, 7}]

    again, later, _ = shop(Each(), state=path)
    await soon(again.start())
    await eventually(lambda: len(later.values) == 2, what="they are taken")
    await eventually(lambda: list(results(str(path))) == [], what="they are removed")
    await soon(again.stop())
    emitted = [one for results in later.emitted for one in results]
    assert [(one.id, one.firing) for one in emitted] == [(one.id, one.firing) for one in left]
    assert later.values == [("key 3", 1), ("key 7", 1)]
    assert verify(str(path)) == []
