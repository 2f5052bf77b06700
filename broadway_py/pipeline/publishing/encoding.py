"""Makes the message to publish of what a handler gives."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2s
from typing import Any, Final

from pydantic_core import to_json

from broadway_py.foreign import article, foreign_errors, is_a
from broadway_py.message import Message
from broadway_py.publisher import Given, Outgoing

__all__ = ["JSON", "Encoding", "Unfit"]

#: The media type of what is written as JSON.
JSON: Final = "application/json"


class Unfit(Exception):
    """An item that cannot be published as it is."""


class Encoding:
    """Makes messages of the items of one call.

    Args:
        key: the key of all, or a function of an item.
        message_id: the id, or a function of an item.
        headers: the headers of all.
        content_type: the media type of all; None: that of each.
        pipeline: the name of the pipeline that publishes.

    Raises:
        TypeError: an option has a wrong type. The text says which.
    """

    def __init__(
        self,
        *,
        key: Given,
        message_id: Given,
        headers: Mapping[str, str] | None,
        content_type: str | None,
        pipeline: str,
    ) -> None:
        self._key = key
        self._message_id = message_id
        self._headers = _checked_headers(headers)
        self._content_type = _checked("content_type", content_type)
        self._pipeline = pipeline

    def outgoing(self, item: Any) -> Outgoing:
        """Returns *item* as a message to publish.

        Raises:
            Unfit: it cannot be written.
            Exception: what a function of the user raised.
        """
        source = item if isinstance(item, Message) else None
        data, content_type = _encoded(item if source is None else source.data)
        message_id = _checked("message_id", _of(self._message_id, item))
        dedup_id: str | None = None
        if source is not None:
            if message_id is None and (message_id := source.id) is not None:
                dedup_id = _recognised_by(self._pipeline, source, message_id, data)
            content_type = content_type or _content_type_of(source)
        return Outgoing(
            data=data,
            message_id=message_id,
            dedup_id=dedup_id,
            key=_checked("key", _of(self._key, item)),
            headers=self._headers,
            content_type=self._content_type or content_type,
        )


def _recognised_by(pipeline: str, source: Message[Any], message_id: str, data: bytes) -> str:
    """Returns what a place recognises a repetition of *data* by, which has the id of *source*.

    That id alone does not name one message for ever: each embedded queue numbers its messages from 1, and so do some
    publishers. A place that goes by the id alone would take another message for a repetition, and lose it.
    """
    metadata: object = getattr(source, "metadata", None)  # a handler may have deleted it
    # An embedded queue that was made anew begins at 1 again.
    put_at = dict.get(metadata, "enqueued_at") if isinstance(metadata, dict) else None
    origin = repr((pipeline, source.producer, message_id, put_at if type(put_at) is float else None))
    return blake2s(origin.encode() + b"\0" + data, digest_size=16).hexdigest()


def _content_type_of(source: Message[Any]) -> str | None:
    """Returns the media type that the source has given to the payload of *source*."""
    metadata: object = getattr(source, "metadata", None)  # a handler may have deleted it
    found = dict.get(metadata, "content_type") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else None


def _encoded(data: Any) -> tuple[bytes, str | None]:
    """Returns the payload, and its media type."""
    if isinstance(data, bytes):
        return data, None
    if isinstance(data, str):
        try:
            return data.encode(), None
        except UnicodeEncodeError:
            raise Unfit("a text has characters that UTF-8 does not have (lone surrogates)") from None
    if isinstance(data, bytearray | memoryview):
        return bytes(data), None
    try:
        return to_json(data), JSON
    except foreign_errors():
        # A serializer of the user may raise anything, and the text of the error may quote the data.
        raise Unfit(
            f"{article(data)} cannot be written as JSON: give a value that pydantic can serialize, or bytes"
        ) from None


def _of(option: Given, item: Any) -> object:
    return option(item) if callable(option) else option


def _checked(name: str, value: object) -> str | None:
    if value is None or is_a(value, str):
        return value  # type: ignore[return-value]  # is_a says it
    raise TypeError(f"{name}: expected text or None, got {article(value)}")


def _checked_headers(headers: object) -> Mapping[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers: expected a mapping of texts, got {article(headers)}")
    for name, value in headers.items():
        if not is_a(name, str):
            raise TypeError(f"headers: expected names as text, got {article(name)}")
        if not is_a(value, str):
            raise TypeError(f"headers: expected text for {name!r}, got {article(value)}; write it as text")
    return dict(headers)
