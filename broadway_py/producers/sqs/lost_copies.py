"""The copies of an SQS producer that have lost their source, and still settle what they handed over."""

from __future__ import annotations

import asyncio

from broadway_py.producers.sqs.session import LAST_POLLS_S, Session

__all__ = ["LostCopies"]


class LostCopies:
    """Owns the tasks of lost copies. All copies of a producer share it, and so do those with former settings."""

    def __init__(self) -> None:
        self._retiring: set[asyncio.Task[None]] = set()

    def retire(self, session: Session) -> None:
        """Starts a task that settles what *session* has handed over, until nothing is left."""
        task = asyncio.get_running_loop().create_task(session.retire(), name="sqs-retire")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def end(self) -> None:
        """Waits some seconds for receives of lost copies: if cut off, they may take messages. Then ends the copies."""
        # The first caller takes the tasks: a second cancel would interrupt their clean end.
        tasks = set(self._retiring)
        self._retiring -= tasks
        if not tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=LAST_POLLS_S)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)
