"""Decides when to look for commits of other processes: soon after something has happened, and ever less often after it.

Everything here is pure: the caller gives the time, in seconds of a clock that only moves forward.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LOOK_FIRST", "LOOK_LAST", "LOOK_WATCHED", "LookPace"]

#: Seconds until the first look after something has happened …
LOOK_FIRST: Final = 0.005
#: … and the longest time between two looks. Without a watch, a commit of another process is seen so late at most.
LOOK_LAST: Final = 0.100
_LOOK_GROWTH: Final = 1.5
#: A watch costs as much as some looks. It begins when the next pause would be longer than this.
_WATCH_FROM: Final = 0.020
#: Seconds between two looks during a watch. They are only for a kernel that does not tell what it should.
LOOK_WATCHED: Final = 5.0


class LookPace:
    """The times of the looks.

    Args:
        now: the time.
    """

    def __init__(self, now: float) -> None:
        self._pause = 0.0
        #: When the next look is due.
        self.next_look = 0.0
        self.restart(now)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has happened for so long that a watch is worth its price."""
        return self._pause > _WATCH_FROM

    def restart(self, now: float) -> None:
        """Notes that something was written. A watch has ended."""
        self._pause = LOOK_FIRST
        self.next_look = now + self._pause

    def looked(self, now: float) -> None:
        """Notes that a look has found nothing."""
        if self._pause < LOOK_LAST:
            self._pause = min(LOOK_LAST, self._pause * _LOOK_GROWTH)
        self.next_look = now + self._pause

    def watched(self, now: float) -> None:
        """Notes that the kernel tells of the next write from now on."""
        self._pause = LOOK_WATCHED
        self.next_look = now + self._pause
