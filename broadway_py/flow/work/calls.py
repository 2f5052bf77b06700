"""Calls of the user's functions, which are plain or async."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from broadway_py.flow.description.operators import Reduction
from broadway_py.flow.operator_errors import Failed, OperatorError, errors_of_functions
from broadway_py.foreign import is_a

__all__ = [
    "UserFunction",
    "combining",
    "elements_of",
    "finished",
    "function_label",
    "gives_async_generator",
    "gives_coroutine",
    "merging",
]

T = TypeVar("T")


def gives_coroutine(fn: Callable[..., Any] | None) -> bool:
    """Returns True if a call of *fn* gives a coroutine, which must be awaited."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def gives_async_generator(fn: Callable[..., Any] | None) -> bool:
    """Returns True if a call of *fn* gives an async generator."""
    return inspect.isasyncgenfunction(fn) or inspect.isasyncgenfunction(type(fn).__call__)


def function_label(kind: str, fn: Callable[..., Any] | None) -> str:
    """Returns what names a function that is no operator of the chain in errors, such as ``reduce 2, init: zero``."""
    name = None if fn is None else getattr(fn, "__name__", None)
    return kind if name is None else f"{kind}: {name}"


def elements_of(collection: Any) -> Iterable[Any]:
    """Returns the elements of what a function has returned: of a mapping, its items."""
    found: Iterable[Any] = collection.items() if is_a(collection, Mapping) else collection
    return found


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Returns the result of a *coroutine* that does not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise TypeError("a coroutine of plain functions has waited for something")


class UserFunction:
    """A function of the user that does not work on one element only: if it raises, the flow ends.

    Args:
        label: of the operator that it belongs to.
        fn: plain or async.
    """

    def __init__(self, label: str, fn: Callable[..., Any]) -> None:
        self.label = label
        self.is_async = gives_coroutine(fn)
        self._fn = fn

    async def __call__(self, *arguments: Any) -> Any:
        """Returns the result.

        Raises:
            OperatorError: the function has raised.
        """
        try:
            result = self._fn(*arguments)
            return await result if self.is_async else result
        except errors_of_functions(is_async=self.is_async) as error:
            raise OperatorError(Failed(self.label, error)) from error


def combining(reduction: Reduction) -> UserFunction:
    """Returns the ``combine`` of *reduction*. It fails if it returns None."""
    if reduction.combine is None:
        raise TypeError(f"{reduction.label} has no combine")
    label = function_label(f"{reduction.kind} {reduction.number}, combine", reduction.combine)
    return UserFunction(label, merging(reduction.combine))


def merging(combine: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Returns *combine*, which now raises a TypeError if it returns None."""

    def combined(one: Any, other: Any) -> Any:
        return _not_none(combine(one, other))

    async def combined_later(one: Any, other: Any) -> Any:
        return _not_none(await combine(one, other))

    return combined_later if gives_coroutine(combine) else combined


def _not_none(accumulator: Any) -> Any:
    if accumulator is None:
        raise TypeError("expected an accumulator from combine, got None: return the combined one")
    return accumulator
