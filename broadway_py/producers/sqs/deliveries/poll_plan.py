"""Decides how many receives run at the same time, and when the next one starts. It uses no event loop and no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from broadway_py._core.backoff import Backoff

__all__ = ["PollPlan"]

#: A receive that is answered within this time did not wait, so the queue probably has more messages.
_AT_ONCE_S: Final = 0.25
#: The first and the largest ceiling of the wait after a failed receive, in seconds.
_FIRST_WAIT_S: Final = 0.2
_MOST_WAIT_S: Final = 5.0
#: After so many failed receives in a row the source counts as not available.
_TOLERATED: Final = 4


class PollPlan:
    """Receives follow demand: none without it, one on an idle queue, up to *most* while they find messages.

    Args:
        batch: the most messages of one receive.
        most: the most receives at the same time.
        interval_s: the least seconds between the starts of two receives if the first one found nothing.
        may_spare: whether a receive may ask for somewhat more than the demand: ten messages cost as much as five.
        backoff: makes the waits after failures.
    """

    def __init__(
        self,
        *,
        batch: int,
        most: int,
        interval_s: float,
        may_spare: bool,
        backoff: Callable[[], Backoff] = lambda: Backoff(_FIRST_WAIT_S, _MOST_WAIT_S),
    ) -> None:
        self._batch = batch
        self._most = most
        self._interval_s = interval_s
        self._may_spare = may_spare
        self._new_backoff = backoff
        self._backoff = backoff()
        self._allowed = 1
        self._not_before = 0.0
        self._last_failure = 0.0
        #: Receives that failed since the last success.
        self.failures = 0
        #: Receives that run, and the messages that they have asked for together.
        self.running = 0
        self.asked = 0

    def ask(self, wanted: int, now: float) -> int:
        """Returns how many messages a receive that starts now asks for; 0: none starts now.

        Args:
            wanted: messages that are wanted and have not come yet. Those that running receives have asked for are
                subtracted here.
            now: the time of a monotonic clock.
        """
        missing = wanted - self.asked
        if missing <= 0 or self.running >= self._allowed or now < self._not_before:
            return 0
        if missing >= self._batch:
            return self._batch
        if self.running and 2 * missing < self._batch:
            return 0  # wait for the running ones: small receives cost as much as full ones
        return self._batch if self._may_spare and 2 * missing >= self._batch else missing

    def waits_until(self, now: float) -> float | None:
        """Returns when to ask again, if only the time keeps a receive from starting; None: that is not the reason."""
        return self._not_before if now < self._not_before else None

    def started(self, asked: int) -> None:
        """Notes that a receive has started."""
        self.running += 1
        self.asked += asked

    def found(self, asked: int, count: int, started_at: float, now: float) -> None:
        """Notes that a receive was answered with *count* messages."""
        self._ended(asked)
        if self.failures:
            self.failures = 0
            self._backoff = self._new_backoff()
        if count == 0:
            self._allowed = max(1, self._allowed // 2)
            self._not_before = max(self._not_before, started_at + self._interval_s)
        elif count >= asked or now - started_at <= _AT_ONCE_S:
            # A small answer at once counts, too: SQS often returns 1 to 3 messages of a queue that has many.
            self._allowed = min(self._most, self._allowed * 2)
            self._not_before = 0.0

    def failed(self, asked: int, started_at: float, now: float) -> bool:
        """Notes that a receive failed. Returns True if so many have failed that the source counts as not available."""
        self._ended(asked)
        if started_at >= self._last_failure:  # receives that ran at the same time fail together, and count once
            self.failures += 1
            self._last_failure = now
            self._allowed = 1
            self._not_before = now + self._backoff.failed()
        return self.failures >= _TOLERATED

    def abandoned(self, asked: int) -> None:
        """Notes that a receive was cut off: its result is unknown."""
        self._ended(asked)

    def _ended(self, asked: int) -> None:
        self.running -= 1
        self.asked -= asked
