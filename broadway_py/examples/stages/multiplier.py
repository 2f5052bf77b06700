"""Three stages in a row: a counter, a multiplier, a printer."""

from __future__ import annotations

import asyncio
import logging

from broadway_py.examples.stages.counter import Counter
from broadway_py.stage import ConsumerStage, ProducerConsumerStage, subscribe

__all__ = ["Multiplier", "Printer", "main"]

log = logging.getLogger(__name__)


class Multiplier(ProducerConsumerStage[int, int]):
    """Multiplies each number by *factor*."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def handle_events(self, events: list[int]) -> list[int]:
        """Returns the products."""
        return [event * self.factor for event in events]


class Printer(ConsumerStage[int]):
    """Writes the numbers to the log, list by list."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: list[int] = []

    async def handle_events(self, events: list[int]) -> None:
        """Writes *events* to the log."""
        await asyncio.sleep(0)  # something slow
        log.info("%s", events)
        self.printed += events


async def main(end: int = 100, factor: int = 2) -> list[int]:
    """Sends the numbers below *end* through all three stages. Returns what was printed."""
    async with Counter(0, end) as counter, Multiplier(factor) as multiplier, Printer() as printer:
        # From the last to the first, so that nothing is made before somebody wants it.
        await subscribe(printer, to=multiplier, max_demand=10)
        await subscribe(multiplier, to=counter, max_demand=20)
        await printer.wait()
        return printer.printed


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(main())
