"""Aggregators on sources that mark what they deliver again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broadway_py import Message, Processors
from broadway_py.producer_description import ProducerDescription, described
from broadway_py.producers import MemoryProducer, QueueProducer
from broadway_py.producers.queue_acknowledger import QueueAcknowledger
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.producers.sqs import SQSProducer
from broadway_py.queue import Counts, Queue
from tests.pipeline.aggregation.support import Order, Shop, Sums
from tests.support.eventually import eventually


class Orders(Shop):
    processors = Processors(concurrency=1, max_demand=10)

    def transformer(self, message: Message[Any]) -> None:
        """The queue has text: key, second and amount."""
        key, at, amount = message.data.decode().split()
        message.data = Order(key, float(at), int(amount))


async def test_what_the_embedded_queue_delivers_again_is_not_added_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The acks do not arrive, as if the process had died after the commit."""
    path = str(tmp_path / "q.db")

    def shop() -> Orders:
        return Orders(producer=QueueProducer(path, "q"), aggregators={"sums": Sums}, state=str(tmp_path / "state.db"))

    async with Queue(path, "q") as queue:
        await queue.put_many(["a 1 1", "a 2 2", "b 3 4"])
        with monkeypatch.context() as unreachable:
            unreachable.setattr(QueueAcknowledger, "ack", _unreachable)
            async with shop() as first:
                await eventually(lambda: _outcomes(first)["unknown"] == 3, what="the acks have failed")
        assert await queue.counts() == Counts(ready=3, delayed=0, held=0, dead=0)

        await queue.put_many(["a 4 8", "a 100 16"])
        async with shop() as second:
            await eventually(lambda: _outcomes(second)["acked"] == 5, what="everything is acked")
            sums = second.aggregators["sums"]
            assert isinstance(sums, Sums)
            await eventually(lambda: len(sums.values) == 2, what="the first minute has its results")
        assert sorted(sums.values) == [("a", 11), ("b", 4)]
        assert await queue.counts() == Counts(ready=0, delayed=0, held=0, dead=0)


async def _unreachable(*_: object) -> None:
    raise OSError("unreachable")


def _outcomes(shop: Orders) -> Any:
    return shop.stats().producers[0].outcomes


@pytest.mark.parametrize(
    ("source", "marks"),
    [
        (QueueProducer("q.db", "q"), True),
        (RabbitMQProducer("q"), True),
        (SQSProducer("http://127.0.0.1:1/000000000000/q", region="eu-central-1"), False),
        (described(MemoryProducer([])), False),
    ],
)
def test_each_source_is_known_to_mark_repeats_or_not(source: ProducerDescription, marks: bool) -> None:
    assert source.marks_repeats is marks
