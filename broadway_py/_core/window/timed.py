"""What all windows of event time have in common: they fire and close as the watermark goes on."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from broadway_py._core.window.effects import Effect, OpenWindow, Peek, SideOutput
from broadway_py._core.window.saved import SavedWindow
from broadway_py._core.window.times import EventTimes, Stamped
from broadway_py._core.window.trigger import Firings
from broadway_py._core.window.watermark import Watermark

__all__ = ["TimedParts", "TimedWindows"]

_Entry = tuple[int, int, int, OpenWindow]


@dataclass(frozen=True, slots=True, eq=False)
class TimedParts:
    """What the windows of event time of an engine work with."""

    firings: Firings
    watermark: Watermark
    #: Converts times for users.
    times: EventTimes
    #: In microseconds.
    lateness: int
    #: A window also fires when the watermark passes its end.
    fires_on_time: bool
    #: The watermark comes from outside, so events do not move it.
    is_given: bool


class TimedWindows:
    """Open windows in the order in which they are due. A window closes when the line reaches its end.

    The line is the watermark less the lateness. An event is late when each window that it belongs to has closed.
    """

    #: The name of what ends such a window.
    reason: ClassVar[str]

    def __init__(self, parts: TimedParts) -> None:
        #: How many late events there were.
        self.late = 0
        #: Windows that end here or earlier have closed, even if the line is not there; None if there is no such end.
        self.closed_until: int | None = None
        self._firings = parts.firings
        self._watermark = parts.watermark
        self._times = parts.times
        self._lateness = parts.lateness
        self._is_given = parts.is_given
        # True from the end of the input until all windows have closed.
        self._has_ended = False
        # So many windows close in one call of `drain`; None: all that are due.
        self._most_at_once: int | None = None
        # Windows by their end. An entry may be older than the window's end, which has moved on.
        self._closing: list[_Entry] = []
        # The same, of those that have not fired on time. Without lateness, a window closes when it is on time.
        self._waiting: list[_Entry] | None = [] if parts.fires_on_time and parts.lateness else None

    def feed(self, upstream: Hashable, stamped: Stamped, out: list[Effect]) -> None:
        """Puts the events, in their order, into their windows. *out* gets what follows."""
        raise NotImplementedError

    def open_windows(self) -> Iterator[OpenWindow]:
        """Yields the open windows, in no order."""
        return (entry[-1] for entry in self._closing if not entry[-1].closed)

    def next_due(self) -> int | None:
        """Returns the watermark at which a window may fire or close next; None if none is open."""
        if not self._closing:
            return None
        due = self._closing[0][0] + self._lateness
        return min(due, self._waiting[0][0]) if self._waiting else due

    @property
    def has_due(self) -> bool:
        """True if :meth:`drain` has left windows open that are due, because they are many."""
        value = self._watermark.value
        if not self._closing or self._most_at_once is None:
            return False
        return self._has_ended or (value is not None and self._closing[0][0] + self._lateness <= value)

    def drain(self, out: list[Effect]) -> None:
        """Fires and closes what is due at the watermark. Windows that close together do so by end and by start."""
        value = self._watermark.value
        if value is None and not self._has_ended:
            return
        limit = None if value is None or self._has_ended else value - self._lateness
        for window in _popped(self._closing, limit, self._most_at_once):
            self._firings.close(window, "end" if self._has_ended else self.reason, out)
            self._forget(window)
        if not self._closing:
            self._has_ended = False
        if self._waiting is not None and value is not None:
            for window in _popped(self._waiting, value):
                self._firings.fire_on_time(window, self.reason, out)

    def line(self) -> int | None:
        """Returns up to which end windows have closed and do not open again; None while no watermark is known."""
        value = self._watermark.value
        if value is None:
            return self.closed_until
        line = value - self._lateness
        return line if self.closed_until is None else max(line, self.closed_until)

    def peek(self, key: Hashable, time: int) -> Peek:
        """Returns what an event of *key* at *time* would do."""
        raise NotImplementedError

    def reopen(self, saved: SavedWindow) -> OpenWindow:
        """Opens a window as it was saved."""
        raise NotImplementedError

    def close(self, before: int | None, out: list[Effect]) -> None:
        """Closes the open windows that end at *before* or earlier, because an operator wants it; None: all of them."""
        while self.has_due:
            self.drain(out)
        if before is None:
            before = max((entry[-1].end or 0 for entry in self._closing), default=0)
        for window in _popped(self._closing, before):
            self._firings.close(window, "closed", out)
            self._forget(window)
            if window.count:  # else all its events were taken back, and it has given no result
                self._close_until(window)

    def _close_until(self, window: OpenWindow) -> None:
        """Sees to it that *window* does not open again, although the line is not there yet."""
        raise NotImplementedError

    def end(self, out: list[Effect]) -> None:
        """Closes all windows, because the input has ended."""
        self._has_ended = True
        if self._waiting is not None:
            self._waiting.clear()
        self.drain(out)

    def _is_due(self) -> bool:
        due, value = self.next_due(), self._watermark.value
        return due is not None and value is not None and due <= value

    def _track(self, window: OpenWindow, start: int, end: int) -> None:
        entry = (end, start, window.serial, window)
        heapq.heappush(self._closing, entry)
        self._wait(window, entry)

    def _wait(self, window: OpenWindow, entry: _Entry) -> None:
        if self._waiting is None:
            return
        value = self._watermark.value
        # A window that is opened behind the watermark has missed its time. It fires when it closes, or as late.
        window.on_time = value is not None and entry[0] <= value
        if not window.on_time:
            heapq.heappush(self._waiting, entry)

    def _reopened(self, saved: SavedWindow) -> OpenWindow:
        """Returns a window with the facts of *saved*. It is due when its end says so."""
        start, end, value = saved.facts.start or 0, saved.facts.end or 0, self._watermark.value
        # What was due to close when it was saved has given no result then.
        was_due = self.closed_until is not None and end <= self.closed_until
        window = self._firings.reopen(saved, on_time=value is not None and end <= value and not was_due)
        entry = (end, start, window.serial, window)
        heapq.heappush(self._closing, entry)
        if self._waiting is not None and not window.on_time:
            heapq.heappush(self._waiting, entry)
        return window

    def _forget(self, window: OpenWindow) -> None:
        """Removes a *window* that has closed."""
        raise NotImplementedError

    def _too_late(self, events: Sequence[Any], times: Sequence[int], out: list[Effect]) -> None:
        self.late += len(events)
        out.extend(
            SideOutput(event, self._times.shown(time), "late") for event, time in zip(events, times, strict=True)
        )


def _popped(heap: list[_Entry], limit: int | None, most: int | None = None) -> list[OpenWindow]:
    """Takes the windows that end at *limit* or earlier out of *heap*, at most so many, and returns them in order."""
    due: list[OpenWindow] = []
    while heap and (limit is None or heap[0][0] <= limit) and (most is None or len(due) < most):
        end, _, serial, window = heapq.heappop(heap)
        if window.closed:
            continue
        if window.end is not None and window.end > end:
            heapq.heappush(heap, (window.end, window.start or 0, serial, window))
        else:
            due.append(window)
    if len(due) > 1:
        due.sort(key=lambda window: window.order)
    return due
