"""A broker in memory. It keeps what it hands out until it is settled, and hands it out again if it is not."""

from __future__ import annotations

import copy
import heapq
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from broadway_py.clock import Clock
from broadway_py.message import Failed, Outcome
from broadway_py.testing.outcomes import DeadLetter, Left, MessageOutcome, outcome_of

__all__ = ["Broker", "Delivery", "Stored"]


@dataclass(slots=True, eq=False)
class Stored:
    """A message in the broker."""

    id: str
    data: Any = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    #: The queue that it is in: the name of a producer.
    queue: str
    #: The partition of the queue; None: it is not divided.
    partition: int | None
    #: Its place in the queue.
    place: int
    #: How many deliveries count.
    attempts: int = 0
    #: True once any reader has had it.
    was_taken: bool = False
    #: The delivery that is not settled; None: nobody has it.
    delivery: Delivery | None = field(default=None, repr=False)
    #: When it may be handed out, by the monotonic clock.
    due: float = 0.0
    first_failed_at: float | None = None
    #: True: it has left the queue.
    is_settled: bool = False


@dataclass(slots=True, eq=False)
class Delivery:
    """What a reader got. Only the last delivery of a message can be settled."""

    stored: Stored
    attempt: int
    #: True: the message was handed out before.
    is_repeat: bool
    #: The reader that got it.
    reader: object
    #: True: the process of the reader has died. What its remains still say is ignored.
    is_dead: bool = False

    @property
    def is_open(self) -> bool:
        """Returns whether the reader holds the message."""
        return self.stored.delivery is self


@dataclass(slots=True, eq=False)
class _Queue:
    #: Of each partition: heaps of (place, message), and of (due, place, message).
    ready: dict[int | None, list[tuple[int, Stored]]] = field(default_factory=dict)
    later: dict[int | None, list[tuple[float, int, Stored]]] = field(default_factory=dict)
    partitions: int | None = None
    #: Each is called when there may be something to take.
    listeners: set[Callable[[], object]] = field(default_factory=set)


class Broker:
    """Queues, the dead letters, and what became of each message. It outlives the pipelines that read it.

    Args:
        clock: says when a message that was put off is due.
    """

    def __init__(self, clock: Clock) -> None:
        self.dead_letters: list[DeadLetter] = []
        #: Stands for the process that reads. The broker gives nothing to readers of another one.
        self.process = object()
        #: Message id -> the outcomes of its deliveries.
        self.outcomes: dict[str, list[MessageOutcome]] = {}
        self._clock = clock
        self._started_at = clock.monotonic()
        self._queues: dict[str, _Queue] = {}
        self._places = itertools.count(1)
        self._fronts = itertools.count(-1, -1)
        self._all: list[Stored] = []
        # How many messages each reader holds.
        self._held: Counter[object] = Counter()

    def declare(self, queue: str, partitions: int | None) -> None:
        """Makes a queue, if it does not exist."""
        self._queues.setdefault(queue, _Queue()).partitions = partitions

    @property
    def queues(self) -> list[str]:
        """Returns the names of the queues."""
        return list(self._queues)

    # --- the side of publishers

    def put(self, queue: str, data: Any, metadata: Mapping[str, Any], *, key: str | None) -> None:
        """Puts a message at the end of a queue. Its id is ``metadata["message_id"]``."""
        partitions = self._queues[queue].partitions
        partition = None
        if partitions is not None:
            partition = 0 if key is None else zlib.crc32(key.encode()) % partitions
        self._add(Stored(metadata["message_id"], data, metadata, queue, partition, next(self._places)))

    def repeat(self, message_id: str) -> Stored | None:
        """Delivers a message once more, whatever became of it. Returns None if there is no such message."""
        known = next((one for one in reversed(self._all) if one.id == message_id), None)
        if known is not None:
            again = Stored(known.id, known.data, known.metadata, known.queue, known.partition, next(self._fronts))
            again.attempts, again.was_taken = known.attempts, known.was_taken
            self._add(again)
        return known

    def _add(self, stored: Stored) -> None:
        self._all.append(stored)
        self._make_ready(stored)

    def _make_ready(self, stored: Stored) -> None:
        queue = self._queues[stored.queue]
        stored.due = self._clock.monotonic()
        heapq.heappush(queue.ready.setdefault(stored.partition, []), (stored.place, stored))
        self._wake(queue)

    # --- the side of readers

    def listen(self, queue: str, listener: Callable[[], object]) -> None:
        """Has *listener* called whenever there may be something to take from *queue*."""
        self._queues[queue].listeners.add(listener)

    def unlisten(self, queue: str, listener: Callable[[], object]) -> None:
        """Ends :meth:`listen`."""
        self._queues[queue].listeners.discard(listener)

    def next_due(self, queue: str, partition: int | None) -> float | None:
        """Returns when the next message that was put off is due; None: there is none."""
        later = self._queues[queue].later.get(partition)
        return later[0][0] if later else None

    def take(self, queue: str, partition: int | None, most: int, reader: object) -> list[Delivery]:
        """Hands out at most *most* messages, in their order. What was put off comes behind what was ready before."""
        of_queue, now = self._queues[queue], self._clock.monotonic()
        ready, later = of_queue.ready.setdefault(partition, []), of_queue.later.get(partition, [])
        while later and later[0][0] <= now:
            *_, due = heapq.heappop(later)
            due.place = next(self._places)
            heapq.heappush(ready, (due.place, due))
        taken: list[Delivery] = []
        while ready and len(taken) < most:
            stored = heapq.heappop(ready)[1]
            stored.attempts += 1
            stored.delivery = Delivery(stored, stored.attempts, stored.was_taken, reader)
            stored.was_taken = True
            self._held[reader] += 1
            taken.append(stored.delivery)
        return taken

    def metadata_of(self, delivery: Delivery) -> dict[str, Any]:
        """Returns metadata for a message, which it shares with no other."""
        return {**copy.deepcopy(dict(delivery.stored.metadata)), "redelivered": delivery.is_repeat}

    # --- settlements

    def finish(self, delivery: Delivery, outcome: Outcome, status: Failed | None) -> None:
        """Removes a message from its queue."""
        self._tell(delivery, outcome, status)
        self._free(delivery)
        delivery.stored.is_settled = True

    def put_off(self, delivery: Delivery, delay_s: float, next_attempt: int, status: Failed | None) -> None:
        """Delivers a message again after *delay_s* seconds, as attempt number *next_attempt*."""
        stored = delivery.stored
        self._tell(delivery, "retried", status, delay_s)
        self._note_failure(stored)
        self._free(delivery)
        stored.attempts = next_attempt - 1
        stored.due = self._clock.monotonic() + delay_s
        queue = self._queues[stored.queue]
        heapq.heappush(queue.later.setdefault(stored.partition, []), (stored.due, next(self._places), stored))
        self._wake(queue)

    def give_back(self, delivery: Delivery) -> None:
        """Puts a message back to its old place. The delivery does not count as an attempt."""
        self._tell(delivery, "returned", None)
        self._free(delivery)
        delivery.stored.attempts -= 1
        self._make_ready(delivery.stored)

    def bury(self, delivery: Delivery, status: Failed | None, *, pipeline: str) -> None:
        """Moves a message to the dead letters."""
        stored = delivery.stored
        self._tell(delivery, "dead_lettered", status)
        self._note_failure(stored)
        cause = "failed" if status is None else status.cause
        raised = None if status is None or status.exception is None else type(status.exception).__name__
        headers: dict[str, Any] = {
            "x-broadway-queue": stored.queue,
            "x-broadway-attempts": delivery.attempt,
            "x-broadway-cause": cause,
            "x-broadway-first-failed-at": _time(stored.first_failed_at or 0.0),
            "x-broadway-failed-at": _time(self._clock.wall()),
            "x-broadway-pipeline": pipeline,
        }
        if raised is not None:
            headers["x-broadway-exception"] = raised
        reason = "" if status is None else status.reason
        self.dead_letters.append(
            DeadLetter(
                stored.id,
                stored.data,
                cause,
                reason,
                raised,
                delivery.attempt,
                headers,
                {name: value for name, value in stored.metadata.items() if name != "message_id"},
                stored.queue,
            )
        )
        self._free(delivery)
        stored.is_settled = True

    def lose(self, reader: object) -> None:
        """Puts back what a reader still holds. The deliveries count as attempts."""
        self._put_back(lambda delivery: delivery.reader is reader)

    def lose_all(self) -> None:
        """Puts back what all readers hold: their process has died. What its remains still say is ignored."""
        self.process = object()
        for queue in self._queues.values():
            queue.listeners.clear()
        for stored in self._all:
            if stored.delivery is not None:
                stored.delivery.is_dead = True
        self._put_back(lambda _: True)

    def _put_back(self, belongs: Callable[[Delivery], bool]) -> None:
        for stored in self._all:
            delivery = stored.delivery
            if delivery is not None and belongs(delivery):
                self._tell(delivery, "unknown", None)
                self._free(delivery)
                self._make_ready(stored)

    def _free(self, delivery: Delivery) -> None:
        delivery.stored.delivery = None
        self._held[delivery.reader] -= 1
        # A reader may have held as many as it may.
        self._wake(self._queues[delivery.stored.queue])

    @staticmethod
    def _wake(queue: _Queue) -> None:
        for listener in list(queue.listeners):
            listener()

    def _note_failure(self, stored: Stored) -> None:
        if stored.first_failed_at is None:
            stored.first_failed_at = self._clock.wall()

    def _tell(self, delivery: Delivery, outcome: Outcome, status: Failed | None, delay_s: float | None = None) -> None:
        at = self._clock.monotonic() - self._started_at
        told = outcome_of(outcome, delivery.attempt, status, at=at, delay=delay_s)
        self.outcomes.setdefault(delivery.stored.id, []).append(told)

    # --- counts

    def held_by(self, reader: object) -> int:
        """Returns how many messages a reader holds."""
        return self._held[reader]

    def counts(self, queue: str) -> Counter[str]:
        """Returns how many messages of a queue are ready, held and put off."""
        where = {"ready": "ready", "at work": "held", "retry": "later"}
        return Counter(where[left.where] for one, left in self._unsettled() if one.queue == queue)

    def left(self) -> list[Left]:
        """Returns the messages without a final outcome, in the order in which they were sent."""
        return [left for _, left in self._unsettled()]

    def _unsettled(self) -> list[tuple[Stored, Left]]:
        now = self._clock.monotonic()
        found: list[tuple[Stored, Left]] = []
        for one in self._all:
            if one.delivery is not None:
                found.append((one, Left(one.id, "at work", one.delivery.attempt)))
            elif not one.is_settled and one.due > now:
                found.append((one, Left(one.id, "retry", one.attempts + 1, one.due - now)))
            elif not one.is_settled:
                is_returned = self.outcomes.get(one.id, [])[-1:] == ["returned"]
                found.append((one, Left(one.id, "ready", one.attempts + 1, is_returned=is_returned)))
        return found


def _time(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
