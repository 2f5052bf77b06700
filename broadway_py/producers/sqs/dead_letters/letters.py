"""Builds a dead letter: the message as it came, and why it died."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from broadway_py.error_text import name_of
from broadway_py.message import Message
from broadway_py.producers.sqs.deliveries.message import SQSReceipt
from broadway_py.producers.sqs.requests.batch_entries import MOST_ENTRIES

__all__ = ["DEATH", "SQSDeadLetter", "portions", "sendable", "weight_of"]

#: The message attribute that says why. It is one of the ten that SQS allows, so a message that has ten already has no
#: room for it. It is also left out if it makes the message too long.
DEATH: Final = "x-broadway-death"

_MOST_ATTRIBUTES: Final = 10
#: The most bytes of a batch that every SQS endpoint accepts. Some accept four times that.
_MOST_BYTES: Final = 256 * 1024


class SQSDeadLetter:
    """One dead letter: the body and attributes as they came, and what we add.

    A queue may not accept all of it, because the body alone may be as long as the queue allows. Then our additions are
    left out, the least important first. What came with the message always stays.

    Args:
        message: the failed message; changes by handlers are not sent.
        queue: where it came from.
        pipeline: the name of the pipeline.
        died_at: wall time, in seconds.
        is_fifo: whether the queue for dead letters is a FIFO queue.
    """

    def __init__(self, message: Message[Any], *, queue: str, pipeline: str, died_at: float, is_fifo: bool) -> None:
        self.message = message
        receipt: SQSReceipt = message.acknowledgement.data
        attributes = {name: sendable(parts) for name, parts in receipt.attributes.items() if name != DEATH}
        #: The letter's entry in a batch of sends.
        self.entry: dict[str, Any] = {
            "MessageBody": receipt.body.decode(),
            "MessageAttributes": attributes,
        }
        if receipt.trace is not None:
            trace = {"DataType": "String", "StringValue": receipt.trace}
            self.entry["MessageSystemAttributes"] = {"AWSTraceHeader": trace}
        if is_fifo:
            # The message's own id: sending it again after a lost answer makes no second letter.
            self.entry["MessageDeduplicationId"] = receipt.message_id
            self.entry["MessageGroupId"] = receipt.sent_group or receipt.message_id
        elif receipt.sent_group is not None:
            self.entry["MessageGroupId"] = receipt.sent_group
        # Steps that leave something out. The next one is the last of the list.
        self._gives_way: list[Callable[[], object]] = []
        if not is_fifo and receipt.sent_group is not None:
            # It helps standard queues to choose the order, and not every endpoint knows it.
            self._gives_way.append(lambda: self.entry.pop("MessageGroupId"))
        if len(attributes) < _MOST_ATTRIBUTES:
            status = message.status
            cause = "failed" if status is None else status.cause
            exception = None if status is None else status.exception
            self._say(
                queue=queue,
                message_id=receipt.message_id,
                attempts=message.attempt,
                cause=cause,
                exception=None if exception is None else name_of(exception),
                died_at=round(died_at, 3),
                pipeline=pipeline,
            )
            self._gives_way += [lambda: attributes.pop(DEATH), lambda: self._say(cause=cause, attempts=message.attempt)]

    def _say(self, **said: object) -> None:
        self.entry["MessageAttributes"][DEATH] = {"DataType": "String", "StringValue": json.dumps(said)}

    def give_way(self) -> bool:
        """Leaves out some of our additions. Returns False if nothing is left to leave out."""
        if not self._gives_way:
            return False
        self._gives_way.pop()()
        return True

    @property
    def weight(self) -> int:
        """Returns the size in bytes, as SQS counts it."""
        return weight_of(self.entry)


def sendable(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message attribute as it was received in the form in which it can be sent."""
    return {name: parts[name] for name in ("DataType", "StringValue", "BinaryValue") if name in parts}


def portions(letters: Sequence[dict[str, Any]]) -> Iterator[list[int]]:
    """Yields the positions of letters that are sent together: at most ten, within the size limit of a batch."""
    portion: list[int] = []
    weight = 0
    for position, letter in enumerate(letters):
        size = weight_of(letter)
        if portion and (len(portion) == MOST_ENTRIES or weight + size > _MOST_BYTES):
            yield portion
            portion, weight = [], 0
        portion.append(position)
        weight += size
    if portion:
        yield portion


def weight_of(letter: dict[str, Any]) -> int:
    """Returns the size of *letter* in bytes, as SQS counts it."""
    attributes = letter["MessageAttributes"]
    return len(letter["MessageBody"].encode()) + sum(
        len(name.encode())
        + len(parts["DataType"].encode())
        + len((parts.get("StringValue") or "").encode())
        + len(parts.get("BinaryValue") or b"")
        for name, parts in attributes.items()
    )
