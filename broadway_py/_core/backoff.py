"""How long to wait before trying again: exponential growth with full jitter.

"Full jitter" as described by Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): uniform
between zero and the grown ceiling, so that many clients of a broker that comes back do not arrive together.
"""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Delays for one thing that keeps failing.

    Args:
        first_s: ceiling of the first delay, in seconds.
        most_s: ceiling that the growth ends at.
        healthy_s: a success that lasted this long starts the growth anew; a shorter one does not.
        uniform: source of chance, ``random.uniform`` by default.
    """

    def __init__(
        self,
        first_s: float = 1.0,
        most_s: float = 30.0,
        healthy_s: float = 30.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._healthy_s = healthy_s
        self._uniform = uniform
        self._failures = 0

    def failed(self, lasted_s: float = 0.0, at_least_s: float = 0.0) -> float:
        """Seconds to wait now, after a success that lasted *lasted_s* (0: there was none)."""
        if lasted_s >= self._healthy_s:
            self._failures = 0
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return at_least_s + self._uniform(0.0, ceiling)
