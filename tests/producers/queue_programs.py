"""Programs of their own that use one queue file; the tests start, count and kill them.

``python -m tests.producers.queue_programs put FILE COUNT`` prints each number once it is confirmed;
``… work FILE IDS [NUMBER PARTITIONS]`` handles the queue, or a partition of it, until its input ends, and appends each
payload to IDS before it settles it. While another reader has the partition, it says so and tries again;
``… hold FILE COUNT`` takes, says so, and never settles;
``… fail FILE -`` runs a pipeline in which all fail for good, and says so of each before it is dead-lettered.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from broadway_py import Message, Pipeline, Processors, Reject
from broadway_py.errors import ProducerError
from broadway_py.producer import Producer
from broadway_py.producer_description import ProducerDescription
from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Queue
from broadway_py.testing.driving import copy_of, settle

NAME = "q"


def _lost(error: ProducerError) -> None:
    raise error


def _reader(path: str, producer: ProducerDescription | None = None) -> Producer:
    described = producer or QueueProducer(path, NAME)
    reader: Producer = copy_of(described, capacity=100, pipeline="program", lost=_lost)
    return reader


async def _opened(path: str, producer: ProducerDescription | None) -> Producer:
    said = False
    while True:
        reader = _reader(path, producer)
        try:
            await reader.open()
        except ProducerError as other:
            if not said:
                print(other, flush=True)
            said = True
            await reader.close()
            await asyncio.sleep(0.05)
        else:
            return reader


async def put(path: str, count: int) -> None:
    async with Queue(path, NAME) as queue, asyncio.TaskGroup() as tasks:

        async def confirmed(number: int) -> None:
            await queue.put(str(number))
            print(number, flush=True)

        for number in range(count):
            tasks.create_task(confirmed(number))


async def work(path: str, ids: str, producer: ProducerDescription | None = None) -> None:
    reader = await _opened(path, producer)
    print("open", flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    draining = asyncio.create_task(_drain_after(ended, reader))
    with Path(ids).open("a", encoding="ascii") as file:
        while messages := await reader.handle_demand(20):
            file.writelines(f"{message.data.decode()}\n" for message in messages)
            file.flush()
            await settle(messages)
    await draining
    await reader.close()


async def _drain_after(ended: asyncio.Task[str], reader: Producer) -> None:
    await ended
    reader.context.begin_draining()
    await reader.prepare_for_draining()


async def hold(path: str, count: int) -> None:
    reader = _reader(path)
    await reader.open()
    taken = 0
    while taken < count:
        taken += len(await reader.handle_demand(count - taken) or ())
    print("held", flush=True)
    await asyncio.to_thread(sys.stdin.read)


class _Failing(Pipeline[bytes]):
    processors = Processors(concurrency=2, max_demand=20)

    async def handle_message(self, message: Message[bytes]) -> None:
        raise Reject("never any good")

    async def handle_failed(self, messages: list[Message[Any]]) -> None:
        for message in messages:
            print(message.data.decode(), flush=True)


async def fail(path: str) -> None:
    async with _Failing(producer=QueueProducer(path, NAME)) as pipeline:
        await pipeline.wait()


if __name__ == "__main__":
    program, file, argument, *part = sys.argv[1:]
    match program:
        case "put":
            asyncio.run(put(file, int(argument)))
        case "work" if part:
            number, partitions = map(int, part)
            whole = QueueProducer(file, NAME, partitions=partitions)
            asyncio.run(work(file, argument, whole.partition(number)))
        case "work":
            asyncio.run(work(file, argument))
        case "hold":
            asyncio.run(hold(file, int(argument)))
        case "fail":
            asyncio.run(fail(file))
