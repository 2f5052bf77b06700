"""Names the receives of a FIFO queue. A receive whose answer was lost is repeated, and brings the same messages."""

from __future__ import annotations

import uuid
from collections import deque
from typing import Final, NamedTuple

__all__ = ["Attempt", "Attempts"]

#: How long SQS remembers the name of a receive, in seconds.
_KNOWN_S: Final = 300.0
#: The most lost receives that are remembered. More would not help before their messages are visible again.
_MOST_LOST: Final = 100


class Attempt(NamedTuple):
    """One receive, however often it is repeated."""

    #: ``ReceiveRequestAttemptId``; None on standard queues, which have none.
    id: str | None
    #: How many messages it asks for.
    asked: int
    #: When it was first asked for. Its messages are hidden from then on, at the earliest.
    began_at: float


class Attempts:
    """Chooses the next receive: a lost one while that helps, else a new one.

    Otherwise the messages of a lost answer, and their whole groups, would stop for a visibility timeout. The copies of
    a producer share this, because a new copy follows after several lost receives.
    """

    def __init__(self, *, is_fifo: bool) -> None:
        self._is_fifo = is_fifo
        self._lost: deque[Attempt] = deque(maxlen=_MOST_LOST)

    def begin(self, asked: int, now: float, visibility_s: float) -> Attempt:
        """Returns the receive that starts now. A lost one asks for as many messages as before.

        A lost receive is not repeated later than *visibility_s* after its start: others may have its messages by then.
        """
        while self._lost:
            attempt = self._lost.popleft()
            if now < attempt.began_at + min(visibility_s, _KNOWN_S):
                return attempt
        return Attempt(uuid.uuid4().hex if self._is_fifo else None, asked, now)

    def lost(self, attempt: Attempt) -> None:
        """Notes that no answer has come, so SQS may have hidden messages for this receive."""
        if attempt.id is not None:
            self._lost.append(attempt)
