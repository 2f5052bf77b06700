"""Ordered pipelines on the embedded queue: one owner for each key, whoever else reads the queue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Message, OptionsError, Pipeline, Processors
from broadway_py.producer_description import AnyProducer
from broadway_py.producers import MemoryProducer, QueueProducer
from broadway_py.queue import Counts, NewMessage, Queue
from tests.pipeline.support import soon
from tests.support.eventually import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


class ByKey(Pipeline[Any]):
    """Notes what it handles in *log*, and keeps in *busy* the keys that are in somebody's hands."""

    ordered = True
    processors = Processors(concurrency=3, max_demand=5)

    def __init__(self, log: list[tuple[str, str]], busy: set[str], **options: Any) -> None:
        super().__init__(**options)
        self.log = log
        self.busy = busy

    def partition_by(self, message: Message[Any]) -> Any:
        return message.metadata["key"]

    async def handle_message(self, message: Message[Any]) -> None:
        key = message.metadata["key"]
        assert key not in self.busy, "two messages of one key at the same time"
        self.busy.add(key)
        await asyncio.sleep(0)
        self.busy.discard(key)
        self.log.append((key, message.data.decode()))


def ordered_with_two_workers(*producers: AnyProducer) -> Pipeline[Any]:
    class Keyed(ByKey):
        def __init__(self, **options: Any) -> None:
            super().__init__([], set(), **options)

    return Keyed.from_settings({}, name="orders", path=("pipelines", "orders"), share=(0, 2), producer=list(producers))


def test_ordered_takes_several_workers_where_the_queue_keeps_keys_apart(path: Path) -> None:
    ordered_with_two_workers(QueueProducer(path, "q", partitioned=True))


@pytest.mark.parametrize("other", [MemoryProducer([]), QueueProducer("q.db", "q")])
def test_ordered_is_refused_with_several_workers_where_one_source_does_not(path: Path, other: AnyProducer) -> None:
    with pytest.raises(OptionsError) as refused:
        ordered_with_two_workers(QueueProducer(path, "q", partitioned=True, name="apart"), other)
    assert str(refused.value) == (
        "pipelines.orders.ordered: a key must have one owner, but 2 workers read the same source; set workers: 1, "
        "leave ordered off, part the source (partitions), or use an embedded queue with partitioned: true, whose "
        "messages are put with a key"
    )


def puts(keys: int, each: int) -> list[NewMessage]:
    return [NewMessage(data=str(n), key=f"key-{key}") for n in range(each) for key in range(keys)]


async def test_the_messages_of_a_key_are_handled_in_order_while_pipelines_come_and_go(path: Path) -> None:
    log: list[tuple[str, str]] = []
    busy: set[str] = set()

    def pipeline(name: str) -> ByKey:
        return ByKey(log, busy, producer=QueueProducer(path, "q", partitioned=True), name=name)

    async with Queue(path, "q") as queue, pipeline("first"):
        await queue.put_many(puts(40, 50))
        async with pipeline("second"), pipeline("third"):
            await eventually(lambda: len(log) >= 500, what="a quarter is handled")
        await eventually(lambda: len(log) >= 1_000, what="half is handled")
        async with pipeline("fourth"):
            await queue.put_many(puts(40, 5))
            await eventually(lambda: len(log) >= 2_200, what="everything is handled")
        assert await queue.counts() == Counts(0, 0, 0, 0)

    expected = [*map(str, range(50)), *map(str, range(5))]
    for key in range(40):
        assert [data for owner, data in log if owner == f"key-{key}"] == expected


async def test_an_ordered_pipeline_reads_its_queue_alone_and_another_one_stands_by(path: Path) -> None:
    log: list[tuple[str, str]] = []

    def pipeline(name: str) -> ByKey:
        return ByKey(log, set(), producer=QueueProducer(path, "q", concurrency=2), name=name)

    async with Queue(path, "q") as queue, pipeline("first") as first:
        await soon(first.ready())
        async with pipeline("late") as late:
            await eventually(
                lambda: "waiting until it is free" in str(late.stats().trouble), what="it says why it waits"
            )
            assert late.stats().trouble == (
                f"queue: queue file {path}, queue 'q': an ordered pipeline already reads it alone; waiting "
                "until it is free: for ordered work in several processes, put messages with a key and set "
                "partitioned: true "
                "for every reader"
            )
            await queue.put_many(puts(2, 10))
            await eventually(lambda: len(log) == 20, what="the first one handles everything")
            await first.stop()
            await queue.put_many(puts(2, 10))
            await eventually(lambda: len(log) == 40, timeout=60, what="the other one takes over")
