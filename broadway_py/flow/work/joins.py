"""Joins: elements of two sides meet by key. A stage keeps what has come for each window."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from broadway_py.flow.description.operators import Join
from broadway_py.flow.operator_errors import OperatorErrors, errors_of_functions
from broadway_py.flow.work.calls import gives_coroutine

__all__ = ["Joiner", "Sides"]

_LEFT, _RIGHT = 0, 1


class Sides:
    """What has come for one window: on the left and on the right, the elements by key."""

    __slots__ = ("by_key",)

    def __init__(self) -> None:
        self.by_key: tuple[dict[Hashable, list[Any]], dict[Hashable, list[Any]]] = {}, {}


class Joiner:
    """Makes the rows of a join.

    An element makes rows with all elements of its key that have come on the other side. What has found no partner gets
    a row when its window closes, if *join* says so.

    Args:
        join: what the user has described.
        errors: what happens when a function fails on an element.
    """

    def __init__(self, join: Join, errors: OperatorErrors) -> None:
        self._join = join
        self._errors = errors
        self._keys = join.left_key, join.right_key
        self.is_async = gives_coroutine(join.fn)

    async def add(self, sides: Sides, elements: Iterable[tuple[int, Any]]) -> list[Any]:
        """Returns the rows that *elements*, each with its side, make with those of the other side."""
        rows: list[Any] = []
        for side, element in elements:
            try:
                key = self._keys[side](element)
                rows += [await self._row(side, element, other) for other in sides.by_key[1 - side].get(key, ())]
                sides.by_key[side].setdefault(key, []).append(element)
            except errors_of_functions(is_async=self.is_async) as error:
                self._errors.element_failed(self._join.label, error, element)
        return rows

    async def unmatched(self, sides: Sides) -> list[Any]:
        """Returns the rows of elements whose key has not come on the other side: those on the left come first."""
        rows: list[Any] = []
        for side, modes in ((_LEFT, ("left_outer", "full_outer")), (_RIGHT, ("right_outer", "full_outer"))):
            if self._join.mode in modes:
                own, others = sides.by_key[side], sides.by_key[1 - side]
                alone = [element for key, found in own.items() if key not in others for element in found]
                rows += await self._rows(side, ((element, (None,)) for element in alone))
        return rows

    async def merge(self, sides: Sides, absorbed: Sides) -> list[Any]:
        """Puts *absorbed* into *sides*. Returns the rows of pairs that were apart before."""
        rows: list[Any] = []
        for side in (_LEFT, _RIGHT):
            others = sides.by_key[1 - side]
            pairs = ((each, others.get(key, ())) for key, found in absorbed.by_key[side].items() for each in found)
            rows += await self._rows(side, pairs)
        for own, other in zip(sides.by_key, absorbed.by_key, strict=True):
            for key, found in other.items():
                own.setdefault(key, []).extend(found)
        return rows

    async def _rows(self, side: int, pairs: Iterable[tuple[Any, Sequence[Any]]]) -> list[Any]:
        rows: list[Any] = []
        for element, others in pairs:
            try:
                rows += [await self._row(side, element, other) for other in others]
            except errors_of_functions(is_async=self.is_async) as error:
                self._errors.element_failed(self._join.label, error, element)
        return rows

    async def _row(self, side: int, element: Any, other: Any) -> Any:
        left, right = (element, other) if side == _LEFT else (other, element)
        row = self._join.fn(left, right)
        return await row if self.is_async else row
