"""Groups messages that are settled together, and checks what a callback returned against what it was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import CoroutineType
from typing import Any, Final, Literal, cast

from broadway_py.abilities import abilities_of
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


#: Which method of the acknowledger is called. ``drop``: failed messages that are acked, because a policy says ``drop``.
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


#: After these outcomes, the source may deliver a message again.
_MAY_COME_AGAIN: Final[frozenset[Outcome]] = frozenset({"retried", "returned", "unknown"})


class Round:
    """The messages of one call of an acknowledger."""

    # Not a dataclass, for speed: one is made per chunk, and a dataclass with two default factories takes twice as long.
    __slots__ = ("acknowledger", "failed", "given", "kind", "ref", "successful")

    def __init__(self, acknowledger: Any, ref: Any, kind: RoundKind = "ack") -> None:
        self.acknowledger = acknowledger
        self.ref = ref
        #: Which method of the acknowledger is called.
        self.kind = kind
        #: The outcome of the messages in :attr:`successful`. Only a round of kind ``ack`` may have others.
        self.given: Outcome = _GIVEN[kind]
        self.successful: list[Message[Any]] = []
        self.failed: list[Message[Any]] = []


def claim(
    successful: Iterable[Message[Any]], failed: Iterable[Message[Any]] = (), kind: RoundKind = "ack"
) -> list[Round]:
    """Claims every message that is not claimed yet, and returns the rounds: one per (acknowledger, ref).

    The claim is taken without waiting, and only its holder may settle. So a message is in at most one round, ever.
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
                    # Most often this is the only round, so it is not yet put into the index.
                    found = Round(acknowledgement[0], acknowledgement[1], kind)
                    rounds.append(found)
                target = found.successful if is_success else found.failed
            target.append(message)
    return rounds


def _round_for(
    acknowledgement: Acknowledgement, kind: RoundKind, rounds: list[Round], by_target: dict[tuple[int, Any], Round]
) -> Round:
    """Returns the round for this acknowledger and ref, a new one if needed. *by_target* is the index of *rounds*."""
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
    """Returns *ref* itself if it can be a dict key, else its ``id``."""
    try:
        return ref if hash(ref) == hash(ref) and ref == ref else id(ref)  # noqa: PLR0124  # it may not even equal itself
    except foreign_errors():
        return id(ref)


def can_give_back(message: Message[Any]) -> bool:
    """Returns whether the acknowledger of *message* can give it back."""
    return "release" in abilities_of(message._acknowledgement[0])


def will_be_stopped(message: Message[Any]) -> bool:
    """Returns whether giving *message* back makes it fail: its source cannot take it back, and it is not claimed."""
    return message._settlement == OPEN and not can_give_back(message)


def record(messages: Sequence[Message[Any]], outcome: Outcome, now: float) -> None:
    """Notes *outcome* in the ledgers for each of *messages*. The caller must hold the claim on them."""
    if outcome in _MAY_COME_AGAIN:
        _expect(messages)
    entry: Any = None
    count = size = 0
    for message in messages:
        message._settlement = SETTLED
        if message._ledger_entry is not entry:
            if entry is not None:
                entry.ledger.settle(entry, outcome, count, size, now)
            entry = message._ledger_entry
            count = size = 0
        count += 1
        size += message._size
    if entry is not None:
        entry.ledger.settle(entry, outcome, count, size, now)


def _expect(messages: Sequence[Message[Any]]) -> None:
    """Tells the ledgers which messages may be delivered again."""
    by_entry: dict[Any, list[Message[Any]]] = {}
    for message in messages:
        if message._ledger_entry is not None:
            by_entry.setdefault(message._ledger_entry, []).append(message)
    for entry, own in by_entry.items():
        entry.ledger.expect(entry, own)


def returned_one_problem(callback: str, returned: object) -> str:
    """Returns why *returned* is refused and what to do instead. It is neither None nor the message that was given."""
    came = "another Message" if is_a(returned, Message) else article(returned)
    drop(returned)
    return (
        f"{callback} returned {came}; expected None or the message it was given: "
        "change the message in place (message.data = …) and return nothing"
    )


def returned_list_problem(
    callback: str, given: Sequence[Message[Any]], returned: object
) -> tuple[str | None, list[Message[Any]]]:
    """Compares what *callback* returned (not None) with what it was given.

    Returns:
        An error text if the whole value is refused (then all of *given* fail), and the given messages that are missing
        from it. A message that occurs twice counts once.
    """
    if not hasattr(type(returned), "__iter__") or is_a(returned, (str, bytes)):
        drop(returned)
        return f"{callback} returned {article(returned)}; expected None or a list of the messages it was given", []
    mine = {id(message) for message in given}
    back: set[int] = set()
    most = most_returned(len(given))
    try:
        # The items are checked one by one, because the value may be endless.
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
    """Returns how many items the list for *given* messages may have. It may name a message more than once."""
    return _MOST_TIMES * given + _MOST_MORE


def drop(returned: object) -> None:
    """Closes *returned* if it is a coroutine. It will not be awaited, and Python would log a warning."""
    if is_a(returned, CoroutineType):
        cast("CoroutineType[Any, Any, Any]", returned).close()


def not_returned(callback: str) -> Failed:
    """Returns the status of a message that a callback did not return."""
    return Failed("not_returned", Plain(f"{callback} did not return this message"))
