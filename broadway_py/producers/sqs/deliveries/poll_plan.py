"""How many receives run side by side, and when the next one begins: arithmetic, without a loop or a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from broadway_py._core.backoff import Backoff

__all__ = ["PollPlan"]

#: A receive that was answered so soon did not wait: there are more messages where these came from.
_AT_ONCE_S: Final = 0.25
#: Ceilings of the wait after a receive that failed, in seconds.
_FIRST_WAIT_S: Final = 0.2
_MOST_WAIT_S: Final = 5.0
#: Receives that may fail one after the other before the source counts as away.
_TOLERATED: Final = 4


class PollPlan:
    """Receives follow demand: none without it, one on an idle queue, up to *most* while they find messages.

    Args:
        batch: the most messages of one receive.
        most: the most receives side by side.
        interval_s: least seconds between the starts of two receives when the first one found nothing.
        may_spare: a receive may ask for some more than the demand of the moment: ten messages cost what five cost.
        backoff: waits after failures; made here when left out.
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
        #: Receives that failed since the last one that did not.
        self.failures = 0
        #: Receives under way, and the messages they have asked for together.
        self.running = 0
        self.asked = 0

    def ask(self, wanted: int, now: float) -> int:
        """How many messages a receive that starts now asks for; 0: none starts now.

        Args:
            wanted: messages that are wanted and not there yet. Those that receives under way may bring count as there.
            now: on a clock that only runs forward.
        """
        missing = wanted - self.asked
        if missing <= 0 or self.running >= self._allowed or now < self._not_before:
            return 0
        if missing >= self._batch:
            return self._batch
        if self.running and 2 * missing < self._batch:
            return 0  # it can wait for the others: small receives cost as much as full ones
        return self._batch if self._may_spare and 2 * missing >= self._batch else missing

    def waits_until(self, now: float) -> float | None:
        """When to ask again, if it is time alone that keeps a receive from starting."""
        return self._not_before if now < self._not_before else None

    def started(self, asked: int) -> None:
        """A receive has begun."""
        self.running += 1
        self.asked += asked

    def found(self, asked: int, count: int, started_at: float, now: float) -> None:
        """It was answered with *count* messages."""
        self._ended(asked)
        if self.failures:
            self.failures = 0
            self._backoff = self._new_backoff()
        if count == 0:
            self._allowed = max(1, self._allowed // 2)
            self._not_before = max(self._not_before, started_at + self._interval_s)
        elif count >= asked or now - started_at <= _AT_ONCE_S:
            # Also a small answer at once: SQS often gives 1 to 3 messages of a queue that has many.
            self._allowed = min(self._most, self._allowed * 2)
            self._not_before = 0.0

    def failed(self, asked: int, started_at: float, now: float) -> bool:
        """It failed; True when so many have failed that the source counts as away."""
        self._ended(asked)
        if started_at >= self._last_failure:  # those that ran side by side fail together, and count once
            self.failures += 1
            self._last_failure = now
            self._allowed = 1
            self._not_before = now + self._backoff.failed()
        return self.failures >= _TOLERATED

    def abandoned(self, asked: int) -> None:
        """It was cut off; nothing is known."""
        self._ended(asked)

    def _ended(self, asked: int) -> None:
        self.running -= 1
        self.asked -= asked
