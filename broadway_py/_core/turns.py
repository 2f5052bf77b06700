"""A lock that is held by many at once or by one alone."""

from __future__ import annotations

from collections import deque

__all__ = ["ExclusiveTurn"]


class ExclusiveTurn:
    """A readers-writer lock with a time limit.

    A caller that wants to be alone has priority: no other caller may enter until those inside have left. But a caller
    inside may wait for one outside, or never leave. So a caller that has waited at the head of the queue for the whole
    patience is let in although others are inside, and a caller that has been alone for that long is no longer alone.
    After that, every caller enters at once until all inside have left.

    Args:
        patience_s: the patience in seconds.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._inside = 0
        self._alone: object | None = None
        self._queue: deque[object] = deque()
        # When the caller that is alone entered, or when the first caller of the queue became the first.
        self._since = 0.0
        self._is_shared = False

    @property
    def alone(self) -> object | None:
        """The caller that is alone inside; None if none is."""
        return self._alone

    @property
    def changes_at(self) -> float | None:
        """When the current patience ends; None if no caller is alone or waits to be alone."""
        return self._since + self._patience_s if self._alone is not None or self._queue else None

    def enter(self, now: float) -> bool:
        """Enters as one of many. Returns False if this is not possible now; then ask again after a change."""
        self._look(now)
        if self._alone is not None or (self._queue and not self._is_shared):
            return False
        self._inside += 1
        return True

    def enter_alone(self, who: object, now: float) -> bool:
        """Enters alone or, when the patience has ended, not alone; :attr:`alone` says which.

        Returns False if this is not possible now.
        """
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
        """Leaves, whether alone or not."""
        if self._alone is who:
            self._alone = None
            self._since = now
            return
        self._inside -= 1
        if self._inside == 0:
            self._is_shared = False

    def withdraw(self, who: object, now: float) -> None:
        """Stops waiting to be alone."""
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
