"""Session windows: of one key each, as long as the key is not silent for the gap."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Final, cast

from broadway_py._core.window.effects import Effect, Merge, OpenWindow, Peek
from broadway_py._core.window.saved import SavedWindow
from broadway_py._core.window.timed import TimedParts, TimedWindows
from broadway_py._core.window.times import Stamped

__all__ = ["SessionWindows"]

#: So many sessions close before others can run, where the watermark comes from outside.
_MOST_AT_ONCE: Final = 1_000


class SessionWindows(TimedWindows):
    """The open sessions of each key. An event covers the time from its own until *gap* later.

    An event that covers time of an open session belongs to it, and may join two sessions. Sessions that only touch stay
    apart; otherwise the result would depend on when the watermark came. An event is late when all the time that it
    covers is behind the line, or when it covers time of a closed session of its key. So closed sessions do not overlap.

    The end of a key's last closed session is kept until the line is *gap* past it. Later, an event that could cover its
    time is late anyway, so nothing is kept for the key.

    Args:
        gap: in microseconds.
        longest: a session ends so many microseconds after its start at the latest. What would make two sessions longer
            than this together does not join them; the earlier one then ends where the later one starts.
    """

    reason = "gap"

    def __init__(self, gap: int, longest: int | None, parts: TimedParts) -> None:
        super().__init__(parts)
        self._gap = gap
        self._longest = longest
        # With lateness, those that are due for the last time must not fire on time before.
        if parts.is_given and self._waiting is None:
            self._most_at_once = _MOST_AT_ONCE
        #: By key, in the order of time.
        self._open: dict[Hashable, list[OpenWindow]] = {}
        #: The end of the last closed session by key, and the same in the order of closing.
        self._ended: dict[Hashable, int] = {}
        self._endings: deque[tuple[int, Hashable]] = deque()

    def feed(self, upstream: Hashable, stamped: Stamped, out: list[Effect]) -> None:
        """Puts the events, in their order, into their sessions. *out* gets what follows."""
        for event, time, key in zip(stamped.events, stamped.times(), stamped.keys or (), strict=True):
            window = self._session_of(key, time, out)
            if window is None:
                self._too_late((event,), (time,), out)
            else:
                self._firings.add((window,), (event,), (key,), out)
            if not self._is_given:
                self._watermark.observe(upstream, time)
                if self._is_due():
                    self.drain(out)

    def drain(self, out: list[Effect]) -> None:
        """Fires and closes what is due at the watermark, and forgets keys that are silent for long enough."""
        super().drain(out)
        line = self.line()
        while line is not None and self._endings and self._endings[0][0] + self._gap <= line:
            end, key = self._endings.popleft()
            if self._ended.get(key) == end:
                del self._ended[key]

    def _is_due(self) -> bool:
        line = self.line()
        if line is not None and self._endings and self._endings[0][0] + self._gap <= line:
            return True  # a key can be forgotten
        return super()._is_due()

    def peek(self, key: Hashable, time: int) -> Peek:
        """Returns what an event of *key* at *time* would do."""
        place = self._place_of(key, time)
        if place is None:
            return Peek("late")
        first, until, _, _ = place
        if first == until:
            return Peek(opens=1)
        return Peek(joins=tuple(self._open[key][first:until]))

    def ended(self) -> Mapping[Hashable, int]:
        """Returns the end of the last closed session by key, as long as it is remembered."""
        return self._ended

    def reopen(self, saved: SavedWindow) -> OpenWindow:
        """Opens a session as it was saved."""
        window = self._reopened(saved)
        sessions = self._open.setdefault(saved.key, [])
        sessions.insert(bisect_right(sessions, _start(window), key=_start), window)
        return window

    def reopen_ended(self, ended: Mapping[Hashable, int]) -> None:
        """Remembers the ends of the last closed sessions, as :meth:`ended` gave them."""
        line = self.line()
        kept = [(end, key) for key, end in ended.items() if line is None or end + self._gap > line]
        self._ended = {key: end for end, key in kept}
        self._endings = deque(sorted(kept, key=lambda ending: ending[0]))

    def _session_of(self, key: Hashable, time: int, out: list[Effect]) -> OpenWindow | None:
        """Returns the session for an event at *time*, opened or extended for it; None if the event is late."""
        place = self._place_of(key, time)
        if place is None:
            return None
        first, until, start, end = place
        sessions = self._open.setdefault(key, [])
        if first == until:
            window = self._firings.open(start, end, key=key)
            window.first_start = start
            sessions.insert(first, window)
            self._track(window, start, end)
            return window
        window = sessions[first]
        window.start = start
        if until - first > 1:
            for absorbed in sessions[first + 1 : until]:
                self._firings.merged(window, absorbed)
                out.append(Merge(window, absorbed))
            del sessions[first + 1 : until]
        self._extend(window, end)
        return window

    def _place_of(self, key: Hashable, time: int) -> tuple[int, int, int, int] | None:
        """Returns where an event of *key* at *time* belongs; None if it is late.

        The first two numbers say which sessions of the key become one with it: from the first place until the second,
        which is not among them. If they are equal, a new session is opened there. The other two are its start and end.
        """
        end = time + self._gap
        line = self.line()
        if (line is not None and end <= line) or time < self._ended.get(key, time):
            return None
        sessions = self._open.get(key, ())
        for session in sessions:
            # Many sessions do not close at once. One that is due takes no event, as if it had closed.
            if line is None or _end(session) > line:
                break
            if time < _end(session):
                return None
        until = bisect_right(sessions, time, key=_start)
        first, start = until, time
        if until and time < _end(sessions[until - 1]):
            first = until - 1
            start = _start(sessions[first])
            end = max(_end(sessions[first]), end if self._longest is None else min(end, start + self._longest))
        while until < len(sessions) and _start(sessions[until]) < end:
            longer = max(end, _end(sessions[until]))
            if self._longest is not None and longer - start > self._longest:
                end = _start(sessions[until])
                break
            end = longer
            until += 1
        return first, until, start, end

    def _extend(self, window: OpenWindow, end: int) -> None:
        window.end = end
        value = self._watermark.value
        if window.on_time and value is not None and end > value:
            self._wait(window, (end, _start(window), window.serial, window))

    def _close_until(self, window: OpenWindow) -> None:
        """Does nothing: the end of the last closed session of the key is remembered."""

    def _forget(self, window: OpenWindow) -> None:
        sessions = self._open[window.key]
        sessions.remove(window)
        if not sessions:
            del self._open[window.key]
        self._ended[window.key] = _end(window)
        self._endings.append((_end(window), window.key))


def _start(window: OpenWindow) -> int:
    return cast("int", window.start)


def _end(window: OpenWindow) -> int:
    return cast("int", window.end)
