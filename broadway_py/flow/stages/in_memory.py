"""What is in memory gives lists to whoever takes them, without waiting."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from types import MethodDescriptorType, WrapperDescriptorType
from typing import Any, Final

from broadway_py.errors import FlowFailed
from broadway_py.flow.description.layers import FromIterable, Source
from broadway_py.flow.failure import ElementPlace
from broadway_py.flow.frames import Frame
from broadway_py.flow.operator_errors import errors_of_functions
from broadway_py.flow.plan import PlannedSource
from broadway_py.foreign import is_a

__all__ = ["InMemory", "in_memory", "is_in_memory"]

#: The most elements that a stage takes before others get their turn.
_MOST_OF_TURN: Final = 32_000
#: A part of these costs next to nothing, and calls no function of the user.
_SLICED: Final = (list, tuple, range)


def is_in_memory(source: Source) -> bool:
    """Returns True if the elements of *source* are in memory: it has a length, and no Python code iterates it.

    Such code may wait for something, and what a generator has opened must be closed.
    """
    if not isinstance(source, FromIterable) or is_a(source.items, AsyncIterable) or not is_a(source.items, Sized):
        return False
    return isinstance(getattr(type(source.items), "__iter__", None), WrapperDescriptorType | MethodDescriptorType)


def in_memory(planned: PlannedSource) -> InMemory:
    """Returns the elements of the source *planned*, which is in memory, for the stages that take them."""
    source, way = planned.source, planned.way
    assert isinstance(source, FromIterable)  # noqa: S101  # it is in memory
    items: Any = source.items
    return InMemory(items, planned.number, way.chunk, takers=way.stages)


class InMemory:
    """Gives the elements of an iterable, list by list.

    Args:
        items: the iterable, which has a length.
        number: of the source.
        chunk: the most elements of a list, where lists can be told from each other.
        takers: how many stages take the lists.
    """

    #: What has failed, in errors.
    operator = "from_iterable"

    def __init__(self, items: Iterable[Any], number: int, chunk: int, takers: int = 1) -> None:
        #: How many elements were taken.
        self.given = 0
        self._items = items
        self._number = number
        self.chunk = chunk
        self._takers = takers
        self._sliced: Sequence[Any] | None = items if type(items) in _SLICED else None  # type: ignore[assignment]
        self._iterator: Iterator[Any] | None = None

    def share(self) -> int:
        """Returns how many elements a stage may take before others get their turn: all shall get about as many."""
        if self._takers == 1:
            return _MOST_OF_TURN
        if self._sliced is None:
            return self.chunk
        # Fewer and fewer, so that none has to work long when the others have nothing left.
        share = (len(self._sliced) - self.given) // (4 * self._takers)
        return max(self.chunk, min(share, _MOST_OF_TURN))

    def take(self, most: int) -> Frame | None:
        """Returns the next list; None: there is none any more. Its elements may be a range or a tuple.

        Args:
            most: the most elements of the list.

        Raises:
            FlowFailed: the iterable has raised.
        """
        given, sliced = self.given, self._sliced
        elements: Any = self._read(most) if sliced is None else sliced[given : given + most]
        if not elements:
            return None
        self.given = given + len(elements)
        return Frame(elements, first=ElementPlace(self._number, given))

    def _read(self, most: int) -> list[Any]:
        elements: list[Any] = []
        try:
            if self._iterator is None:
                self._iterator = iter(self._items)
            # extend() keeps the elements that came before an error.
            elements.extend(islice(self._iterator, most))
        except errors_of_functions() as error:
            place = f"element {self.given + len(elements)} of source {self._number}"
            raise FlowFailed(self.operator, error, place=place) from error
        return elements
