"""Whole pipelines whose source has partitions: each has its own reader, watermark, windows and file."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter

from broadway_py import (
    Batcher,
    BatchInfo,
    Message,
    MessageFailed,
    Pipeline,
    PipelineCrashed,
    Processors,
    RateLimit,
    Window,
    WindowResult,
)
from broadway_py.errors import OptionsError
from broadway_py.message import BatchMode, Failed
from broadway_py.pipeline.stats import AggregatorStats
from broadway_py.producers import QueueProducer
from broadway_py.queue import NewMessage, Queue
from broadway_py.state.memory import MemoryStore
from broadway_py.storage.errors import StorageError
from broadway_py.testing import FakeClock
from tests.pipeline.aggregation.support import START, ObeyingStore, Order, Shop, Sums, when
from tests.pipeline.support import check_books, logged, outcomes, running, soon, telemetry_events
from tests.support.partitioned import PartitionedBroker, PartitionedProducer

Row = tuple[int | None, str, int]


class Minutes(Sums):
    """Sums of minutes, in which a message may be late by 5 s. Nothing is idle."""

    window = Window.fixed(60, by=when, delay=5, max_ahead=3600, idle_timeout=None)

    @property
    def rows(self) -> list[Row]:
        """Partition, key and value of each result, in the order in which they were emitted."""
        return [(one.partition, one.key, one.value) for results in self.emitted for one in results]


class Parted(Shop):
    """A shop with one aggregator."""

    aggregators = {"sums": Minutes}  # noqa: RUF012  # an option
    state = "var/never-written"


def parted(broker: PartitionedBroker, **options: Any) -> Parted:
    """A shop whose source is *broker*."""
    return Parted(producer=PartitionedProducer(broker), **options)


def sums_of(pipeline: Pipeline[Any], name: str = "sums") -> Minutes:
    own = pipeline.aggregators[name]
    assert isinstance(own, Minutes)
    return own


def parts_of(pipeline: Pipeline[Any]) -> dict[int | None, AggregatorStats]:
    """The figures of the only aggregator, by partition."""
    return {one.partition: one for one in pipeline.stats().aggregators}


async def finish(pipeline: Pipeline[Any]) -> None:
    """Runs *pipeline* to the end of its source."""
    await soon(pipeline.start())
    await soon(pipeline.wait())
    check_books(pipeline)


@pytest.fixture(name="stores")
def _stores(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryStore]:
    """The stores of all paths, in memory. So no thread is needed, and a fake clock moves everything."""
    made: dict[str, MemoryStore] = {}
    place = "broadway_py.pipeline.runtime.stores"
    monkeypatch.setattr(f"{place}.SQLiteStore", lambda path, _: made.setdefault(path, MemoryStore()))
    monkeypatch.setattr(f"{place}.prepare", lambda *_: None)
    return made


@asynccontextmanager
async def ready(pipeline: Pipeline[Any]) -> AsyncIterator[FakeClock]:
    """Runs *pipeline* on a fake clock, from the moment when it reads."""
    async with running(pipeline) as clock:
        await soon(pipeline.ready())
        yield clock


async def test_each_partition_has_its_own_windows_and_file(tmp_path: Path) -> None:
    broker = PartitionedBroker(3)
    expected: Counter[tuple[int | None, str]] = Counter()
    for number in range(60):
        key = number % 7
        broker.put(key % 3, Order(f"key {key}", number % 20, number))
        expected[key % 3, f"key {key}"] += number
    broker.end()
    made = parted(broker, state=tmp_path / "shop")
    await finish(made)
    assert sorted(sums_of(made).rows) == sorted((part, key, value) for (part, key), value in expected.items())
    assert outcomes(made) == {"acked": 60}
    assert sorted(path.name for path in (tmp_path / "shop").glob("*.db")) == ["0.db", "1.db", "2.db"]
    stats = made.stats()
    assert (stats.partitions, stats.owned) == (3, (0, 1, 2))
    assert [one.name for one in stats.producers] == ["orders.0", "orders.1", "orders.2"]
    assert [one["producer"] for one in made.topology()["producers"]] == ["orders.0", "orders.1", "orders.2"]


async def test_windows_go_on_in_the_files_and_what_comes_again_counts_once(tmp_path: Path) -> None:
    broker = PartitionedBroker(2)
    rows: list[Row] = []
    for round_number in range(3):
        made = parted(broker, state=tmp_path / "shop")
        if round_number == 2:
            broker.end()
            await finish(made)
            assert [one.duplicates for one in made.stats().aggregators] == [2, 2]
        else:
            await soon(made.start())
            broker.put(0, Order("a", round_number, 1))
            broker.put(1, Order("b", round_number, 10))
            await broker.until_acked(2 * round_number + 2)
            assert [one.windows_open for one in made.stats().aggregators] == [1, 1]
            await soon(made.stop())
        rows += sums_of(made).rows
        if round_number == 1:
            # All acks were lost.
            for number in range(4):
                broker.ready[number % 2].append((str(number), Order("?", 0, 0), True))
    assert sorted(rows) == [(0, "a", 2), (1, "b", 20)]


@pytest.mark.usefixtures("stores")
async def test_a_partition_that_stands_still_holds_no_other() -> None:
    broker = PartitionedBroker(2)
    made = parted(broker)
    async with ready(made) as clock:
        broker.put(0, Order("a", 1))
        broker.put(1, Order("b", 1), Order("b", 70))
        await clock.advance(1.0)
        assert sums_of(made).rows == [(1, "b", 1)]
        assert {number: one.watermark for number, one in parts_of(made).items()} == {0: START - 4, 1: START + 65}
        broker.put(0, Order("a", 2, 5), Order("a", 70))
        await clock.advance(1.0)
        assert sums_of(made).rows == [(1, "b", 1), (0, "a", 6)]
        # Nobody was late, although the other partition was far ahead.
        assert [one.late for one in made.stats().aggregators] == [{"event_time": 0, "held": 0}] * 2


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_partition_that_cannot_store_stops_no_other_and_makes_nobody_late(
    concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: dict[str, ObeyingStore] = {}
    place = "broadway_py.pipeline.runtime.stores"
    monkeypatch.setattr(f"{place}.SQLiteStore", lambda path, _: stores.setdefault(path, ObeyingStore()))
    monkeypatch.setattr(f"{place}.prepare", lambda *_: None)

    class Impatient(Minutes):
        # With the usual idle_timeout and hold_timeout.
        window = Window.fixed(60, by=when, delay=5, max_ahead=3600)
        max_demand = 10

    broker = PartitionedBroker(2)
    made = parted(broker, aggregators={"sums": Impatient})
    async with ready(made) as clock:
        # One that is added knows it, too.
        made.set_concurrency(processors=concurrency)
        stores["var/never-written/0.db"].faults = [StorageError("the disk is full")] * 10_000
        broker.put(0, *(Order("a", 1) for _ in range(200)))
        await clock.advance(1.0)
        held = len(broker.unacked[0])
        assert 0 < held < 100
        broker.put(1, *(Order("b", 1) for _ in range(100)))
        await clock.advance(1.0)
        assert broker.acked == [(1, Order("b", 1))] * 100
        assert len(broker.unacked[0]) == held
        await clock.advance(600.0)
        # Quiet for so long, it counts as having come further.
        assert sums_of(made).rows == [(1, "b", 100)]
        stores["var/never-written/0.db"].faults = []
        await clock.advance(60.0)
        broker.put(0, Order("a", 70))
        await clock.advance(1.0)
        assert sums_of(made).rows == [(1, "b", 100), (0, "a", 200)]
        assert [one.late for one in made.stats().aggregators] == [{"event_time": 0, "held": 0}] * 2
    assert len(broker.acked) == 301
    assert broker.failed == []


@pytest.mark.usefixtures("stores")
async def test_a_message_in_work_holds_the_watermark_of_its_own_partition_only() -> None:
    release = asyncio.Event()

    class Slow(Parted):
        processors = Processors(concurrency=2, max_demand=10)

        def partition_by(self, message: Message[Order]) -> int:
            return int(message.data.key == "slow")

        async def handle_message(self, message: Message[Order]) -> None:
            if message.data.key == "slow":
                await release.wait()

    broker = PartitionedBroker(2)
    made = Slow(producer=PartitionedProducer(broker))
    async with ready(made) as clock:
        broker.put(0, Order("slow", 1))
        await clock.advance(0.0)
        for partition in (0, 1):
            broker.put(partition, Order(f"key {partition}", 1), Order(f"key {partition}", 70))
            await clock.advance(1.0)
        assert sums_of(made).rows == [(1, "key 1", 1)]
        assert parts_of(made)[0].watermark_held_seconds["in_work"] > 0
        assert parts_of(made)[1].watermark_held_seconds["in_work"] == 0
        release.set()
        await clock.advance(1.0)
        assert sorted(sums_of(made).rows) == [(0, "key 0", 1), (0, "slow", 1), (1, "key 1", 1)]


@pytest.mark.usefixtures("stores")
async def test_a_process_reads_only_what_it_owns() -> None:
    broker = PartitionedBroker(4)
    for partition in range(4):
        broker.put(partition, Order(f"key {partition}", 1, partition))
    broker.end()
    rows: list[Row] = []
    owned = []
    for own, index, workers in (("0,1,3", 0, 2), ("0,1,3", 1, 2), ("2", 0, 1)):
        made = Parted.from_settings(
            {"own": own}, name="shop", producer=PartitionedProducer(broker), share=(index, workers)
        )
        await finish(made)
        owned.append(made.stats().owned)
        rows += sums_of(made).rows
    assert owned == [(0, 3), (1,), (2,)]
    assert rows == [(0, "key 0", 0), (3, "key 3", 3), (1, "key 1", 1), (2, "key 2", 2)]


async def test_partitions_share_processors_and_batchers(stores: dict[str, MemoryStore]) -> None:
    class Both(Parted):
        batchers = {"mail": Batcher(batch_size=4)}  # noqa: RUF012  # an option
        aggregators = {"sums": Minutes, "others": Minutes}  # noqa: RUF012  # an option
        mailed: list[str]

        async def handle_message(self, message: Message[Order]) -> None:
            message.batcher = {"a": "mail", "b": "sums", "c": "others"}[message.data.key[0]]

        async def handle_batch(self, messages: list[Message[Order]], info: BatchInfo) -> None:
            self.mailed += [message.data.key for message in messages]

    broker = PartitionedBroker(2)
    for partition in (0, 1):
        broker.put(partition, *(Order(f"{key}{partition}", 1) for key in "abcabc"))
    broker.end()
    made = Both(producer=PartitionedProducer(broker))
    made.mailed = []
    await finish(made)
    assert sorted(made.mailed) == ["a0", "a0", "a1", "a1"]
    assert sorted(sums_of(made).rows) == [(0, "b0", 2), (1, "b1", 2)]
    assert sorted(sums_of(made, "others").rows) == [(0, "c0", 2), (1, "c1", 2)]
    assert sorted(stores) == ["var/never-written/0.db", "var/never-written/1.db"]
    assert {one.name: one.concurrency for one in made.stats().stages if "sums" in one.name} == {
        "aggregator:sums": 2,
        "emitter:sums": 2,
    }


@pytest.mark.usefixtures("stores")
async def test_spawned_messages_go_to_the_partition_of_their_parent() -> None:
    class Splitting(Parted):
        async def handle_message(self, message: Message[Order]) -> None:
            for part in range(message.data.amount):
                message.spawn(Order(message.data.key, part))

    broker = PartitionedBroker(2)
    broker.put(0, Order("a", 0, 2))
    broker.put(1, Order("b", 0, 3))
    broker.end()
    made = Splitting(producer=PartitionedProducer(broker))
    await finish(made)
    assert sorted(sums_of(made).rows) == [(0, "a", 2), (1, "b", 3)]
    assert len(broker.acked) == 2


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("mode", ["flush", "bulk"])
async def test_a_submitted_message_has_no_partition_and_fails(mode: BatchMode) -> None:
    broker = PartitionedBroker(2)
    made = parted(broker)
    async with ready(made) as clock:
        with pytest.raises(MessageFailed) as failed:
            await soon(made.submit(Order("a", 1), batch_mode=mode))
        status = failed.value.message.status
        assert isinstance(status, Failed)
        assert (status.cause, status.reason) == (
            "unknown_batcher",
            (
                "aggregator 'sums' takes messages of the sources only, because their partition says who owns a key, "
                "and this message was submitted to the pipeline: publish it to the source"
            ),
        )
        # Others in the same chunk are not touched.
        broker.put(1, Order("a", 1))
        await clock.advance(1.0)
        assert len(broker.acked) == 1


@pytest.mark.usefixtures("stores")
async def test_a_child_of_a_submitted_message_fails_too_and_a_batcher_takes_submitted_ones() -> None:
    class Splitting(Parted):
        batchers = {"mail": Batcher(batch_size=1)}  # noqa: RUF012  # an option

        async def handle_message(self, message: Message[Order]) -> None:
            message.batcher = "mail"
            if message.data.key == "parent":
                message.spawn(Order("child", 1), batcher="sums")

        async def handle_batch(self, messages: list[Message[Order]], info: BatchInfo) -> None:
            """Nothing is to be done."""

    made = Splitting(producer=PartitionedProducer(PartitionedBroker(2)))
    async with ready(made):
        await soon(made.submit(Order("other", 1)))
        with pytest.raises(MessageFailed):
            await soon(made.submit(Order("parent", 1)))


@pytest.mark.usefixtures("stores")
async def test_processors_that_are_added_know_the_partitions() -> None:
    broker = PartitionedBroker(2)
    made = parted(broker)
    async with ready(made) as clock:
        made.set_concurrency(processors=3)
        for partition in (0, 1):
            broker.put(partition, *(Order(f"key {partition}", 1) for _ in range(30)), Order(f"key {partition}", 70))
        await clock.advance(1.0)
        assert sorted(sums_of(made).rows) == [(0, "key 0", 30), (1, "key 1", 30)]
        with pytest.raises(MessageFailed):
            await soon(made.submit(Order("a", 1)))


@pytest.mark.usefixtures("stores")
async def test_a_rate_limit_is_shared_and_nobody_counts_as_idle_for_it() -> None:
    class Idling(Minutes):
        window = Window.fixed(60, by=when, delay=5, max_ahead=3600, idle_timeout=10)

    broker = PartitionedBroker(2)
    made = parted(broker, aggregators={"sums": Idling}, rate_limit=RateLimit(allowed_messages=2, interval=30))
    for partition in (0, 1):
        broker.put(partition, *(Order(f"key {partition}", second) for second in range(5)))
    async with ready(made) as clock:
        for allowed in (2, 4, 6, 8, 10):
            await clock.advance(1.0)
            assert len(broker.acked) == allowed
            await clock.advance(29.0)
        # It was always 60 s behind the wall clock, and would have closed windows too early.
        assert [one.late for one in made.stats().aggregators] == [{"event_time": 0, "held": 0}] * 2
        await clock.advance(100.0)
    assert sorted(sums_of(made).rows) == [(0, "key 0", 5), (1, "key 1", 5)]


@pytest.mark.usefixtures("stores")
async def test_a_stop_stores_and_acks_what_each_partition_holds() -> None:
    broker = PartitionedBroker(2)
    made = parted(broker)
    async with ready(made) as clock:
        broker.put(0, Order("a", 1), Order("a", 2))
        broker.put(1, Order("b", 1))
        await clock.advance(0.0)
        assert broker.acked == []
    assert sorted(partition for partition, _ in broker.acked) == [0, 0, 1]
    assert broker.unacked == [{}, {}]
    assert broker.readers == [0, 0]
    assert sums_of(made).rows == []


@pytest.mark.usefixtures("stores")
async def test_setup_and_teardown_of_an_aggregator_run_once_in_a_process() -> None:
    calls: list[str] = []

    class Told(Minutes):
        async def setup(self) -> None:
            calls.append("setup")

        async def teardown(self) -> None:
            calls.append("teardown")

    broker = PartitionedBroker(3)
    broker.end()
    await finish(parted(broker, aggregators={"sums": Told}))
    assert calls == ["setup", "teardown"]


@pytest.mark.usefixtures("stores")
async def test_emit_and_late_have_one_call_at_a_time_for_all_partitions() -> None:
    calls: Counter[str] = Counter()
    most: Counter[str] = Counter()
    gate = asyncio.Event()

    async def take_time(method: str) -> None:
        calls[method] += 1
        most[method] = max(most[method], calls[method])
        await gate.wait()
        calls[method] -= 1

    class Careful(Minutes):
        async def emit(self, results: list[WindowResult[str, int]]) -> None:
            await take_time("emit")
            await super().emit(results)

        async def late(self, messages: list[Message[Order]]) -> None:
            await take_time("late")

    broker = PartitionedBroker(4)
    made = parted(broker, aggregators={"sums": Careful})
    async with ready(made) as clock:
        for seconds in ((1, 70), (2,)):
            for partition in range(4):
                broker.put(partition, *(Order(f"key {partition}", second) for second in seconds))
            gate.clear()
            await clock.advance(1.0)
            gate.set()
            await clock.advance(1.0)
        assert most == {"emit": 1, "late": 1}
        assert len(sums_of(made).rows) == 4
        assert [one.late["event_time"] for one in made.stats().aggregators] == [1, 1, 1, 1]
        assert len(broker.acked) == 12


@pytest.mark.usefixtures("stores")
async def test_telemetry_says_the_partition_by_the_index() -> None:
    broker = PartitionedBroker(2)
    broker.put(1, Order("b", 1))
    broker.end()
    made = parted(broker)
    with telemetry_events("broadway.aggregator.fired") as seen:
        await finish(made)
    assert [(metadata["aggregator"], metadata["index"]) for _, _, metadata in seen] == [("sums", 1)]


# --- a key in two partitions


@pytest.mark.usefixtures("stores")
async def test_a_key_in_two_partitions_is_told_counted_and_degrades(caplog: pytest.LogCaptureFixture) -> None:
    broker = PartitionedBroker(3)
    made = parted(broker)
    async with ready(made) as clock:
        broker.put(0, Order("secret", 1), Order("fine", 1))
        await clock.advance(1.0)
        assert made.stats().trouble is None
        broker.put(2, Order("secret", 1))
        await clock.advance(1.0)
        broker.put(0, Order("secret", 2))
        broker.put(1, Order("secret", 2))
        await clock.advance(1.0)
        assert made.stats().trouble == (
            "degraded: 1 key of aggregator 'sums' came from two partitions of the source, so their results are wrong: "
            "correct the publishers, then start again"
        )
        assert {number: one.keys_of_others for number, one in parts_of(made).items()} == {0: 0, 1: 0, 2: 1}
        told = [line for line in logged(caplog) if "two partitions" in line["event"]]
        assert told == [
            {
                "event": "a key comes from two partitions of the source, so each of them counts a part of it, and "
                "their results have the same ids: see that the publishers give a key to one partition for ever",
                "pipeline": "Parted",
                "aggregator": "sums",
                "partition": 2,
                "other": 0,
            }
        ]
        # Very many such keys give one line.
        broker.put(0, *(Order(f"key {number}", 1) for number in range(20)))
        await clock.advance(1.0)
        broker.put(2, *(Order(f"key {number}", 1) for number in range(20)))
        await clock.advance(1.0)
        assert parts_of(made)[2].keys_of_others == 21
        assert len([line for line in logged(caplog) if "two partitions" in line["event"]]) == 1
        assert "21 keys of aggregator" in str(made.stats().trouble)


# --- the files


async def crash_of(made: Pipeline[Any]) -> str:
    await soon(made.start())
    with pytest.raises(PipelineCrashed) as crash:
        await soon(made.wait())
    return str(crash.value)


async def test_another_number_of_partitions_than_the_files_have_is_refused(tmp_path: Path) -> None:
    broker = PartitionedBroker(2)
    broker.end()
    bigger = PartitionedBroker(3)
    bigger.put(2, Order("a", 1))
    made_before = parted(bigger, state=tmp_path / "shop", own="2")
    await finish(parted(broker, state=tmp_path / "shop"))
    sentence = (
        f"state file {tmp_path / 'shop' / '0.db'}: it belongs to one of 2 partitions, and the sources have 3, so that "
        "its keys may lie in others now: let its windows close with partitions: 2, and then choose another directory"
    )
    with pytest.raises(OptionsError) as refused:
        parted(bigger, state=tmp_path / "shop", own="2")
    assert str(refused.value) == f"state: {sentence}"
    assert await crash_of(made_before) == f"pipeline 'Parted': {sentence}"
    assert bigger.unacked == [{}, {}, {}]
    assert bigger.readers == [0, 0, 0]
    assert not (tmp_path / "shop" / "2.db").exists()


async def test_a_new_file_beside_those_of_other_partitions_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(own: str) -> None:
        broker = PartitionedBroker(3)
        broker.end()
        await finish(parted(broker, state=tmp_path / "shop", own=own))

    await run("0-1")
    assert logged(caplog) == []
    await run("0-2")
    await run("0-2")
    (line,) = logged(caplog)
    sentence = (
        f"state directory {tmp_path / 'shop'}: it has 0.db, 1.db, but not 2.db, which will be new: where such a "
        "partition was read before, its open windows lie on another machine or in a file that was moved, and results "
        "of both have the same ids: stop the pipeline and put that file here"
    )
    assert (line["event"], line["pipeline"]) == (sentence, "Parted")


async def test_a_partition_that_another_process_has_lets_all_wait(tmp_path: Path) -> None:
    path = tmp_path / "shop"
    broker = PartitionedBroker(3)
    first = parted(broker, state=path, own="1")
    await soon(first.start())
    await soon(first.ready())
    second = parted(broker, state=path)
    await soon(second.start())
    waiting = asyncio.Event()
    assert second._life_cycle.run is not None
    state = second._life_cycle.run.window_state
    assert state is not None
    told = state._wait

    def wait(sentence: str) -> None:
        told(sentence)
        waiting.set()

    state._wait = wait  # type: ignore[method-assign]  # to know the moment
    await soon(waiting.wait())
    trouble = second.stats().trouble
    assert trouble is not None
    assert trouble.startswith(f"state file {path / '1.db'}: process ")
    assert trouble.endswith(" has it; standing by until it is free")
    assert broker.readers == [0, 1, 0]
    await soon(first.stop())
    await soon(second.ready())
    assert broker.readers == [1, 1, 1]
    await soon(second.stop())


# --- the embedded queue


class Tens(Minutes):
    """Sums of ten orders of a key."""

    window = Window.count(10)
    #: Set when all keys have their sum, in whatever process.
    found: ClassVar[dict[str, Row]]
    is_complete: ClassVar[asyncio.Event]

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        for one in results:
            assert one.key not in self.found
            self.found[one.key] = (one.partition, one.key, one.value)
        if len(self.found) == 13:
            self.is_complete.set()


async def test_two_processes_share_an_embedded_queue(tmp_path: Path) -> None:
    orders = [Order(f"key {number % 13}", 0, number) for number in range(130)]
    async with Queue(tmp_path / "queue.db", "orders") as queue:
        await queue.put_many([NewMessage(data=TypeAdapter(Order).dump_json(one), key=one.key) for one in orders])
    expected: Counter[str] = Counter()
    for order in orders:
        expected[order.key] += order.amount
    Tens.found, Tens.is_complete = {}, asyncio.Event()
    for round_number in range(3):
        pair = [
            Parted(
                producer=QueueProducer(tmp_path / "queue.db", "orders", name="orders", partitions=4),
                own=own,
                state=tmp_path / "shop",
                schema=Order,
                transformer=_read,
                aggregators={"sums": Tens},
            )
            for own in ("0,2", "1,3")
        ]
        for one in pair:
            await soon(one.start())
        for one in pair:
            await soon(one.ready())
        if round_number == 2:
            await soon(Tens.is_complete.wait())
        for one in pair:
            await soon(one.stop())
    assert {row[1]: row[2] for row in Tens.found.values()} == expected
    partitions = {row[0] for row in Tens.found.values()}
    assert len(partitions) > 1
    assert partitions <= {0, 1, 2, 3}


def _read(message: Message[Any]) -> None:
    message.data = json.loads(message.data)
