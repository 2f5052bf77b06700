"""Builds the copy of a failed message for another queue, without what would misdirect it."""

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
    "FailurePlace",
    "Letter",
    "Unfit",
    "as_new",
    "dead_letter",
    "fitted",
    "moved",
    "named",
    "renewed",
    "retry",
]

HEADER_PREFIX: Final = "x-broadway-"
FIRST_FAILED_HEADER: Final = "x-broadway-first-failed-at"
#: Names the headers that the copy lacks, because they cannot be written or do not fit.
_LEFT_OUT: Final = "x-broadway-left-out"
#: The most characters of a value in our headers. Longer ones are cut.
_LONGEST_VALUE: Final = 200
#: The most bytes of one header of ours, with its name.
_LARGEST_OF_OURS: Final = 1024
#: The bytes of a content header besides the properties: those in front, and the id that the library adds to a message
#: without one.
_AROUND_PROPERTIES: Final = 12 + 33
#: The most bytes of the properties besides the headers: the flags, nine short texts, and shorter ones.
_MOST_OF_OTHERS: Final = 2 + 9 * 256 + 32
#: Bytes that the broker may add: about the delay queue that a message has left, and how often it was delivered.
_BROKERS_SHARE: Final = 2048
_DEPTH_TO_SPARE: Final = 32
#: The broker counts these for the delivered copy, so they would be wrong on another copy.
_BROKERS_COUNTERS: Final = frozenset({"x-delivery-count", "x-acquired-count"})
#: The broker's record of earlier deaths. With these headers, the broker takes a message that returns by itself for one
#: in a cycle, and drops it. So a copy for a delay queue must not have them.
_DEATHS: Final = frozenset(
    {
        "x-death",
        *(f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")),
    }
)
#: For the broker these name further queues to send the message to.
_COPIES: Final = frozenset({"CC", "BCC"})


class Letter(NamedTuple):
    """A message to publish to *queue*, by the default exchange; or to *exchange*, with *queue* as its routing key."""

    queue: str
    body: bytes
    properties: Basic.Properties
    exchange: str = ""

    @property
    def place(self) -> str:
        """Returns where it goes, for texts. A routing key may be data, so it is not shown."""
        return f"exchange {self.exchange!r}" if self.exchange else f"queue {self.queue!r}"


class Unfit(ProducerError):
    """The client library or a frame cannot carry a message as it is, or the broker takes none that is so large."""


class FailurePlace(NamedTuple):
    """The pipeline and the worker in which the message failed."""

    pipeline: str
    worker: str


def retry(delivery: DeliveredMessage, to: str, attempt: int, now_s: float, *, retried: bool) -> Letter:
    """Returns the letter that sends *delivery* to the queue *to* as attempt number *attempt*.

    Its headers tell where it first came from and when it first failed. If it was *retried*, its own headers on that are
    kept.
    """
    headers = _headers(delivery, _BROKERS_COUNTERS | _DEATHS | _COPIES, keeps_ours=retried)
    _note_origin(headers, delivery, now_s)
    headers[ATTEMPT_HEADER] = attempt
    return Letter(to, delivery.body, _properties(delivery, headers))


def dead_letter(
    delivery: DeliveredMessage,
    to: str,
    *,
    queue: str,
    retried: bool,
    attempts: int | None,
    status: Failed | None,
    failed_in: FailurePlace,
    now_s: float,
    cause: str | None = None,
) -> Letter:
    """Returns the letter that sends *delivery*, which failed for good in *queue*, to the dead-letter queue *to*.

    It tells why, and shows no data. *cause* is used if *status* does not tell the cause. If the message was *retried*,
    its own headers on its first delivery and failure are kept.
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
    headers["x-broadway-pipeline"] = _cut(failed_in.pipeline)
    headers["x-broadway-worker"] = _cut(failed_in.worker)
    return Letter(to, delivery.body, _properties(delivery, headers))


def moved(delivery: DeliveredMessage, to: str) -> Letter:
    """Returns the letter that sends *delivery*, a retry that waits, to the queue *to*, where it waits on."""
    headers = _headers(delivery, _BROKERS_COUNTERS | _DEATHS | _COPIES, keeps_ours=True)
    return Letter(to, delivery.body, _properties(delivery, headers))


def as_new(delivery: DeliveredMessage, to: str) -> Letter:
    """Returns the letter that sends *delivery*, a dead letter, to the queue *to*, as it was before it first failed."""
    headers = _headers(delivery, _BROKERS_COUNTERS | _DEATHS | _COPIES, keeps_ours=False)
    headers.pop(_LEFT_OUT, None)
    return Letter(to, delivery.body, _properties(delivery, headers))


def renewed(delivery: DeliveredMessage, to: str) -> Letter:
    """Returns the letter that sends *delivery*, a dead letter, to its own queue *to*, which then counts anew."""
    return Letter(
        to, delivery.body, _properties(delivery, _headers(delivery, _BROKERS_COUNTERS | _COPIES, keeps_ours=True))
    )


def named(letter: Letter) -> Letter:
    """Returns *letter* with a message id: its own, or a new one. The broker's answers are told apart by it."""
    if letter.properties.message_id:
        return letter
    properties = copy.copy(letter.properties)
    properties.message_id = uuid.uuid4().hex
    return letter._replace(properties=properties)


def fitted(letter: Letter, room: int) -> Letter:
    """Returns *letter*, without its largest headers if it would not fit into a frame of *room* bytes.

    We add headers, and the broker adds more. A frame that is too large ends the connection, with all messages on it.

    Raises:
        Unfit: it does not fit even without the headers of others.
    """
    properties = letter.properties
    most = room - _AROUND_PROPERTIES - min(_BROKERS_SHARE, room // 4)
    # This estimate is cheaper than encoding, and is enough for nearly all messages.
    if room <= 0 or _at_most(properties.headers) + _MOST_OF_OTHERS <= most:
        return letter
    excess = len(properties.marshal()) - most
    if excess <= 0:
        return letter
    headers = dict(properties.headers or {})
    sizes = {name: len(table({name: value})) - 4 for name, value in headers.items()}
    excess += _LARGEST_OF_OURS
    # Our own headers go last. The attempt always stays: without it, attempts would start again from 1 for ever.
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
        raise Unfit(f"a message for {letter.place} has properties that do not fit into {room} bytes")
    _note_left_out(headers, left_out)
    fitting = copy.copy(properties)
    fitting.headers = headers
    return letter._replace(properties=fitting)


def _at_most(value: Any) -> int:
    """Returns the most bytes that *value* can take in a table."""
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
    # Others may use our prefix, too, for headers of any size.
    return name.startswith(HEADER_PREFIX) and size <= _LARGEST_OF_OURS


def _headers(delivery: DeliveredMessage, without: frozenset[str] | set[str], *, keeps_ours: bool) -> dict[str, Any]:
    """Returns the headers of *delivery* for a copy, without those that cannot be written.

    *keeps_ours* is False if headers with our prefix are from a publisher, or from before the message was dead-lettered.
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
    """Returns whether *value* can be encoded. Tables that are nested very deeply cannot, for example."""
    if isinstance(value, (dict, list)):
        # The extra depth is a reserve: the real write happens deeper in the call stack.
        for _ in range(_DEPTH_TO_SPARE):
            value = [value]
    try:
        table({name: value})
    except (TypeError, ValueError, OverflowError, RecursionError, struct.error):
        return False
    return True


def _note_origin(headers: dict[str, Any], delivery: DeliveredMessage, now_s: float) -> None:
    """Notes where the message first came from and when it first failed. Later attempts keep these headers."""
    headers.setdefault(EXCHANGE_HEADER, _cut(delivery.exchange or ""))
    headers.setdefault(ROUTING_KEY_HEADER, delivery.routing_key or "")
    headers.setdefault(FIRST_FAILED_HEADER, _time(now_s))


def _properties(delivery: DeliveredMessage, headers: dict[str, Any]) -> Basic.Properties:
    came = delivery.header.properties
    return FaithfulProperties(
        content_type=came.content_type,
        content_encoding=came.content_encoding,
        headers=headers,
        # It must survive a restart of the broker, whatever the publisher has set.
        delivery_mode=2,
        priority=came.priority,
        correlation_id=came.correlation_id,
        reply_to=came.reply_to,
        # No expiration: with it the message would leave a delay queue too early, and vanish from the dead letters.
        message_id=came.message_id,
        timestamp=came.timestamp,
        message_type=came.message_type,
        # No user_id: the broker accepts only our own.
        app_id=came.app_id,
    )


def _time(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
