"""Puts the lists of sources back in order. It is pure: it is given lists, and gives those whose turn it is."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from broadway_py._core.window.times import Stamped
from broadway_py.flow.frames import Frame, Place
from broadway_py.flow.stages.cutting import cut

__all__ = ["Ordered", "Released", "merged"]


S = TypeVar("S", bound=Hashable)


@dataclass(slots=True, eq=False, repr=False)
class _Source(Generic[S]):
    #: How many lists make up a number.
    parts: int
    #: Whose turn it is.
    next: Place = (0, ())
    #: The lists that wait, by their places, with those that they came from. If a number has parts, only numbers count.
    waiting: dict[Place, list[tuple[S, Frame]]] = field(default_factory=dict)
    #: For each sender, the first place that it may still send.
    following: dict[S, Place] = field(default_factory=dict)

    def is_complete(self, lists: list[tuple[S, Frame]]) -> bool:
        """Returns True if *lists*, whose turn it is, are all that there is of their place."""
        if self.parts == 1:
            return True
        return sum(frame.origin is not None and frame.origin.is_end for _, frame in lists) == self.parts


class Released(NamedTuple, Generic[S]):
    """A list whose turn it is, and who has sent it, or the parts of it.

    If it was made of parts and then cut, the senders stand beside its last piece.
    """

    frame: Frame
    senders: tuple[S, ...]


class Ordered(Generic[S]):
    """The lists that a stage has got and cannot work on yet, because one before them is missing.

    Each sender sends the lists of a source, and the pieces of a list, in ascending order. If a number has several
    parts, each of them comes from another sender, in as many pieces as that likes.

    Args:
        parts: for each source, how many lists make up a number. Lists of other sources are not held up.
        senders: the order in which the parts of a number are put together.
        chunk: the most elements of a list that was put together.
    """

    def __init__(self, parts: Mapping[int, int], senders: Iterable[S], chunk: int) -> None:
        self._sources: dict[int, _Source[S]] = {source: _Source(count) for source, count in parts.items()}
        self._rank = {sender: rank for rank, sender in enumerate(senders)}
        self._chunk = chunk
        #: How many lists wait.
        self.waiting = 0

    def add(self, frame: Frame, sender: S) -> Iterator[Released[S]]:
        """Adds a list. Yields what can be worked on now, in order."""
        origin = frame.origin
        source = None if origin is None else self._sources.get(origin.source)
        if source is None or origin is None:
            yield Released(frame, (sender,))
            return
        place, following = origin.place, origin.next_place
        if source.parts > 1:
            place, following = (place[0], ()), (following[0], ())
        source.following[sender] = following
        source.waiting.setdefault(place, []).append((sender, frame))
        self.waiting += 1
        while (lists := source.waiting.get(source.next)) is not None and source.is_complete(lists):
            del source.waiting[source.next]
            self.waiting -= len(lists)
            _, last = lists[-1]
            assert last.origin is not None  # noqa: S101  # it has a place
            source.next = last.origin.next_place if source.parts == 1 else (last.origin.number + 1, ())
            yield from self._released(lists)

    def _released(self, lists: list[tuple[S, Frame]]) -> Iterator[Released[S]]:
        if len(lists) == 1:
            ((sender, frame),) = lists
            yield Released(frame, (sender,))
            return
        # Pieces come before later pieces, whichever stages have sent them.
        in_order = sorted(lists, key=lambda part: (part[1].origin and part[1].origin.place, self._rank[part[0]]))
        *pieces, end = cut(merged([part for _, part in in_order]), self._chunk)
        for piece in pieces:
            yield Released(piece, ())
        yield Released(end, tuple(sender for sender, _ in in_order))

    def may_send_missing(self, sender: S) -> bool:
        """Returns True if a list that others wait for may come from *sender*.

        It must be asked then, however many of its lists wait here: else all would wait for each other.
        """
        return any(
            source.waiting and source.following.get(sender, source.next) <= source.next
            for source in self._sources.values()
        )


def merged(parts: list[Frame]) -> Frame:
    """Returns the parts of a number, or the pieces of its parts, as one list.

    Events with times are put in the order of their times.
    """
    first = parts[0]
    elements = [element for part in parts for element in part.elements]
    stamps = [part.stamped for part in parts if part.stamped is not None]
    return Frame(
        elements,
        origin=None if first.origin is None else first.origin._replace(pieces=()),
        stamped=_in_time(stamps) if stamps else None,
        high=max((part.high for part in parts if part.high is not None), default=None),
        side=first.side,
        is_last=first.is_last,
    )


def _in_time(stamps: list[Stamped]) -> Stamped:
    """Returns the events of *stamps* by their times, so that none is late which was early in another part."""
    events = [event for each in stamps for event in each.events]
    times = [time for each in stamps for time in each.times()]
    keys = None if stamps[0].keys is None else [key for each in stamps for key in each.keys or ()]
    kind = next((each.kind for each in stamps if each.kind is not None), None)
    whole = Stamped(events, raw=times, in_microseconds=True, kind=kind, keys=keys)
    if times:
        whole = whole.part(sorted(range(len(times)), key=times.__getitem__))
        whole.low, whole.high = min(times), max(times)
    return whole
