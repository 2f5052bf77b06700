"""The messages of one producer that will be delivered again, by their identities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from broadway_py._core.aggregation.receipts import Receipt

__all__ = ["MOST_AWAITED", "Awaited", "Waiting"]

#: So many messages are awaited by identity. Those beyond it are held by time.
MOST_AWAITED: Final = 100_000

#: So many messages whose hold is over are remembered, and for so many seconds of the producer's time.
_MOST_OVERDUE: Final = 10_000
_OVERDUE_S: Final = 3600.0
#: Stands for those without an identity.
_NAMELESS: Final = b""


class Waiting(NamedTuple):
    """A receipt that waits for a message, and when that came in for the first time, in the producer's time."""

    receipt: Receipt
    first: float


class Awaited:
    """Knows which receipts wait for which message."""

    def __init__(self) -> None:
        self._by_identity: dict[bytes, list[Waiting]] = {}
        self._count = 0
        # The messages that nobody awaits any more, and since when, by the producer's time; the oldest first.
        self._overdue: dict[bytes, float] = {}

    def __bool__(self) -> bool:
        return bool(self._by_identity or self._overdue)

    def add(self, identity: bytes | None, receipt: Receipt, first: float) -> None:
        """Lets *receipt* wait for a message; without *identity*, or if too many are awaited, by time alone."""
        if identity is not None and self._count < MOST_AWAITED:
            self._by_identity.setdefault(identity, []).append(Waiting(receipt, first))
            receipt.waits_for.append(identity)
            self._count += 1

    def recognise(self, identity: bytes | None) -> list[Waiting]:
        """Returns what waits for a message that has come in.

        After a lost connection, several deliveries of one message may be awaited. It comes again only once.
        """
        found = [] if identity is None else self._by_identity.pop(identity, [])
        self._count -= len(found)
        return found

    def of(self, receipt: Receipt) -> Iterator[tuple[bytes, float]]:
        """Yields what *receipt* waits for and has not come in: identities, and when each came in for the first time."""
        for identity in dict.fromkeys(receipt.waits_for):
            for one in self._by_identity.get(identity, ()):
                if one.receipt is receipt:
                    yield identity, one.first

    @property
    def has_overdue(self) -> bool:
        """True if messages may still come that were waited for too long."""
        return bool(self._overdue)

    def was_overdue(self, identity: bytes | None) -> bool:
        """Returns True if a message that has come in was waited for too long. It is forgotten then."""
        return identity is not None and self._overdue.pop(identity, None) is not None

    def forget(self, receipt: Receipt, active: float) -> None:
        """Lets *receipt* wait for nothing that has not come in. It is *active* by the producer's time."""
        nameless = receipt.awaited
        for identity in receipt.waits_for:
            waiting = self._by_identity.get(identity)
            if waiting is None:
                continue  # it has come in
            self._overdue[identity] = active
            nameless -= 1
            left = [one for one in waiting if one.receipt is not receipt]
            self._count -= len(waiting) - len(left)
            if left:
                self._by_identity[identity] = left
            else:
                del self._by_identity[identity]
        receipt.waits_for = []
        if nameless > 0:
            self._overdue[_NAMELESS] = active
        self.forget_overdue(active)

    def forget_overdue(self, active: float) -> None:
        """Forgets the oldest of those that were waited for too long."""
        for identity, since in list(self._overdue.items()):
            if len(self._overdue) <= _MOST_OVERDUE and since > active - _OVERDUE_S:
                break
            del self._overdue[identity]
