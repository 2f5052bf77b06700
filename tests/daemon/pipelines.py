"""Pipelines that the daemon's tests name in their settings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broadway_py import Aggregator, Batcher, BatchInfo, Message, OptionsError, Pipeline, QueuePublisher, Window
from broadway_py.examples.shipments import Shipment, Shipments
from broadway_py.producers import MemoryProducer


class Plain(Pipeline[Any]):
    """Takes what its source has; one batcher, "slow", beside the default."""

    batchers = {"default": Batcher(batch_size=10), "slow": Batcher(batch_size=2)}  # noqa: RUF012  # an option

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: Sequence[Message[Any]], info: BatchInfo) -> None:
        pass


class Finite(Pipeline[Any]):
    """Ends by itself after ten messages."""

    producer = MemoryProducer(range(10))

    async def handle_message(self, message: Message[Any]) -> None:
        message.batcher = None


class Recorder(Pipeline[bytes]):
    """Appends every payload that it has handled to the file ``context["file"]``."""

    async def handle_message(self, message: Message[bytes]) -> None:
        with Path(self.context["file"]).open("ab") as file:
            file.write(message.data + b"\n")


class TellsItsLimits(Pipeline[bytes]):
    """Writes its rate limit and concurrency to a file of this process, in the folder ``context["folder"]``."""

    async def handle_message(self, message: Message[bytes]) -> None:
        limit = self.rate_limit
        with (Path(self.context["folder"]) / f"limits-{os.getpid()}").open("a") as file:
            file.write(f"{limit.allowed_messages} {limit.interval} {self.processors.concurrency}\n")


class LeavesOrphans(Recorder):
    """Starts a program that leaves one behind, for process 1 to reap."""

    async def handle_message(self, message: Message[bytes]) -> None:
        subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)  # it returns at once
        await super().handle_message(message)


class RecordedShipments(Shipments):
    """Appends the ids of what it has handled to a file of this process, in the folder ``context["folder"]``."""

    async def handle_batch(self, messages: Sequence[Message[Shipment]], info: BatchInfo) -> None:
        await super().handle_batch(messages, info)
        with (Path(self.context["folder"]) / f"handled-{os.getpid()}").open("a") as file:
            file.writelines(f"{message.id}\n" for message in messages)


class RefusedInWorkers(Finite):
    """Its settings are wrong, but only a worker notices."""

    def __init__(self, **options: Any) -> None:
        if sys.argv[0].endswith("daemon/__main__.py"):
            raise OptionsError(("context",), "this machine has no licence")
        super().__init__(**options)


class Raiser(Pipeline[bytes]):
    """Raises with the payload in the text, as careless code does."""

    async def handle_message(self, message: Message[bytes]) -> None:
        raise RuntimeError(f"cannot handle {message.data!r}")


class _Noted(Pipeline[bytes]):
    def note(self) -> None:
        with Path(self.context["file"]).open("a") as file:
            file.write("started\n")


class SleepsInThread(_Noted):
    def handle_message(self, message: Message[bytes]) -> None:
        self.note()
        time.sleep(1e6)


class SpinsInThread(_Noted):
    def handle_message(self, message: Message[bytes]) -> None:
        self.note()
        while True:
            pass


class BlocksTheLoop(_Noted):
    async def handle_message(self, message: Message[bytes]) -> None:
        self.note()
        time.sleep(1e6)


class RaisesInSetup(Recorder):
    async def setup(self) -> None:
        raise RuntimeError("no licence")


class NotAPipeline:
    """Something else."""


def a_function() -> None:
    """Something else again."""


class Sums(Aggregator[int, int, int]):
    """Adds up numbers, and has nobody who takes the sums: the settings say where they are published."""

    window = Window.count(3)

    def key(self, message: Message[int]) -> int:
        return 0

    def initial(self) -> int:
        return 0

    def add(self, acc: int, message: Message[int]) -> int:
        return acc + message.data


class Windows(Pipeline[int]):
    """Has an aggregator; its settings come from files."""

    aggregators = {"sums": Sums}  # noqa: RUF012  # an option

    async def handle_message(self, message: Message[int]) -> None:
        pass


class Publishing(Pipeline[int]):
    """Has two publishers; a file may change them."""

    publishers = {  # noqa: RUF012  # an option
        "out": QueuePublisher("class.db", "out"),
        "audit": QueuePublisher("class.db", "audit"),
    }

    async def handle_message(self, message: Message[int]) -> None:
        pass
