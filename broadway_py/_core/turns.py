"""Many at once, or one alone."""

from __future__ import annotations

from collections import deque

__all__ = ["ExclusiveTurn"]


class ExclusiveTurn:
    """A readers-writer lock that gives up.

    Who wants to be alone goes first: nobody else comes in until those inside have left. But one inside may wait for
    somebody outside, or never leave. So whoever has waited at the head of the queue for the whole patience, or has
    been alone for that long, shares the room; and until all of that company have left, everybody comes in at once.

    Args:
        patience_s: seconds.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._inside = 0
        self._alone: object | None = None
        self._queue: deque[object] = deque()
        # When the one alone came in, or the first of the queue became the first.
        self._since = 0.0
        self._is_shared = False

    @property
    def alone(self) -> object | None:
        """Who is alone inside."""
        return self._alone

    @property
    def changes_at(self) -> float | None:
        """When somebody's patience ends; None when nobody waits for it."""
        return self._since + self._patience_s if self._alone is not None or self._queue else None

    def enter(self, now: float) -> bool:
        """Come in as one of many; False: not now, ask again after a change."""
        self._look(now)
        if self._alone is not None or (self._queue and not self._is_shared):
            return False
        self._inside += 1
        return True

    def enter_alone(self, who: object, now: float) -> bool:
        """Come in alone, or, when patience has ended, not alone; False: not now. :attr:`alone` tells which."""
        self._look(now)
        if who not in self._queue:
            if not self._queue and self._alone is None:
                self._since = now
            self._queue.append(who)
        if self._alone is not None or self._queue[0] is not who:
            return False
        is_over = now - self._since >= self._patience_s
        if self._inside and not self._is_shared and not is_over:
            return False
        self._queue.popleft()
        self._since = now
        if self._inside:
            self._is_shared = True
            self._inside += 1
        else:
            self._alone = who
        return True

    def leave(self, who: object, now: float) -> None:
        """Go out, whether alone or not."""
        if self._alone is who:
            self._alone = None
            self._since = now
            return
        self._inside -= 1
        if self._inside == 0:
            self._is_shared = False

    def withdraw(self, who: object, now: float) -> None:
        """Wait no more."""
        if who not in self._queue:
            return
        if self._queue[0] is who and self._alone is None:
            self._since = now
        self._queue.remove(who)

    def _look(self, now: float) -> None:
        if self._alone is not None and now - self._since >= self._patience_s:
            self._alone = None
            self._inside += 1
            self._is_shared = True
            self._since = now
