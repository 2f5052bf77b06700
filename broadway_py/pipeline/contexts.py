"""Context variables: each call of a user's code starts as clean as ``setup`` has left them, whatever the last one set.

A task has one context for its life, and a stage handles many messages in one task. So a stage's work is driven step by
step inside a context that can be exchanged between two messages, which costs nothing while nobody sets a variable.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

from broadway_py.foreign import foreign_errors

__all__ = ["CleanRoom", "StageContext", "awaited", "drive", "is_changed", "take_over"]

R = TypeVar("R")


def is_changed(context: Context, base: Context) -> bool:
    """True when a variable was set in *context* since it was copied from *base*."""
    try:
        return context != base
    except foreign_errors():
        return True  # a value in it does not let itself be compared


@types.coroutine
def drive(work: Coroutine[Any, Any, R], context: Context) -> Generator[Any, Any, R]:
    """Await *work*, every step of it inside *context*, or in the one that :meth:`StageContext.switch` names."""
    run, send, throw = context.run, work.send, work.throw
    try:
        asked: Any = run(send, None)
        while True:
            if type(asked) is Context:
                run = asked.run
                asked = run(send, None)
                continue
            error: BaseException | None = None
            try:
                yield asked
            except GeneratorExit:
                run(work.close)
                raise
            except BaseException as thrown:  # noqa: BLE001  # it is thrown where it belongs, in the next line
                error = thrown
            # Not in the handler above: nothing may seem to be handled while the work goes on.
            asked = run(send, None) if error is None else run(throw, error)
    except StopIteration as done:
        result: R = done.value
        return result


@types.coroutine
def _switch(context: Context) -> Generator[Context, None, None]:
    yield context


async def awaited(something: Awaitable[R]) -> R:
    """*something* as a coroutine."""
    return await something


class StageContext:
    """The context that a stage's work runs in, which the work itself exchanges.

    Args:
        base: what a clean one is a copy of.
    """

    __slots__ = ("current",)

    def __init__(self, base: Context) -> None:
        self.current = base.copy()

    def drive(self, work: Coroutine[Any, Any, R]) -> Awaitable[R]:
        """Do *work*, in :attr:`current`."""
        return drive(work, self.current)

    def switch(self, context: Context) -> Awaitable[None]:
        """From here on the work runs in *context*. For the driven work alone."""
        self.current = context
        return _switch(context)


class CleanRoom:
    """Calls functions, one at a time, each in a context as clean as *base*."""

    __slots__ = ("_base", "_context")

    def __init__(self, base: Context) -> None:
        self._base = base
        self._context = base.copy()

    def run(self, function: Callable[..., R], *arguments: Any) -> R:
        """*function*'s result, or what it raised."""
        context = self._context
        try:
            return context.run(function, *arguments)
        finally:
            if is_changed(context, self._base):
                self._context = self._base.copy()


def take_over(context: Context, before: Context) -> None:
    """Set here what was set in *context* since it was copied from *before*."""
    for variable, value in context.items():
        if variable not in before or before[variable] is not value:
            variable.set(value)
