"""Hands messages over from a producer that fetches by itself to the pipeline that asks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from broadway_py.errors import ProducerError
from broadway_py.message import Message

__all__ = ["HandOver"]


class HandOver:
    """Takes messages from a producer that fetches by itself, and gives them to the pipeline.

    It holds at most as many messages as were asked for. A ``put`` whose messages do not fit waits; the first one to
    wait is served first.
    """

    def __init__(self) -> None:
        self.ready: list[Message[Any]] = []
        self.demand = 0
        self._putting: deque[tuple[list[Message[Any]], asyncio.Future[None]]] = deque()
        self._asked = asyncio.Event()
        self._filled = asyncio.Event()
        self._draining = False
        self._closed = False
        self._failure: ProducerError | None = None

    def _move(self) -> None:
        while self._putting and (self.demand > 0 or self._draining):
            rest, done = self._putting[0]
            room = len(rest) if self._draining else self.demand
            self.ready.extend(rest[:room])
            self.demand = max(0, self.demand - len(rest[:room]))
            del rest[:room]
            if not rest:
                self._putting.popleft()
                if not done.done():
                    done.set_result(None)
        if self.demand > 0:
            self._asked.set()
        else:
            self._asked.clear()
        if self.ready or self._draining:
            self._filled.set()

    async def put(self, messages: Sequence[Message[Any]]) -> None:
        """Hands *messages* over, and waits until all are taken in. Raises as :meth:`Producer.push` does."""
        if self._closed:
            raise ProducerError("the pipeline takes no more messages; push none after draining")
        if not messages:
            return
        done = asyncio.get_running_loop().create_future()
        self._putting.append((list(messages), done))
        self._move()
        await done

    async def wait_for_demand(self) -> int:
        """Waits for a demand of at least one message, and returns it."""
        while self.demand <= 0:
            await self._asked.wait()
        return self.demand

    async def take(self, demand: int) -> list[Message[Any]]:
        """Asks for *demand* messages, waits for the first one, and returns those that are there.

        Raises:
            ProducerError: the source is lost, and nothing is there any more.
        """
        self.demand = max(0, demand - len(self.ready))
        self._move()
        await self._filled.wait()
        taken, self.ready = self.ready[:demand], self.ready[demand:]
        self.demand = 0
        self._asked.clear()
        if self._failure is not None and not taken:
            raise self._failure
        if not self.ready and not self._draining and self._failure is None:
            self._filled.clear()
        return taken

    def fail(self, error: ProducerError) -> None:
        """Ends a :meth:`take` that waits, because the source is lost."""
        self._failure = error
        self._filled.set()

    def drain(self) -> None:
        """Lets every waiting ``put`` through, whatever the demand."""
        self._draining = True
        self._move()

    def close(self) -> list[Message[Any]]:
        """Refuses later messages. Returns those that were handed over and not picked up."""
        self._closed = True
        self.drain()
        taken, self.ready = self.ready, []
        return taken
