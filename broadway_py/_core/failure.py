"""Decides what happens to a failed message: retry or dead letter, and how long it waits for its next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from broadway_py.durations import seconds_of
from broadway_py.errors import Reject, RetryLater, Unavailable
from broadway_py.foreign import article, foreign_errors, is_a, text_of, type_name
from broadway_py.message import Failed

__all__ = ["Action", "FailureRules", "Verdict", "asked_delay"]

#: Causes that another delivery cannot remove.
_FINAL_CAUSES: Final = frozenset({"invalid", "worker_died", "late", "future_event_time"})

#: What a policy may do with a failed message: after the last attempt, or at once because of the exception's type.
Action = Literal["dead_letter", "drop", "reject", "retry", "stop"]


class Verdict(NamedTuple):
    """What to do with a message and, for a retry, after how many seconds."""

    action: Action
    delay_s: float = 0.0


def asked_delay(error: BaseException | None) -> float | None:
    """Returns the seconds that a ``RetryLater`` asks for; None if it asks for none, or *error* is of another type.

    Raises:
        ValueError: the value is not a duration.
    """
    if not is_a(error, RetryLater):
        return None
    try:
        after: object = error.after  # type: ignore[union-attr]  # is_a says it
    except foreign_errors() as raised:
        raise ValueError(
            f"{type_name(error)}: expected after= as seconds, a timedelta or None; reading it raised "
            f"{article(raised)}: {text_of(raised)}"
        ) from None
    return None if after is None else max(0.0, seconds_of(after, f"{type_name(error)}(after=…)"))


class FailureRules:
    """Decides by cause, exception type and number of attempts.

    Args:
        attempts: the number of deliveries of a message, including the first one.
        backoff_s: the ceiling of the delay before the second attempt, which doubles with each attempt, and its limit.
        final: what happens after the last attempt.
        classify: exception type -> what to do at once. The closest base class counts.
        uniform: the source of random numbers, ``random.uniform`` by default.
    """

    def __init__(
        self,
        attempts: int,
        backoff_s: tuple[float, float],
        final: Action,
        classify: Mapping[type[BaseException], Action],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._attempts = attempts
        self._first_s, self._most_s = backoff_s
        self._final = final
        self._classify = dict(classify)
        self._uniform = uniform

    def decide(self, status: Failed, attempt: int, *, is_sink_away: bool = False) -> Verdict:
        """Returns what happens to a message that failed with *status* on its *attempt* (1 is the first).

        While something that the handlers need is not available (*is_sink_away*), no attempt is the last one.
        """
        error = status.exception
        if is_a(error, Unavailable):
            return Verdict("retry", self._delay(attempt))
        if status.cause in _FINAL_CAUSES or is_a(error, Reject):
            return Verdict(self._final)
        action = self._classified(error)
        if action is not None and action != "retry":
            return Verdict(action)
        if attempt >= self._attempts and not is_sink_away:
            return Verdict(self._final)
        try:
            asked = asked_delay(error)
        except ValueError:
            asked = None
        return Verdict("retry", self._delay(attempt) if asked is None else asked)

    def last_word(self) -> Verdict:
        """Returns what happens to a message that is not tried again."""
        return Verdict(self._final)

    def _classified(self, error: BaseException | None) -> Action | None:
        if error is None:
            return None
        return next((self._classify[kind] for kind in type(error).__mro__ if kind in self._classify), None)

    def _delay(self, attempt: int) -> float:
        # From the upper half below the ceiling: the delays of one message always grow, and those of many are spread.
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(attempt - 1, 60))
        return self._uniform(ceiling / 2.0, ceiling)
