"""Programs that load one queue file until they are told to stop, and count for themselves; see queue_programs.py.

``python -m tests.producers.queue_load work FILE IDS`` runs a pipeline once it is told to go, and says when it works.
Before it handles a message it appends ``h ID`` to IDS, and once its settlement has returned ``a ID``, so that the order
of the lines says what was acked when. At the end it prints how long each take has waited.

``… put FILE IDS FIRST`` puts numbers from FIRST on, and appends each to IDS once it is confirmed, until it is killed.

``… idle FILE SECONDS`` waits at an empty queue for so long and prints the processor time that this took, and how often
the process woke up.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Hashable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from broadway_py import Message, Pipeline, Processors
from broadway_py.acknowledger import Acknowledger
from broadway_py.producers.queue import QueueOptions, QueueProducer, QueueReader
from broadway_py.producers.queue_acknowledger import QueueAcknowledger
from broadway_py.queue import Queue
from tests.support.counter import HandledIds

NAME = "load"


class Noting(Acknowledger):
    """Says in a file what was acked, once it was."""

    def __init__(self, inner: QueueAcknowledger, ids: HandledIds) -> None:
        self._inner = inner
        self._ids = ids

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Pass it on, then note it."""
        await self._inner.ack(ref, successful, failed)
        self._ids.add(f"a {message.data.decode()}" for message in successful)

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Pass it on."""
        await self._inner.release(ref, messages)


class Timed(QueueReader):
    """Measures its takes, and notes what was acked."""

    def __init__(self, path: str, ids: HandledIds) -> None:
        super().__init__(QueueOptions(path=path, queue=NAME), "shared", "", on_failure_is_given=False)
        self.ids = ids
        self.waits: list[float] = []

    async def open(self) -> None:
        """Open it, and see what is acked."""
        await super().open()
        self._acknowledger = Noting(self._acknowledger, self.ids)  # type: ignore[assignment]  # it needs no more here

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]]:
        """Those of the queue; how long it took when there were any."""
        began = time.perf_counter()
        messages = await super().handle_demand(demand)
        if messages:
            self.waits.append(time.perf_counter() - began)
        return messages


class Load(Pipeline[bytes]):
    processors = Processors(concurrency=4, max_demand=100)
    ids: HandledIds

    async def prepare_messages(self, messages: list[Message[bytes]]) -> None:
        self.ids.add(f"h {message.data.decode()}" for message in messages)

    async def handle_message(self, message: Message[bytes]) -> None:
        pass


async def work(path: str, file: str) -> None:
    ids = HandledIds(Path(file))
    producer = Timed(path, ids)
    pipeline = Load(producer=producer, failure=None)
    pipeline.ids = ids
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with pipeline:
        await pipeline.ready(30)
        print("working", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"waits": producer.waits}), flush=True)


async def put(path: str, file: str, first: int) -> None:
    ids = HandledIds(Path(file))
    async with Queue(path, NAME) as queue:
        print("ready", flush=True)
        for number in count(first, 20):
            await queue.put_many(str(one) for one in range(number, number + 20))
            ids.add(str(one) for one in range(number, number + 20))


async def idle(path: str, seconds: float) -> None:
    pipeline = Load(producer=QueueProducer(path, NAME))
    async with pipeline:
        await pipeline.ready(10)
        seconds_before, waits_before = _used()
        await asyncio.sleep(seconds)
        seconds_after, waits_after = _used()
        print(seconds_after - seconds_before, waits_after - waits_before, flush=True)


def _used() -> tuple[float, int]:
    """The processor time of this process, and how often one of its threads has waited."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", path, ids]:
            asyncio.run(work(path, ids))
        case ["put", path, ids, first]:
            asyncio.run(put(path, ids, int(first)))
        case ["idle", path, seconds]:
            asyncio.run(idle(path, float(seconds)))
