"""A counter with a task for each number: a producer, and a supervisor of tasks."""

from __future__ import annotations

import asyncio
import logging

from broadway_py.stage import ConsumerSupervisor, ProducerStage, subscribe

__all__ = ["Counter", "main"]

log = logging.getLogger(__name__)


class Counter(ProducerStage[int]):
    """Counts from *first* as far as it is asked, and ends before *end*."""

    def __init__(self, first: int, end: int) -> None:
        super().__init__()
        self.next = first
        self.end = end

    def handle_demand(self, demand: int) -> list[int] | None:
        """Returns the next *demand* numbers; None at the end."""
        if self.next >= self.end:
            return None
        numbers = list(range(self.next, min(self.end, self.next + demand)))
        self.next += len(numbers)
        return numbers


async def main(end: int = 100, most_tasks: int = 10) -> list[int]:
    """Handles the numbers below *end*, at most *most_tasks* at the same time.

    Returns the numbers in the order in which their tasks have ended.
    """
    done: list[int] = []

    async def handle(number: int) -> None:
        await asyncio.sleep(0)  # something slow
        log.info("%d", number)
        done.append(number)

    async with Counter(0, end) as counter, ConsumerSupervisor(handle) as supervisor:
        await subscribe(supervisor, to=counter, max_demand=most_tasks, cancel="temporary")
        await counter.wait()
        # The children outlive their producer.
        await asyncio.gather(*supervisor.children)
    return done


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(main())
