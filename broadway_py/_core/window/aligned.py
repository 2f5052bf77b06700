"""Windows whose bounds are the same for all keys: fixed, sliding and calendar windows."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import cast

from broadway_py._core.window.assign import Assigner
from broadway_py._core.window.effects import Effect, OpenWindow, Peek
from broadway_py._core.window.saved import SavedWindow
from broadway_py._core.window.timed import TimedParts, TimedWindows
from broadway_py._core.window.times import Stamped

__all__ = ["AlignedWindows"]


class AlignedWindows(TimedWindows):
    """The open windows of an assigner. Windows that nobody opened do not exist, and cost nothing."""

    reason = "watermark"

    def __init__(self, assigner: Assigner, parts: TimedParts) -> None:
        super().__init__(parts)
        self._assigner = assigner
        #: By start and end: the time zone of a calendar may have got other rules while a window was stored.
        self._open: dict[tuple[int, int], OpenWindow] = {}

    def feed(self, upstream: Hashable, stamped: Stamped, out: list[Effect]) -> None:
        """Puts the events, in their order, into their windows. *out* gets what follows."""
        is_quiet = self._is_quiet(upstream, stamped)
        begin, end = self._assigner.span(stamped.low)
        if is_quiet and stamped.high < end:
            self._put(stamped, 0, len(stamped.events), self._windows_at(begin), out)
        elif self._is_given and not self._assigner.has_overlaps and not self._firings.fires_at_events:
            self._feed_by_window(stamped, out)
        else:
            self._feed_one_by_one(upstream, stamped, out, is_quiet=is_quiet)
        if is_quiet and not self._is_given:
            self._watermark.observe(upstream, stamped.high)

    def _is_quiet(self, upstream: Hashable, stamped: Stamped) -> bool:
        """Returns True if no window can fire or close while these events come. Then one judgement is right for all."""
        if self._is_given:
            return True
        before, after = self._watermark.value, self._watermark.after(upstream, stamped.high)
        if after is None or before == after:
            return True
        if before is None or self._assigner.ends_between(before - self._lateness, after - self._lateness):
            return False
        return self._waiting is None or not self._assigner.ends_between(before, after)

    def _feed_one_by_one(self, upstream: Hashable, stamped: Stamped, out: list[Effect], *, is_quiet: bool) -> None:
        """Puts neighbours with the same windows there together. Unless *is_quiet*, an event may move the watermark."""
        first, low, high = 0, 0, 0
        windows: tuple[OpenWindow, ...] = ()
        # The highest time that the watermark was not told, and the time of an event that may make a window due. Events
        # of the same windows before that time need no look at the watermark.
        newest: int | None = None
        due: float = inf if is_quiet else -inf
        for place, time in enumerate(stamped.times()):
            if not low <= time < high:
                self._put(stamped, first, place, windows, out)
                first = place
                if newest is not None:
                    self._watermark.observe(upstream, newest)
                    newest = None
                low, high = self._assigner.span(time)
                windows = self._windows_at(time)
                if not is_quiet:
                    due = self._time_of_next_due()
            if time < due:
                if not is_quiet and (newest is None or time > newest):
                    newest = time
            elif self._watermark.observe(upstream, time) and self._is_due():
                self._put(stamped, first, place + 1, windows, out)
                self.drain(out)
                first, low, high = place + 1, 0, 0
                newest = None
        self._put(stamped, first, len(stamped.events), windows, out)
        if newest is not None:
            self._watermark.observe(upstream, newest)

    def _time_of_next_due(self) -> float:
        """Returns the time that an event has at least if a window fires or closes with it."""
        due = self.next_due()
        return inf if due is None else due + self._watermark.delay

    def _feed_by_window(self, stamped: Stamped, out: list[Effect]) -> None:
        """Puts those of one window there together, in their order. Each is in one window, and none fires meanwhile."""
        low, high = 0, 0
        places: list[int] = []
        by_span: dict[int, list[int]] = {}
        for place, time in enumerate(stamped.times()):
            if not low <= time < high:
                low, high = self._assigner.span(time)
                places = by_span.setdefault(low, [])
            places.append(place)
        for of_span in by_span.values():
            part = stamped.part(of_span)
            self._put(part, 0, len(of_span), self._windows_at(part.low), out)

    def _put(
        self, stamped: Stamped, first: int, until: int, windows: tuple[OpenWindow, ...], out: list[Effect]
    ) -> None:
        """Puts the events from *first* to *until* into *windows*. Without windows they are late."""
        events, keys = stamped.events, stamped.keys
        if first == until:
            return
        if not windows:
            self._too_late(events[first:until], stamped.times()[first:until], out)
        elif until - first == len(events):
            self._firings.add(windows, events, keys, out)
        else:
            self._firings.add(windows, events[first:until], None if keys is None else keys[first:until], out)

    def _windows_at(self, time: int) -> tuple[OpenWindow, ...]:
        """Returns the windows that hold *time* and have not closed, opened where they are not yet open."""
        line = self.line()
        windows = []
        for start, end in self._assigner.bounds(time):
            if line is not None and end <= line:
                continue
            window = self._open.get((start, end))
            if window is None:
                window = self._open[start, end] = self._firings.open(start, end)
                self._track(window, start, end)
            windows.append(window)
        return tuple(windows)

    def peek(self, key: Hashable, time: int) -> Peek:
        """Returns what an event at *time* would do."""
        line = self.line()
        windows = [self._open.get(bounds) for bounds in self._assigner.bounds(time) if line is None or bounds[1] > line]
        if not windows:
            return Peek("late")
        joins = tuple(window for window in windows if window is not None)
        return Peek(joins=joins, opens=len(windows) - len(joins))

    def reopen(self, saved: SavedWindow) -> OpenWindow:
        """Opens a window as it was saved, or adds keys to it."""
        bounds = cast("tuple[int, int]", saved.facts[:2])
        window = self._open.get(bounds)
        if window is None:
            window = self._open[bounds] = self._reopened(saved)
        self._firings.restore_keys(window, saved.keys)
        return window

    def resume(self, out: list[Effect]) -> None:
        """Goes on with the results on time of windows that were restored. They are few, however many keys they have."""
        line = self.line()
        for window in sorted(self._open.values(), key=lambda window: window.order):
            # If lateness is shorter now, a window may be due to close. After the next checkpoint it counts as closed.
            in_parts = line is None or cast("int", window.end) > line
            self._firings.resume_on_time(window, self.reason, out, in_parts=in_parts)

    def end(self, out: list[Effect]) -> None:
        """Closes all windows, because the input has ended. They do not open again."""
        self.closed_until = max((bounds[1] for bounds in self._open), default=self.closed_until)
        super().end(out)

    def _close_until(self, window: OpenWindow) -> None:
        end = cast("int", window.end)
        self.closed_until = end if self.closed_until is None else max(end, self.closed_until)

    def _forget(self, window: OpenWindow) -> None:
        del self._open[cast("tuple[int, int]", (window.start, window.end))]
