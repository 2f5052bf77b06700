"""What a checkpoint stores of the messages that will be delivered again, so that they are not late after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from broadway_py._core.aggregation.awaited import Awaited
from broadway_py._core.aggregation.cursor import Cursor
from broadway_py._core.aggregation.receipts import Link, Receipt, Standstill

__all__ = ["MOST_SAVED", "SavedHold", "restored", "saved_holds"]

#: So many messages are saved with their identity, in so many receipts. The others are held by time alone.
MOST_SAVED: Final = 1_000


class SavedHold(NamedTuple):
    """A receipt of which messages are awaited. Ages are seconds of the producer's time; names are hexadecimal."""

    #: For how long it has held the watermark.
    age: float
    #: How many messages are awaited without an identity, or have come in and not arrived.
    nameless: int
    #: The names of the others, each with its age.
    identities: list[tuple[str, float]]
    #: For each message that came in with it and was awaited: its name, the place in the list of the hold that it ends
    #: together with this one, and the age there.
    brings: list[tuple[str, int, float]]
    #: The highest event time in microseconds that counts when it is over; None: there is none.
    highest: int | None

    @classmethod
    def of(cls, stored: Iterable[Any]) -> SavedHold:
        """Returns what was stored as JSON."""
        return cls._make(stored)


def saved_holds(cursor: Cursor, awaited: Awaited, active: float) -> list[SavedHold]:
    """Returns the receipts at which *cursor* waits for messages that will be delivered again, in their order.

    Args:
        cursor: the place of one aggregator.
        awaited: the messages.
        active: the producer's time.
    """
    links = list(islice(_links(cursor), MOST_SAVED + 1))
    brought = _brought(links, active)
    room = MOST_SAVED
    holds: list[SavedHold] = []
    places: dict[Receipt, int] = {}
    # What counts when the last hold is over. What came in during a standstill counts together, at its end.
    highest, until, passed = cursor.withheld, cursor.until, cursor.passed
    for link in links[:MOST_SAVED]:
        if isinstance(link, Standstill):
            if passed >= until:
                holds, highest = _with(holds, highest), None
            until = max(until, link.last or 0)
        elif isinstance(link, Receipt):
            if link.awaited:
                if passed >= until:
                    holds, highest = _with(holds, highest), None
                names = [(identity.hex(), active - first) for identity, first in islice(awaited.of(link), room)]
                names += brought.get(link, [])[: room - len(names)]
                room -= len(names)
                places[link] = len(holds)
                brings = [
                    (identity.hex(), places[one], active - first)
                    for identity, waiting in link.brings.items()
                    for one, first in waiting
                    if one in places
                ]
                age = active - link.awaited_since
                holds.append(SavedHold(age, link.awaited - len(names), names, brings, None))
            noted = link.noted.get(cursor)
            if noted is not None:
                highest = noted if highest is None else max(noted, highest)
        passed = link.number
    holds = _with(holds, highest)
    if len(links) > MOST_SAVED:
        holds.append(SavedHold(0.0, 1, [], [], None))
    return holds


def restored(
    holds: Iterable[SavedHold], source: object, cursor: Cursor, awaited: Awaited, active: float
) -> list[Receipt]:
    """Returns the receipts of *holds*, at which only *cursor* has to wait.

    Args:
        holds: what was saved.
        source: the progress of the producer.
        cursor: the place of the aggregator that has saved them.
        awaited: learns which messages are awaited.
        active: the producer's time.
    """
    receipts: list[Receipt] = []
    for hold in holds:
        receipt = Receipt(source, hold.nameless + len(hold.identities), active - hold.age)
        receipt.only_for = cursor
        receipt.awaited = receipt.pending
        receipt.awaited_since = receipt.since
        for name, age in hold.identities:
            awaited.add(bytes.fromhex(name), receipt, active - age)
        for name, place, age in hold.brings:
            receipt.brings.setdefault(bytes.fromhex(name), []).append((receipts[place], active - age))
        if hold.highest is not None:
            receipt.noted[cursor] = hold.highest
        receipts.append(receipt)
    return receipts


def _brought(links: Iterable[Link], active: float) -> dict[Receipt, list[tuple[str, float]]]:
    """Returns what has come in again with receipts that are no holds, and has not arrived."""
    brought: dict[Receipt, list[tuple[str, float]]] = {}
    for link in links:
        if isinstance(link, Receipt) and not link.awaited:
            for identity, waiting in link.brings.items():
                for receipt, first in waiting:
                    brought.setdefault(receipt, []).append((identity.hex(), active - first))
    return brought


def _with(holds: list[SavedHold], highest: int | None) -> list[SavedHold]:
    if not holds or highest is None:
        return holds
    last = holds[-1]
    return [*holds[:-1], last._replace(highest=highest if last.highest is None else max(highest, last.highest))]


def _links(cursor: Cursor) -> Iterator[Link]:
    link = cursor.next
    while link is not None:
        if link.only_for in (None, cursor):
            yield link
        link = link.after
