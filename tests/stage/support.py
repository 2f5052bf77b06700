"""Stages that count, remember and obey."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from broadway_py.stage import ConsumerStage, ProducerConsumerStage, ProducerStage, Subscription
from broadway_py.testing import settle

__all__ = [
    "Counter",
    "Doubler",
    "Forwarder",
    "Listener",
    "Recorder",
    "run_until_idle",
    "soon",
]

T = TypeVar("T")

DEADLINE = 10.0


async def soon(awaitable: Awaitable[T]) -> T:
    """*awaitable*'s result, or a failed test after :data:`DEADLINE`."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


async def run_until_idle() -> None:
    """Let every task run until it waits."""
    await settle()


class Listener:
    """Notes what a stage is told of its subscriptions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.told: list[Any] = []
        self.subscriptions: list[Subscription[Any]] = []

    def handle_subscribe(self, other: str, subscription: Subscription[Any]) -> None:
        self.told.append(other)
        self.subscriptions.append(subscription)

    def handle_cancel(self, cancellation: Any, subscription: Subscription[Any]) -> None:
        self.told.append(cancellation)

    def handle_info(self, info: Any) -> None:
        self.told.append(info)


class Counter(Listener, ProducerStage[int]):
    """Gives as many numbers as it is asked for, up to *most* in all, then what it was told to give."""

    def __init__(self, first: int = 0, most: int = 10**9, *, ends: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.next, self.most, self.ends = first, first + most, ends
        self.asked: list[int] = []

    def handle_demand(self, demand: int) -> list[int] | None:
        self.asked.append(demand)
        if self.ends and self.next >= self.most:
            return None
        last = min(self.most, self.next + demand)
        events = list(range(self.next, last))
        self.next = last
        return events


class Forwarder(Listener, ProducerStage[Any]):
    """Makes nothing by itself: tests emit its events."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[int] = []

    def handle_demand(self, demand: int) -> list[Any]:
        self.asked.append(demand)
        return []


class Doubler(Listener, ProducerConsumerStage[int, int]):
    """Emits each event twice."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.batches: list[list[int]] = []

    def handle_events(self, events: list[int]) -> list[int]:
        self.batches.append(events)
        return [event for event in events for _ in range(2)]


class Recorder(Listener, ConsumerStage[Any]):
    """Notes each list. It stops in the call after *most* lists, until it is told to go on.

    Args:
        on_events: called with each list.
    """

    def __init__(self, most: int = 10**9, on_events: Callable[[list[Any]], object] | None = None) -> None:
        super().__init__()
        self.batches: list[list[Any]] = []
        self.most = most
        self.may_go_on = asyncio.Event()
        self.on_events = on_events

    @property
    def events(self) -> list[Any]:
        return [event for batch in self.batches for event in batch]

    async def handle_events(self, events: list[Any]) -> None:
        if len(self.batches) >= self.most:
            await self.may_go_on.wait()
        self.batches.append(events)
        self.told.append(events)
        if self.on_events is not None:
            self.on_events(events)
