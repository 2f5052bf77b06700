"""The event clock of an aggregator: its watermark, over all producers, and what holds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from broadway_py._core.aggregation.cursor import Cursor
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.receipts import Receipt, Standstill
from broadway_py._core.aggregation.saved_holds import SavedHold
from broadway_py._core.ledger import LedgerEntry
from broadway_py._core.window.shape import microseconds

__all__ = ["HOLDERS", "EventClock", "Holder"]

#: What can hold a watermark: messages in work, messages that will be delivered again, a lost reader, and a producer
#: that is behind the others or has had no message.
Holder = Literal["in_work", "retry", "reconnect", "source"]
HOLDERS: Final[tuple[Holder, ...]] = ("in_work", "retry", "reconnect", "source")

_MICROSECONDS: Final = 1_000_000


class _Source:
    """One producer of an event clock."""

    __slots__ = ("cursor", "progress", "reached", "since")

    def __init__(self, progress: Progress, cursor: Cursor, now: float) -> None:
        self.progress = progress
        self.cursor = cursor
        #: Its watermark, in microseconds. It does not go back.
        self.reached: int | None = None
        #: When its watermark has moved for the last time, by the clock.
        self.since = now

    def reach(self, value: int, now: float) -> None:
        if self.reached is None or value > self.reached:
            self.reached = value
            self.since = now


class EventClock:
    """The watermark of one aggregator: the lowest of its producers' watermarks. It never goes back.

    The watermark of a producer is the highest event time of what the aggregator has added, less *delay*. Only a receipt
    counts before which every delivery of that producer has arrived, or was held for *hold_timeout*. So no message is
    late because its neighbours were handled faster. A producer that is asked, has nothing on its way and delivers
    nothing for *idle_timeout* is idle: it counts as wall clock - *idle_timeout* - *delay*. One that delivers, but had
    nothing for this aggregator for so long, does so too, up to the oldest message that is still in work.

    ``now`` is in seconds of a clock that does not jump, ``wall`` in seconds since 1970. Watermarks and event times are
    in microseconds since 1970.

    Args:
        progresses: the producers.
        now: the time.
        delay: in seconds: how long after its own time a message may arrive.
        hold_timeout: in seconds: at most so long one message holds the watermark.
        idle_timeout: in seconds; None: a producer is never idle.
        watermark: where it begins, as stored; None: it is not known.
        saved: what :meth:`saved` has returned in the process before.
        changed: called when the watermark may have moved, or :meth:`next_change` may have changed, for another reason
            than the time; at most once for each receipt.
    """

    def __init__(
        self,
        progresses: Sequence[Progress],
        now: float,
        *,
        delay: float,
        hold_timeout: float,
        idle_timeout: float | None,
        watermark: int | None = None,
        saved: Mapping[str, Sequence[SavedHold]] | None = None,
        changed: Callable[[], None],
    ) -> None:
        self._delay = microseconds(delay)
        self._idle_timeout = idle_timeout
        self._value = watermark
        self._sources: dict[object, _Source] = {}
        for progress in progresses:
            cursor = Cursor(hold_timeout, changed)
            progress.restore(cursor, (saved or {}).get(progress.name, ()), now)
            progress.add(cursor, now)
            self._sources[progress] = _Source(progress, cursor, now)

    def note(self, entry: LedgerEntry, highest_us: int) -> None:
        """Notes the highest event time of messages of *entry* that were added.

        Call it before they count as arrived. It has no effect for messages that the pipeline itself has submitted.
        """
        receipt = entry.receipt
        if isinstance(receipt, Receipt) and receipt.source in self._sources:
            self._sources[receipt.source].cursor.note(receipt, highest_us)

    def saved(self, now: float) -> dict[str, list[SavedHold]]:
        """Returns what the watermark waits for and will be delivered again, by the producer. A checkpoint stores it."""
        found = {one.progress.name: one.progress.saved(one.cursor, now) for one in self._sources.values()}
        return {name: holds for name, holds in found.items() if holds}

    def was_held_too_long(self, entry: LedgerEntry, identity: Callable[[], bytes | None]) -> bool:
        """Returns True if the watermark did not wait for a message, because its hold ran out: now, or before a retry.

        Ask before the message counts as arrived.

        Args:
            entry: the message's.
            identity: returns what names the message for its producer. It is called only if it is needed.
        """
        receipt = entry.receipt
        if not isinstance(receipt, Receipt) or receipt.source not in self._sources:
            return False
        cursor = self._sources[receipt.source].cursor
        if cursor.has_passed(receipt):
            return True
        if not receipt.brings and not receipt.overdue:
            return False
        name = identity()
        if name is None:
            return False
        return name in receipt.overdue or any(cursor.has_passed(one) for one, _ in receipt.brings.get(name, ()))

    def hold_ends_at(self, entry: LedgerEntry, now: float) -> float | None:
        """Returns when the watermark waits no longer for the messages of *entry*; None: not by time alone, or never."""
        receipt = entry.receipt
        if not isinstance(receipt, Receipt) or receipt.source not in self._sources:
            return None
        source = self._sources[receipt.source]
        moment = source.progress.moment_of(receipt.opens_at(source.cursor.hold_s), now)
        return None if moment is None or moment == math.inf else moment

    def watermark(self, now: float, wall: float) -> int | None:
        """Returns the watermark; None while it is not known."""
        for source in self._sources.values():
            self._bring_up(source, now, wall)
        lowest: int | None = None
        for source in self._sources.values():
            if source.progress.has_ended and source.cursor.free_since is not None:
                continue
            if source.reached is None:
                return self._value
            if lowest is None or source.reached < lowest:
                lowest = source.reached
        if lowest is not None and (self._value is None or lowest > self._value):
            self._value = lowest
        return self._value

    def next_change(self, now: float, wall: float, due: int | None = None) -> float | None:
        """Returns when to ask for the watermark again, if nothing else happens; None: only something else moves it.

        Args:
            now: the time.
            wall: the wall clock.
            due: the watermark that is waited for. While all producers are idle, the watermark goes with the wall clock,
                and the next change is when it gets there; without *due* there is none.
        """
        known, value = self._value, self.watermark(now, wall)
        if due is not None and value is not None and value >= due and (known is None or known < due):
            return now  # time has passed since the caller asked for the watermark
        moments: list[float] = []
        for source in self._sources.values():
            link, progress = source.cursor.next, source.progress
            if link is not None:
                moment = progress.moment_of(link.opens_at(source.cursor.hold_s), now)
                if moment is not None and moment < math.inf:
                    moments.append(moment)
                continue
            idle_at = self._idle_at(source, now)
            if idle_at is not None and idle_at > now:
                moments.append(idle_at)
            elif idle_at is not None and due is not None and (source.reached is None or source.reached < due):
                missing = due - self._by_clock(wall)
                # One microsecond more, because seconds are rounded. The wall clock may be set forward meanwhile, and
                # tells nobody: it is read again after the idle timeout.
                moments.append(now + min((missing + 1) / _MICROSECONDS, max(self._idle_timeout or 0.0, 1.0)))
        return min(moments, default=None)

    def held(self, now: float) -> dict[Holder, float]:
        """Returns what holds the watermark, each with the seconds for which it has done so; 0: it does not."""
        held: dict[Holder, float] = dict.fromkeys(HOLDERS, 0.0)
        for source in self._sources.values():
            link, cursor, active = source.cursor.next, source.cursor, source.progress.active(now)
            if isinstance(link, Standstill):
                held["reconnect"] = max(held["reconnect"], now - link.began)
            elif cursor.stands_since is not None:
                held["reconnect"] = max(held["reconnect"], now - cursor.stands_since)
            elif isinstance(link, Receipt):
                by: Holder = "in_work" if link.pending > link.awaited else "retry"
                since = link.since if by == "in_work" else link.awaited_since
                held[by] = max(held[by], active - since)
            elif self._is_behind(source):
                held["source"] = max(held["source"], now - source.since)
        return held

    def _is_behind(self, source: _Source) -> bool:
        """Returns True if the watermark could be further, were it not for *source*."""
        if source.progress.has_ended:
            return False
        if source.reached is None:
            return True
        others = [one.reached for one in self._sources.values() if one is not source]
        return bool(others) and all(reached is not None and reached > source.reached for reached in others)

    def _bring_up(self, source: _Source, now: float, wall: float) -> None:
        source.progress.refresh(now)
        if source.cursor.highest is not None:
            source.reach(source.cursor.highest - self._delay, now)
        idle_at = self._idle_at(source, now)
        if idle_at is not None and idle_at <= now:
            source.reach(self._by_clock(wall), now)
        else:
            self._pass_by(source, now, wall)

    def _pass_by(self, source: _Source, now: float, wall: float) -> None:
        """Bring up *source* if it delivers, and had nothing for this aggregator for the idle timeout.

        It counts as idle up to the moment when the oldest message came in that is still in work. While it delivers
        events to other aggregators, their newest event time counts instead of the wall clock: it may be behind.
        """
        cursor, progress, idle_s = source.cursor, source.progress, self._idle_timeout
        quiet_since = progress.quiet_since(now)
        if idle_s is None or quiet_since is None or cursor.stands_since is not None:
            return
        until = progress.arrived_until(now)
        if until is None or until < max(quiet_since, cursor.taken_at) + idle_s:
            return
        reached = self._by_clock(wall - (now - until))
        newest = self._newest_of_others(source, now)
        if newest is not None:
            reached = min(reached, newest - microseconds(idle_s) - self._delay)
        source.reach(reached, now)

    def _by_clock(self, wall: float) -> int:
        """Returns what an idle producer counts as."""
        return microseconds(wall - (self._idle_timeout or 0.0)) - self._delay

    def _idle_at(self, source: _Source, now: float) -> float | None:
        """Returns when *source* is idle, if nothing comes; None: time alone does not make it idle."""
        free_since = source.cursor.free_since
        if self._idle_timeout is None or free_since is None:
            return None
        quiet_since = source.progress.quiet_since(now)
        if quiet_since is None:
            return None
        if source.progress.arrived_until(now) == now and self._newest_of_others(source, now) is None:
            # What was delivered meanwhile was not for this aggregator.
            free_since = source.cursor.taken_at
        return max(quiet_since, free_since) + self._idle_timeout

    def _newest_of_others(self, source: _Source, now: float) -> int | None:
        """Returns the newest event time of other aggregators, if they had messages within the idle timeout."""
        after = now - (self._idle_timeout or 0.0)
        others = [one.highest for one in source.progress.cursors if one is not source.cursor and one.taken_at > after]
        return max((highest for highest in others if highest is not None), default=None)
