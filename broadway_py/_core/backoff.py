"""How long to wait before a lost connection, a crashed stage or a dead process is tried again.

The pipeline's own way is exponential growth with "full jitter" as described by Marc Brooker, "Exponential Backoff And
Jitter" (AWS Architecture Blog, 2015): uniform between zero and the grown ceiling, so that many clients of a broker that
comes back do not arrive together.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Literal

__all__ = ["Backoff", "BackoffKind"]

#: ``jitter``: between zero and a ceiling that doubles. ``exp``: doubling. ``rand``: anything between first and most.
#: ``rand_exp``: between first and most, growing with the delay before. ``stop``: never again.
BackoffKind = Literal["jitter", "rand_exp", "exp", "rand", "stop"]


class Backoff:
    """Delays for one thing that keeps failing.

    Args:
        first_s: ceiling of the first delay, in seconds; for all kinds but ``jitter`` also the shortest one.
        most_s: ceiling that the growth ends at.
        healthy_s: a success that lasted this long starts the growth anew; a shorter one does not.
        uniform: source of chance, ``random.uniform`` by default.
        kind: how the delays grow.
        least_s: no delay is shorter, whatever the others say: what begins at 0 would not grow, or wait at all.
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
        """Seconds to wait now, after a success that lasted *lasted_s* (0: there was none); ``math.inf``: for ever."""
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
                # Grows from the delay before, until a third of the most; then anything above that third.
                lower = max(self._first_s, self._most_s / 3.0)
                self._previous_s = self._uniform(
                    min(self._previous_s, lower), min(3.0 * self._previous_s, self._most_s)
                )
                return self._previous_s
