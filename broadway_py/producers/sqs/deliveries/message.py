"""Makes a message from what SQS hands out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import did_you_mean
from broadway_py.message import Acknowledgement, Message
from broadway_py.producers.sqs.settings.options import OUR_NAMES, Disposition, SQSOptions, read_disposition

__all__ = ["SQSReceipt", "configured", "is_intact", "to_message"]

_NUMBERS: Final = frozenset(
    {"SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber"}
)


class SQSReceipt:
    """What is needed to settle one delivery, and how long it stays hidden from others. Belongs to one message."""

    __slots__ = (
        "attributes",
        "body",
        "group",
        "guarded",
        "handle",
        "hidden_until",
        "is_configured",
        "message_id",
        "on_failure",
        "on_success",
        "received_at",
        "sent_group",
        "trace",
        "visible_until",
    )

    def __init__(
        self, raw: Mapping[str, Any], options: SQSOptions, received_at: float, visibility_s: float, came_at: float
    ) -> None:
        self.handle: str = raw["ReceiptHandle"]
        self.message_id: str = raw["MessageId"]
        #: The body as it came: a handler may replace the message's data with anything.
        self.body: bytes = raw["Body"].encode()
        given = raw["Attributes"]
        #: The message group that the sender gave. Standard queues have it, too, but keep no order by it.
        self.sent_group: str | None = given.get("MessageGroupId")
        #: The message group on FIFO queues, which run one of its messages at a time.
        self.group: str | None = self.sent_group if options.is_fifo else None
        #: The trace header of AWS.
        self.trace: str | None = given.get("AWSTraceHeader")
        #: The sender's attributes, as SQS writes them. Dead letters keep them.
        self.attributes: Mapping[str, Any] = raw.get("MessageAttributes") or {}
        #: The earliest time at which SQS can have hidden it: the start of the receive that brought it.
        self.received_at = received_at
        #: Until when it is certainly hidden. This decides when to extend. It counts from the start of the receive.
        self.visible_until = received_at + visibility_s
        #: Until when it may still be hidden. This decides when to give up. It is later after a long poll.
        self.hidden_until = came_at + visibility_s
        #: Whether it is to be kept hidden.
        self.guarded = True
        self.on_success = options.on_success
        self.on_failure = options.on_failure
        #: Whether ``configure_ack`` set ``on_failure``.
        self.is_configured = False

    def __repr__(self) -> str:
        # The handle is not shown, because it allows to delete the message.
        return f"<SQSReceipt of message {self.message_id}>"


def is_intact(raw: Mapping[str, Any]) -> bool:
    """Returns whether the body is the one that SQS has. SQS's client libraries for Python do not check it."""
    said = raw.get("MD5OfBody")
    return said is None or hashlib.md5(raw["Body"].encode(), usedforsecurity=False).hexdigest() == said


def to_message(
    raw: Mapping[str, Any], receipt: SQSReceipt, acknowledger: Acknowledger, options: SQSOptions
) -> Message[bytes]:
    """Makes the message for the pipeline. *acknowledger* settles it."""
    attributes = raw["Attributes"]
    attempt = int(attributes["ApproximateReceiveCount"])
    metadata: dict[str, Any] = {
        "message_id": receipt.message_id,
        "receipt_handle": receipt.handle,
        "md5_of_body": raw.get("MD5OfBody"),
        "queue": options.queue_name,
        "redelivered": attempt > 1,
        "attributes": {} if options.attribute_names is None else _attributes(attributes, options),
        "message_attributes": (
            {} if options.message_attribute_names is None else _message_attributes(receipt.attributes, options)
        ),
    }
    if receipt.group is not None:
        metadata["message_group_id"] = receipt.group
    message = Message(receipt.body, metadata, Acknowledgement(acknowledger, None, receipt))
    message.attempt = attempt
    return message


def _attributes(given: Mapping[str, str], options: SQSOptions) -> dict[str, Any]:
    wanted = options.attribute_names
    found: dict[str, Any] = {}
    for name, value in given.items():
        ours = OUR_NAMES.get(name, name)
        if wanted == "all" or ours in (wanted or ()):
            found[ours] = int(value) if name in _NUMBERS and value.isdecimal() else value
    return found


def _message_attributes(given: Mapping[str, Any], options: SQSOptions) -> dict[str, dict[str, Any]]:
    wanted = options.message_attribute_names
    found: dict[str, dict[str, Any]] = {}
    for name, parts in given.items():
        if wanted != "all" and not any(_covers(pattern, name) for pattern in wanted or ()):
            continue
        text, binary = parts.get("StringValue"), parts.get("BinaryValue")
        found[name] = {
            "name": name,
            "data_type": parts["DataType"],
            "string_value": text,
            "binary_value": binary,
            "value": _value(parts["DataType"], text, binary),
        }
    return found


def _covers(pattern: str, name: str) -> bool:
    if pattern in ("All", ".*"):
        return True
    return name.startswith(pattern.removesuffix("*")) if pattern.endswith(".*") else name == pattern


def _value(data_type: str, text: str | None, binary: bytes | None) -> Any:
    kind = data_type.partition(".")[0]
    if kind == "Binary":
        return binary
    if kind == "Number" and text is not None:
        try:
            return int(text)
        except ValueError:
            return float(text)
    return text


def configured(receipt: SQSReceipt, options: Mapping[str, Any], *, has_dead_letters: bool) -> SQSReceipt:
    """Returns *receipt* with the options of ``message.configure_ack(...)``.

    Raises:
        ValueError: an unknown option, or an unknown value of one.
    """
    known = ("on_success", "on_failure")
    read: dict[str, Disposition] = {}
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"configure_ack: unknown option {name!r}; SQS takes {', '.join(known)}{did_you_mean(name, known)}"
            )
        try:
            read[name] = read_disposition(value)
        except ValueError as wrong:
            raise ValueError(f"configure_ack: {name}: {wrong}, got {value!r}") from None
        if read[name].action == "dead_letter" and (name == "on_success" or not has_dead_letters):
            raise ValueError(
                f"configure_ack: {name} cannot be dead_letter here: "
                + ("a handled message is not a dead letter" if name == "on_success" else "set dead_letter_queue")
            )
    for name, disposition in read.items():
        setattr(receipt, name, disposition)
    if "on_failure" in read:
        receipt.is_configured = True
    return receipt
