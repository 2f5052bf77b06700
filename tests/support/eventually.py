"""Waiting for something that no event announces: another process's file, a broker's count, an HTTP answer.

The only place in the project that looks again and again. Where an event, a future or a line of output says when,
wait for that instead.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, overload

T = TypeVar("T")

#: Seconds between two looks.
_PAUSE: Final = 0.02
#: Seconds until a wait fails, unless its caller says otherwise. They say nothing of speed: a machine that has much else
#: to do takes ten times as long. Less than a test may take under `make sabotage`, where failing is what is asked for.
PATIENCE: Final = 20.0


@overload
async def eventually(
    predicate: Callable[[], Awaitable[T]],
    *,
    timeout: float = ...,
    what: str,
    ignoring: type[Exception] | tuple[type[Exception], ...] = ...,
) -> T: ...


@overload
async def eventually(
    predicate: Callable[[], T],
    *,
    timeout: float = ...,
    what: str,
    ignoring: type[Exception] | tuple[type[Exception], ...] = ...,
) -> T: ...


async def eventually(
    predicate: Callable[[], T | Awaitable[T]],
    *,
    timeout: float = PATIENCE,
    what: str,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """The first true value of *predicate* (a plain or an async function).

    Args:
        predicate: called at once, and again until its value is true.
        timeout: seconds until it fails.
        what: completes the sentence "expected that …, within … s".
        ignoring: errors of *predicate* that mean "not yet"; any other one is raised.

    Raises:
        AssertionError: it did not become true; the text names the last value or the last ignored error.
    """
    last: object = None
    try:
        async with asyncio.timeout(timeout) as limit:
            while True:
                try:
                    found = predicate()
                    value = await found if inspect.isawaitable(found) else found
                except ignoring as not_yet:
                    last = not_yet
                else:
                    if value:
                        return value
                    last = value
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        if not limit.expired():
            raise  # the predicate's own
        raise AssertionError(_sentence(what, timeout, last)) from None


def eventually_sync(
    predicate: Callable[[], T],
    *,
    timeout: float = PATIENCE,
    what: str,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """:func:`eventually` for tests without an event loop; *predicate* is a plain function that does not hang."""
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            value = predicate()
        except ignoring as not_yet:
            last = not_yet
        else:
            if value:
                return value
            last = value
        if time.monotonic() >= deadline:
            raise AssertionError(_sentence(what, timeout, last))
        time.sleep(_PAUSE)


def _sentence(what: str, timeout: float, last: object) -> str:
    return f"expected that {what}, within {timeout:g} s; the last look gave {last!r}"
