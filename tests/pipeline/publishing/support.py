"""What the tests of publishers share: a place that obeys, and a pipeline whose handler publishes."""

from __future__ import annotations

import asyncio
from typing import Any

from broadway_py import Message, Pipeline
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import ProducerError
from broadway_py.producers import DummyProducer
from broadway_py.publisher import Outgoing, Publisher, Sink, Unconfirmed
from broadway_py.stage import Wake
from tests.pipeline.support import ONE


class Box(Sink):
    """A place whose confirmations the test gives. Copies of it are the same place."""

    def __init__(self, *, confirms: bool = True) -> None:
        self.state = State(confirms)

    def create(self, name: str, clock: Clock = SYSTEM_CLOCK) -> Publisher:
        self.state.names.append(name)
        return Line(self.state)


class State:
    """What has come, and what happens to it."""

    def __init__(self, confirms: bool) -> None:
        #: Whether each list is confirmed as soon as it comes.
        self.confirms = confirms
        self.names: list[str] = []
        #: Each list that has come, as it is now; and the payloads of each, as they came.
        self.lists: list[Unconfirmed] = []
        self.came: list[list[bytes]] = []
        self.messages: list[Outgoing] = []
        #: The seconds that each list had.
        self.timeouts: list[float] = []
        self.cancelled = 0
        #: What each ``open`` to come raises; None: it succeeds. What ``deliver`` raises.
        self.opening: list[BaseException | None] = []
        self.error: BaseException | None = None
        self.opened = 0
        self.steps: list[str] = []
        self.lines: list[Line] = []

    def confirm_all(self) -> None:
        """Confirm all that has come."""
        for unconfirmed in self.lists:
            for position in list(unconfirmed.waiting):
                unconfirmed.confirm(position)
        self.notify()

    def notify(self) -> None:
        """Let the lists look whether they are over."""
        for line in self.lines:
            line.notify()


class Line(Publisher):
    """Publishes to a :class:`Box`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.is_closed = False
        self._wakes: list[Wake] = []
        state.lines.append(self)

    def notify(self) -> None:
        for wake in self._wakes:
            wake.set()

    async def open(self) -> None:
        self.state.opened += 1
        error = self.state.opening.pop(0) if self.state.opening else None
        if error is not None:
            raise error
        self.state.steps.append("open")

    async def publish(self, messages: Any, *, timeout: float) -> None:
        raise NotImplementedError

    async def deliver(self, unconfirmed: Unconfirmed, *, timeout: float) -> None:
        state = self.state
        if state.error is not None:
            raise state.error
        state.lists.append(unconfirmed)
        state.came.append([message.data for message in unconfirmed.waiting.values()])
        state.messages += unconfirmed.waiting.values()
        state.timeouts.append(timeout)
        if state.confirms:
            for position in list(unconfirmed.waiting):
                unconfirmed.confirm(position)
            self.trouble = None
            return
        wake = Wake()
        self._wakes.append(wake)
        try:
            while not unconfirmed.is_over and not self.is_closed:
                await wake.wait()
        except asyncio.CancelledError:
            state.cancelled += 1
            raise
        finally:
            self._wakes.remove(wake)

    async def close(self) -> None:
        self.state.steps.append("close")
        self.is_closed = True
        self.notify()


class Relay(Pipeline[Any]):
    """Publishes each message to ``out``."""

    producer = DummyProducer()
    processors = ONE

    async def handle_message(self, message: Message[Any]) -> None:
        await self.publishers["out"].publish(message)


def away() -> ProducerError:
    return ProducerError("the broker is away")
