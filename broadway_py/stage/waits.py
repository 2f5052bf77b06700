"""Waits until the first of several things has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["first_completed"]


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
