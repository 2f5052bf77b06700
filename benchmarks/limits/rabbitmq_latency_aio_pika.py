"""Peer: how long a message takes from publish to ack in the plain consumer loop of aio-pika, at an even pace."""

from __future__ import annotations

import time

import aio_pika

from benchmarks.measure import Meter, arguments, run_async
from benchmarks.rabbitmq_pace import began_at, offered, p99


async def latencies(url: str, queue: str, messages: int, prefetch: int) -> list[float]:
    """Seconds from publish to ack, of each of *messages*."""
    found: list[float] = []
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        source = await channel.get_queue(queue, ensure=False)
        async with source.iterator() as deliveries:
            with offered(url, queue, messages):
                async for message in deliveries:
                    await message.ack()
                    found.append(time.monotonic() - began_at(message.body))
                    if len(found) == messages:
                        break
    return found


async def measure(url: str, queue: str, messages: int, prefetch: int, *, gate: bool) -> None:
    """Take all that is offered, and print the measurement."""
    meter = Meter(gate=gate)
    found = await latencies(url, queue, messages, prefetch)
    meter.report("rabbitmq_latency_aio_pika", len(found), "aio-pika", "aiormq", p99_seconds=p99(found))


if __name__ == "__main__":
    asked = arguments(__doc__ or "", broker=True).parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, asked.prefetch, gate=asked.gate))
