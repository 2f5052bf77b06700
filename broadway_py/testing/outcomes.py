"""What a test sees of its messages: the outcome of each delivery, the dead letters, and what has no outcome yet."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from broadway_py.error_text import name_of
from broadway_py.errors import BroadwayError, did_you_mean
from broadway_py.message import Cause, Failed, Outcome

__all__ = [
    "DeadLetter",
    "Ended",
    "Left",
    "MessageOutcome",
    "MessagesLeft",
    "NoOutcome",
    "Outcomes",
    "outcome_of",
    "story_of",
    "warn_of_left",
]


class MessageOutcome(str):  # noqa: SLOT000  # a str with slots of its own cannot have these attributes
    """The outcome of one delivery: text such as ``"acked"``, which also says why and when.

    ``"acked"``, ``"retried"``, ``"dead_lettered"``, ``"rejected"``, ``"dropped"``, ``"returned"`` (given back without a
    decision) or ``"unknown"`` (the process died).
    """

    #: The number of the delivery: 1, 2, …
    attempt: int
    #: Why the message failed; None if it did not.
    cause: Cause | None
    #: The text of the failure; None if there is none. It may quote the message.
    reason: str | None
    #: What the callback raised; None if it raised nothing.
    exception: BaseException | None
    #: After how many seconds the message comes again, if it was retried; else None.
    delay: float | None
    #: The seconds since the start of the harness.
    at: float

    def __repr__(self) -> str:
        why = "" if self.cause is None else f", {self.cause}"
        if self.exception is not None:
            why += f": {name_of(self.exception)}"
        again = "" if self.delay is None else f", again in {self.delay:g} s"
        return f"<{self!s} at attempt {self.attempt}{why}{again}>"


def outcome_of(
    outcome: Outcome, attempt: int, status: Failed | None, *, at: float, delay: float | None = None
) -> MessageOutcome:
    """Returns the outcome of a delivery."""
    made = MessageOutcome(outcome)
    made.attempt, made.at, made.delay = attempt, at, delay
    made.cause = None if status is None else status.cause
    made.reason = None if status is None else status.reason
    made.exception = None if status is None else status.exception
    return made


class NoOutcome(BroadwayError, KeyError):
    """A test asked for the outcome of a message that has none."""

    def __str__(self) -> str:
        return str(self.args[0])


class Outcomes(Mapping[str, MessageOutcome]):
    """Message id -> the last outcome of the message. Messages without an outcome are not in it.

    ``outcomes == {"a": "acked", "b": "retried"}`` compares all of them.

    Args:
        told: the outcomes of all messages by id, in order.
        known: returns why a message that was sent has no outcome, by id.
    """

    def __init__(self, told: Mapping[str, list[MessageOutcome]], known: Callable[[], Mapping[str, Left]]) -> None:
        self._told = told
        self._known = known

    def __getitem__(self, message_id: str) -> MessageOutcome:
        return self.history(message_id)[-1]

    def history(self, message_id: str) -> list[MessageOutcome]:
        """Returns the outcomes of all deliveries of a message, the first one first.

        Raises:
            NoOutcome: the message has no outcome yet, or was never sent.
        """
        told = self._told.get(message_id)
        if told:
            return list(told)
        left = self._known()
        if message_id in left:
            raise NoOutcome(f"message {message_id!r} has no outcome yet: {left[message_id].why}")
        sent = [*self._told, *left]
        raise NoOutcome(f"no message {message_id!r} was sent; sent: {_listed(sent)}{did_you_mean(message_id, sent)}")

    def count(self, outcome: Outcome) -> int:
        """Returns how many messages have *outcome* as their last one."""
        return self.counts[outcome]

    @property
    def counts(self) -> Counter[str]:
        """How many messages have each outcome as their last one."""
        return Counter(str(last) for last in self.values())

    def __iter__(self) -> Iterator[str]:
        return (message_id for message_id, told in self._told.items() if told)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join([*shown[:20], *([] if len(shown) <= 20 else ["…"])]) or "none"


@dataclass(frozen=True, slots=True)
class Left:
    """A message that has no final outcome: it will come, is at work, or will come again."""

    id: str
    #: ``"ready"``: nobody has taken it. ``"at work"``: the pipeline has it, perhaps in a batch that is not full, in a
    #: window that is not stored, or behind a rate limit. ``"retry"``: it comes again later.
    where: Literal["ready", "at work", "retry"]
    #: The number of the delivery that is at work, or that comes next.
    attempt: int
    #: In how many seconds it comes; 0: now.
    due_in: float = 0.0
    #: True: the pipeline has had it, and gave it back without a decision.
    is_returned: bool = False

    @property
    def why(self) -> str:
        """What it waits for, in words."""
        if self.where == "at work":
            return (
                f"the pipeline has it (attempt {self.attempt}), in a handler, a batch or a window, or behind a limit; "
                "let time pass: await h.advance(…)"
            )
        if self.where == "retry":
            return f"attempt {self.attempt} comes in {self.due_in:g} s: await h.advance({self.due_in:g})"
        if self.is_returned:
            return (
                f"the pipeline gave it back before its handler had ended, and attempt {self.attempt} waits until a "
                "pipeline takes it"
            )
        return f"attempt {self.attempt} waits until the pipeline takes it"

    def __str__(self) -> str:
        return f"{self.id!r}: {self.why}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that failed for good, as the broker keeps it."""

    id: str
    #: The payload, as it was sent.
    data: Any = field(repr=False)
    #: Why it failed.
    cause: Cause
    #: The text of the failure. It may quote the message.
    reason: str = field(repr=False)
    #: The type of the exception, if there was one.
    exception: str | None
    #: How often it was delivered.
    attempts: int
    #: What RabbitMQ's dead letters tell in their headers ``x-broadway-…``.
    headers: Mapping[str, Any] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    #: The name of the producer that it came from.
    producer: str


class MessagesLeft(UserWarning):
    """A test ended while messages had no final outcome. It may have tested less than it seems to."""


def warn_of_left(left: Sequence[Left], *, stacklevel: int) -> None:
    """Warns of messages without a final outcome. *stacklevel* counts from the caller, as that of ``warnings.warn``."""
    if left:
        listed = "; ".join(str(one) for one in left[:10])
        more = "" if len(left) <= 10 else f"; and {len(left) - 10} more"
        warnings.warn(
            MessagesLeft(
                f"{len(left)} messages have no final outcome: {listed}{more}. If that is what the test wants, let it "
                "say so: (await h.stop()).left"
            ),
            stacklevel=stacklevel + 1,
        )


def story_of(outcomes: Mapping[str, list[MessageOutcome]], left: Iterable[Left]) -> str:
    """Returns a line for the outcome of each delivery, in the order in which they ended, and for what is *left*."""
    told = sorted(
        ((one.at, message_id, one) for message_id, history in outcomes.items() for one in history),
        key=lambda line: line[0],
    )
    lines = [f"{at:8.2f} s  {message_id!r} {one!r}" for at, message_id, one in told]
    return "\n".join([*lines, *(f"{'left':>10}  {one}" for one in left)])


@dataclass(frozen=True, slots=True)
class Ended:
    """How the pipeline of a harness ended."""

    #: How many deliveries ended in each outcome during the life of the last pipeline.
    outcomes: Mapping[Outcome, int]
    #: False if something had to be cut off at the deadline.
    in_time: bool
    #: The messages without a final outcome, such as those that wait for a retry.
    left: tuple[Left, ...]
