"""When so much fails that the sink, not the messages, must be at fault: stop fetching, then probe.

The pattern is Michael Nygard's circuit breaker ("Release It!", 2007): closed, open, half-open.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Counts the last outcomes of handling.

    *closed*: everything goes through. *open*: nothing does, until a wait has passed; the wait doubles while probes
    fail. *half-open*: one probe is under way; its outcome closes or opens. A probe without an outcome (it was given
    back, or had a fault of its own) is followed by another after the same wait.

    Args:
        ratio: it opens when more than this part of the last *over* messages failed.
        over: how many messages are looked at; it does not open before that many were handled.
        first_wait_s: the wait before the first probe.
        most_wait_s: what the wait grows to.
    """

    def __init__(self, ratio: float, over: int, first_wait_s: float = 1.0, most_wait_s: float = 30.0) -> None:
        self._ratio = ratio
        self._over = over
        self._first_wait_s = first_wait_s
        self._most_wait_s = most_wait_s
        self._wait_s = first_wait_s
        self._probe_at = 0.0
        self.state: Literal["closed", "open", "half_open"] = "closed"
        # (messages, failures) of the last rounds; the oldest leave when the others are enough.
        self._rounds: deque[tuple[int, int]] = deque()
        self._total = 0
        self._failures = 0

    def note(self, successes: int, failures: int, now: float) -> None:
        """So many were handled well and badly, together."""
        if self.state == "closed":
            self._count(successes, failures)
            if self._total >= self._over and self._failures > self._ratio * self._total:
                self._open(now)
        elif self.state == "half_open":
            if failures:
                self._wait_s = min(self._most_wait_s, self._wait_s * 2.0)
                self._open(now)
            elif successes:
                self._close()

    def unavailable(self, now: float) -> None:
        """A handler said that what it needs is away."""
        if self.state == "half_open":
            self._wait_s = min(self._most_wait_s, self._wait_s * 2.0)
        if self.state != "open":
            self._open(now)

    def may_probe(self, now: float) -> bool:
        """True when it is time for one message to go through; the next one only after another wait."""
        if self.state == "closed" or now < self._probe_at:
            return False
        self.state = "half_open"
        self._probe_at = now + self._wait_s
        return True

    @property
    def probe_at(self) -> float:
        """When the next probe is due, while it is not closed."""
        return self._probe_at

    def _count(self, successes: int, failures: int) -> None:
        if not failures and not self._failures:
            # The quiet case, once per chunk of a healthy pipeline: nothing to remember but how many there were.
            self._total = min(self._over, self._total + successes)
            return
        if not self._rounds and self._total:
            self._rounds.append((self._total, 0))
        self._rounds.append((successes + failures, failures))
        self._total += successes + failures
        self._failures += failures
        while self._total - self._rounds[0][0] >= self._over:
            count, failed = self._rounds.popleft()
            self._total -= count
            self._failures -= failed
        count, failed = self._rounds[0]
        if not failed:
            # The quiet time before the first failure is one round: only its end still counts.
            excess = max(0, self._total - self._over)
            self._rounds[0] = (count - excess, 0)
            self._total -= excess
        if not self._failures:
            self._rounds.clear()
            self._total = min(self._over, self._total)

    def _open(self, now: float) -> None:
        self.state = "open"
        self._probe_at = now + self._wait_s

    def _close(self) -> None:
        self.state = "closed"
        self._wait_s = self._first_wait_s
        self._rounds.clear()
        self._total = self._failures = 0
