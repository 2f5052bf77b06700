"""Decides how long to wait before a lost connection, a crashed stage or a dead process is tried again.

The pipeline's own method is exponential growth with "full jitter", as described by Marc Brooker, "Exponential Backoff
And Jitter" (AWS Architecture Blog, 2015): the delay is uniform between zero and a growing ceiling, so that the many
clients of a restarted broker do not all come back at the same time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Literal

__all__ = ["Backoff", "BackoffKind"]

#: ``jitter``: between zero and a ceiling that doubles. ``exp``: doubles. ``rand``: any value between first and most.
#: ``rand_exp``: between first and most, growing with the previous delay. ``stop``: never again.
BackoffKind = Literal["jitter", "rand_exp", "exp", "rand", "stop"]


class Backoff:
    """The delays for one thing that fails again and again.

    Args:
        first_s: the ceiling of the first delay, in seconds. For all kinds but ``jitter`` it is also the shortest delay.
        most_s: the ceiling at which the growth ends, in seconds.
        healthy_s: a success that lasted this many seconds starts the growth again; a shorter one does not.
        uniform: the source of random numbers, ``random.uniform`` by default.
        kind: how the delays grow.
        least_s: the shortest delay in seconds, whatever the other arguments say. Delays that begin at 0 would not grow.
    """

    def __init__(
        self,
        first_s: float = 1.0,
        most_s: float = 30.0,
        healthy_s: float = 30.0,
        uniform: Callable[[float, float], float] = random.uniform,
        kind: BackoffKind = "jitter",
        *,
        least_s: float = 0.0,
    ) -> None:
        self._first_s = max(first_s, least_s)
        self._most_s = max(most_s, least_s)
        self._healthy_s = healthy_s
        self._uniform = uniform
        self._kind = kind
        self._failures = 0
        self._least_s = least_s
        self._previous_s = self._first_s

    def failed(self, lasted_s: float = 0.0, at_least_s: float = 0.0) -> float:
        """Returns the seconds to wait before the next try; ``math.inf`` means never.

        Args:
            lasted_s: how many seconds the last success lasted (0: there was none).
            at_least_s: seconds that are added to the delay.
        """
        if lasted_s >= self._healthy_s:
            self._failures = 0
            self._previous_s = self._first_s
        wait_s = max(self._least_s, at_least_s + self._next())
        self._failures += 1
        return wait_s

    def _next(self) -> float:
        grown = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 60))
        match self._kind:
            case "jitter":
                return self._uniform(0.0, grown)
            case "exp":
                return grown
            case "rand":
                return self._uniform(self._first_s, self._most_s)
            case "stop":
                return math.inf
            case "rand_exp":
                # Grows from the previous delay up to a third of the most; then any value above that third.
                lower = max(self._first_s, self._most_s / 3.0)
                self._previous_s = self._uniform(
                    min(self._previous_s, lower), min(3.0 * self._previous_s, self._most_s)
                )
                return self._previous_s
