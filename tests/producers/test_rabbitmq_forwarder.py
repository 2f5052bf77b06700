"""What the copies of one producer share of queues that the broker refused."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.acknowledger import Acknowledger
from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import ProducerError
from broadway_py.message import Message
from broadway_py.producers.rabbitmq.deliveries.message import to_message
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder, Troubled
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.retries.publisher import NoQueue, Publisher
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions


async def test_two_copies_may_look_at_the_same_queue_at_once() -> None:
    troubled = Troubled({"work.retry.125": {"x-message-ttl": 125}})
    declared: list[tuple[str, Mapping[str, Any]]] = []
    both = asyncio.Barrier(2)

    async def declare(queue: str, arguments: Mapping[str, Any]) -> None:
        declared.append((queue, arguments))
        await both.wait()

    async def look(queue: str) -> None:
        raise AssertionError(queue)

    def forwarder() -> Forwarder:
        publisher = cast("Publisher", None)
        return Forwarder(
            RabbitMQOptions(queue="work"), None, publisher, pipeline="ours", clock=SYSTEM_CLOCK, troubled=troubled
        )

    await asyncio.gather(*(forwarder().prepare(["work"], declare, look) for _ in range(2)))
    assert declared == [("work.retry.125", {"x-message-ttl": 125})] * 2
    assert troubled.queues == {}


class Nobody(Acknowledger):
    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        raise AssertionError("nothing is settled in these tests")


def message(tag: int) -> Message[bytes]:
    deliver, header = Basic.Deliver("ours", tag, False, "", "work"), ContentHeader(properties=Basic.Properties())
    delivery = DeliveredMessage(deliver, header, b"%d" % tag, cast("Channel", None))
    return to_message(delivery, Nobody(), RabbitMQOptions(queue="work"))


async def test_what_is_confirmed_stays_so_when_another_ones_queue_is_gone_and_cannot_be_made_again() -> None:
    """Reported as unsafe it would be delivered again, besides the copy that waits."""

    class Refusing:
        def __init__(self) -> None:
            self.published: list[str] = []

        def forget(self, queue: str) -> None:
            pass

        async def declare(self, queue: str, arguments: Mapping[str, Any]) -> float:
            if "work.retry.32000.q2" in self.published:
                raise ProducerError("it may not be declared")
            return SYSTEM_CLOCK.monotonic()

        async def publish(self, letters: Sequence[Letter]) -> list[ProducerError | None]:
            self.published += [letter.queue for letter in letters]
            return [NoQueue("gone") if "32000" in letter.queue else None for letter in letters]

    publisher = Refusing()
    forwarder = Forwarder(
        RabbitMQOptions(queue="work"),
        None,
        cast("Publisher", publisher),
        pipeline="ours",
        clock=SYSTEM_CLOCK,
        troubled=Troubled(),
    )
    reasons = await forwarder.retry([(message(1), 1.0), (message(2), 30.0)])
    assert [reason and str(reason) for reason in reasons] == [None, "it may not be declared"]
    assert publisher.published == ["work.retry.1000.q2", "work.retry.32000.q2"]
