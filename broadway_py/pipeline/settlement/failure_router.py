"""Decides where failed messages go: the failure policy, and the breaker for failures that are not their fault."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from broadway_py._core.breaker import CircuitBreaker
from broadway_py._core.failure import FailureRules, Verdict
from broadway_py._core.failure_authority import FailureAuthority
from broadway_py._core.identity import id_of
from broadway_py._core.settlement import RoundKind
from broadway_py.abilities import abilities_of
from broadway_py.acknowledger import Acknowledger
from broadway_py.clock import Clock
from broadway_py.error_text import name_of, place_of
from broadway_py.errors import Reject, RetryLater, Unavailable
from broadway_py.foreign import foreign_errors, is_a, shown, type_name
from broadway_py.log import logger
from broadway_py.message import Failed, Message, Plain, fill_gaps
from broadway_py.options import FailurePolicy
from broadway_py.pipeline.settlement.failure_log import reason_of
from broadway_py.pipeline.settlement.failure_plans import plan_of
from broadway_py.producer import FailurePlan
from broadway_py.producer_description import ProducerDescription

__all__ = [
    "Decided",
    "FailureRouter",
    "OpenedBy",
    "refuse_gaps",
    "refuse_odd_values",
]

log = logger("broadway_py.pipeline")

#: Causes that may be the fault of a service that the handlers need, and not of the message.
_SUSPECT: Final = frozenset({"raised", "failed", "timeout"})


@dataclass(slots=True)
class Decided:
    """Failed messages by the acknowledger call that each gets, and for retries the delay in seconds by ``id()``."""

    by_kind: dict[RoundKind, list[Message[Any]]] = field(default_factory=dict)
    delays_s: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenedBy:
    """Why the breaker opened."""

    #: The type of the error that failed most of the last messages, or their cause if there was no error.
    name: str
    #: The layer in which they failed; "" if that is not known.
    stage: str
    #: How many had failed, and of how many; None if a single message opened the breaker.
    counted: tuple[int, int] | None
    #: For the log: where the error was raised, and its text as far as that may be shown.
    said: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        where = f" in {self.stage}" if self.stage else ""
        if self.counted is None:
            return f"{self.name}{where}"
        failed, total = self.counted
        return f"{failed} of {total}, the last by {self.name}{where}"


class FailureRouter:
    """Decides what happens to the failed messages of one pipeline.

    Args:
        policy: the user's failure policy.
        clock: the clock for the breaker.
        request_stop: called if the policy says to stop the pipeline.
        ordered: True if retries happen in place, see :meth:`in_place`.
        failure_is_given: True if the user has chosen the policy. If not, a source's own settings come first.
        uniform: chooses each delay between its bounds.
    """

    def __init__(
        self,
        policy: FailurePolicy,
        clock: Clock,
        *,
        request_stop: Callable[[], None],
        ordered: bool = False,
        failure_is_given: bool = True,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._rules = FailureRules(policy.attempts, policy.backoff, policy.final, policy.classify, uniform)
        self.breaker = None if policy.breaker is None else CircuitBreaker(policy.breaker.ratio, policy.breaker.over)
        self.ordered = ordered
        self._policy = policy
        self._failure_is_given = failure_is_given
        self._clock = clock
        #: Why the breaker opened the last time; None if it never did.
        self.opened_by: OpenedBy | None = None
        # The name of the last failure and its layer. The error itself is not kept: its traceback holds the message.
        self._latest = ("", "")
        #: Called when the breaker has changed its state. Set by the object that carries that out.
        self.breaker_moved: Callable[[], None] = _nobody
        self._request_stop = request_stop

    def plan_for(self, source: ProducerDescription) -> FailurePlan:
        """Returns the policy, as far as *source* needs to know it."""
        return plan_of(self._policy, source, failure_is_given=self._failure_is_given)

    def note_successes(self, count: int) -> None:
        """Count *count* successes for the breaker."""
        breaker = self.breaker
        if breaker is None or breaker.all_is_well(count):
            return
        self._note(breaker, count, ())

    def _note(self, breaker: CircuitBreaker, successes: int, failed: Collection[Message[Any]], stage: str = "") -> None:
        before = breaker.state
        for message in failed:
            if message.status is not None:
                self._latest = (_name_of_failure(message.status), stage)
                break
        breaker.note(
            successes,
            [_key_of(message) for message in failed],
            self._clock.monotonic(),
            lacks_something_outside=all(map(_lacks_something_outside, failed)),
        )
        if breaker.state != before:
            if before == "closed":
                self._note_opening(breaker, failed, stage)
            self.breaker_moved()

    def _note_opening(self, breaker: CircuitBreaker, failed: Iterable[Message[Any]], stage: str) -> None:
        named = [(_name_of_failure(message.status), message) for message in failed if message.status is not None]
        if not named:
            # The breaker opened on a success that completed its count; the failures came before.
            self.opened_by = OpenedBy(*self._latest, breaker.opened_at)
            return
        ((name, _),) = Counter(name for name, _ in named).most_common(1)
        first = next(message for its_name, message in named if its_name == name)
        self.opened_by = OpenedBy(name, stage, breaker.opened_at, _said_by(first))

    def in_place(self, message: Message[Any]) -> float | None:
        """Returns the seconds until a failed *message* is tried again in place; None if its failure is settled."""
        refuse_odd_values(message)
        status = message.status or Failed("failed")
        is_away = self.breaker is not None and self.breaker.state != "closed"
        verdict = self._rules.decide(status, message.attempt or 1, is_sink_away=is_away and _is_suspect(status))
        if not self.ordered or verdict.action != "retry":
            return None
        if not self._policy_decides_about(message, verdict, is_blameless=False):
            return None
        return verdict.delay_s

    def failed_in_place(self, failed: Sequence[Message[Any]], stage: str) -> None:
        """Count *failed* for the breaker. They failed in *stage* and will be tried again in place."""
        self._tell_breaker(failed, 0, stage)

    def decide(
        self, failed: Sequence[Message[Any]], successes: int, *, of_children: bool = False, stage: str = ""
    ) -> Decided:
        """Returns where each of *failed* goes. *successes* messages succeeded together with them, in layer *stage*.

        With *of_children* they are parents that failed because a child did. The failure was already counted for the
        child, and with ``ordered`` the child was already tried again.
        """
        was_probing = self.breaker is not None and self.breaker.state == "half_open"
        if not of_children:
            self._tell_breaker(failed, successes, stage)
        is_away = self.breaker is not None and self.breaker.state != "closed"
        decided = Decided()
        for message in failed:
            refuse_odd_values(message)
            status = message.status or Failed("failed")
            is_blameless = is_away and _is_suspect(status)
            verdict = self._rules.decide(status, message.attempt or 1, is_sink_away=is_blameless)
            if of_children and self.ordered and verdict.action == "retry" and not is_blameless:
                verdict = self._rules.last_word()
            # A failed probe is retried after a delay. If it were given back, it could be the next probe again, and one
            # bad message would keep the breaker open for ever.
            kind: RoundKind = "ack"
            if self._policy_decides_about(message, verdict, is_blameless=is_blameless):
                kind = _kind_of(message, verdict, gives_back=is_blameless and not was_probing)
            if kind == "retry" and is_blameless:
                # The failure is not the message's fault, so the attempt does not count. Otherwise messages would use
                # up their attempts while a sink is away.
                message.attempt = (message.attempt or 1) - 1
            decided.by_kind.setdefault(kind, []).append(message)
            decided.delays_s[id(message)] = verdict.delay_s
            if verdict.action == "stop":
                self._request_stop()
        return decided

    def _policy_decides_about(self, message: Message[Any], verdict: Verdict, *, is_blameless: bool) -> bool:
        """Returns True if the policy decides about *message*. If not, its acknowledger's ``ack`` does.

        With *is_blameless* the failure may be the fault of a service that is away.
        """
        acknowledger = message.acknowledgement.acknowledger
        if not isinstance(acknowledger, Acknowledger):
            return True  # it has no settings that we know of
        try:
            authority = FailureAuthority(self._failure_is_given, bool(acknowledger.on_failure_is_given))
            is_configured = bool(acknowledger.on_failure_is_configured(message.acknowledgement.data))
        except foreign_errors() as error:
            # The acknowledger's code raised. The policy then decides.
            log.warning(
                "an acknowledger raised an error when asked who decides about a failed message",
                exception=type_name(error),
            )
            return True
        raised = None if message.status is None else message.status.exception
        return authority.policy_decides_about(verdict, raised, is_configured=is_configured, is_blameless=is_blameless)

    def _tell_breaker(self, failed: Sequence[Message[Any]], successes: int, stage: str) -> None:
        breaker = self.breaker
        if breaker is None:
            return
        away = [m for m in failed if m.status is not None and is_a(m.status.exception, Unavailable)]
        if away:
            before = breaker.state
            breaker.unavailable(self._clock.monotonic())
            if breaker.state != before:
                if before == "closed":
                    self._note_opening(breaker, away, stage)
                self.breaker_moved()
            return
        suspects = [message for message in failed if message.status is not None and _is_suspect(message.status)]
        self._note(breaker, successes, suspects, stage)


#: A message cannot be tried again without these attributes.
_NEEDED: Final = ("raw", "attempt")


def refuse_gaps(message: Message[Any]) -> None:
    """Restore the attributes of *message* that a handler has deleted.

    If the attempt or the raw payload is lost, the message fails and is not tried again.
    """
    for name in fill_gaps(message):
        if name in _NEEDED:
            said = Plain(f"message.{name} was deleted. The message is not tried again; do not change this attribute")
            message._status = Failed("raised", said, Reject(said))


def refuse_odd_values(message: Message[Any]) -> None:
    """Do :func:`refuse_gaps` for a failed message, and check that ``attempt`` is still a number or None.

    If it is something else, the message fails and is not tried again.
    """
    refuse_gaps(message)
    attempt: object = message.attempt
    if attempt is None or (type(attempt) is int and attempt >= 0):
        return
    if is_a(attempt, int) and not is_a(attempt, bool) and int.__index__(cast("int", attempt)) >= 0:
        message.attempt = int.__index__(cast("int", attempt))
        return
    sentence = (
        f"message.attempt was set to {shown(attempt)}; expected the number that stood there (1, 2, …) or None. "
        "The message is not tried again; do not change this attribute"
    )
    message.attempt = None
    message._status = Failed("raised", sentence, Reject(sentence))


def _nobody() -> None:
    """Does nothing: there is no breaker, or no stage is running yet."""


def _name_of_failure(status: Failed) -> str:
    return str(status.cause) if status.exception is None else name_of(status.exception)


def _said_by(message: Message[Any]) -> Mapping[str, str]:
    status = message.status
    if status is None:
        return {}
    try:
        said = {"reason": reason_of(message, status)}
        return said if status.exception is None else {**said, "at": place_of(status.exception)}
    except foreign_errors():
        return {}  # an object of the user raised when it was asked for its text


def _is_suspect(status: Failed) -> bool:
    """Returns True if the failure may be the fault of a service that the handlers need.

    It is not if the handler itself said what to do with the message (Reject or RetryLater).
    """
    return status.cause in _SUSPECT and not is_a(status.exception, (Reject, RetryLater))


def _lacks_something_outside(message: Message[Any]) -> bool:
    """Returns True if the failure is an :class:`OSError`: a connection, a file or the network was not available."""
    return message.status is not None and is_a(message.status.exception, OSError)


def _key_of(message: Message[Any]) -> Hashable:
    """Returns a key that should be equal for each delivery of one message: the source's id, or the payload's hash.

    It holds in this process only. It takes a fifth of the time of ``identity_of``.
    """
    name = id_of(message)
    if name is not None:
        return name
    try:
        return hash(message.raw)
    except foreign_errors():
        return id(getattr(message, "raw", message))


def _kind_of(message: Message[Any], verdict: Verdict, *, gives_back: bool) -> RoundKind:
    """Returns the acknowledger call that carries out *verdict*, or ``ack`` if the acknowledger cannot do it."""
    if verdict.action == "drop":
        return "drop"
    abilities = abilities_of(message.acknowledgement.acknowledger)
    if verdict.action == "dead_letter":
        return "dead_letter" if "dead_letter" in abilities else "ack"
    if verdict.action == "retry":
        if gives_back and "release" in abilities:
            return "release"
        return "retry" if "retry" in abilities else "ack"
    if verdict.action == "stop":
        return "release" if "release" in abilities else "ack"
    return "ack"
