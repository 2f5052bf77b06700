"""A register whose calls end only when many of them wait: it shows whether a flow calls it side by side."""

from __future__ import annotations

import asyncio
import threading

from broadway_py.examples.playground.register import get_owner

__all__ = ["SlowRegister"]


class SlowRegister:
    """Lets calls wait until *wanted* of them wait at the same time, or one of them has waited *patience* seconds."""

    def __init__(self, wanted: int, patience: float) -> None:
        self.wanted = wanted
        self.patience = patience
        #: The most calls that have waited at the same time.
        self.most = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self._enough = threading.Event()
        self._enough_async = asyncio.Event()

    def get_owner(self, booking_id: str) -> str:
        """Returns the owner. Blocks."""
        if self._comes():
            self._enough.set()
        self._enough.wait(self.patience)
        self._goes()
        self._enough.set()  # who has waited in vain lets the others go, too
        return get_owner(booking_id)

    async def get_owner_async(self, booking_id: str) -> str:
        """Returns the owner. Lets others go on while it waits."""
        if self._comes():
            self._enough_async.set()
        try:
            async with asyncio.timeout(self.patience):
                await self._enough_async.wait()
        except TimeoutError:
            self._enough_async.set()
        finally:
            self._goes()
        return get_owner(booking_id)

    def _comes(self) -> bool:
        with self._lock:
            self._waiting += 1
            self.most = max(self.most, self._waiting)
            return self._waiting >= self.wanted

    def _goes(self) -> None:
        with self._lock:
            self._waiting -= 1
