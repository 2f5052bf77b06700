"""What is settled together, and what a callback's return value says about the messages it was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import CoroutineType
from typing import Any, Final, Literal, cast

from broadway_py.foreign import article, foreign_errors, is_a, text_of, type_name
from broadway_py.message import CLAIMED, OPEN, SETTLED, Acknowledgement, Failed, Message, Outcome, Plain

__all__ = [
    "Round",
    "RoundKind",
    "can_give_back",
    "claim",
    "drop",
    "most_returned",
    "not_returned",
    "record",
    "returned_list_problem",
    "returned_one_problem",
    "will_be_stopped",
]


#: ``drop`` is an ack of failed messages: a policy said so by name.
RoundKind = Literal["ack", "release", "retry", "dead_letter", "drop"]

# See most_returned.
_MOST_TIMES: Final = 10
_MOST_MORE: Final = 1_000

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
    rounds: list[Round] = []
    by_target: dict[tuple[int, Any], Round] = {}
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
            if (
                last is None
                or acknowledgement[0] is not last[0]
                or (acknowledgement[1] is not last[1] and not _are_equal(acknowledgement[1], last[1]))
            ):
                last = acknowledgement
                if rounds:
                    found = _round_for(acknowledgement, kind, rounds, by_target)
                else:
                    # Most often there is no other, so it is not noted where it would be looked for.
                    found = Round(acknowledgement[0], acknowledgement[1], kind)
                    rounds.append(found)
                target = found.successful if is_success else found.failed
            target.append(message)
    return rounds


def _round_for(
    acknowledgement: Acknowledgement, kind: RoundKind, rounds: list[Round], by_target: dict[tuple[int, Any], Round]
) -> Round:
    """The round of *rounds* for that acknowledger and ref, or a new one; *by_target* finds it."""
    if not by_target:
        by_target[id(rounds[0].acknowledger), _hashable(rounds[0].ref)] = rounds[0]
    found = _found(by_target, acknowledgement)
    if found is None:
        found = Round(acknowledgement[0], acknowledgement[1], kind)
        rounds.append(found)
        by_target[id(found.acknowledger), _hashable(found.ref)] = found
    return found


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except foreign_errors():
        return False


def _found(rounds: Mapping[tuple[int, Any], Round], acknowledgement: Acknowledgement) -> Round | None:
    try:
        return rounds.get((id(acknowledgement[0]), acknowledgement[1]))
    except foreign_errors():
        return rounds.get((id(acknowledgement[0]), id(acknowledgement[1])))


def _hashable(ref: Any) -> Any:
    """*ref* as a key: itself, or its identity where it cannot be one."""
    try:
        return ref if hash(ref) == hash(ref) and ref == ref else id(ref)  # noqa: PLR0124  # it may not even equal itself
    except foreign_errors():
        return id(ref)


def can_give_back(message: Message[Any]) -> bool:
    """True when the message's acknowledger offers ``release``."""
    return getattr(message._acknowledgement[0], "release", None) is not None


def will_be_stopped(message: Message[Any]) -> bool:
    """True when giving *message* back makes it fail: its source takes nothing back, and nobody has settled it."""
    return message._settlement == OPEN and not can_give_back(message)


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
        size += message._size
    if receipt is not None:
        receipt.ledger.settle(receipt, outcome, count, size, now)


def returned_one_problem(callback: str, returned: object) -> str:
    """Why *returned*, which is neither None nor the message that was given, is refused; what to do instead."""
    came = "another Message" if is_a(returned, Message) else article(returned)
    drop(returned)
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
    if not hasattr(type(returned), "__iter__") or is_a(returned, (str, bytes)):
        drop(returned)
        return f"{callback} returned {article(returned)}; expected None or a list of the messages it was given", []
    mine = {id(message) for message in given}
    back: set[int] = set()
    most = most_returned(len(given))
    try:
        # What comes out of it is looked at one by one: it may be endless.
        for count, item in enumerate(cast("Iterable[object]", returned)):
            if id(item) not in mine:
                came = "a Message it was not given" if is_a(item, Message) else f"a list holding {article(item)}"
                return (
                    f"{callback} returned {came}; expected None or the messages it was given, "
                    "changed in place (message.data = …)"
                ), []
            if count >= most:
                return (
                    f"{callback} returned {article(returned)} of more than {most} items for the {len(given)} messages "
                    "it was given; expected None or a list of them"
                ), []
            back.add(id(item))
    except foreign_errors() as error:
        return f"{callback} returned {article(returned)} that raised {type_name(error)}: {text_of(error)}", []
    return None, [message for message in given if id(message) not in back]


def most_returned(given: int) -> int:
    """How many items a list of *given* messages may have: it may name one more than once."""
    return _MOST_TIMES * given + _MOST_MORE


def drop(returned: object) -> None:
    """Close a coroutine that nobody will await: Python would warn of it."""
    if is_a(returned, CoroutineType):
        cast("CoroutineType[Any, Any, Any]", returned).close()


def not_returned(callback: str) -> Failed:
    """The status of a message that a callback kept for itself."""
    return Failed("not_returned", Plain(f"not returned by {callback}"))
