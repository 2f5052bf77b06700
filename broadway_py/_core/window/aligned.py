"""Windows whose bounds are the same for all keys: fixed, sliding and calendar windows."""

from __future__ import annotations

from collections.abc import Hashable

from broadway_py._core.window.assign import Assigner
from broadway_py._core.window.firing import Effect, OpenWindow
from broadway_py._core.window.timed import TimedParts, TimedWindows
from broadway_py._core.window.times import Stamped

__all__ = ["AlignedWindows"]


class AlignedWindows(TimedWindows):
    """The open windows of an assigner. Windows that nobody opened do not exist, and cost nothing."""

    reason = "watermark"

    def __init__(self, assigner: Assigner, parts: TimedParts) -> None:
        super().__init__(parts)
        self._assigner = assigner
        self._open: dict[int, OpenWindow] = {}

    def feed(self, upstream: Hashable, stamped: Stamped, out: list[Effect]) -> None:
        """Puts the events, in their order, into their windows. *out* gets what follows."""
        is_quiet = self._is_quiet(upstream, stamped)
        begin, end = self._assigner.span(stamped.low)
        if is_quiet and stamped.high < end:
            self._put(stamped, 0, len(stamped.events), self._windows_at(begin), out)
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
        for place, time in enumerate(stamped.times()):
            if not low <= time < high:
                self._put(stamped, first, place, windows, out)
                first = place
                low, high = self._assigner.span(time)
                windows = self._windows_at(time)
            if not is_quiet and self._watermark.observe(upstream, time) and self._is_due():
                self._put(stamped, first, place + 1, windows, out)
                self.drain(out)
                first, low, high = place + 1, 0, 0
        self._put(stamped, first, len(stamped.events), windows, out)

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
        line = self._line()
        windows = []
        for start, end in self._assigner.bounds(time):
            if line is not None and end <= line:
                continue
            window = self._open.get(start)
            if window is None:
                window = self._open[start] = self._firings.open(start, end)
                self._track(window, start, end)
            windows.append(window)
        return tuple(windows)

    def _forget(self, window: OpenWindow) -> None:
        if window.start is not None:
            del self._open[window.start]
