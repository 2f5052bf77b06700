"""What is to become of a failed message: retry or dead letter, and how long it waits for its next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from broadway_py.errors import Reject, RetryLater, Unavailable
from broadway_py.foreign import article, foreign_errors, is_a, text_of, type_name
from broadway_py.message import Failed
from broadway_py.options import seconds_of

__all__ = ["Action", "FailureRules", "Verdict", "asked_delay"]

#: What a policy may do with a message that has failed for good, or at once by the type of its exception.
Action = Literal["dead_letter", "drop", "reject", "retry", "stop"]


class Verdict(NamedTuple):
    """What to do, and for a retry, after how many seconds."""

    action: Action
    delay_s: float = 0.0


def asked_delay(error: BaseException | None) -> float | None:
    """Seconds that a ``RetryLater`` asks for; None when it asks for none, or *error* is another.

    Raises:
        ValueError: what it asks for is no duration.
    """
    if not is_a(error, RetryLater):
        return None
    try:
        after: object = error.after  # type: ignore[union-attr]  # is_a says it
    except foreign_errors() as raised:
        raise ValueError(
            f"{type_name(error)}: expected after= as seconds, a timedelta or None; looking at it raised "
            f"{article(raised)}: {text_of(raised)}"
        ) from None
    return None if after is None else max(0.0, seconds_of(after, f"{type_name(error)}(after=…)"))


class FailureRules:
    """Decides by cause, exception type and number of attempts.

    Args:
        attempts: deliveries that a message gets, the first one included.
        backoff_s: ceiling of the delay before the second attempt, which doubles with each one, and where that ends.
        final: what follows the last attempt.
        classify: exception type -> what to do at once; the closest base class counts.
        uniform: source of chance, ``random.uniform`` by default.
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
        """What becomes of a message that failed with *status* on its *attempt* (1 is the first).

        While what the handlers need is away, no attempt is the last.
        """
        error = status.exception
        if is_a(error, Unavailable):
            return Verdict("retry", self._delay(attempt))
        if status.cause in ("invalid", "worker_died") or is_a(error, Reject):
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
        """What becomes of a message that is not tried again."""
        return Verdict(self._final)

    def _classified(self, error: BaseException | None) -> Action | None:
        if error is None:
            return None
        return next((self._classify[kind] for kind in type(error).__mro__ if kind in self._classify), None)

    def _delay(self, attempt: int) -> float:
        # The upper half of the ceiling: delays of one message grow for sure, those of many are still spread.
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(attempt - 1, 60))
        return self._uniform(ceiling / 2.0, ceiling)
