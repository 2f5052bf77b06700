"""Stops fetching when so much fails that the sink must be at fault, not the messages; then probes.

The pattern is Michael Nygard's circuit breaker ("Release It!", 2007): closed, open, half-open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable
from typing import Final, Literal

__all__ = ["CircuitBreaker"]

#: How many messages must fail in a row before the sink counts as at fault: at least this many, and *over* divided by
#: the second number.
_STREAK: Final = 10
_STREAK_SHARE: Final = 10
#: How many names of failed messages are remembered: at least this many, and *over* times the second number.
_MOST_SEEN: Final = 1_000
_MOST_SEEN_SHARE: Final = 10
#: One bad message may make all messages of one call fail. So a streak counts only after this many failed rounds.
_FAILED_ROUNDS: Final = 3
#: The ratio, which allows successful rounds in between, counts only after this many failed rounds. This is the default
#: number of attempts of a message, so one bad message cannot spoil more batches. At least twice as many rounds less one
#: are kept, however large they are.
_MIXED_FAILED_ROUNDS: Final = 5
_ROUNDS: Final = 2 * _MIXED_FAILED_ROUNDS - 1


class CircuitBreaker:
    """Counts the last outcomes of handling, round by round. A round is the outcome of one chunk or one batch.

    *closed*: everything goes through. The breaker opens for one of two reasons:

    * More than *ratio* of the last *over* messages failed, and at least five rounds had failures.
    * A tenth of *over*, but at least ten, messages failed one after the other, without a success in between, in at
      least three rounds that lacked something outside. This works in time for a pipeline with few messages: long before
      a message has used up its attempts.

    (If *over* is smaller than ten, five or three, *over* takes the place of that number.)

    A message that fails counts once, however often it is delivered again. So a bad message does not open the breaker,
    and neither do a few bad messages that are left when the source has nothing new.

    *open*: nothing goes through until a wait has passed. The wait doubles while probes fail.

    *half-open*: one probe is being handled. Its outcome closes or opens the breaker. A probe without an outcome (it was
    given back, or was itself at fault) is followed by another probe after the same wait.

    Args:
        ratio: see above.
        over: see above. The ratio does not count before this many messages were handled.
        first_wait_s: the wait before the first probe, in seconds.
        most_wait_s: the limit that the wait grows to, in seconds.
    """

    def __init__(self, ratio: float, over: int, first_wait_s: float = 1.0, most_wait_s: float = 30.0) -> None:
        self._ratio = ratio
        self._over = over
        self._streak = min(over, max(_STREAK, over // _STREAK_SHARE))
        self._failed_rounds = min(over, _FAILED_ROUNDS)
        self._mixed_failed_rounds = min(over, _MIXED_FAILED_ROUNDS)
        self._least_rounds = min(over, _ROUNDS)
        self._first_wait_s = first_wait_s
        self._most_wait_s = most_wait_s
        self._wait_s = first_wait_s
        self._probe_at = 0.0
        self.state: Literal["closed", "open", "half_open"] = "closed"
        #: (failed, handled) when the breaker opened; None if a single ``Unavailable`` opened it.
        self.opened_at: tuple[int, int] | None = None
        # (messages, failures) of the last rounds. The oldest are removed when the others are enough.
        self._rounds: deque[tuple[int, int]] = deque()
        self._total = 0
        self._failures = 0
        # These two count since the last success.
        self._failures_in_a_row = 0
        self._rounds_in_a_row = 0
        # The names of the last messages that have failed; a dict, because it keeps their order.
        self._seen: dict[Hashable, None] = {}
        self._most_seen = max(_MOST_SEEN, _MOST_SEEN_SHARE * over)

    def note(
        self, successes: int, failed: Collection[Hashable], now: float, *, lacks_something_outside: bool = True
    ) -> None:
        """Notes the outcome of one round.

        Args:
            successes: how many messages were handled well.
            failed: the names of the messages that failed. A message keeps its name over all its deliveries.
            now: monotonic seconds.
            lacks_something_outside: the failure says itself that something could not be reached. Then a few messages
                are enough to count against the sink.
        """
        if self.state == "closed":
            failures = self._not_seen(failed) if failed else 0
            self._count(successes, failures)
            fails_in_a_row = self._fails_in_a_row(successes, failures if lacks_something_outside else 0)
            if fails_in_a_row:
                self.opened_at = (self._failures_in_a_row, self._failures_in_a_row)
                self._open(now)
            elif self._fails_too_often():
                self.opened_at = (self._failures, self._total)
                self._open(now)
        elif self.state == "half_open":
            if failed:
                self._wait_s = min(self._most_wait_s, self._wait_s * 2.0)
                self._open(now)
            elif successes:
                self._close()

    def all_is_well(self, successes: int) -> bool:
        """Notes a round without failures quickly. Returns False, and notes nothing, if :meth:`note` is needed."""
        if self._failures or self._rounds_in_a_row or self.state != "closed":
            return False
        self._total = min(self._over, self._total + successes)
        return True

    def unavailable(self, now: float) -> None:
        """Opens the breaker at once: a handler said that something it needs is not available."""
        if self.state == "half_open":
            self._wait_s = min(self._most_wait_s, self._wait_s * 2.0)
        if self.state == "closed":
            self.opened_at = None
        if self.state != "open":
            self._open(now)

    def may_probe(self, now: float) -> bool:
        """Returns True if one message may go through now as a probe. The next one may do so only after another wait."""
        if self.state == "closed" or now < self._probe_at:
            return False
        self.state = "half_open"
        self._probe_at = now + self._wait_s
        return True

    @property
    def probe_at(self) -> float:
        """When the next probe is due, while the breaker is not closed."""
        return self._probe_at

    def _not_seen(self, failed: Collection[Hashable]) -> int:
        """Remembers *failed* and returns how many of them have not failed before."""
        seen = self._seen
        before = len(seen)
        seen.update(dict.fromkeys(failed))
        added = len(seen) - before
        while len(seen) > self._most_seen:
            del seen[next(iter(seen))]
        return added

    def _fails_in_a_row(self, successes: int, failures: int) -> bool:
        if successes:
            self._failures_in_a_row = self._rounds_in_a_row = 0
        elif failures:
            self._failures_in_a_row += failures
            self._rounds_in_a_row += 1
        return self._failures_in_a_row >= self._streak and self._rounds_in_a_row >= self._failed_rounds

    def _fails_too_often(self) -> bool:
        return (
            self._failures > self._ratio * self._total
            and self._total >= self._over
            and sum(failures > 0 for _, failures in self._rounds) >= self._mixed_failed_rounds
        )

    def _count(self, successes: int, failures: int) -> None:
        if not failures and not self._failures:
            # Without failures, only the number of messages matters.
            self._total = min(self._over, self._total + successes)
            return
        rounds = self._rounds
        if not rounds and self._total:
            rounds.append((self._total, 0))
        if successes or failures:
            rounds.append((successes + failures, failures))
        self._total += successes + failures
        self._failures += failures
        while self._total - rounds[0][0] >= self._over and len(rounds) > self._least_rounds:
            count, failed = rounds.popleft()
            self._total -= count
            self._failures -= failed
        count, failed = rounds[0]
        if not failed:
            # All messages before the first failure are one round, of which only the last ones still count.
            excess = min(count, max(0, self._total - self._over))
            rounds[0] = (count - excess, 0)
            self._total -= excess
        if not self._failures:
            rounds.clear()
            self._total = min(self._over, self._total)

    def _open(self, now: float) -> None:
        self.state = "open"
        self._probe_at = now + self._wait_s

    def _close(self) -> None:
        self.state = "closed"
        self._wait_s = self._first_wait_s
        self._rounds.clear()
        self._total = self._failures = 0
        self._failures_in_a_row = self._rounds_in_a_row = 0
