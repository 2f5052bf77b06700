"""Receives of a FIFO queue by name: one whose answer was lost is asked for again, and brings the same messages."""

from __future__ import annotations

import uuid
from collections import deque
from typing import Final, NamedTuple

__all__ = ["Attempt", "Attempts"]

#: How long SQS knows a receive by its name, in seconds.
_KNOWN_S: Final = 300.0
#: The most lost receives that are remembered: more are of no use before their messages are visible again.
_MOST_LOST: Final = 100


class Attempt(NamedTuple):
    """One receive, however often it is asked for."""

    #: ``ReceiveRequestAttemptId``; None on standard queues, which know none.
    id: str | None
    #: How many messages it asks for.
    asked: int
    #: When it was asked for the first time: its messages are hidden from then on, at the earliest.
    began_at: float


class Attempts:
    """Which receive is asked for next: one that was lost, as long as that helps, else a new one.

    Without it the messages of a lost answer, and with them their whole groups, stand still for a visibility timeout.
    Shared by the copies of a producer, of which a fresh one follows when several receives have been lost.
    """

    def __init__(self, *, is_fifo: bool) -> None:
        self._is_fifo = is_fifo
        self._lost: deque[Attempt] = deque(maxlen=_MOST_LOST)

    def begin(self, asked: int, now: float, visibility_s: float) -> Attempt:
        """The receive that begins now; one that was lost asks for as many messages as before.

        Later than *visibility_s* after its begin its messages may be in other hands, and SQS has to be asked anew.
        """
        while self._lost:
            attempt = self._lost.popleft()
            if now < attempt.began_at + min(visibility_s, _KNOWN_S):
                return attempt
        return Attempt(uuid.uuid4().hex if self._is_fifo else None, asked, now)

    def lost(self, attempt: Attempt) -> None:
        """No answer has come: nobody knows whether SQS has hidden messages for it."""
        if attempt.id is not None:
            self._lost.append(attempt)
