"""When so much fails that the sink, not the messages, must be at fault: stop fetching, then probe.

The pattern is Michael Nygard's circuit breaker ("Release It!", 2007): closed, open, half-open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable
from typing import Final, Literal

__all__ = ["CircuitBreaker"]

#: So many messages that fail in a row are not at fault: at least, and as a part of *over*.
_STREAK: Final = 10
_STREAK_SHARE: Final = 10
#: So many names of messages that failed are remembered: at least, and as times *over*.
_MOST_SEEN: Final = 1_000
_MOST_SEEN_SHARE: Final = 10
#: One call of a callback may fail many messages because of one of them: so many rounds must speak against the sink …
_FAILED_ROUNDS: Final = 3
#: … and for the ratio, where rounds between them went well, as many as a message's default attempts: one with a fault
#: of its own spoils no more batches than that. Twice as many less one are looked at, however large they are.
_MIXED_FAILED_ROUNDS: Final = 5
_ROUNDS: Final = 2 * _MIXED_FAILED_ROUNDS - 1


class CircuitBreaker:
    """Counts the last outcomes of handling, round by round: a round is what one chunk or one batch came to.

    *closed*: everything goes through. It opens for either of two reasons:

    * more than *ratio* of the last *over* messages failed;
    * a tenth of *over*, but at least ten, failed one after the other, in rounds that lacked something outside, and none
      succeeded in between. This one judges a quiet pipeline in time: long before a message has used up its attempts.

    A message that fails counts once, however often it comes again: one with a fault of its own opens nothing, nor do
    the few of them that are left when the source has nothing new.

    The first does not count before five rounds held failures, the second not before three.

    *open*: nothing goes through, until a wait has passed; the wait doubles while probes fail. *half-open*: one probe
    is under way; its outcome closes or opens. A probe without an outcome (it was given back, or had a fault of its
    own) is followed by another after the same wait.

    Args:
        ratio: see above.
        over: see above; the ratio is not looked at before that many messages were handled.
        first_wait_s: the wait before the first probe.
        most_wait_s: what the wait grows to.
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
        #: How many had failed when it opened, and of how many; None where one message alone had it open.
        self.opened_at: tuple[int, int] | None = None
        # (messages, failures) of the last rounds; the oldest leave when the others are enough.
        self._rounds: deque[tuple[int, int]] = deque()
        self._total = 0
        self._failures = 0
        # Since the last success.
        self._failures_in_a_row = 0
        self._rounds_in_a_row = 0
        # Names of those that have failed, the last ones; a dict keeps their order.
        self._seen: dict[Hashable, None] = {}
        self._most_seen = max(_MOST_SEEN, _MOST_SEEN_SHARE * over)

    def note(
        self, successes: int, failed: Collection[Hashable], now: float, *, lacks_something_outside: bool = True
    ) -> None:
        """So many were handled well, and with them those *failed*, each by the name that it keeps for its life.

        Args:
            successes: how many.
            failed: the names.
            now: monotonic seconds.
            lacks_something_outside: what failed says itself that it could not reach something: its messages need not
                be many to speak against the sink.
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
        """So many were handled well, as before: noted. False when it has to be noted in full."""
        if self._failures or self._rounds_in_a_row or self.state != "closed":
            return False
        self._total = min(self._over, self._total + successes)
        return True

    def unavailable(self, now: float) -> None:
        """A handler said that what it needs is away."""
        if self.state == "half_open":
            self._wait_s = min(self._most_wait_s, self._wait_s * 2.0)
        if self.state == "closed":
            self.opened_at = None
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

    def _not_seen(self, failed: Collection[Hashable]) -> int:
        """How many of *failed* have not failed before."""
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
            # Nothing to remember but how many there were.
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
            # The quiet time before the first failure is one round: only its end still counts.
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
