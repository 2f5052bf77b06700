"""Session windows: of one key each, as long as the key is not silent for the gap."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable
from typing import cast

from broadway_py._core.window.firing import Effect, Merge, OpenWindow
from broadway_py._core.window.timed import TimedParts, TimedWindows
from broadway_py._core.window.times import Stamped

__all__ = ["SessionWindows"]


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
        line = self._line()
        while line is not None and self._endings and self._endings[0][0] + self._gap <= line:
            end, key = self._endings.popleft()
            if self._ended.get(key) == end:
                del self._ended[key]

    def _is_due(self) -> bool:
        line = self._line()
        if line is not None and self._endings and self._endings[0][0] + self._gap <= line:
            return True  # a key can be forgotten
        return super()._is_due()

    def _session_of(self, key: Hashable, time: int, out: list[Effect]) -> OpenWindow | None:
        """Returns the session for an event at *time*, opened or extended for it; None if the event is late."""
        end = time + self._gap
        line = self._line()
        if (line is not None and end <= line) or time < self._ended.get(key, time):
            return None
        sessions = self._open.setdefault(key, [])
        following = bisect_right(sessions, time, key=_start)
        if following and time < _end(sessions[following - 1]):
            window = sessions[following - 1]
            end = max(_end(window), end if self._longest is None else min(end, _start(window) + self._longest))
        elif following < len(sessions) and self._joins(time, end, sessions[following]):
            window = sessions[following]
            window.start = time
            end = max(_end(window), end)
            following += 1
        else:
            if following < len(sessions):
                end = min(end, _start(sessions[following]))
            window = self._firings.open(time, end, key=key)
            sessions.insert(following, window)
            self._track(window, time, end)
            return window
        while following < len(sessions) and _start(sessions[following]) < end:
            if not self._joins(_start(window), end, sessions[following]):
                end = _start(sessions[following])
                break
            absorbed = sessions.pop(following)
            end = max(end, _end(absorbed))
            self._firings.merged(window, absorbed)
            out.append(Merge(window, absorbed))
        self._extend(window, end)
        return window

    def _joins(self, start: int, end: int, following: OpenWindow) -> bool:
        """Returns True if the time from *start* to *end* and the session *following* overlap and can be one."""
        if _start(following) >= end:
            return False
        return self._longest is None or max(end, _end(following)) - start <= self._longest

    def _extend(self, window: OpenWindow, end: int) -> None:
        window.end = end
        value = self._watermark.value
        if window.on_time and value is not None and end > value:
            self._wait(window, (end, _start(window), window.serial, window))

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
