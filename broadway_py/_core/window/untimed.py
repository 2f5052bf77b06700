"""Windows without event time: count, global and periodic windows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from broadway_py._core.window.effects import Effect, OpenWindow, Peek
from broadway_py._core.window.saved import SavedTicks, SavedWindow
from broadway_py._core.window.shape import Count, Global, Periodic, microseconds
from broadway_py._core.window.ticks import Ticks
from broadway_py._core.window.times import Stamped
from broadway_py._core.window.trigger import Firings

__all__ = ["CountedByKey", "SingleWindow"]


class SingleWindow:
    """Windows of a stage, of which one is open at a time. The next one opens when it closes.

    A count window has *n* events. A periodic one lasts an interval; a stage that is late closes one window and goes on
    with the current one. The global window lasts until the end.

    Args:
        shape: the kind of the windows.
        firings: puts events into windows and makes firings.
        now: when the first window opens, by the clock, in seconds.
    """

    def __init__(self, shape: Count | Global | Periodic, firings: Firings, now: float) -> None:
        self._limit = shape.n if isinstance(shape, Count) else None
        self._ticks = Ticks(now, shape.interval) if isinstance(shape, Periodic) else None
        self._reason = shape.kind
        self._firings = firings
        self._index = 0
        #: How many events the open window was given; a trigger function may have put others into it.
        self._taken = 0
        self._window = self._opened()

    def feed(self, stamped: Stamped, out: list[Effect]) -> None:
        """Puts the events into the open window, and closes it where it is full."""
        events, keys = stamped.events, stamped.keys
        if self._limit is None:
            self._firings.add((self._window,), events, keys, out)
            return
        begin = 0
        while begin < len(events):
            part = events[begin : begin + self._limit - self._taken]
            part_keys = None if keys is None else keys[begin : begin + len(part)]
            begin += len(part)
            self._taken += len(part)
            self._firings.add((self._window,), part, part_keys, out)
            if self._taken == self._limit:
                self._firings.close(self._window, self._reason, out)
                self._index += 1
                self._window = self._opened()

    def next_tick(self) -> float | None:
        """Returns when the open window closes by the clock; None if it does not."""
        return None if self._ticks is None else self._ticks.next

    def tick(self, now: float, out: list[Effect]) -> None:
        """Closes the open window, because its time is over."""
        if self._ticks is not None:
            self._firings.close(self._window, self._reason, out)
            self._ticks.reach(now)
            self._index = self._ticks.passed
            self._window = self._opened()

    def open_windows(self) -> Iterator[OpenWindow]:
        """Yields the open window; nothing after the end."""
        if not self._window.closed:
            yield self._window

    def end(self, out: list[Effect]) -> None:
        """Closes the open window, because the input has ended."""
        self._firings.close(self._window, "end", out)
        if self._ticks is not None:
            self._ticks.passed += 1  # what is saved now does not open this window again

    def peek(self, key: Hashable) -> Peek:
        """Returns that an event goes into the open window."""
        return Peek(joins=(self._window,))

    def saved_ticks(self) -> SavedTicks | None:
        """Returns the timer of periodic windows."""
        return None if self._ticks is None else self._ticks.saved

    def next_serial(self) -> int:
        """Returns the serial number with which the open window opens again; after the end, that of the next one."""
        return self._firings.serial if self._window.closed else self._window.serial

    def restore(self, ticks: SavedTicks | None) -> None:
        """Opens the window of a time in the past, by the timer of periodic windows if it was saved."""
        if ticks is not None:
            self._ticks = Ticks(*ticks)
            self._index = self._ticks.passed
        self._window = self._opened()

    def reopen(self, saved: SavedWindow) -> OpenWindow:
        """Adds keys to the open window, which is the one that was saved."""
        self._firings.restore_keys(self._window, saved.keys)
        return self._window

    def _opened(self) -> OpenWindow:
        self._taken = 0
        if self._ticks is not None:
            start, end = (microseconds(self._ticks.at(self._index + each)) for each in (0, 1))
            return self._firings.open(start, end, index=self._index)
        return self._firings.open(index=None if self._limit is None else self._index)


class CountedByKey:
    """Count windows of *n* events of one key each. A window opens with its first event."""

    def __init__(self, n: int, firings: Firings) -> None:
        self._limit = n
        self._firings = firings
        #: The index of the next window.
        self.opened = 0
        self._open: dict[Hashable, OpenWindow] = {}

    def feed(self, stamped: Stamped, out: list[Effect]) -> None:
        """Puts each event into the window of its key, and closes the window when it is full."""
        for event, key in zip(stamped.events, stamped.keys or (), strict=True):
            window = self._open.get(key)
            if window is None:
                window = self._open[key] = self._firings.open(key=key, index=self.opened)
                self.opened += 1
            self._firings.add((window,), (event,), (key,), out)
            if window.count >= self._limit:  # a restored window may have had a larger limit
                del self._open[key]
                self._firings.close(window, "count", out)

    def next_tick(self) -> float | None:
        """Returns None: these windows do not close by the clock."""
        return None

    def tick(self, now: float, out: list[Effect]) -> None:
        """Does nothing: these windows do not close by the clock."""

    def open_windows(self) -> Iterator[OpenWindow]:
        """Yields the open windows, in no order."""
        return iter(self._open.values())

    def end(self, out: list[Effect]) -> None:
        """Closes all windows, because the input has ended."""
        self._close_all("end", out)

    def close(self, out: list[Effect]) -> None:
        """Closes all windows, because an operator wants it."""
        self._close_all("closed", out)

    def _close_all(self, reason: str, out: list[Effect]) -> None:
        for window in sorted(self._open.values(), key=lambda window: window.order):
            self._firings.close(window, reason, out)
        self._open.clear()

    def peek(self, key: Hashable) -> Peek:
        """Returns into which window an event of *key* goes."""
        window = self._open.get(key)
        return Peek(opens=1) if window is None else Peek(joins=(window,))

    def reopen(self, saved: SavedWindow) -> OpenWindow:
        """Opens a window as it was saved."""
        window = self._open[saved.key] = self._firings.reopen(saved, on_time=False)
        return window
