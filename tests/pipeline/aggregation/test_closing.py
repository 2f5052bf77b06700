"""Windows that an operator closes: the wish is in the file, and comes true with the next start, once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from broadway_py import Window
from broadway_py._core.window.saved import text_of_shape
from broadway_py.errors import OptionsError
from broadway_py.pipeline.aggregation.closing import refuse_close
from broadway_py.state.inspection import summaries
from broadway_py.state.store import CloseWish, Loaded
from broadway_py.state.wishes import ask_to_close
from broadway_py.storage.errors import StorageError
from tests.pipeline.aggregation.support import START, ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.aggregation.test_faults import Texts
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    clock_of,
    outcomes,
    running,
    soon,
)

MICROSECONDS = 1_000_000


def sums_of(made: Shop) -> Sums:
    sums = made.aggregators["sums"]
    assert isinstance(sums, Sums)
    return sums


def told(sums: Sums) -> list[tuple[str, int, int, str, bool]]:
    return sorted(
        (one.key, one.value, one.firing, one.trigger, one.is_last) for results in sums.emitted for one in results
    )


def close(path: Path, before: float | None) -> None:
    """What the command of an operator does."""
    end = None if before is None else round(before * MICROSECONDS)
    ask_to_close(str(path), "sums", end, lambda memory: refuse_close(memory, end))


async def store_some(path: Path, *orders: Order) -> None:
    recorder = Recorder()
    made = Shop(producer=ManualProducer(*recorder.messages(orders)), aggregators={"sums": Sums()}, state=path)
    await soon(made.start())
    await recorder.until(len(orders))
    await soon(made.stop())
    assert sums_of(made).emitted == []


async def test_windows_close_with_the_next_start_and_the_wish_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "broadway_py")
    path = tmp_path / "state.db"
    await store_some(path, Order("de", 1, 2), Order("fr", 2, 3))
    close(path, START + 60)

    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 5), Order("de", 61)]))
    made = Shop(producer=source, aggregators={"sums": Sums()}, state=path, failure=None)
    await soon(made.start())
    await recorder.until(2)
    await soon(made.stop())
    assert told(sums_of(made)) == [("de", 2, 1, "closed", True), ("fr", 3, 1, "closed", True)]
    assert outcomes(made) == {"acked": 1, "rejected": 1}
    assert made.stats().aggregators[0].windows_open == 1
    assert caplog.text.count("windows were closed because an operator asked for it") == 1

    ended = ManualProducer()
    ended.feed.end()
    again = Shop(producer=ended, aggregators={"sums": Sums()}, state=path)
    await soon(again.start())
    await soon(again.wait())
    assert told(sums_of(again)) == [("de", 1, 1, "end", True)]
    assert caplog.text.count("windows were closed because an operator asked for it") == 1


async def test_a_wish_beside_a_running_pipeline_waits_for_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1)]))
    made = Shop(producer=source, aggregators={"sums": Sums()}, state=path)
    await soon(made.start())
    await recorder.until(1)
    close(path, None)
    source.feed.put(*recorder.messages([Order("de", 2), Order("fr", 3)]))
    await recorder.until(3)
    close(path, START + 60)
    assert [one.closes for one in summaries(str(path))] == [True]
    await soon(made.stop())
    assert told(sums_of(made)) == []

    ended = ManualProducer()
    ended.feed.end()
    again = Shop(producer=ended, aggregators={"sums": Sums()}, state=path)
    await soon(again.start())
    await soon(again.wait())
    assert told(sums_of(again)) == [("de", 2, 1, "closed", True), ("fr", 1, 1, "closed", True)]
    assert [one.closes for one in summaries(str(path))] == [False]


class Wished(ObeyingStore):
    """An operator has asked to close all windows, after the checkpoint with a certain number."""

    wished_at: int | None = None

    async def load(self, aggregator: str) -> Loaded:
        loaded = await super().load(aggregator)
        is_open = self.wished_at is not None and not any(commit.closed for commit in self.commits)
        return replace(loaded, close_wish=CloseWish(3, None)) if is_open else loaded


async def test_a_wish_whose_results_were_not_stored_comes_true_with_the_start_after_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Wished()
    use(monkeypatch, store)
    recorder = Recorder()
    first = Shop(producer=ManualProducer(*recorder.messages([Order("de", 1)])), aggregators={"sums": Sums})
    async with running(first) as clock:
        await clock.advance(1.0)
        await recorder.until(1)
    store.wished_at = store.commits[-1].number
    store.faults = [StorageError("the disk is full")] * 1_000
    failing = Shop(producer=ManualProducer(), aggregators={"sums": Sums})
    clock = clock_of(failing)
    await soon(failing.start())
    await clock.advance(1.0)
    stopping = asyncio.ensure_future(failing.stop(10.0))
    await clock.advance(11.0)
    await soon(stopping)
    assert sums_of(failing).emitted == []

    store.faults = []
    for expected in ([("de", 1, 1, "closed", True)], []):
        made = Shop(producer=ManualProducer(), aggregators={"sums": Sums})
        async with running(made) as clock:
            await clock.advance(1.0)
        assert told(sums_of(made)) == expected


async def test_a_wish_is_not_lost_when_the_windows_go_back_to_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Wished()
    use(monkeypatch, store)
    recorder = Recorder()
    first = Shop(producer=ManualProducer(*recorder.messages([Order("de", 1)])), aggregators={"sums": Texts})
    async with running(first) as clock:
        await clock.advance(1.0)
        await recorder.until(1)
    store.wished_at = store.commits[-1].number
    source = ManualProducer(*recorder.messages([Order("de", 31), Order("de", 32, -1)]))
    made = Shop(producer=source, aggregators={"sums": Texts}, failure=None)
    texts = made.aggregators["sums"]
    assert isinstance(texts, Texts)
    async with running(made) as clock:
        await clock.advance(1.0)
        await recorder.until(3)
        assert sorted(texts.emitted) == [("de", -30, ["1"]), ("de", 0, ["1"])]
        assert made.stats().aggregators[0].windows_open == 1
    assert outcomes(made) == {"acked": 1, "rejected": 1}


@pytest.mark.parametrize(
    ("shape", "before", "sentence"),
    [
        ("periodic(interval=60.0)", None, "periodic windows close by the clock; nothing was changed"),
        ("count", 1, "--before: windows of count have no end: leave it out; nothing was changed"),
    ],
)
def test_windows_that_cannot_be_closed_so_are_refused(shape: str, before: int | None, sentence: str) -> None:
    memory = json.dumps({"engine": {"shape": shape}}).encode()
    with pytest.raises(OptionsError) as refused:
        refuse_close(memory, before)

    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("window", "before"),
    [
        ("fixed(size=60.0, offset=0.0)", 7),
        ("session", None),
        ("count", None),
        ("global", None),
        ("calendar(day, tz=UTC)", -1),
    ],
)
def test_windows_of_other_kinds_can_be_closed(window: str, before: int | None) -> None:
    refuse_close(json.dumps({"engine": {"shape": window}, "sequence": 3}).encode(), before)


def test_the_kinds_of_windows_are_those_that_are_refused() -> None:
    assert text_of_shape(Window.periodic(60).shape).startswith("periodic(")
    assert text_of_shape(Window.count(3).shape) == "count"
