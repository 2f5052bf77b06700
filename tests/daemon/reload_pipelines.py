"""Pipelines that the tests of reloads name in their settings. The tests run them in their own event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from broadway_py import Message, Pipeline


class Recorder(Pipeline[bytes]):
    """Notes every payload that it has handled, and when it starts and ends.

    With ``context: {setup: …}``: setup raises if this is "raises"; it waits for :attr:`gate` if this is "waits".
    With ``context: {waits_for: TEXT}``: the handler of this payload waits for :attr:`gate`.
    """

    #: What happened, in order: (what, name of the pipeline).
    noted: ClassVar[list[tuple[str, str]]] = []
    gate: ClassVar[asyncio.Event]
    #: Set when something waits for the gate.
    at_gate: ClassVar[asyncio.Event]

    @classmethod
    def forget(cls) -> None:
        """Begin anew: a test calls this in its loop."""
        cls.noted.clear()
        cls.gate, cls.at_gate = asyncio.Event(), asyncio.Event()

    async def setup(self) -> None:
        way = self._said("setup")
        if way == "raises":
            raise RuntimeError("the new place cannot be reached")
        if way == "waits":
            await self._wait()
        self.noted.append(("setup", self.name))

    async def teardown(self) -> None:
        self.noted.append(("teardown", self.name))

    async def handle_message(self, message: Message[bytes]) -> None:
        if message.data.decode() == self._said("waits_for"):
            await self._wait()
        self.noted.append((message.data.decode(), self.name))

    def _said(self, what: str) -> str | None:
        return (self.context or {}).get(what)

    async def _wait(self) -> None:
        self.at_gate.set()
        await self.gate.wait()


class RaisesOnTheWay(Pipeline[Any]):
    """Its constructor raises what no constructor should raise."""

    def __init__(self, **options: Any) -> None:
        raise KeyError(Path("canary-3b1f"))

    async def handle_message(self, message: Message[Any]) -> None:
        pass
