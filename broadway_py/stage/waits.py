"""Waits: until the first of several things has ended, and until an ``await`` that was begun by hand has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from broadway_py.foreign import foreign_errors

__all__ = ["BegunAwait", "first_completed"]


async def first_completed(*waits: Coroutine[Any, Any, object] | asyncio.Future[Any]) -> None:
    """Waits until one of *waits* has ended.

    Coroutines run as tasks of this call. When it returns, or is cancelled, all of them have ended: those that still
    waited were cancelled. Their results and errors are dropped, so pass only what waits. A future or task belongs to
    the caller: it goes on, and the caller reads its result.
    """
    futures = [asyncio.ensure_future(wait) for wait in waits]
    own = [future for future, wait in zip(futures, waits, strict=True) if future is not wait]
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in own:
            task.cancel()
        if own:
            await asyncio.gather(*own, return_exceptions=True)


class BegunAwait:
    """The rest of an ``await`` whose first step was done by hand.

    Args:
        steps: what ``__await__`` has returned.
        waits_for: what its first step has yielded.
    """

    def __init__(self, steps: Generator[Any, Any, Any], waits_for: Any) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as thrown:  # noqa: BLE001  # it belongs to the await that goes on here
                    waits_for = self._steps.throw(thrown)
                else:
                    waits_for = self._steps.send(sent)
        except StopIteration as came:
            return came.value

    async def cancel(self) -> None:
        """Cancels what waits, and returns when it has ended. What it returns or raises is dropped."""
        try:
            self._waits_for = self._steps.throw(asyncio.CancelledError())
            await self
        except foreign_errors(cancellations=True):
            # It is the cancellation, an error in place of it, or the StopIteration of what has returned at once.
            pass
