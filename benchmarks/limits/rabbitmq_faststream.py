"""Peer: a FastStream subscriber; prefetch 500, acknowledged by FastStream after each call.

Runs in an environment of its own (see ``benchmarks.peers``), so only the standard library and FastStream are there.
"""

from __future__ import annotations

import asyncio
import logging

from faststream.rabbit import (  # type: ignore[import-not-found]  # only in its own environment
    Channel,
    RabbitBroker,
    RabbitQueue,
)

from benchmarks.measure import Ids, Meter, arguments, run_async


async def drain(url: str, queue: str, messages: int, prefetch: int) -> int:
    """Take and check *messages*; how many were counted."""
    ids = Ids(messages)
    count = 0
    done = asyncio.Event()
    broker = RabbitBroker(url, default_channel=Channel(prefetch_count=prefetch), logger=None)

    @broker.subscriber(  # type: ignore[untyped-decorator]  # FastStream is not seen here
        RabbitQueue(queue, durable=True, declare=False)
    )
    async def handle(body: bytes) -> None:
        nonlocal count
        ids.seen[int(body[:10])] += 1
        count += 1
        if count == messages:
            done.set()

    await broker.start()
    await done.wait()
    await broker.stop()
    ids.check()
    return count


async def measure(url: str, queue: str, messages: int, prefetch: int, *, gate: bool) -> None:
    """Drain the queue once and print the measurement."""
    meter = Meter(gate=gate)
    count = await drain(url, queue, messages, prefetch)
    meter.report("rabbitmq_faststream", count, "faststream", "aio-pika")


if __name__ == "__main__":
    logging.disable()
    asked = arguments(__doc__ or "", broker=True).parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, asked.prefetch, gate=asked.gate))
