"""What a failed message looks like when it is put somewhere else: as it came, but for what would lead it astray."""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from aiormq.abc import DeliveredMessage
from pamqp import encode
from pamqp.commands import Basic

from broadway_py.message import Failed
from broadway_py.producers.rabbitmq.delivery import ATTEMPT_HEADER, EXCHANGE_HEADER, ROUTING_KEY_HEADER

__all__ = ["HEADER_PREFIX", "Letter", "Origin", "as_new", "bury", "retry"]

HEADER_PREFIX: Final = "x-broadway-"
_FIRST_FAILED: Final = "x-broadway-first-failed-at"
#: Longer values of our headers are cut.
_LONGEST_VALUE: Final = 200
#: Counted by the broker for the copy that was delivered: on another copy they would be wrong.
_BROKERS_COUNTERS: Final = frozenset({"x-delivery-count", "x-acquired-count"})
#: A broker that reads of an earlier death in these drops the message when it comes back by itself, as if it ran in
#: circles; a copy that goes to a delay queue must not have them.
_DEATHS: Final = frozenset(
    {
        "x-death",
        *(f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")),
    }
)
#: To the broker these are further queues to send it to.
_COPIES: Final = frozenset({"CC", "BCC"})


class Letter(NamedTuple):
    """A message to be published to *queue*, by the default exchange."""

    queue: str
    body: bytes
    properties: Basic.Properties


class Origin(NamedTuple):
    """Whose failure it was."""

    pipeline: str
    worker: str


def retry(delivery: DeliveredMessage, to: str, attempt: int, now_s: float) -> Letter:
    """*delivery* again, as its attempt number *attempt*, for the queue *to*."""
    headers = _headers(delivery, _BROKERS_COUNTERS | _DEATHS | _COPIES)
    _note_origin(headers, delivery, now_s)
    headers[ATTEMPT_HEADER] = attempt
    return Letter(to, delivery.body, _properties(delivery, headers))


def bury(
    delivery: DeliveredMessage,
    to: str,
    *,
    queue: str,
    attempts: int | None,
    status: Failed | None,
    origin: Origin,
    now_s: float,
) -> Letter:
    """*delivery*, which failed for good in *queue*, for the queue of dead letters *to*. Says why, and shows no data."""
    headers = _headers(delivery, _BROKERS_COUNTERS | _COPIES | {ATTEMPT_HEADER})
    _note_origin(headers, delivery, now_s)
    headers["x-broadway-id"] = uuid.uuid4().hex[:12]
    headers["x-broadway-queue"] = queue
    if attempts is not None:
        headers["x-broadway-attempts"] = attempts
    headers["x-broadway-cause"] = "failed" if status is None else status.cause
    if status is not None and status.exception is not None:
        headers["x-broadway-exception"] = _cut(type(status.exception).__name__)
    headers["x-broadway-failed-at"] = _time(now_s)
    headers["x-broadway-pipeline"] = _cut(origin.pipeline)
    headers["x-broadway-worker"] = _cut(origin.worker)
    return Letter(to, delivery.body, _properties(delivery, headers))


def as_new(delivery: DeliveredMessage, to: str) -> Letter:
    """*delivery*, a dead letter, for the queue *to*: as it was before it failed for the first time."""
    headers = _headers(delivery, _BROKERS_COUNTERS | _DEATHS | _COPIES)
    ours = [name for name in headers if name.startswith(HEADER_PREFIX)]
    for name in ours:
        del headers[name]
    return Letter(to, delivery.body, _properties(delivery, headers))


def _headers(delivery: DeliveredMessage, without: frozenset[str] | set[str]) -> dict[str, Any]:
    headers = delivery.header.properties.headers or {}
    kept = {name: _sendable(value) for name, value in headers.items() if name not in without}
    return {name: value for name, value in kept.items() if _encodes(name, value)}


def _sendable(value: Any) -> Any:
    """The library decodes text that is no UTF-8 into bytes, and sends those as a byte array alone."""
    match value:
        case bytes():
            return bytearray(value)
        case list():
            return [_sendable(each) for each in value]
        case dict():
            return {name: _sendable(each) for name, each in value.items()}
    return value


def _encodes(name: str, value: Any) -> bool:
    """False where the library has no way back: of a number that is too large for its type, for one."""
    try:
        encode.field_table({name: value})
    except (TypeError, ValueError, OverflowError, struct.error):
        return False
    return True


def _note_origin(headers: dict[str, Any], delivery: DeliveredMessage, now_s: float) -> None:
    """Where it first came from, and when it failed first: kept from one attempt to the next."""
    headers.setdefault(EXCHANGE_HEADER, _cut(delivery.exchange or ""))
    headers.setdefault(ROUTING_KEY_HEADER, delivery.routing_key or "")
    headers.setdefault(_FIRST_FAILED, _time(now_s))


def _properties(delivery: DeliveredMessage, headers: dict[str, Any]) -> Basic.Properties:
    came = delivery.header.properties
    return Basic.Properties(
        content_type=came.content_type,
        content_encoding=came.content_encoding,
        headers=headers,
        # It must outlive a restart of the broker, whatever the publisher cared.
        delivery_mode=2,
        priority=came.priority,
        correlation_id=came.correlation_id,
        reply_to=came.reply_to,
        # Without expiration: it would leave a delay queue too early, and vanish from among the dead letters.
        message_id=came.message_id,
        timestamp=came.timestamp,
        message_type=came.message_type,
        # Without user_id: the broker takes none but our own.
        app_id=came.app_id,
    )


def _time(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
