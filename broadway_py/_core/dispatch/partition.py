"""Gives each event to the one consumer of its partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from broadway_py._core.dispatch.demand import refuse_selector
from broadway_py._core.dispatch.port import Delivery, Dispatched
from broadway_py.errors import OptionsError
from broadway_py.foreign import article, is_a, shown

__all__ = ["DROP", "PartitionDispatcher"]

C = TypeVar("C", bound=Hashable)
E = TypeVar("E")


class _Drop(Enum):
    DROP = "drop"


#: What the function of a :class:`PartitionDispatcher` returns for an event that nobody is to get.
DROP: Final = _Drop.DROP


class PartitionDispatcher(Generic[C, E]):
    """Gives each event to the one consumer of its partition, in order.

    Upstream sees only the sum of the demand. A producer cannot tell which partition has demand, so the queue of a busy
    partition grows, by at most the whole demand. The queue waits for the next consumer when its consumer leaves.

    Args:
        partitions: the number of partitions, which are then called 0, 1, …, or their names.
        hash: event -> partition. None means any partition; the one with the most unused demand is taken. ``DROP``
            leaves the event out, at no demand. Without it, Python's own hash of the event chooses; equal events get the
            same partition, but another one in another process.

    Raises:
        OptionsError: there is no partition, a name does not hash, *hash* is no function, or partitions have names and
            there is no *hash*.
    """

    exclusive = False

    def __init__(
        self,
        partitions: int | Iterable[Hashable],
        hash: Callable[[E], Any] | None = None,  # noqa: A002  # the name that GenStage gave it
    ) -> None:
        names = _names(partitions)
        if hash is None and not is_a(partitions, int):
            raise OptionsError(
                ("dispatcher", "hash"), "expected a function event -> partition, because the partitions have names"
            )
        if hash is not None and not callable(hash):
            raise OptionsError(("dispatcher", "hash"), f"expected a function event -> partition, got {article(hash)}")
        self._hash = hash
        self._spare: dict[Any, int] = dict.fromkeys(names, 0)
        self._queues: dict[Any, deque[E]] = {partition: deque() for partition in names}
        # The number of events that have left the queue of each partition, and the infos that wait until they have.
        self._passed: dict[Any, int] = dict.fromkeys(names, 0)
        self._infos: deque[tuple[Any, dict[Any, int]]] = deque()
        self._consumers: dict[Any, C] = {}
        self._partitions: dict[C, Any] = {}
        self._orphaned = 0
        #: The number of events that wait for the consumer of their partition.
        self.queued = 0

    def fresh(self) -> PartitionDispatcher[C, E]:
        """Returns a dispatcher with the same partitions and no consumers."""
        names = list(self._spare)
        return PartitionDispatcher(names if self._hash else len(names), self._hash)

    def check(self, partition: Hashable, selector: Callable[[E], object] | None) -> None:
        """Raises OptionsError if *partition* is missing, unknown or taken, or a selector is given."""
        refuse_selector(selector)
        try:
            is_known = partition in self._spare
        except TypeError:  # it does not hash
            is_known = False
        if not is_known:
            what = "none" if partition is None else shown(partition)
            raise OptionsError(("partition",), f"expected one of {self._known()}, got {what}")
        if partition in self._consumers:
            raise OptionsError(("partition",), f"expected one without a consumer, but {partition!r} has one")

    def _known(self) -> str:
        return ", ".join(map(shown, self._spare))

    def _unknown(self, partition: object) -> OptionsError:
        # The value is left out: it may be a part of the event.
        return OptionsError(
            ("dispatcher", "hash"),
            f"expected one of {self._known()}, None or DROP, got {article(partition)} for an event",
        )

    @property
    def wanted(self) -> int:
        """Returns 0: what is not delivered is queued here, and the caller keeps nothing."""
        return 0

    def subscribe(self, consumer: C, partition: Hashable = None, selector: Callable[[E], object] | None = None) -> None:
        """Adds a consumer for *partition*. It has not asked for anything yet."""
        self._consumers[partition] = consumer
        self._partitions[consumer] = partition

    def cancel(self, consumer: C) -> int:
        """Removes a consumer. The queue of its partition waits for the next consumer of that partition."""
        partition = self._partitions.pop(consumer)
        del self._consumers[partition]
        self._orphaned += self._spare[partition]
        self._spare[partition] = 0
        return 0

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """Notes that *consumer* wants *count* more events.

        Returns the demand that is new to the stage upstream, and the deliveries of events queued for its partition.
        """
        partition = self._partitions[consumer]
        self._spare[partition] += count
        known = min(self._orphaned, count)
        self._orphaned -= known
        deliveries: list[Delivery[C, E]] = []
        if self._queues[partition] and self._spare[partition]:
            self._serve(partition, deliveries)
        return count - known, deliveries

    def take_whole(self, count: int) -> C | None:
        """Returns None: each event has its partition."""
        return None

    def dispatch(self, events: Sequence[E]) -> Dispatched[C, E]:
        """Returns the deliveries of *events* to their partitions. Events without demand are queued.

        Raises:
            OptionsError: the function returned something that is no partition. None of *events* is queued then.
        """
        if self._hash is None:
            routed = _by_hash(events, len(self._queues))
        else:
            routes = [self._hash(event) for event in events]
            try:
                routed = {routes[0]: list(events)} if len(routes) == 1 else _grouped(routes, events)
            except TypeError:
                unfit = (route for route in routes if not is_a(route, Hashable))
                raise self._unknown(next(unfit, routes[-1])) from None
            for partition in routed:
                if partition not in self._queues:
                    return self._dispatch_with_exceptions(events, routes)
        deliveries: list[Delivery[C, E]] = []
        for partition, part in routed.items():
            if not self._queues[partition] and (left := self._spare[partition] - len(part)) >= 0:
                # The usual case does not go through the queue.
                self._spare[partition] = left
                deliveries.append((self._consumers[partition], part))
            else:
                self._queues[partition] += part
                self.queued += len(part)
                if self._spare[partition]:
                    self._serve(partition, deliveries)
        return deliveries, (), 0

    def _dispatch_with_exceptions(self, events: Sequence[E], routes: Sequence[Any]) -> Dispatched[C, E]:
        """Works as :meth:`dispatch` for a list of which not every event has a partition of its own."""
        queues = self._queues
        for partition in routes:
            if partition is not None and partition is not DROP and partition not in queues:
                raise self._unknown(partition)
        touched: dict[Any, None] = {}
        dropped = 0
        for route, event in zip(routes, events, strict=True):
            if route is DROP:
                dropped += 1
                continue
            partition = route
            if route is None:
                partition = max(self._spare, key=lambda name: self._spare[name] - len(queues[name]))
            queues[partition].append(event)
            self.queued += 1
            touched[partition] = None
        deliveries: list[Delivery[C, E]] = []
        for partition in touched:
            if self._spare[partition]:
                self._serve(partition, deliveries)
        return deliveries, (), self.lost(dropped)

    def _serve(self, partition: Any, deliveries: list[Delivery[C, E]]) -> None:
        """Adds a delivery of what is queued for *partition*, whose consumer has demand."""
        spare, queue = self._spare[partition], self._queues[partition]
        if len(queue) <= spare:
            served = list(queue)
            queue.clear()
        else:
            served = [queue.popleft() for _ in range(spare)]
        self._spare[partition] = spare - len(served)
        self._left(partition, len(served))
        deliveries.append((self._consumers[partition], served))

    def _left(self, partition: Any, count: int) -> None:
        self.queued -= count
        # The places of infos count from any event, so nothing need be counted while there are none.
        if self._infos:
            self._passed[partition] += count

    def lost(self, count: int) -> int:
        """Notes that *count* undelivered events are gone. Demand of consumers that left is not asked for again."""
        known = min(self._orphaned, count)
        self._orphaned -= known
        return count - known

    def discard(self, count: int, keep: str) -> int:
        """Removes up to *count* events from the longest queues, and returns how many.

        ``"last"`` removes the oldest events of a queue, ``"first"`` the newest. So a partition without a consumer takes
        no room from the others.
        """
        removed = 0
        while removed < count and self.queued:
            longest = max(self._queues, key=lambda name: len(self._queues[name]))
            queue = self._queues[longest]
            others = max((len(other) for name, other in self._queues.items() if name != longest), default=0)
            part = min(count - removed, max(1, len(queue) - others))
            removed += part
            remove = queue.popleft if keep == "last" else queue.pop
            for _ in range(part):
                remove()
            if keep == "last":
                self._left(longest, part)
            else:
                self.queued -= part
                self._bring_forward(longest)
        return removed

    def _bring_forward(self, partition: Any) -> None:
        """Lets no info wait for events that are no longer at the end of the queue of *partition*."""
        end = self._passed[partition] + len(self._queues[partition])
        for _, places in self._infos:
            if places.get(partition, end) > end:
                places[partition] = end

    def take_queued(self) -> list[E]:
        """Removes the queued events and returns them, partition by partition."""
        taken: list[E] = []
        for partition, queue in self._queues.items():
            taken += queue
            self._left(partition, len(queue))
            queue.clear()
        return taken

    def hold(self, info: Any) -> bool:
        """Keeps *info* until every event that is queued now has left. Returns False if no event is queued."""
        if not self.queued:
            return False
        places = {name: self._passed[name] + len(queue) for name, queue in self._queues.items() if queue}
        self._infos.append((info, places))
        return True

    def released(self) -> list[Any]:
        """Removes and returns the infos whose events have left, in order."""
        infos = []
        while self._infos and all(self._passed[name] >= place for name, place in self._infos[0][1].items()):
            infos.append(self._infos.popleft()[0])
        return infos


def _by_hash(events: Sequence[E], partitions: int) -> dict[Any, list[E]]:
    """Returns *events* by the index that their own hash gives."""
    parts: list[list[E]] = [[] for _ in range(partitions)]
    for event in events:
        parts[hash(event) % partitions].append(event)
    return {partition: part for partition, part in enumerate(parts) if part}


def _grouped(routes: Sequence[Any], events: Sequence[E]) -> dict[Any, list[E]]:
    """Returns *events* by their routes. TypeError: a route does not hash."""
    routed: dict[Any, list[E]] = {}
    for partition, event in zip(routes, events):  # noqa: B905  # strict costs more than a short list does
        if (part := routed.get(partition)) is None:
            routed[partition] = [event]
        else:
            part.append(event)
    return routed


def _names(partitions: int | Iterable[Hashable]) -> list[Hashable]:
    if is_a(partitions, bool) or not is_a(partitions, (int, Iterable)) or is_a(partitions, (str, bytes)):
        raise OptionsError(
            ("dispatcher", "partitions"), f"expected a number or names of partitions, got {article(partitions)}"
        )
    names: list[Hashable]
    try:
        names = list(range(partitions)) if isinstance(partitions, int) else list(dict.fromkeys(partitions))
    except TypeError:
        raise OptionsError(("dispatcher", "partitions"), "expected hashable names of partitions") from None
    if not names:
        raise OptionsError(("dispatcher", "partitions"), "expected at least 1 partition, got none")
    return names
