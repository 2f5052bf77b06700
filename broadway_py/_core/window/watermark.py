"""The watermark: up to which event time a stage has heard from all of its upstreams."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from broadway_py._core.window.shape import microseconds

__all__ = ["Watermark"]

_MICROSECONDS: Final = 1_000_000


@dataclass(slots=True, eq=False)
class _Upstream:
    #: Its highest event time; None before its first event.
    highest: int | None = None
    #: Seconds that it has been silent for since its last event, up to *since*; only while it was asked.
    silent_s: float = 0.0
    #: Since when it is asked; None while it is not asked, or held up by us.
    since: float | None = None
    is_idle: bool = False


class Watermark:
    """The lowest of the upstreams' highest event times, less the delay. It never goes back.

    An upstream that was asked for events and had none for *idle_timeout* counts as idle: it no longer holds the
    watermark back, until its next event. When all are idle, the watermark is at the newest event, and goes on with the
    clock from then. The time in which an upstream is not asked does not count, neither for the one nor for the other.

    Args:
        delay: subtracted from event times, in microseconds.
        idle_timeout: in seconds; None: an upstream is never idle.
    """

    def __init__(self, delay: int, idle_timeout: float | None) -> None:
        #: In microseconds; None before every upstream has had an event.
        self.value: int | None = None
        #: Subtracted from event times, in microseconds.
        self.delay = delay
        self._idle_timeout = idle_timeout
        self._upstreams: dict[Hashable, _Upstream] = {}
        self._newest: int | None = None
        #: While all are idle and asked: since when the watermark goes with the clock, and from where.
        self._runs_since: float | None = None
        self._runs_from = 0

    @property
    def has_upstreams(self) -> bool:
        """True if an upstream has joined and has not left."""
        return bool(self._upstreams)

    def join(self, upstream: Hashable, now: float) -> None:
        """Adds *upstream*, which is asked for events from *now* on."""
        self._stop_running(now)
        self._upstreams[upstream] = _Upstream(since=now)

    def leave(self, upstream: Hashable, now: float) -> None:
        """Removes *upstream*, which has ended."""
        self._stop_running(now)
        del self._upstreams[upstream]
        self._renew(now)

    def hold(self, upstream: Hashable, now: float) -> None:
        """Notes that *upstream* is not asked for events from *now* on, or that we hold it up."""
        self._stop_running(now)
        one = self._upstreams[upstream]
        if one.since is not None:
            one.silent_s += now - one.since
            one.since = None

    def resume(self, upstream: Hashable, now: float) -> None:
        """Notes that *upstream* is asked for events again."""
        one = self._upstreams[upstream]
        if one.since is None:
            one.since = now
        self._renew(now)

    def hear(self, upstream: Hashable, now: float) -> None:
        """Notes that *upstream* has events *now*. Their times are told by :meth:`observe`."""
        one = self._upstreams[upstream]
        if self._idle_timeout is not None:
            self._stop_running(now)
            one.is_idle = False
            one.silent_s = 0.0
            one.since = None if one.since is None else now

    def after(self, upstream: Hashable, time: int) -> int | None:
        """Returns what the watermark is once *upstream* has had an event at *time*."""
        one = self._upstreams[upstream]
        before = one.highest
        one.highest = time if before is None else max(before, time)
        lowest = self._lowest()
        one.highest = before
        if lowest is None or self.value is None:
            return self.value if lowest is None else lowest
        return max(self.value, lowest)

    def observe(self, upstream: Hashable, time: int) -> bool:
        """Counts an event of *upstream* at *time*. Returns True if this moves the watermark."""
        one = self._upstreams[upstream]
        before = one.highest
        if before is not None and time <= before:
            return False
        one.highest = time
        if self._newest is None or time > self._newest:
            self._newest = time
        if before is not None and self.value is not None and before - self.delay > self.value:
            return False  # another upstream is the lowest
        value = time - self.delay if len(self._upstreams) == 1 else self._lowest()
        if value is None or (self.value is not None and value <= self.value):
            return False
        self.value = value
        return True

    def next_idle(self) -> float | None:
        """Returns when the next upstream counts as idle if it stays silent; None if none does."""
        if self._idle_timeout is None:
            return None
        deadlines = [
            one.since + max(0.0, self._idle_timeout - one.silent_s)
            for one in self._upstreams.values()
            if one.since is not None and not one.is_idle
        ]
        return min(deadlines, default=None)

    def pass_idle(self, moment: float) -> None:
        """Takes out the upstreams that count as idle at *moment*, which :meth:`next_idle` has returned."""
        for one in self._upstreams.values():
            if one.since is None or one.is_idle or self._idle_timeout is None:
                continue
            if one.since + max(0.0, self._idle_timeout - one.silent_s) <= moment:
                one.is_idle = True
        self._renew(moment)

    def reaches(self, value: int) -> float | None:
        """Returns when the watermark is at *value* by the clock; None if it does not go with the clock."""
        if self._runs_since is None:
            return None
        return self._runs_since + (value - self._runs_from) / _MICROSECONDS

    def run(self, now: float, *, at_least: int | None = None) -> bool:
        """Takes the watermark to where the clock has brought it *now*, and to *at_least*. Returns True if it runs."""
        if self._runs_since is None:
            return False
        value = self._runs_from + microseconds(now - self._runs_since)
        self.advance(value if at_least is None else max(value, at_least))
        return True

    def advance(self, value: int) -> None:
        """Takes the watermark to *value*, which somebody else has decided. It does not go back."""
        self.value = value if self.value is None else max(self.value, value)

    def _lowest(self) -> int | None:
        """Returns the lowest of those that are not idle, less the delay; None if one of them has had no event."""
        lowest: int | None = None
        for one in self._upstreams.values():
            if one.is_idle:
                continue
            if one.highest is None:
                return None
            if lowest is None or one.highest < lowest:
                lowest = one.highest
        return None if lowest is None else lowest - self.delay

    def _renew(self, now: float) -> None:
        """Decides the watermark anew, after a change of what the upstreams are."""
        active = [one for one in self._upstreams.values() if not one.is_idle]
        value = self._lowest()
        if self._upstreams and not active and self._newest is not None:
            value = self._newest - self.delay
            if all(one.since is not None for one in self._upstreams.values()) and self._runs_since is None:
                self._runs_since = now
                self._runs_from = value if self.value is None else max(self.value, value)
        if value is not None:
            self.advance(value)

    def _stop_running(self, now: float) -> None:
        self.run(now)
        self._runs_since = None
