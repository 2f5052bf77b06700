"""Reads dead letters as SQS hands them out, and builds what is sent back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from broadway_py.daemon.dead_letters.letters import Head, printable, size_of, time_of
from broadway_py.error_text import clipped
from broadway_py.producers.sqs.dead_letters.letters import DEATH, sendable

__all__ = ["entry_of", "failed_in", "head_of"]

#: The largest number that is shown: a time in milliseconds far in the future.
_MOST_NUMBER: Final = 1e14


def failed_in(message: Mapping[str, Any]) -> str | None:
    """Returns the queue in which the letter failed: by SQS, or by whoever has sent the letter. None: nobody says."""
    arn = message.get("Attributes", {}).get("DeadLetterQueueSourceArn")
    if isinstance(arn, str):
        return arn.rpartition(":")[2]
    said = _death(message).get("queue")
    return said if isinstance(said, str) else None


def _death(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what our producer has written about the letter. Anybody who may send to the queue can write it, too."""
    text = message.get("MessageAttributes", {}).get(DEATH, {}).get("StringValue", "")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def head_of(message: Mapping[str, Any]) -> Head:
    """Returns what is known about the letter."""
    death = _death(message)
    attributes: Mapping[str, str] = message.get("Attributes", {})
    letter = printable(str(message["MessageId"]))
    size = len(str(message["Body"]).encode())
    died, attempts = _number(death.get("died_at")), _number(death.get("attempts"))
    cause, exception = _text(death.get("cause")), _text(death.get("exception"))
    sent = _number(attributes.get("SentTimestamp"))
    received = _number(attributes.get("ApproximateReceiveCount"))
    others = {
        name: parts.get("StringValue", f"({len(parts.get('BinaryValue', b''))} bytes)")
        for name, parts in message.get("MessageAttributes", {}).items()
        if name != DEATH
    }
    facts = [
        ("id", letter),
        ("cause", cause or "-"),
        ("exception", exception or "-"),
        ("attempts", "-" if attempts is None else f"{attempts:.0f}"),
        ("died", "-" if died is None else time_of(died)),
        ("queue", failed_in(message) or "-"),
        ("pipeline", _text(death.get("pipeline")) or "-"),
        ("sent", "-" if sent is None else time_of(sent / 1000)),
        ("received", "-" if received is None else f"{received:.0f}"),
        ("group", attributes.get("MessageGroupId", "-")),
        ("size", size_of(size)),
        ("attributes", json.dumps(others)),
    ]
    return Head(letter, died, None if attempts is None else int(attempts), cause or "-", exception, size, facts)


def _number(value: object) -> float | None:
    """Returns a number that somebody else has written; None: it is none that can be shown."""
    try:
        found = float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None
    return found if found is not None and 0 <= found < _MOST_NUMBER else None


def _text(value: object) -> str | None:
    return clipped(value, 200) if isinstance(value, str) and value else None


def entry_of(message: Mapping[str, Any], *, is_fifo: bool) -> dict[str, Any]:
    """Returns the letter as it is sent back: as it came, without what we have added when it died."""
    attributes: Mapping[str, str] = message.get("Attributes", {})
    entry: dict[str, Any] = {
        "MessageBody": message["Body"],
        "MessageAttributes": {
            name: sendable(parts) for name, parts in message.get("MessageAttributes", {}).items() if name != DEATH
        },
    }
    if "AWSTraceHeader" in attributes:
        trace = {"DataType": "String", "StringValue": attributes["AWSTraceHeader"]}
        entry["MessageSystemAttributes"] = {"AWSTraceHeader": trace}
    group = attributes.get("MessageGroupId")
    if is_fifo:
        entry["MessageDeduplicationId"] = f"broadway-replay-{message['MessageId']}"
        entry["MessageGroupId"] = group or message["MessageId"]
    elif group is not None:
        entry["MessageGroupId"] = group
    return entry
