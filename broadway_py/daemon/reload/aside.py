"""Runs what blocks in a thread that holds nothing up: neither the event loop, nor the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["aside"]

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """Returns what *work* returns, or raises what it raises. If this is cancelled, the thread goes on alone.

    An error that is no :class:`Exception`, such as SystemExit, becomes a RuntimeError.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as raised:  # noqa: BLE001  # the caller gets it
            errors.append(raised)
        except BaseException as raised:  # noqa: BLE001  # in a task of the loop it would end the loop
            error = RuntimeError(f"{type(raised).__name__} was raised")
            error.__cause__ = raised
            errors.append(error)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="broadway-reload", daemon=True).start()
    await ended.wait()
    if errors:
        raise errors[0]
    return results[0]
