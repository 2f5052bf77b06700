"""What travels between the stages of a flow: a list of elements, with what stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from broadway_py._core.window.firing import Firing
from broadway_py._core.window.times import Stamped

__all__ = ["Fired", "Frame", "Origin", "Passed", "Place"]


#: A number, and the indexes of pieces. Places of a source are in the order of their lists.
Place = tuple[int, tuple[int, ...]]


class Origin(NamedTuple):
    """The place of a list in the order of its source.

    The source is where the order begins: a source of the flow, or a stage with windows or a reduction.
    """

    source: int
    #: From 0. Of each number there is one list, or a part of it from each stage of a layer.
    number: int
    #: Where it was cut because it was too long: which piece this is, from 0, and of how many. The next pair says which
    #: piece of that piece, and so on. Empty: it is whole.
    pieces: tuple[tuple[int, int], ...] = ()

    @property
    def place(self) -> Place:
        """Where the list stands in the order of its source."""
        return self.number, _without_zeros([index for index, _ in self.pieces])

    @property
    def next_place(self) -> Place:
        """Where the list that comes next stands in the order of its source."""
        pieces = self.pieces
        for depth in range(len(pieces) - 1, -1, -1):
            index, count = pieces[depth]
            if index + 1 < count:
                return self.number, (*(outer for outer, _ in pieces[:depth]), index + 1)
        return self.number + 1, ()

    @property
    def is_end(self) -> bool:
        """True if no other piece of the same list, or part, comes later."""
        return self.next_place[0] > self.number

    def piece(self, index: int, count: int) -> Origin:
        """Returns the origin of one of *count* pieces of the list."""
        return self._replace(pieces=(*self.pieces, (index, count)))


def _without_zeros(indexes: list[int]) -> tuple[int, ...]:
    # A first piece stands where the list would stand that it is a piece of. So the next place can be told without
    # knowing whether the next list was cut.
    while indexes and not indexes[-1]:
        indexes.pop()
    return tuple(indexes)


class Fired(NamedTuple):
    """What a window of a stage has emitted; for the stage that gathers."""

    #: The stage.
    partition: int
    #: What the window is called: the same in all stages, except that a session belongs to one stage.
    window: str
    #: The window is complete where all windows up to here have passed: the end of a window of event time, in
    #: microseconds, or the number of windows up to it; None: it lasts until the end of the input.
    until: int | None
    firing: Firing
    #: The elements; the accumulator, if the window has no emission of its own.
    elements: Sequence[Any]
    #: The sessions that have fired and then went into this one.
    replaces: tuple[str, ...] = ()


class Passed(NamedTuple):
    """The windows of a stage up to *until* have fired for the last time; for the stage that gathers."""

    partition: int
    until: int


class Frame:
    """A list of elements on its way from one stage to another. It is made once and not changed."""

    __slots__ = ("elements", "first", "high", "is_last", "origin", "partition", "side", "stamped")

    def __init__(
        self,
        elements: list[Any],
        *,
        partition: int = 0,
        origin: Origin | None = None,
        first: Any = None,
        stamped: Stamped | None = None,
        high: int | None = None,
        side: int = 0,
        is_last: bool = False,
    ) -> None:
        self.elements = elements
        #: The stage that it goes to, where that is decided by key.
        self.partition = partition
        #: None: the order of lists does not matter to anybody.
        self.origin = origin
        #: Where the first element stands in its source, for errors: its number, or (file, byte offset). None: unknown.
        self.first = first
        #: The elements with their times and keys, if the stage that it goes to has windows of event time.
        self.stamped = stamped
        #: The highest event time of the whole list that this is a part of, in microseconds. Of pieces, the last has it.
        self.high = high
        #: For a join: 0 for the left side, 1 for the right one.
        self.side = side
        #: True if no more lists follow from the source of :attr:`origin`.
        self.is_last = is_last

    def part(self, partition: int, elements: list[Any], stamped: Stamped | None = None) -> Frame:
        """Returns the list of a stage, of which this is the list of all stages."""
        return Frame(
            elements,
            partition=partition,
            origin=self.origin,
            stamped=stamped,
            high=self.high,
            side=self.side,
            is_last=self.is_last,
        )
