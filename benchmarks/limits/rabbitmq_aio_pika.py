"""Peer: the plain consumer loop of aio-pika's own guide; prefetch 500, every message acknowledged by itself."""

from __future__ import annotations

import aio_pika

from benchmarks.measure import Ids, Meter, arguments, run_async
from benchmarks.rabbitmq_queue import identity


async def drain(url: str, queue: str, messages: int, prefetch: int) -> int:
    """Take, check and acknowledge *messages*; how many were counted."""
    ids = Ids(messages)
    count = 0
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        source = await channel.get_queue(queue, ensure=False)
        async with source.iterator() as deliveries:
            async for message in deliveries:
                ids.seen[identity(message.body)] += 1
                await message.ack()
                count += 1
                if count == messages:
                    break
    ids.check()
    return count


async def measure(url: str, queue: str, messages: int, prefetch: int, *, gate: bool) -> None:
    """Drain the queue once and print the measurement."""
    meter = Meter(gate=gate)
    count = await drain(url, queue, messages, prefetch)
    meter.report("rabbitmq_aio_pika", count, "aio-pika", "aiormq")


if __name__ == "__main__":
    asked = arguments(__doc__ or "", broker=True).parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, asked.prefetch, gate=asked.gate))
