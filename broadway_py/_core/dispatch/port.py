"""The producer's side of its subscriptions: what every dispatcher does.

A dispatcher returns deliveries: ``(consumer, events)`` pairs that the caller must carry out, in order. It also returns
the events that no consumer has asked for. The caller keeps these, and gives them to ``dispatch`` again after an ``ask``
has made ``wanted`` larger. Only the dispatcher for partitions keeps events itself, in a queue for each partition.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Delivery", "Dispatched", "Dispatcher", "NoQueues"]

C = TypeVar("C", bound=Hashable)
E = TypeVar("E")

Delivery = tuple[C, list[E]]
#: The deliveries, the events that nobody has asked for, and the demand that is new to the stage upstream.
Dispatched = tuple[list[Delivery[C, E]], Sequence[E], int]


class Dispatcher(Protocol[C, E]):
    """The interface of a dispatcher."""

    #: The number of events in the queues of partitions.
    queued: int
    #: True if a consumer may subscribe only once.
    exclusive: bool

    def fresh(self) -> Dispatcher[C, E]:
        """Returns a dispatcher with the same settings and no consumers."""

    def check(self, partition: Hashable, selector: Callable[[E], object] | None) -> None:
        """Raises OptionsError if a consumer cannot subscribe with these options."""

    @property
    def wanted(self) -> int:
        """The number of events that :meth:`dispatch` would deliver now."""

    def subscribe(self, consumer: C, partition: Hashable = None, selector: Callable[[E], object] | None = None) -> None:
        """Adds a consumer. It has not asked for anything yet."""

    def cancel(self, consumer: C) -> int:
        """Removes a consumer, and returns the demand that is new to the stage upstream.

        The consumer's open demand is kept. It counts for the next consumer that asks.
        """

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """Notes that *consumer* wants *count* more events.

        Returns the demand that is new to the stage upstream, and the deliveries of events from its partition's queue.
        """

    def take_whole(self, count: int) -> C | None:
        """Returns the only consumer, if it has asked for *count* events or more; None otherwise.

        The caller must deliver *count* events to it: they count as delivered. This is ``dispatch`` for the usual case.
        """

    def dispatch(self, events: Sequence[E]) -> Dispatched[C, E]:
        """Returns the deliveries of *events*, the events that nobody has asked for, and new demand."""

    def lost(self, count: int) -> int:
        """Notes that *count* events are gone that were not delivered. Returns how many must be asked for again."""

    def discard(self, count: int, keep: str) -> int:
        """Removes up to *count* queued events, and returns how many. *keep* is ``"first"`` or ``"last"``."""

    def take_queued(self) -> list[E]:
        """Removes the queued events and returns them, in order."""

    def hold(self, info: Any) -> bool:
        """Keeps *info* behind the queued events. Returns False, and keeps nothing, if no event is queued."""

    def released(self) -> list[Any]:
        """Removes and returns the infos whose events have left."""


class NoQueues(Generic[C, E]):
    """The part of a dispatcher that keeps no events."""

    queued = 0
    exclusive = False

    def take_whole(self, count: int) -> C | None:
        """Returns None: every list goes through ``dispatch``."""
        return None

    def discard(self, count: int, keep: str) -> int:
        """Returns 0: nothing is queued here."""
        return 0

    def take_queued(self) -> list[E]:
        """Returns an empty list: nothing is queued here."""
        return []

    def hold(self, info: Any) -> bool:
        """Returns False: nothing is queued here."""
        return False

    def released(self) -> list[Any]:
        """Returns an empty list: no info is held here."""
        return []
