"""One copy of a producer: whether it is read, and whether it is asked for messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Followed", "Reader"]


class Followed(Protocol):
    """What hears of a copy: the progress of its producer."""

    def stand(self, now: float, returns_within_s: float) -> None:
        """Begins a standstill: the copy is gone, and what it held comes back within so many seconds."""

    def note_reading(self, change: int, now: float) -> None:
        """Notes that one copy more or fewer is reading."""

    def tell(self) -> None:
        """Tells those that follow that something has changed that they cannot see."""

    def tell_the_free(self) -> None:
        """Tells those that wait for nothing: for them, being asked changes when they are idle."""


class Reader:
    """One copy of a producer, as its source sees it.

    It *reads* while it is connected and not paused. It is *asked* while the pipeline also has room for its messages.
    """

    def __init__(self, progress: Followed) -> None:
        #: Returns False if the copy is connected and still cannot deliver anything.
        self.works: Callable[[], bool] = _works
        self.has_ended = False
        self._progress = progress
        #: True while the pipeline has room for its messages.
        self.is_wanted = False
        self._is_reading = False
        self._asked_since: float | None = None

    def asked_since(self, now: float) -> float | None:
        """Returns since when it is asked and works; None: it is not asked."""
        if self._asked_since is not None and not self.works():
            self._asked_since = now
        return self._asked_since

    def reads(self, now: float) -> None:
        """Notes that it is connected, or goes on after a pause."""
        if not self._is_reading:
            self._is_reading = True
            self._asked_since = now if self.is_wanted else None
            self._progress.note_reading(1, now)
            self._progress.tell()

    def pauses(self, now: float) -> None:
        """Notes that it is paused."""
        self._asked_since = None
        if self._is_reading:
            self._is_reading = False
            self._progress.note_reading(-1, now)

    def lost(self, now: float, returns_within_s: float) -> None:
        """Notes that it is lost, before its messages are let go. They are back within so many seconds of reading."""
        self._progress.stand(now, returns_within_s)
        self.pauses(now)

    def asks(self, now: float) -> None:
        """Notes that the pipeline has room for its messages."""
        self.is_wanted = True
        if self._asked_since is None and self._is_reading:
            self._asked_since = now
            self._progress.tell_the_free()

    def rests(self) -> None:
        """Notes that the pipeline has no room for its messages, or stops."""
        self.is_wanted = False
        self._asked_since = None

    def ended(self, now: float) -> None:
        """Notes that its source has ended: nothing more comes. The watermark waits for it no longer."""
        self.pauses(now)
        self.has_ended = True
        self._progress.tell()


def _works() -> bool:
    return True
