"""``deduplicate_by`` beside aggregators, and with a source that has partitions: whose file has which ids."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from broadway_py import Message, Pipeline, Processors
from broadway_py.state import inspection
from tests.pipeline.aggregation.support import Order, Sums
from tests.pipeline.deduplication.support import Once, figures, sent
from tests.pipeline.support import ManualProducer, Recorder, outcomes, running, soon
from tests.support.partitioned import PartitionedBroker, PartitionedProducer


class Both(Once):
    """Adds orders to windows. What is no order is only handled."""

    async def handle_message(self, message: Message[Any]) -> None:
        self.handled.append(message.data)
        self.inside.set()
        message.batcher = "sums" if isinstance(message.data, Order) else None


def identities(path: str) -> dict[str, int]:
    """How many identities the file has of each aggregator, and of the handled messages."""
    return {one.name: one.identities for one in inspection.summaries(path)}


async def test_a_message_of_an_aggregator_is_in_the_file_once(tmp_path: Path) -> None:
    path = str(tmp_path / "both.db")
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", Order("k", 1)), ("b", "other")))
    producer.outlives_process = True  # its messages are looked up, so the aggregator keeps their identities
    pipeline = Both(producer=producer, state=path, aggregators={"sums": Sums})
    async with running(pipeline) as clock:
        await soon(pipeline.ready())
        await recorder.until(1)
        await clock.advance(1.0)
        await recorder.until(2)
        producer.feed.put(*sent(recorder, ("a", Order("k", 1)), ("b", "other")))
        await recorder.until(3)
        await clock.advance(1.0)
        await recorder.until(4)
        await clock.advance(0.0)
        assert pipeline.stats().aggregators[0].duplicates == 1
        assert figures(pipeline).duplicates == 1

    # The handler sees a message of an aggregator again, and the aggregator recognises it.
    assert sorted(pipeline.handled, key=str) == [Order("k", 1), Order("k", 1), "other"]
    assert outcomes(pipeline) == {"acked": 4}
    assert await asyncio.to_thread(identities, path) == {"sums": 1, "deduplicate_by": 1}


async def test_a_delivery_that_waits_for_a_message_of_an_aggregator_is_acked_after_its_checkpoint(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "both.db")
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", Order("k", 1)), ("a", Order("k", 1))))
    pipeline = Both(producer=producer, state=path, aggregators={"sums": Sums})
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        assert recorder.count == 0
        await clock.advance(1.0)
        await recorder.until(2)

    assert pipeline.handled == [Order("k", 1)]


class Parted(Pipeline[Any]):
    deduplicate_by = "id"
    processors = Processors(concurrency=1, max_demand=10)

    async def handle_message(self, message: Message[Any]) -> None:
        self.context.append((message.producer, message.data))


async def test_each_partition_has_a_file_with_its_own_ids(tmp_path: Path) -> None:
    broker = PartitionedBroker(2)
    broker.put(0, "a", "b")
    broker.put(1, "c")
    handled: list[Any] = []
    first = Parted(producer=PartitionedProducer(broker), state=tmp_path / "ids", context=handled)
    async with running(first):
        await broker.until_acked(3)
        assert [(one.partition, one.ids) for one in first.stats().deduplication] == [(0, 2), (1, 1)]
    # The acks were lost, and all of it comes again. So does something new.
    for number, (partition, data) in enumerate(broker.acked):
        broker.unacked[partition][str(number)] = data
    names = {data: str(number) for number, data in enumerate(["a", "b", "c"])}
    broker.unacked = [{names["a"]: "a", names["b"]: "b"}, {names["c"]: "c"}]
    broker.bring_back()
    broker.put(1, "d")

    second = Parted(producer=PartitionedProducer(broker), state=tmp_path / "ids", context=handled)
    async with running(second):
        await broker.until_acked(7)
        assert [one.duplicates for one in second.stats().deduplication] == [2, 1]

    assert sorted(handled) == [("orders.0", "a"), ("orders.0", "b"), ("orders.1", "c"), ("orders.1", "d")]
    files = sorted((tmp_path / "ids").glob("*.db"))
    assert [path.name for path in files] == ["0.db", "1.db"]
    assert [await asyncio.to_thread(identities, str(path)) for path in files] == [
        {"deduplicate_by": 2},
        {"deduplicate_by": 2},
    ]
