"""A rate limiter: a consumer that asks by hand, for so many events in each interval."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.examples.stages.counter import Counter
from broadway_py.stage import ConsumerStage, Subscription, subscribe

__all__ = ["RateLimiter", "main"]

log = logging.getLogger(__name__)


class RateLimiter(ConsumerStage[int]):
    """Takes at most *allowed* events of each producer in each *interval* of seconds.

    A timer per subscription says when the next ones are asked for.
    """

    def __init__(self, allowed: int, interval: float, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock=clock)
        self.allowed = allowed
        self.interval = interval
        self.clock = clock
        self.taken: list[tuple[float, list[int]]] = []
        self._pending: dict[Subscription[Any], int] = {}

    def handle_subscribe(self, other: str, subscription: Subscription[int]) -> None:
        """Asks a new producer for the first events."""
        self._pending[subscription] = self.allowed
        self._ask(subscription)

    def handle_cancel(self, cancellation: Any, subscription: Subscription[int]) -> None:
        """Forgets a producer."""
        del self._pending[subscription]

    def handle_events(self, events: list[int], subscription: Subscription[int]) -> None:
        """Notes *events*. They may be asked for again in the next interval."""
        log.info("%s", events)
        self.taken.append((self.clock.monotonic(), events))
        self._pending[subscription] += len(events)

    def _ask(self, subscription: Subscription[int]) -> None:
        if subscription in self._pending:
            count, self._pending[subscription] = self._pending[subscription], 0
            subscription.ask(count)
            self.clock.call_at(self.clock.monotonic() + self.interval, lambda: self._ask(subscription))


async def main(
    end: int = 30, allowed: int = 10, interval: float = 1.0, clock: Clock = SYSTEM_CLOCK
) -> list[tuple[float, list[int]]]:
    """Takes the numbers below *end*. Returns them, list by list, each with the time at which it came."""
    async with Counter(0, end) as counter, RateLimiter(allowed, interval, clock) as limiter:
        await subscribe(limiter, to=counter, mode="manual")
        await limiter.wait()
        return limiter.taken


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(main())
