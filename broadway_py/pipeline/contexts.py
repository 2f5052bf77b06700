"""Context variables: each call of user code starts with the values that ``setup`` left, not those of the last call.

A task has one context for its whole life, but a stage handles many messages in one task. So the work of a stage is
run step by step inside a context that can be replaced between two messages. This costs nothing while no code sets a
variable.
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
    """Returns True if a variable was set in *context* since it was copied from *base*."""
    try:
        return context != base
    except foreign_errors():
        return True  # a value in it raises when it is compared


@types.coroutine
def drive(work: Coroutine[Any, Any, R], context: Context) -> Generator[Any, Any, R]:
    """Await *work*. Every step runs inside *context*, or in the context that :meth:`StageContext.switch` set."""
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
            except BaseException as thrown:  # noqa: BLE001  # it is thrown into the work below
                error = thrown
            # Not inside the except block: the work must not see this error as the one being handled.
            asked = run(send, None) if error is None else run(throw, error)
    except StopIteration as done:
        result: R = done.value
        return result


@types.coroutine
def _switch(context: Context) -> Generator[Context, None, None]:
    yield context


async def awaited(something: Awaitable[R]) -> R:
    """Awaits *something* in a coroutine."""
    return await something


class StageContext:
    """The context in which the work of a stage runs. The work itself replaces it.

    Args:
        base: the context that a clean context is a copy of.
    """

    __slots__ = ("current",)

    def __init__(self, base: Context) -> None:
        self.current = base.copy()

    def drive(self, work: Coroutine[Any, Any, R]) -> Awaitable[R]:
        """Run *work* in :attr:`current`."""
        return drive(work, self.current)

    def switch(self, context: Context) -> Awaitable[None]:
        """Run the rest of the work in *context*. Only the work that :meth:`drive` runs may call this."""
        self.current = context
        return _switch(context)


class CleanRoom:
    """Calls functions one at a time, each in a context equal to *base*."""

    __slots__ = ("_base", "_context")

    def __init__(self, base: Context) -> None:
        self._base = base
        self._context = base.copy()

    def run(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call *function*; returns its result, or raises its error."""
        context = self._context
        try:
            return context.run(function, *arguments)
        finally:
            if is_changed(context, self._base):
                self._context = self._base.copy()


def take_over(context: Context, before: Context) -> None:
    """Set in the current context the variables that were set in *context* since it was copied from *before*."""
    for variable, value in context.items():
        if variable not in before or before[variable] is not value:
            variable.set(value)
