"""What is settled together, and what a callback's return value says about the messages it was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from broadway_py.message import CLAIMED, OPEN, SETTLED, Acknowledgement, Failed, Message, Outcome, Plain

__all__ = ["Round", "RoundKind", "claim", "not_returned", "record", "returned_list_problem", "returned_one_problem"]


#: ``drop`` is an ack of failed messages: a policy said so by name.
RoundKind = Literal["ack", "release", "retry", "dead_letter", "drop"]

_GIVEN: Final[Mapping[RoundKind, Outcome]] = {
    "ack": "acked",
    "release": "returned",
    "retry": "retried",
    "dead_letter": "dead_lettered",
    "drop": "dropped",
}


class Round:
    """One call of an acknowledger: what it is told about."""

    # By hand: one is made per chunk, and a dataclass with two default factories costs twice as much.
    __slots__ = ("acknowledger", "failed", "given", "kind", "ref", "successful")

    def __init__(self, acknowledger: Any, ref: Any, kind: RoundKind = "ack") -> None:
        self.acknowledger = acknowledger
        self.ref = ref
        #: Which of its methods is called.
        self.kind = kind
        #: What those in :attr:`successful` end in; a round of another kind than ``ack`` has only those.
        self.given: Outcome = _GIVEN[kind]
        self.successful: list[Message[Any]] = []
        self.failed: list[Message[Any]] = []


def claim(
    successful: Iterable[Message[Any]], failed: Iterable[Message[Any]] = (), kind: RoundKind = "ack"
) -> list[Round]:
    """Take the claim on every message that nobody has claimed, grouped by (acknowledger, ref).

    The claim is taken here, without waiting, and only its holder may settle: a message is in one round at most, ever.
    """
    rounds: dict[tuple[int, Any], Round] = {}
    for messages, is_success in ((successful, True), (failed, False)):
        last: Acknowledgement | None = None
        target: list[Message[Any]] = []
        for message in messages:
            if message._settlement != OPEN:
                continue
            message._settlement = CLAIMED
            acknowledgement = message._acknowledgement
            if acknowledgement is last:
                target.append(message)
                continue
            if last is None or acknowledgement[0] is not last[0] or acknowledgement[1] != last[1]:
                last = acknowledgement
                key = (id(acknowledgement[0]), _hashable(acknowledgement[1]))
                found = rounds.get(key)
                if found is None:
                    found = rounds[key] = Round(acknowledgement[0], acknowledgement[1], kind)
                target = found.successful if is_success else found.failed
            target.append(message)
    return list(rounds.values())


def _hashable(ref: Any) -> Any:
    try:
        hash(ref)
    except TypeError:
        return id(ref)
    return ref


def record(messages: Sequence[Message[Any]], outcome: Outcome, now: float) -> None:
    """Write *outcome* into the books for each of *messages*, whose claim the caller holds."""
    receipt: Any = None
    count = size = 0
    for message in messages:
        message._settlement = SETTLED
        if message._receipt is not receipt:
            if receipt is not None:
                receipt.ledger.settle(receipt, outcome, count, size, now)
            receipt = message._receipt
            count = size = 0
        count += 1
        size += message.size
    if receipt is not None:
        receipt.ledger.settle(receipt, outcome, count, size, now)


def returned_one_problem(callback: str, returned: object) -> str:
    """Why *returned*, which is neither None nor the message that was given, is refused; what to do instead."""
    came = "another Message" if isinstance(returned, Message) else f"{_article(returned)} {type(returned).__name__}"
    return (
        f"{callback} returned {came}; expected None or the message it was given: "
        "change the message in place (message.data = …) and return nothing"
    )


def returned_list_problem(
    callback: str, given: Sequence[Message[Any]], returned: object
) -> tuple[str | None, list[Message[Any]]]:
    """Compare what *callback* returned (not None) with what it was given.

    Returns:
        A sentence if the value as a whole is refused (then all of *given* fail), and the given ones that are missing
        from it. One that comes twice counts once.
    """
    if not isinstance(returned, Iterable) or isinstance(returned, str | bytes):
        return (
            f"{callback} returned {_article(returned)} {type(returned).__name__}; expected None or a list of the "
            "messages it was given"
        ), []
    back = {id(message): message for message in returned}
    mine = {id(message) for message in given}
    for identity, item in back.items():
        if identity not in mine:
            came = (
                "a Message it was not given"
                if isinstance(item, Message)
                else f"a list holding {_article(item)} {type(item).__name__}"
            )
            return (
                f"{callback} returned {came}; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ), []
    return None, [message for message in given if id(message) not in back]


def not_returned(callback: str) -> Failed:
    """The status of a message that a callback kept for itself."""
    return Failed("not_returned", Plain(f"not returned by {callback}"))


def _article(value: object) -> str:
    return "an" if type(value).__name__[0] in "aeiouAEIOU" else "a"
