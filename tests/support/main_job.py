"""The main job from outside: a queue on a real broker, a publisher and a daemon beside it, and the files they write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from broadway_py import Pipeline
from tests.support.counter import Counted, number_in, publish_confirmed
from tests.support.daemon import Daemon
from tests.support.erlang import NodeRefusedError
from tests.support.eventually import eventually
from tests.support.rabbitmq import Counts, RabbitMQ

__all__ = ["Job", "aside"]

T = TypeVar("T")


async def aside(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Do what blocks (watching the daemon does) without stopping the test's own event loop, and its proxy with it."""
    return await asyncio.to_thread(call, *arguments, **options)


class Job:
    """One queue, what was put on it, and what handlers say they did with it.

    Args:
        broker: where the queue is; the caller has declared it.
        folder: for the settings and the files of ids.
        queue: its name.
    """

    def __init__(self, broker: RabbitMQ, folder: Path, queue: str = "work") -> None:
        self.broker = broker
        self.queue = queue
        #: Written by the publisher, and by handlers.
        self.published = folder / "published.ids"
        self.handled = folder / "handled.ids"
        self._folder = folder
        self._count = 0

    def settings(self, pipeline: type[Pipeline[Any]], *, url: str | None = None, **section: Any) -> Path:
        """A settings file for one pipeline, ``main``, which notes what it does in :attr:`handled`."""
        file = self._folder / "main.json"
        producer = {
            "kind": "rabbitmq",
            "queue": self.queue,
            "url": url or self.broker.url,
            # To the queue's own dead letters at once; what the failure policy does is told elsewhere.
            "on_failure": "reject",
            **self.broker.settings,
            **section.pop("producer", {}),
        }
        main = {
            "class": f"{pipeline.__module__}:{pipeline.__qualname__}",
            "context": {"handled": str(self.handled)},
            "producer": producer,
            **section,
        }
        file.write_text(json.dumps({"pipelines": {"main": main}}))
        return file

    async def publish(self, count: int, *, rate: int | None = None) -> None:
        """Have *count* further messages put on the queue, by a process of its own; returns when all are confirmed."""
        start, self._count = self._count, self._count + count
        await publish_confirmed(self.broker.url, self.queue, count, self.published, start=start, rate=rate)

    @property
    def counted(self) -> Counted:
        """Published against handled."""
        return Counted.of(self.published, self.handled)

    @property
    def notes(self) -> int:
        """How many ids the handlers have written, repetitions included."""
        return number_in(self.handled)

    async def until_published(self, count: int, *, more: bool = False) -> None:
        """Wait until the broker has confirmed *count* messages; with *more*, so many since this was called."""
        wanted = count + (number_in(self.published) if more else 0)
        await eventually(lambda: number_in(self.published) >= wanted, timeout=60, what=f"{wanted} are published")

    async def until_noted(self, count: int, *, timeout: float = 60.0) -> None:
        """Wait until handlers have written *count* ids."""
        await eventually(lambda: self.notes >= count, timeout=timeout, what=f"handlers have noted {count} messages")

    async def until_empty(self, *, timeout: float = 60.0) -> None:
        """Wait until the queue holds nothing, unacknowledged messages included."""

        async def empty() -> bool:
            return await self.broker.counts(self.queue) == Counts(ready=0, unacked=0)

        # A node that has just come up does not know its queues for a moment.
        await eventually(empty, timeout=timeout, what=f"{self.queue} is empty", ignoring=NodeRefusedError)

    async def stopped_cleanly(self, running: Daemon) -> None:
        """Send SIGTERM and see the daemon drain in time."""
        code, seconds = await aside(running.terminated)
        assert code == 0, "\n".join(running.lines)
        assert seconds < 10, f"the drain of an idle daemon took {seconds:.1f} s"
