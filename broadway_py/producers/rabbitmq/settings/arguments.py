"""Types of settings for names and arguments that AMQP can carry.

Without these checks, a wrong value would cause an error inside the client library, at a connect or at the first retry,
and that error would not name the setting.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pamqp import encode
from pamqp.constants import DOMAIN_REGEX
from pydantic import AfterValidator

__all__ = [
    "LONGEST_EXCHANGE",
    "Arguments",
    "ConsumerArguments",
    "ExchangeToBind",
    "ExchangeToPublishTo",
    "Name",
    "QueueNames",
    "RetryArguments",
    "queue_name",
]

#: The most bytes in the name of a queue, an exchange or a consumer.
_LONGEST_NAME: Final = 255
#: The most bytes in the name of a queue that we consume. It is less, because the names of its retry queues are longer.
_LONGEST_QUEUE: Final = 230
#: The most characters in the name of an exchange for the client library, which is stricter than the broker.
LONGEST_EXCHANGE: Final = 127
#: The most bytes in the name of an argument. The client library cuts longer ones.
_LONGEST_ARGUMENT_NAME: Final = 128
_CARRIED: Final = (
    "true or false, whole numbers of 64 bits, floating point numbers of 32 bits, texts, times, bytearrays, "
    "and lists and dicts of them"
)
#: The arguments that make a queue a retry queue. Other values would make messages vanish or be deleted.
_OURS: Final = ("x-message-ttl", "x-expires", "x-dead-letter-exchange", "x-dead-letter-routing-key")
#: The arguments that keep a quorum queue for retries from losing messages. Each retry queue has them.
_SAFE: Final = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
#: Arguments that a broker refuses for a quorum queue.
_CLASSIC_ONLY: Final = ("x-max-priority", "x-queue-master-locator", "x-queue-mode", "x-queue-version")


def queue_name(value: str) -> str:
    """Returns *value* if it can be the name of a queue.

    Raises:
        ValueError: AMQP or the client library cannot carry it.
    """
    return _spelling(_name(value))


def _length_of(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("expected text that UTF-8 can write") from None


def _spelling(value: str) -> str:
    """Returns *value* if the client library accepts it as a queue or exchange name. Brokers are less strict."""
    spelling = DOMAIN_REGEX["queue-name"]
    odd = next((one for one in value if not spelling.fullmatch(one)), None)
    if odd is not None:
        raise ValueError(
            f"expected a name of letters a to z, digits, spaces and -_.:@#,/+ alone; the AMQP library takes no {odd!r}"
        )
    return value


def _name(value: str) -> str:
    if (length := _length_of(value)) > _LONGEST_NAME:
        raise ValueError(f"expected {_LONGEST_NAME} bytes of UTF-8 at most, but these are {length}")
    return value


def _queue_names(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for one in (value,) if isinstance(value, str) else value:
        if _length_of(one) > _LONGEST_QUEUE:
            raise ValueError(f"expected a name of {_LONGEST_QUEUE} bytes at most")
        _spelling(one)
    return value


def _argument_name(value: str) -> str:
    if (length := _length_of(value)) > _LONGEST_ARGUMENT_NAME:
        raise ValueError(
            f"expected a name of {_LONGEST_ARGUMENT_NAME} bytes of UTF-8 at most, but this one has {length}"
        )
    return value


def _argument(value: object) -> object:
    try:
        _check_names(value)
        encode.encode_table_value(value)  # type: ignore[arg-type]  # the call checks just that
    except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError, struct.error):
        raise ValueError(f"expected something that AMQP can carry: {_CARRIED}") from None
    return value


def _check_names(value: object) -> None:
    if isinstance(value, dict):
        for name, further_in in value.items():
            _argument_name(name)
            _check_names(further_in)
    elif isinstance(value, list):
        for one in value:
            _check_names(one)


def _exchange_to_bind(value: str) -> str:
    if not value:
        raise ValueError(
            "expected the name of an exchange; the nameless one cannot be bound, it leads to every queue by its name"
        )
    return _exchange(value)


def _exchange_to_publish_to(value: str) -> str:
    if not value:
        raise ValueError("expected the name of an exchange; to publish to a queue directly, give queue instead")
    return _exchange(value)


def _exchange(value: str) -> str:
    if len(value) > LONGEST_EXCHANGE:
        raise ValueError(f"expected {LONGEST_EXCHANGE} characters at most, but these are {len(value)}")
    return _spelling(value)


def _of_consumers(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if "x-stream-offset" in value:
        raise ValueError(
            "streams are not supported, because they do not deliver again what a pause gives back; consume a queue"
        )
    return value


def _refuse_unsafe(of_quorum_queues: Mapping[str, Any]) -> None:
    for name, safe in _SAFE.items():
        if (got := of_quorum_queues.get(name, safe)) != safe:
            raise ValueError(
                f"{name} is {safe} for quorum queues in which retries wait: with {got!r} the broker loses messages "
                "when it restarts; leave it out"
            )
    for name in _CLASSIC_ONLY:
        if name in of_quorum_queues:
            raise ValueError(
                f"{name} is for classic queues, but retries wait in quorum queues, which lose none when the broker "
                "restarts: leave it out, or set x-queue-type: classic"
            )


def _for_retries(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in _OURS:
        if name in value:
            raise ValueError(
                f"{name} is set for each delay, to send waiting messages back to their queue in time; leave it out"
            )
    kind = value.get("x-queue-type", "quorum")
    if kind not in ("classic", "quorum"):
        raise ValueError(f"retries wait in queues of x-queue-type classic or quorum, not {kind!r}")
    if kind == "quorum":
        _refuse_unsafe(value)
        return value
    if "x-dead-letter-strategy" in value:
        raise ValueError(
            "x-dead-letter-strategy is for quorum queues: leave it out, or leave out x-queue-type: classic"
        )
    for name in ("x-max-length", "x-max-length-bytes"):
        if name in value and value.get("x-overflow") != "reject-publish":
            raise ValueError(
                f"with {name} a full queue deletes messages, or sends them back too early, unless x-overflow is "
                "reject-publish: set that, or leave it out"
            )
    return value


#: The name of a queue, an exchange or a consumer, or a routing key.
Name = Annotated[str, AfterValidator(_name)]
#: The name of a queue that we consume, or several names.
QueueNames = Annotated[str | tuple[str, ...], AfterValidator(_queue_names)]
#: The name of an exchange that a queue can be bound to.
ExchangeToBind = Annotated[Name, AfterValidator(_exchange_to_bind)]
#: The name of an exchange that can be published to.
ExchangeToPublishTo = Annotated[Name, AfterValidator(_exchange_to_publish_to)]
#: Arguments that are sent to the broker, by name.
Arguments = dict[Annotated[str, AfterValidator(_argument_name)], Annotated[Any, AfterValidator(_argument)]]
#: The arguments of a consumer.
ConsumerArguments = Annotated[Arguments, AfterValidator(_of_consumers)]
#: The arguments of the queues in which messages wait for their next attempt.
RetryArguments = Annotated[Arguments, AfterValidator(_for_retries)]
