"""Calls into a producer's code, which may hang, or be cancelled by its client library."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Final

from broadway_py.errors import ProducerError
from broadway_py.foreign import foreign_errors, type_name

__all__ = ["CANCELLED_BY_LIBRARY", "CLOSE_S", "done_unless_stopped", "passing_cancellation"]

#: How long a broken copy may take to close before the next one is opened.
CLOSE_S: Final = 5.0
CANCELLED_BY_LIBRARY: Final = "the client library cancelled the call, as it does when a connection dies"


async def passing_cancellation(work: Awaitable[None]) -> None:
    """Await a producer's *work*; a cancellation that nobody asked for becomes a :class:`ProducerError`.

    What is no :class:`Exception` becomes one: a ``SystemExit`` in a task of ours would end the event loop.
    """
    try:
        await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ProducerError(CANCELLED_BY_LIBRARY) from None
    except foreign_errors() as error:
        if isinstance(error, Exception):
            raise
        raise RuntimeError(f"the producer raised {type_name(error)}, which is no Exception") from error


async def done_unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Do *work*; False when *stop* was set first, and *work* was called off.

    Raises:
        ProducerError: from *work*, or because a library cancelled it.
    """
    doing = asyncio.ensure_future(passing_cancellation(work))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        if doing.cancelled():
            raise ProducerError(CANCELLED_BY_LIBRARY)
        doing.result()
        return True
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.wait({doing, stopping}, timeout=CLOSE_S)
