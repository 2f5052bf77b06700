"""A broadcaster of announcements: whoever listens gets them all, at the pace of the slowest."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from broadway_py.stage import BroadcastDispatcher, ConsumerStage, ProducerStage, subscribe

__all__ = ["Broadcaster", "Listener", "main"]

log = logging.getLogger(__name__)


class Broadcaster(ProducerStage[str]):
    """Announces what it is told. Demand is not remembered here, because the buffer of the stage is enough."""

    dispatcher = BroadcastDispatcher

    def handle_demand(self, demand: int) -> list[str]:
        """Returns nothing: announcements come from outside."""
        return []

    def announce(self, text: str) -> None:
        """Announces *text* to all listeners. While nobody listens, it waits in the buffer."""
        self.emit([text])

    def handle_info(self, info: Any) -> None:
        """Ends the broadcast: this comes behind all announcements that were made before."""
        self.stop()


class Listener(ConsumerStage[str]):
    """Notes what it hears."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.heard: list[str] = []

    def handle_events(self, events: list[str]) -> None:
        """Notes *events*."""
        for event in events:
            log.info("%s: %s", self.name, event)
        self.heard += events


async def main(announcements: int = 5) -> list[list[str]]:
    """Lets four listeners hear some announcements; two of them hear only a part. Returns what each has heard."""
    selectors: list[Any] = [None, None, lambda text: text.endswith("1"), lambda text: not text.endswith("1")]
    async with (
        Broadcaster() as broadcaster,
        Listener("one") as one,
        Listener("two") as two,
        Listener("three") as three,
        Listener("four") as four,
    ):
        listeners = (one, two, three, four)
        for listener, selector in zip(listeners, selectors, strict=True):
            await subscribe(listener, to=broadcaster, selector=selector)
        for number in range(announcements):
            broadcaster.announce(f"announcement {number}")
        await broadcaster.info("the end")
        for listener in listeners:
            await listener.wait()
        return [listener.heard for listener in listeners]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(main())
