"""Writes a failed message and its headers for the queue it is put into: as it came, but for what leads it astray."""

from __future__ import annotations

import copy
import struct
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from broadway_py.errors import ProducerError
from broadway_py.message import Failed
from broadway_py.producers.rabbitmq.deliveries.message import ATTEMPT_HEADER, EXCHANGE_HEADER, ROUTING_KEY_HEADER
from broadway_py.producers.rabbitmq.wire.properties import FaithfulProperties, table

__all__ = [
    "FIRST_FAILED_HEADER",
    "HEADER_PREFIX",
    "Letter",
    "Origin",
    "as_new",
    "bury",
    "fitted",
    "moved",
    "renewed",
    "retry",
]

HEADER_PREFIX: Final = "x-broadway-"
FIRST_FAILED_HEADER: Final = "x-broadway-first-failed-at"
#: The names of headers of others that the copy does not have, because they cannot be written, or do not fit.
_LEFT_OUT: Final = "x-broadway-left-out"
#: Longer values of our headers are cut.
_LONGEST_VALUE: Final = 200
#: Bytes that a header of ours can take, with its name.
_LARGEST_OF_OURS: Final = 1024
#: Bytes of a content header besides the properties: what stands before them, and the id that the library adds to a
#: message without one.
_AROUND_PROPERTIES: Final = 12 + 33
#: Bytes that the properties besides the headers can take: the flags, nine short texts, and what is shorter.
_MOST_OF_OTHERS: Final = 2 + 9 * 256 + 32
#: Bytes that the broker may add: of the delay queue that a message has left, and how often it was delivered.
_BROKERS_SHARE: Final = 2048
_DEPTH_TO_SPARE: Final = 32
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


def retry(delivery: DeliveredMessage, to: str, attempt: int, now_s: float, *, retried: bool) -> Letter:
    """*delivery* again, as its attempt number *attempt*, for the queue *to*.

    It says where it first came from, and when it first failed: what it says of that itself counts if it was *retried*.
    """
    headers = _headers(delivery, _BROKERS_COUNTERS | _DEATHS | _COPIES, keeps_ours=retried)
    _note_origin(headers, delivery, now_s)
    headers[ATTEMPT_HEADER] = attempt
    return Letter(to, delivery.body, _properties(delivery, headers))


def bury(
    delivery: DeliveredMessage,
    to: str,
    *,
    queue: str,
    retried: bool,
    attempts: int | None,
    status: Failed | None,
    origin: Origin,
    now_s: float,
    cause: str | None = None,
) -> Letter:
    """*delivery*, which failed for good in *queue*, for the queue of dead letters *to*. Says why, and shows no data.

    What *status* does not say of the cause, *cause* does. What it says itself of its first delivery and failure counts
    if it was *retried*.
    """
    headers = _headers(delivery, _BROKERS_COUNTERS | _COPIES | {ATTEMPT_HEADER}, keeps_ours=retried)
    _note_origin(headers, delivery, now_s)
    headers["x-broadway-id"] = uuid.uuid4().hex[:12]
    headers["x-broadway-queue"] = queue
    if attempts is not None:
        headers["x-broadway-attempts"] = attempts
    headers["x-broadway-cause"] = (cause or "failed") if status is None else status.cause
    if status is not None and status.exception is not None:
        headers["x-broadway-exception"] = _cut(type(status.exception).__name__)
    headers["x-broadway-failed-at"] = _time(now_s)
    headers["x-broadway-pipeline"] = _cut(origin.pipeline)
    headers["x-broadway-worker"] = _cut(origin.worker)
    return Letter(to, delivery.body, _properties(delivery, headers))


def moved(delivery: DeliveredMessage, to: str) -> Letter:
    """*delivery*, which waits for its next attempt, for the queue *to*, in which it goes on waiting."""
    headers = _headers(delivery, _BROKERS_COUNTERS | _DEATHS | _COPIES, keeps_ours=True)
    return Letter(to, delivery.body, _properties(delivery, headers))


def as_new(delivery: DeliveredMessage, to: str) -> Letter:
    """*delivery*, a dead letter, for the queue *to*: as it was before it failed for the first time."""
    headers = _headers(delivery, _BROKERS_COUNTERS | _DEATHS | _COPIES, keeps_ours=False)
    headers.pop(_LEFT_OUT, None)
    return Letter(to, delivery.body, _properties(delivery, headers))


def renewed(delivery: DeliveredMessage, to: str) -> Letter:
    """*delivery*, a dead letter, once more for its queue *to*, which then counts its deliveries anew."""
    return Letter(
        to, delivery.body, _properties(delivery, _headers(delivery, _BROKERS_COUNTERS | _COPIES, keeps_ours=True))
    )


def fitted(letter: Letter, room: int) -> Letter:
    """*letter*, without its largest headers as far as the others would not fit into a frame of *room* bytes.

    They come with what we add to them, and the broker adds more. A frame that is too large ends the connection, and
    everybody's messages on it.

    Raises:
        ProducerError: without any headers of others it still does not fit.
    """
    properties = letter.properties
    most = room - _AROUND_PROPERTIES - min(_BROKERS_SHARE, room // 4)
    # Cheaper than to write them, and enough for nearly all.
    if room <= 0 or _at_most(properties.headers) + _MOST_OF_OTHERS <= most:
        return letter
    excess = len(properties.marshal()) - most
    if excess <= 0:
        return letter
    headers = dict(properties.headers or {})
    sizes = {name: len(table({name: value})) - 4 for name, value in headers.items()}
    excess += _LARGEST_OF_OURS
    # Ours are the last to go, and which attempt it is stays: it would begin anew for ever.
    left_out: list[str] = []
    for name in sorted(sizes, key=lambda name: (_is_ours(name, sizes[name]), -sizes[name])):
        if excess <= 0:
            break
        if name == ATTEMPT_HEADER:
            continue
        excess -= sizes[name]
        del headers[name]
        left_out.append(name)
    if excess > 0:
        raise ProducerError(f"a message for queue {letter.queue!r} has properties that do not fit into {room} bytes")
    _note_left_out(headers, left_out)
    fitting = copy.copy(properties)
    fitting.headers = headers
    return letter._replace(properties=fitting)


def _at_most(value: Any) -> int:
    """Bytes that *value* cannot exceed in a table."""
    match value:
        case str():
            return 5 + 4 * len(value)
        case bytes() | bytearray():
            return 5 + len(value)
        case list():
            return 5 + sum(map(_at_most, value))
        case dict():
            return 5 + sum(256 + _at_most(each) for each in value.values())
    return 16


def _is_ours(name: str, size: int) -> bool:
    # Others may use our names, too, for what is as large as they like.
    return name.startswith(HEADER_PREFIX) and size <= _LARGEST_OF_OURS


def _headers(delivery: DeliveredMessage, without: frozenset[str] | set[str], *, keeps_ours: bool) -> dict[str, Any]:
    """Those of *delivery* that a copy is to have; what cannot be written is left out.

    Not *keeps_ours*: those with our names are a publisher's, or of an earlier life.
    """
    came = delivery.header.properties.headers or {}
    headers = {name: value for name, value in came.items() if keeps_ours or not name.startswith(HEADER_PREFIX)}
    kept = {name: value for name, value in headers.items() if name not in without and _encodes(name, value)}
    _note_left_out(kept, [name for name in headers if name not in without and name not in kept])
    return kept


def _note_left_out(headers: dict[str, Any], names: Sequence[str]) -> None:
    if names:
        earlier = headers.get(_LEFT_OUT)
        headers[_LEFT_OUT] = _cut(", ".join([*([earlier] if isinstance(earlier, str) else []), *names]))


def _encodes(name: str, value: Any) -> bool:
    """False where there is no way back: of tables in tables in tables, for one."""
    if isinstance(value, (dict, list)):
        # With depth to spare: it will be written from further down the stack.
        for _ in range(_DEPTH_TO_SPARE):
            value = [value]
    try:
        table({name: value})
    except (TypeError, ValueError, OverflowError, RecursionError, struct.error):
        return False
    return True


def _note_origin(headers: dict[str, Any], delivery: DeliveredMessage, now_s: float) -> None:
    """Where it first came from, and when it failed first: kept from one attempt to the next."""
    headers.setdefault(EXCHANGE_HEADER, _cut(delivery.exchange or ""))
    headers.setdefault(ROUTING_KEY_HEADER, delivery.routing_key or "")
    headers.setdefault(FIRST_FAILED_HEADER, _time(now_s))


def _properties(delivery: DeliveredMessage, headers: dict[str, Any]) -> Basic.Properties:
    came = delivery.header.properties
    return FaithfulProperties(
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
