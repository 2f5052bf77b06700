"""Whole pipelines with aggregators on a fake clock: what makes messages late, and what closes windows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Message, Processors, RateLimit
from broadway_py.storage.errors import StorageError
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.support import ManualProducer, Recorder, outcomes, running


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    store = ObeyingStore()
    use(monkeypatch, store)
    return store


class TwoAtOnce(Shop):
    """Its handler waits for a gate, if there is one for the amount."""

    processors = Processors(concurrency=2, max_demand=1)

    def __init__(self, **options: Any) -> None:
        self.gates: dict[int, asyncio.Event] = {}
        super().__init__(**options)

    async def handle_message(self, message: Message[Order]) -> None:
        if message.data.amount in self.gates:
            await self.gates[message.data.amount].wait()


def sums_of(shop: Shop) -> Sums:
    own = shop.aggregators["sums"]
    assert isinstance(own, Sums)
    return own


async def test_a_handler_that_takes_30_s_makes_nobody_late(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = TwoAtOnce(producer=source, aggregators={"sums": Sums()})
    shop.gates[7] = asyncio.Event()
    async with running(shop) as clock:
        source.feed.put(recorder.message(Order("de", 1, 7)))
        await clock.advance(0.2)
        source.feed.put(*recorder.messages([Order("fr", at) for at in (30, 61, 125, 190)]))
        await clock.advance(30)
        assert sums_of(shop).values == []
        shop.gates[7].set()
        await clock.advance(1)
        assert sorted(sums_of(shop).values) == [("de", 7), ("fr", 1), ("fr", 1), ("fr", 1)]
    assert outcomes(shop) == {"acked": 5}


async def test_a_message_from_next_year_moves_nothing(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = Shop(producer=source, aggregators={"sums": Sums()}, failure=None)
    async with running(shop) as clock:
        source.feed.put(*recorder.messages([Order("de", 1), Order("de", 366 * 86400)]))
        await clock.advance(1)
        source.feed.put(*recorder.messages([Order("de", 2)]))
        await clock.advance(1)
        assert sums_of(shop).values == []
        source.feed.put(*recorder.messages([Order("de", 60)]))
        await clock.advance(1)
        assert sums_of(shop).values == [("de", 2)]
    assert outcomes(shop) == {"acked": 3, "rejected": 1}


async def test_the_last_window_of_a_quiet_source_fires_in_time(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = Shop(producer=source, aggregators={"sums": Sums(delay=10, idle_timeout=60)})
    async with running(shop) as clock:
        await clock.advance(39)  # one second before the end of the minute
        source.feed.put(*recorder.messages([Order("de", 59)]))
        await clock.advance(1 + 60 + 10 - 0.5)
        assert sums_of(shop).values == []
        await clock.advance(1.5)
        assert sums_of(shop).values == [("de", 1)]


async def test_a_source_whose_messages_wait_for_the_rate_limit_is_not_idle(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = Shop(
        producer=source,
        aggregators={"sums": Sums(delay=10)},
        rate_limit=RateLimit(allowed_messages=1, interval=50.0),
        failure=None,
    )
    async with running(shop) as clock:
        # A backlog of yesterday.
        source.feed.put(*recorder.messages([Order("de", place - 86_400) for place in range(6)]))
        await clock.advance(400)
        assert outcomes(shop) == {"acked": 6}


async def test_a_store_that_fails_for_minutes_makes_nobody_late(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = Shop(producer=source, aggregators={"sums": Sums(delay=10)}, failure=None)
    async with running(shop) as clock:
        store.faults = [StorageError("state file var/shop.db: the disk is full: free some space")] * 70
        source.feed.put(*recorder.messages([Order("de", 1)]))
        await clock.advance(1)
        source.feed.put(*recorder.messages([Order("de", 2)]))
        await clock.advance(300)
        store.faults = []
        await clock.advance(10)
        assert outcomes(shop) == {"acked": 2}


async def test_results_that_nobody_takes_for_minutes_make_nobody_late(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = Shop(producer=source, aggregators={"sums": Sums(delay=0, max_pending=1)}, failure=None)
    sums_of(shop).faults = [OSError("away")] * 1_000
    async with running(shop) as clock:
        source.feed.put(*recorder.messages([Order("de", 1), Order("de", 60)]))
        await clock.advance(1)
        source.feed.put(*recorder.messages([Order("de", 61)]))
        await clock.advance(300)
        assert outcomes(shop) == {"acked": 2}
        sums_of(shop).faults = []
        await clock.advance(120)
        assert outcomes(shop) == {"acked": 3}
        assert sums_of(shop).values == [("de", 1), ("de", 2)]


async def test_a_paused_pipeline_closes_nothing(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = TwoAtOnce(producer=source, aggregators={"sums": Sums(delay=10)}, failure=None)
    shop.gates[7] = asyncio.Event()
    async with running(shop) as clock:
        source.feed.put(*recorder.messages([Order("de", 1)]))
        source.feed.put(*recorder.messages([Order("de", 1, 7)]))
        await clock.advance(1)
        await shop.pause()
        await clock.advance(1000)
        shop.gates[7].set()
        await clock.advance(1)
        assert sums_of(shop).values == []
        await shop.resume()
        source.feed.put(*recorder.messages([Order("de", 1)]))
        await clock.advance(1)
        assert outcomes(shop) == {"acked": 3}


async def test_submitted_messages_count_and_move_nothing(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = Shop(producer=source, aggregators={"sums": Sums(delay=10)}, failure=None)
    async with running(shop) as clock:
        source.feed.put(*recorder.messages([Order("de", 1)]))
        await clock.advance(0.5)
        tasks = [asyncio.ensure_future(shop.submit(Order("de", at))) for at in (600, 2)]
        await clock.advance(1)
        await asyncio.gather(*tasks)
        assert sums_of(shop).values == []


async def test_a_wall_clock_that_is_set_right_closes_the_windows_of_a_quiet_source(store: ObeyingStore) -> None:
    """The clock of a machine that has just started is often wrong for some seconds."""
    source, recorder = ManualProducer(), Recorder()
    shop = Shop(producer=source, aggregators={"sums": Sums(delay=10)}, failure=None)
    async with running(shop) as clock:
        source.feed.put(*recorder.messages([Order("de", 1), Order("fr", 61)]))
        await clock.advance(65)
        clock.step_wall(-3600)
        await clock.advance(200)
        assert sums_of(shop).values == []
        clock.step_wall(3600)
        await clock.advance(60)  # idle_timeout
        assert sums_of(shop).values == [("de", 1), ("fr", 1)]


async def test_a_finite_source_beside_another_holds_nothing_after_its_end(store: ObeyingStore) -> None:
    one, other, recorder = ManualProducer(name="one"), ManualProducer(name="other"), Recorder()
    shop = Shop(producer=[one, other], aggregators={"sums": Sums(delay=10, idle_timeout=None)}, failure=None)
    async with running(shop) as clock:
        one.feed.put(*recorder.messages([Order("de", 1)]))
        other.feed.put(*recorder.messages([Order("de", 300)]))
        await clock.advance(1)
        assert sums_of(shop).values == []
        one.feed.end()
        await clock.advance(1)
        assert sums_of(shop).values == [("de", 1)]


class Two(Shop):
    """Sends the messages of one key to an aggregator of their own."""

    async def handle_message(self, message: Message[Order]) -> None:
        message.batcher = "rare" if message.data.key == "rare" else "sums"


async def test_an_aggregator_that_gets_few_messages_of_a_busy_source_closes_its_windows(store: ObeyingStore) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = Two(producer=source, aggregators={"sums": Sums(delay=10), "rare": Sums(delay=10)}, failure=None)
    rare = shop.aggregators["rare"]
    assert isinstance(rare, Sums)
    async with running(shop) as clock:
        source.feed.put(*recorder.messages([Order("rare", 21)]))
        for passed in range(1, 150):
            await clock.advance(1)
            source.feed.put(*recorder.messages([Order("de", 20.0 + passed)]))
            # The end of the window, the idle timeout and the delay.
            assert bool(rare.values) is (passed > 40 + 60 + 10 + 1) or 110 <= passed <= 112
        source.feed.put(*recorder.messages([Order("rare", 20.0 + 149)]))
        await clock.advance(1)
        assert shop.stats().aggregators[1].late == {"event_time": 0, "held": 0}
    assert rare.values == [("rare", 1)]


async def test_messages_that_wait_for_room_for_windows_are_added_before_time_passes_over_them(
    store: ObeyingStore,
) -> None:
    source, recorder = ManualProducer(), Recorder()
    shop = Shop(
        producer=source,
        processors=Processors(concurrency=2, max_demand=1),
        aggregators={"sums": Sums(max_open=2, max_demand=10)},
        failure=None,
    )
    async with running(shop) as clock:
        source.feed.put(*recorder.messages([Order("a", 1), Order("b", 1)]))
        await clock.advance(1)
        source.feed.put(*recorder.messages([Order("c", 200), Order("d", 2), Order("e", 3), Order("f", 4)]))
        await clock.advance(50)
        # Nothing is added before it must be.
        assert recorder.count == 2
        await clock.advance(150)
        (stats,) = shop.stats().aggregators
        assert sum(stats.late.values()) == 0
        assert recorder.count == 6
        assert sorted(sums_of(shop).values) == [("a", 1), ("b", 1), ("d", 1), ("e", 1), ("f", 1)]
