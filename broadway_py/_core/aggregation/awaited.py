"""The messages of one producer that will be delivered again, by their identities."""

from __future__ import annotations

from typing import Final, NamedTuple

from broadway_py._core.aggregation.receipts import Receipt

__all__ = ["MOST_AWAITED", "Awaited", "Waiting"]

#: So many messages are awaited by identity. Those beyond it are held by time.
MOST_AWAITED: Final = 100_000


class Waiting(NamedTuple):
    """A receipt that waits for a message, and when that came in for the first time, in the producer's time."""

    receipt: Receipt
    first: float


class Awaited:
    """Knows which receipts wait for which message."""

    def __init__(self) -> None:
        self._by_identity: dict[bytes, list[Waiting]] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._by_identity)

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

    def forget(self, receipt: Receipt) -> None:
        """Lets *receipt* wait for nothing that has not come in."""
        for identity in receipt.waits_for:
            waiting = self._by_identity.get(identity)
            if waiting is None:
                continue  # it has come in
            left = [one for one in waiting if one.receipt is not receipt]
            self._count -= len(waiting) - len(left)
            if left:
                self._by_identity[identity] = left
            else:
                del self._by_identity[identity]
        receipt.waits_for = []
