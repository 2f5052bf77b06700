"""The progress of one producer: which of its deliveries have arrived, which come again, and whether it is quiet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from broadway_py._core.aggregation.awaited import Awaited
from broadway_py._core.aggregation.cursor import Cursor
from broadway_py._core.aggregation.reader import Reader
from broadway_py._core.aggregation.receipts import Receipt, Receipts, Standstill
from broadway_py._core.aggregation.saved_holds import SavedHold, restored, saved_holds

__all__ = ["Progress"]

#: At most so often, in seconds, those that were held for too long are looked for.
_SWEEP_S: Final = 1.0


class Progress:
    """The deliveries of one producer, over all its copies.

    All times are seconds of a clock that does not jump. Holds and standstills last for so many seconds in which a copy
    was reading: nothing runs out while the source is away, while the pipeline is paused, or while an aggregator adds
    nothing because it waits for its store, for ``emit`` or for ``late``.

    Args:
        copies: how many copies the producer has.
        name: the producer's name.
    """

    def __init__(self, copies: int = 1, name: str = "") -> None:
        self.name = name
        #: The copies, by their index.
        self.readers = [Reader(self) for _ in range(copies)]
        self._receipts = Receipts()
        #: The places of the aggregators.
        self.cursors: list[Cursor] = []
        self._standing: list[Standstill] = []
        self._awaited = Awaited()
        # How many are awaited, also those without an identity.
        self._held = 0
        self._next_sweep = 0.0
        self._reading = 0
        self._reading_since = 0.0
        self._active = 0.0
        # How many aggregators add nothing and wait for their store, emit or late, and since when none of them does.
        self._blocked = 0
        self._unblocked_since = -math.inf

    def add(self, cursor: Cursor, now: float) -> None:
        """Lets *cursor* follow from now on."""
        cursor.start(self._receipts.first, now)
        self.cursors.append(cursor)

    def saved(self, cursor: Cursor, now: float) -> list[SavedHold]:
        """Returns what *cursor* waits for and will be delivered again, for :meth:`restore` in the next process."""
        return saved_holds(cursor, self._awaited, self.active(now))

    def restore(self, cursor: Cursor, holds: Iterable[SavedHold], now: float) -> None:
        """Lets *cursor* wait for what it has awaited in the process before. Call it before :meth:`add`."""
        for receipt in restored(holds, self, cursor, self._awaited, self.active(now)):
            self._held += receipt.awaited
            self._receipts.append(receipt)

    @property
    def is_settled(self) -> bool:
        """True if nothing is in work or lost. What will be delivered again counts as settled: it is saved."""
        if self._standing:
            return False
        return not any(isinstance(one, Receipt) and one.pending > one.awaited for one in self._receipts)

    def refresh(self, now: float) -> None:
        """Lets the cursors pass what time alone lets them pass."""
        self._pass_time(now)
        active = self.active(now)
        moved = [cursor for cursor in self.cursors if cursor.advance(active, now)]
        if moved:
            self._receipts.drop(cursor.next for cursor in self.cursors)

    def active(self, now: float) -> float:
        """Returns the seconds in which a copy was reading: the producer's time."""
        return self._active + (now - self._reading_since if self._reading and not self._blocked else 0.0)

    def moment_of(self, active: float | None, now: float) -> float | None:
        """Returns when it is *active* in the producer's time; None if that does not go on, or *active* is None."""
        goes_on = self._reading and not self._blocked
        return now + active - self.active(now) if goes_on and active is not None else None

    def quiet_since(self, now: float) -> float | None:
        """Returns since when all copies are asked for messages and could deliver; None while that is not so.

        While an aggregator is blocked, it is not so: messages may wait that it can take only later.
        """
        if self._blocked:
            return None
        latest: float | None = None
        for reader in self.readers:
            if reader.has_ended:
                continue
            since = reader.asked_since(now)
            if since is None:
                return None
            latest = max(self._unblocked_since, since if latest is None else max(latest, since))
        return latest

    def arrived_until(self, now: float) -> float | None:
        """Returns up to when all that came in has arrived, by the clock. It holds only as long as the producer reads.

        None: nobody knows, because a reader was lost, or messages were waited for too long and may still come.
        """
        if self._standing or self._awaited.has_overdue:
            return None
        oldest = next((one for one in self._receipts if isinstance(one, Receipt) and one.pending), None)
        return now if oldest is None else now - (self.active(now) - oldest.since)

    @property
    def has_ended(self) -> bool:
        """True if all copies have ended: nothing more comes."""
        return all(reader.has_ended for reader in self.readers)

    # --- deliveries

    @property
    def awaits(self) -> bool:
        """True if the identities of what comes in are needed."""
        return bool(self._awaited)

    def received(self, count: int, now: float, identities: Sequence[bytes | None] = ()) -> Receipt:
        """Notes that *count* messages came in together. Returns their receipt.

        Args:
            count: at least 1.
            now: the time.
            identities: of the messages, if :attr:`awaits` says that they are needed.
        """
        self._pass_time(now)
        active = self.active(now)
        receipt = Receipt(self, count, active)
        if identities:
            self._recognise(receipt, identities, now)
        self._receipts.append(receipt)
        for cursor in self.cursors:
            cursor.see(receipt)
        if (self._held or self._awaited) and active >= self._next_sweep:
            self._sweep(active, now)
        return receipt

    def _recognise(self, receipt: Receipt, identities: Sequence[bytes | None], now: float) -> None:
        too_old = self.active(now) - self._longest_hold()
        for identity in identities:
            waiting = self._awaited.recognise(identity)
            if identity is None:
                continue
            if self._awaited.was_overdue(identity) or any(first <= too_old for _, first in waiting):
                receipt.overdue.add(identity)
            if waiting:
                receipt.brings[identity] = [(one, first) for one, first in waiting if first > too_old]
                # Those that were held for too long are waited for no longer, and do not have to arrive.
                complete = [one for one, first in waiting if first <= too_old and self._has_come(one)]
                if complete:
                    self._complete(complete, now)

    def _has_come(self, receipt: Receipt) -> bool:
        """Notes that one message that *receipt* has awaited is awaited no longer. Returns True if it is complete."""
        if not receipt.awaited:
            return False
        receipt.awaited -= 1
        receipt.pending -= 1
        self._held -= 1
        return not receipt.pending

    def arrived(self, receipt: Receipt, count: int, now: float) -> None:
        """Notes that *count* messages of *receipt* have arrived, or were settled."""
        receipt.pending -= count
        if not receipt.pending:
            self._complete([receipt], now)

    def came_back(self, receipt: Receipt, identities: Sequence[bytes | None]) -> None:
        """Notes that messages of *receipt* were given to their source, and will be delivered again.

        Call it before :meth:`arrived`, which also counts them. They are awaited until the receipt with the same
        identity is complete, or until the hold runs out.
        """
        for identity in identities:
            first = receipt.since
            brought = None if identity is None else receipt.brings.get(identity)
            if brought:
                first = min(since for _, since in brought)
            receipt.awaited_since = max(first, receipt.awaited_since) if receipt.awaited else first
            receipt.pending += 1
            receipt.awaited += 1
            self._held += 1
            self._awaited.add(identity, receipt, first)

    def stand(self, now: float, returns_within_s: float) -> None:
        """Begins a standstill: a reader is gone, and what it held comes back within so many seconds.

        It ends when the time is over and all that was received until then has arrived. Call it when a copy is lost,
        before its messages are let go; and before the start, if the process before has not ended well.
        """
        self._pass_time(now)
        if returns_within_s <= 0:
            return
        ends_at = self.active(now) + returns_within_s
        last = self._receipts.last
        if isinstance(last, Standstill) and last.last is None:
            last.ends_at = max(last.ends_at, ends_at)
            return
        standstill = Standstill(now, ends_at)
        self._receipts.append(standstill)
        self._standing.append(standstill)
        for cursor in self.cursors:
            cursor.see(standstill)

    def note_blocked(self, now: float, *, is_blocked: bool) -> None:
        """Notes that an aggregator adds nothing until its store, emit or late goes on, or that it adds again.

        What was received waits for it meanwhile, so no hold runs out, and the producer is not idle. Call it for each
        change.
        """
        self._active = self.active(now)
        self._reading_since = now
        self._blocked += 1 if is_blocked else -1
        if not self._blocked:
            self._unblocked_since = now
        self.tell()

    # --- within

    def note_reading(self, change: int, now: float) -> None:
        """Notes that one copy more or fewer is reading. For :class:`Reader`."""
        self._active = self.active(now)
        self._reading_since = now
        self._reading += change

    def tell(self) -> None:
        """Tells those that follow that something has changed that they cannot see. For :class:`Reader`."""
        for cursor in self.cursors:
            cursor.moved()

    def tell_the_free(self) -> None:
        """Tells those that wait for nothing: for them, being asked changes when they are idle. For :class:`Reader`."""
        for cursor in self.cursors:
            if cursor.free_since is not None:
                cursor.moved()

    def _pass_time(self, now: float) -> None:
        """Ends the standstills whose time is over. What was received until now has come in during that time."""
        if not self._standing:
            return
        active = self.active(now)
        over = [one for one in self._standing if one.ends_at <= active]
        if over:
            for one in over:
                one.last = self._receipts.count
                self._standing.remove(one)
            self._pass_on(now)

    def _complete(self, complete: list[Receipt], now: float) -> None:
        # A receipt may complete others, and these may again. There can be many, so this does not call itself.
        for one in complete:
            for brought in one.brings.values():
                complete += [waiting for waiting, _ in brought if self._has_come(waiting)]
            one.brings = {}
        self._pass_on(now)
        for one in complete:
            self._receipts.close(one)
        self._receipts.drop(cursor.next for cursor in self.cursors)

    def _pass_on(self, now: float) -> None:
        active = self.active(now)
        for cursor in self.cursors:
            if cursor.advance(active, now):
                cursor.moved()

    def _longest_hold(self) -> float:
        return max((cursor.hold_s for cursor in self.cursors), default=0.0)

    def _sweep(self, active: float, now: float) -> None:
        """Waits no longer for what every aggregator has held for too long."""
        self._next_sweep = active + _SWEEP_S
        self._awaited.forget_overdue(active)
        longest = self._longest_hold()
        for link in self._receipts:
            if not isinstance(link, Receipt):
                continue
            if link.since + longest > active:
                break
            if link.awaited:
                self._forget(link, active)
                if not link.pending:
                    self._complete([link], now)

    def _forget(self, receipt: Receipt, active: float) -> None:
        self._awaited.forget(receipt, active)
        self._held -= receipt.awaited
        receipt.pending -= receipt.awaited
        receipt.awaited = 0
