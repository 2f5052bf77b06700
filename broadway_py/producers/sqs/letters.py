"""What a dead letter looks like: the message as it came, and why it died."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from broadway_py.error_text import name_of
from broadway_py.message import Message
from broadway_py.producers.sqs.delivery import Receipt

__all__ = ["DEATH", "death_letter", "portions"]

#: The message attribute that says why: one of the ten that SQS allows. A message that has ten already goes without.
DEATH: Final = "x-broadway-death"

_MOST_ATTRIBUTES: Final = 10
_MOST_ENTRIES: Final = 10
#: What one batch may weigh wherever SQS is asked; some endpoints take four times that.
_MOST_BYTES: Final = 256 * 1024


def death_letter(message: Message[Any], *, queue: str, pipeline: str, died_at: float, is_fifo: bool) -> dict[str, Any]:
    """The entry of a batch of sends: body and attributes as they came, without any change by handlers."""
    receipt: Receipt = message.acknowledgement.data
    attributes = {name: _sendable(parts) for name, parts in receipt.attributes.items() if name != DEATH}
    if len(attributes) < _MOST_ATTRIBUTES:
        status = message.status
        exception = None if status is None else status.exception
        said = {
            "queue": queue,
            "message_id": receipt.message_id,
            "attempts": message.attempt,
            "cause": "failed" if status is None else status.cause,
            "exception": None if exception is None else name_of(exception),
            "died_at": round(died_at, 3),
            "pipeline": pipeline,
        }
        attributes[DEATH] = {"DataType": "String", "StringValue": json.dumps(said)}
    raw = message.raw
    letter = {"MessageBody": raw.decode() if isinstance(raw, bytes) else str(raw), "MessageAttributes": attributes}
    if is_fifo:
        # The message's own id: sending it again after a lost answer makes no second letter.
        letter["MessageDeduplicationId"] = receipt.message_id
        letter["MessageGroupId"] = receipt.group or receipt.message_id
    return letter


def _sendable(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: parts[name] for name in ("DataType", "StringValue", "BinaryValue") if name in parts}


def portions(letters: Sequence[dict[str, Any]]) -> Iterator[list[int]]:
    """Positions that go out together: at most ten, and no more than a batch may weigh."""
    portion: list[int] = []
    weight = 0
    for position, letter in enumerate(letters):
        size = _weight(letter)
        if portion and (len(portion) == _MOST_ENTRIES or weight + size > _MOST_BYTES):
            yield portion
            portion, weight = [], 0
        portion.append(position)
        weight += size
    if portion:
        yield portion


def _weight(letter: dict[str, Any]) -> int:
    attributes = letter["MessageAttributes"]
    return len(letter["MessageBody"].encode()) + sum(
        len(name.encode())
        + len(parts["DataType"].encode())
        + len((parts.get("StringValue") or "").encode())
        + len(parts.get("BinaryValue") or b"")
        for name, parts in attributes.items()
    )
