"""Peer: aio-pika publishes with confirms, or aiormq below it, with so many messages on their way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import aio_pika
import aiormq
from pamqp.commands import Basic

from benchmarks.measure import Meter, arguments, run_async

Publish = Callable[[int], Awaitable[object]]


def by_aio_pika(channel: aio_pika.abc.AbstractChannel, queue: str, body_bytes: int) -> Publish:
    """As its guide shows: an exchange publishes a message, and returns when the broker has confirmed it."""
    exchange = channel.default_exchange

    def publish(number: int) -> Awaitable[object]:
        return exchange.publish(
            aio_pika.Message(
                b"%010d".ljust(body_bytes, b".") % number,
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=str(number),
            ),
            queue,
        )

    return publish


def by_aiormq(channel: aiormq.Channel, queue: str, body_bytes: int) -> Publish:
    """The same with the library below, which does not wait until the socket has taken the message."""

    def publish(number: int) -> Awaitable[object]:
        return channel.basic_publish(
            b"%010d".ljust(body_bytes, b".") % number,
            routing_key=queue,
            properties=Basic.Properties(content_type="application/json", delivery_mode=2, message_id=str(number)),
            mandatory=True,
            wait=False,
        )

    return publish


async def in_tasks(publish: Publish, messages: int, at_once: int) -> None:
    """So many tasks publish one message after the other."""
    numbers = iter(range(messages))

    async def each() -> None:
        for number in numbers:
            await publish(number)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(each())


async def in_gathers(publish: Publish, messages: int, at_once: int) -> None:
    """So many are published together, and then the next ones."""
    for start in range(0, messages, at_once):
        await asyncio.gather(*map(publish, range(start, min(start + at_once, messages))))


async def measure(
    url: str, queue: str, messages: int, body_bytes: int, at_once: int, *, low: bool, gather: bool, gate: bool
) -> None:
    """Publish once and print the measurement."""
    meter = Meter(gate=gate)
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        if low:
            publish = by_aiormq(cast("aiormq.Channel", await channel.get_underlay_channel()), queue, body_bytes)
        else:
            publish = by_aio_pika(channel, queue, body_bytes)
        await (in_gathers if gather else in_tasks)(publish, messages, at_once)
    meter.report("publish_rabbitmq_aio_pika", messages, "aio-pika", "aiormq")


if __name__ == "__main__":
    parser = arguments(__doc__ or "", broker=True)
    parser.add_argument("--body", type=int, required=True, help="the size of a body")
    parser.add_argument("--at-once", type=int, default=1000, help="so many are on their way (1000)")
    parser.add_argument("--gather", action="store_true", help="wait for all of them before the next ones")
    parser.add_argument("--low", action="store_true", help="publish with aiormq")
    asked = parser.parse_args()
    ways = {"low": asked.low, "gather": asked.gather, "gate": asked.gate}
    run_async(measure(asked.url, asked.queue, asked.messages, asked.body, asked.at_once, **ways))
