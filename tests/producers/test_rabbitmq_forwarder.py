"""What the copies of one producer share of queues that the broker refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.producers.rabbitmq.forwarder import Forwarder, Troubled
from broadway_py.producers.rabbitmq.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.publisher import Publisher


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
