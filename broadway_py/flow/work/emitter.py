"""What windows give when they fire, and ``map_batch``: the calls of functions that work on more than one element."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, Final

from broadway_py._core.window.firing import Firing
from broadway_py.flow.description.operators import Emission, KeyedReduction, Operator, Reduction
from broadway_py.flow.operator_errors import Failed, OperatorError, OperatorErrors, errors_of_functions
from broadway_py.flow.work.calls import UserFunction, elements_of, gives_coroutine
from broadway_py.foreign import article, is_a

__all__ = ["Batch", "Emitter"]

#: An accumulator of these types may change after it was emitted, so a copy is emitted.
_CONTAINERS: Final = (dict, list, set, bytearray, deque)


class Emitter:
    """Decides what a window gives when it fires, and what its accumulator is then.

    Args:
        reduction: fills the accumulators.
        emission: None: their elements are emitted.
        index: of the stage, for ``on_trigger``.
        gives_accumulators: the accumulator itself is given if there is no *emission*.
    """

    def __init__(
        self,
        reduction: Reduction | KeyedReduction,
        emission: Emission | None,
        index: int,
        *,
        gives_accumulators: bool = False,
    ) -> None:
        self._index = index
        self._label = reduction.label
        self._emitted = "state" if gives_accumulators else "events"
        self._on_trigger: UserFunction | None = None
        self._takes = 1
        if emission is not None:
            self._label, self._takes = emission.label, emission.takes
            self._emitted = emission.emitted or "events"
            self._on_trigger = None if emission.fn is None else UserFunction(emission.label, emission.fn)
        self.is_async = self._on_trigger is not None and self._on_trigger.is_async

    async def fire(self, accumulator: Any, firing: Firing) -> tuple[Sequence[Any], Any]:
        """Returns what is emitted, and the next accumulator.

        Raises:
            OperatorError: a function has raised, or the accumulator has no elements.
        """
        if self._on_trigger is not None:
            arguments = (accumulator, self._index, firing)[: self._takes]
            return self._decision(await self._on_trigger(*arguments))
        if self._emitted == "nothing":
            return (), accumulator
        if self._emitted == "state":
            emitted = accumulator if firing.final or not is_a(accumulator, _CONTAINERS) else copy(accumulator)
            return (emitted,), accumulator
        why = "as the accumulator, whose elements are emitted"
        return self._elements(accumulator, why, "write emit('state')"), accumulator

    def _decision(self, returned: Any) -> tuple[Sequence[Any], Any]:
        if not (is_a(returned, tuple) and len(returned) == 2):
            kind = f"a tuple of {len(returned)}" if is_a(returned, tuple) else article(returned)
            error = TypeError(f"expected (elements, state) from the function of on_trigger, got {kind}")
            raise OperatorError(Failed(self._label, error)) from error
        elements, accumulator = returned
        advice = "return ([element], state)"
        return self._elements(elements, "as the elements that on_trigger returns", advice), accumulator

    def _elements(self, given: Any, what: str, advice: str) -> Sequence[Any]:
        try:
            if is_a(given, Iterable) or hasattr(type(given), "__getitem__"):
                return list(elements_of(given))
            raise TypeError(f"expected a collection {what}, got {article(given)}: {advice}")
        except errors_of_functions() as error:
            raise OperatorError(Failed(self._label, error)) from error


class Batch:
    """A ``map_batch``: its function works on lists.

    Args:
        operator: what the user has described.
        errors: what happens when the function raises: all of the list is left out, or the flow ends.
    """

    def __init__(self, operator: Operator, errors: OperatorErrors) -> None:
        if operator.fn is None:
            raise TypeError("map_batch needs a function, got None")
        self._fn = operator.fn
        self._label = operator.label
        self._errors = errors
        self.is_async = gives_coroutine(operator.fn)

    async def run(self, elements: list[Any]) -> list[Any]:
        """Returns the elements that the function returns for *elements*."""
        try:
            result = self._fn(elements)
            return list(elements_of(await result if self.is_async else result))
        except errors_of_functions(is_async=self.is_async) as error:
            self._errors.element_failed(self._label, error, None, count=len(elements))
            return []
