"""Ours: lists of messages published to RabbitMQ by the sink's port, two lists at a time."""

from __future__ import annotations

import asyncio

from benchmarks.measure import Meter, arguments, run_async
from benchmarks.ours import PACKAGES
from broadway_py.producers.rabbitmq import RabbitMQSink
from broadway_py.publisher import Outgoing

_LISTS = 2
_TIMEOUT_S = 60.0


async def measure(url: str, queue: str, messages: int, body_bytes: int, per_list: int, *, gate: bool) -> None:
    """Publish once, from connecting to the last confirm and the closed connection, and print the measurement."""
    meter = Meter(gate=gate)
    publisher = RabbitMQSink(url, queue=queue).create("benchmark")
    starts = iter(range(0, messages, per_list))

    async def each() -> None:
        for start in starts:
            numbers = range(start, min(start + per_list, messages))
            await publisher.publish([message(number, body_bytes) for number in numbers], timeout=_TIMEOUT_S)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_LISTS if per_list > 1 else 1):
            tasks.create_task(each())
    await publisher.close()
    meter.report("publish_rabbitmq", messages, *PACKAGES, "aio-pika", "aiormq")


def message(number: int, body_bytes: int) -> Outgoing:
    """A message with its number in body and id."""
    data = b"%010d".ljust(body_bytes, b".") % number
    return Outgoing(data=data, message_id=str(number), content_type="application/json")


if __name__ == "__main__":
    parser = arguments(__doc__ or "", broker=True)
    parser.add_argument("--body", type=int, required=True, help="the size of a body")
    parser.add_argument("--list", type=int, default=500, help="the messages of a call (500); 1: one after the other")
    asked = parser.parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, asked.body, asked.list, gate=asked.gate))
