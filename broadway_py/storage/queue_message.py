"""What is put into the embedded queue: checked when it is made, before anything waits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast

from broadway_py.storage.queue_rows import NewRow
from broadway_py.storage.queue_slots import slot_of

__all__ = ["LONGEST", "Item", "NewMessage", "message_id", "new_message", "row"]

#: Ten years, in seconds.
LONGEST: Final = 10 * 365 * 86_400.0
_MOST_PRIORITY: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message to be put, with all that can be said about it. Its payload is not shown.

    Raises:
        TypeError, ValueError: it cannot be stored; the sentence says why.
    """

    #: The payload; a str is stored as UTF-8.
    data: bytes | str = field(repr=False)
    #: What JSON can say; becomes part of ``message.metadata``.
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Seconds (or a timedelta) until it may be taken.
    delay: float | timedelta | None = None
    #: From -100 to 100; a message with a larger one is taken first, equal ones in the order in which they were put.
    priority: int = 0
    #: Messages of one key stay in order, and with ``partitioned: true`` in the hands of one reader at a time. Found
    #: again in ``message.metadata["key"]``. Not together with a priority, which would undo the order.
    key: str | None = field(default=None, repr=False)
    #: Names the message, in ``message.id`` and for :class:`Queue`'s ``dedup_window``; default: its number does. Found
    #: again in ``message.metadata["message_id"]``.
    message_id: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.delay, timedelta):
            object.__setattr__(self, "delay", self.delay.total_seconds())  # from here on it is seconds
        _check_delay(self.delay)
        if type(self.priority) is not int or not -_MOST_PRIORITY <= self.priority <= _MOST_PRIORITY:
            raise ValueError(f"priority takes a whole number from -100 to 100, got {self.priority!r}")
        names: dict[str, object] = {"key": self.key, "message_id": self.message_id}
        for name, value in names.items():
            if value is not None and not (isinstance(value, str) and value):
                raise ValueError(f"{name} takes text that is not empty, got {type(value).__name__}")
        if self.key is not None and self.priority:
            raise ValueError("a message with a key has no priority: its key's messages are taken in the order of puts")


#: What ``put_many`` takes: a payload, a payload with its metadata, or all that can be said about a message.
Item = bytes | str | tuple[bytes | str, Mapping[str, Any] | None] | NewMessage


def _check_delay(delay: Any) -> None:
    if delay is not None and not 0 <= delay <= LONGEST:
        raise ValueError(f"delay takes seconds from 0 to {LONGEST:.0f} (ten years), got {delay!r}")


def new_message(item: Item) -> NewMessage:
    """*item* with all that can be said about it."""
    if isinstance(item, NewMessage):
        return item
    if isinstance(item, tuple):
        data, metadata = item
        return NewMessage(data=data, metadata=metadata)
    return NewMessage(data=item)


def message_id(new: NewMessage) -> str | None:
    """The name that its putter gave to *new*, if any."""
    if new.message_id is not None:
        return new.message_id
    found = (new.metadata or {}).get("message_id")
    return found if isinstance(found, str) else None


def row(new: NewMessage, now: float) -> NewRow:
    """*new* as it is stored; *now* is the file's time."""
    return NewRow(
        payload=_payload(new.data),
        metadata=_metadata(new),
        due=None if new.delay is None else now + cast("float", new.delay),
        priority=new.priority,
        slot=None if new.key is None else slot_of(new.key),
    )


def _payload(data: bytes | str) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(
        f"a payload is bytes or str, got {type(data).__name__}: encode it first, with json.dumps for example"
    )


def _metadata(new: NewMessage) -> str | None:
    if not new.metadata and new.key is None and new.message_id is None:
        return None
    metadata = dict(new.metadata or {})
    if new.key is not None:
        metadata["key"] = new.key
    if new.message_id is not None:
        metadata["message_id"] = new.message_id
    try:
        return json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"metadata holds something that JSON cannot say: {error}") from None
