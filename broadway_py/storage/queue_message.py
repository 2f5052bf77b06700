"""The messages to put into the embedded queue. They are checked when they are made, before anything waits."""

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
    """A message to put, with all its fields. Its payload, metadata and key are not in its ``repr``.

    Raises:
        TypeError, ValueError: it cannot be stored. The text says why.
    """

    #: The payload. A str is stored as UTF-8.
    data: bytes | str = field(repr=False)
    #: Values that JSON can hold. They become part of ``message.metadata``.
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Seconds (or a timedelta) until it may be taken.
    delay: float | timedelta | None = None
    #: From -100 to 100. A message with a larger priority is taken first. Equal ones are taken in the order of puts.
    priority: int = 0
    #: Messages of one key stay in order. With ``partitioned: true`` one reader at a time has all of them, and with
    #: ``partitions`` they lie in one partition. The key is in ``message.metadata["key"]`` later. It cannot be given
    #: together with a priority, which would break the order.
    key: str | None = field(default=None, repr=False)
    #: The name of the message, in ``message.id`` and for :class:`Queue`'s ``dedup_window``. Default: its number. It is
    #: in ``message.metadata["message_id"]`` later.
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


#: The items that ``put_many`` takes: a payload, a payload with its metadata, or a whole message.
Item = bytes | str | tuple[bytes | str, Mapping[str, Any] | None] | NewMessage


def _check_delay(delay: Any) -> None:
    if delay is not None and not 0 <= delay <= LONGEST:
        raise ValueError(f"delay takes seconds from 0 to {LONGEST:.0f} (ten years), got {delay!r}")


def new_message(item: Item) -> NewMessage:
    """Returns *item* as a :class:`NewMessage`."""
    if isinstance(item, NewMessage):
        return item
    if isinstance(item, tuple):
        data, metadata = item
        return NewMessage(data=data, metadata=metadata)
    return NewMessage(data=item)


def message_id(new: NewMessage) -> str | None:
    """Returns the name that the caller gave to *new*, or None."""
    if new.message_id is not None:
        return new.message_id
    found = (new.metadata or {}).get("message_id")
    return found if isinstance(found, str) else None


def row(new: NewMessage, now: float) -> NewRow:
    """Returns *new* as it is stored. *now* is the file's time."""
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
        raise type(error)(f"metadata has something that JSON cannot represent: {error}") from None
