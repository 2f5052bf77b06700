"""Where failed messages are sent: the failure policy, and the breaker for when it is not their fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broadway_py._core.breaker import CircuitBreaker
from broadway_py._core.failure import FailureRules, Verdict
from broadway_py._core.settlement import RoundKind
from broadway_py.clock import Clock
from broadway_py.errors import Reject, Unavailable
from broadway_py.message import Failed, Message
from broadway_py.options import FailurePolicy

__all__ = ["Decided", "FailureDesk"]

#: Causes that may be the fault of what the handlers need, rather than of the message.
_SUSPECT: Final = frozenset({"raised", "failed", "timeout"})


@dataclass(slots=True)
class Decided:
    """Failed messages by the call of their acknowledger that each goes to; for retries, after how many seconds."""

    by_kind: dict[RoundKind, list[Message[Any]]] = field(default_factory=dict)
    delays_s: dict[int, float] = field(default_factory=dict)


class FailureDesk:
    """Decides about the failed messages of one pipeline.

    Args:
        policy: the user's.
        clock: for the breaker.
        breaker_moved: called when the breaker opened, closed or began to probe.
        request_stop: for policies that stop the pipeline.
    """

    def __init__(
        self,
        policy: FailurePolicy,
        clock: Clock,
        *,
        breaker_moved: Callable[[], None],
        request_stop: Callable[[], None],
    ) -> None:
        self._rules = FailureRules(policy.attempts, policy.backoff, policy.final, policy.classify)
        self.breaker = None if policy.breaker is None else CircuitBreaker(policy.breaker.ratio, policy.breaker.over)
        self._clock = clock
        self._breaker_moved = breaker_moved
        self._request_stop = request_stop

    def note(self, successes: int, suspects: int) -> None:
        """Count for the breaker."""
        breaker = self.breaker
        if breaker is not None:
            before = breaker.state
            breaker.note(successes, suspects, self._clock.monotonic())
            if breaker.state != before:
                self._breaker_moved()

    def decide(self, failed: Sequence[Message[Any]], successes: int) -> Decided:
        """Where each of *failed* goes; *successes* were handled well beside them."""
        self._tell_breaker(failed, successes)
        decided = Decided()
        for message in failed:
            verdict = self._rules.decide(message.status or Failed("failed"), message.attempt or 1)
            kind = self._kind_of(message, verdict)
            decided.by_kind.setdefault(kind, []).append(message)
            decided.delays_s[id(message)] = verdict.delay_s
            if verdict.action == "stop":
                self._request_stop()
        return decided

    def _tell_breaker(self, failed: Sequence[Message[Any]], successes: int) -> None:
        statuses = [message.status for message in failed if message.status is not None]
        if self.breaker is not None and any(isinstance(status.exception, Unavailable) for status in statuses):
            before = self.breaker.state
            self.breaker.unavailable(self._clock.monotonic())
            if self.breaker.state != before:
                self._breaker_moved()
            return
        suspects = sum(status.cause in _SUSPECT and not isinstance(status.exception, Reject) for status in statuses)
        self.note(successes, suspects)

    def _kind_of(self, message: Message[Any], verdict: Verdict) -> RoundKind:
        """The call that carries out *verdict*, as far as the message's acknowledger offers it."""
        acknowledger = message.acknowledgement.acknowledger
        if verdict.action == "drop":
            return "drop"
        if verdict.action == "dead_letter":
            return "dead_letter" if hasattr(acknowledger, "dead_letter") else "ack"
        if verdict.action == "retry":
            if self._is_not_its_fault(message) and hasattr(acknowledger, "release"):
                return "release"
            return "retry" if hasattr(acknowledger, "retry") else "ack"
        if verdict.action == "stop":
            return "release" if hasattr(acknowledger, "release") else "ack"
        return "ack"

    def _is_not_its_fault(self, message: Message[Any]) -> bool:
        if self.breaker is None:
            return False
        unavailable = message.status is not None and isinstance(message.status.exception, Unavailable)
        return unavailable or self.breaker.state != "closed"
