"""Decides which headers of a trace become attributes of a message. SQS allows ten, and counts their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from broadway_py.clock import Clock
from broadway_py.log import logger

__all__ = ["MOST_ATTRIBUTES", "LeftOut", "attribute", "fitting"]

log = logger("broadway_py.producers.sqs")

MOST_ATTRIBUTES: Final = 10
#: The headers of W3C that need no other one, in the order of their importance.
_IN_ORDER: Final = ("traceparent", "tracestate")
_QUIET_S: Final = 60.0


def attribute(value: str) -> dict[str, str]:
    """Returns *value* as SQS takes it."""
    return {"DataType": "String", "StringValue": value}


def fitting(trace_headers: Mapping[str, str], attributes: int, room_bytes: int) -> dict[str, str]:
    """Returns those of *trace_headers* for which a message has room.

    If not all fit, these are ``traceparent``, and ``tracestate`` if it fits, too. Headers of other formats are of no
    use without each other: then there are none.

    Args:
        trace_headers: the headers, by name.
        attributes: how many attributes the message has already.
        room_bytes: how many bytes may be added to it.
    """
    free = MOST_ATTRIBUTES - attributes
    if len(trace_headers) <= free and sum(map(_weight, trace_headers.items())) <= room_bytes:
        return dict(trace_headers)
    found: dict[str, str] = {}
    for name in _IN_ORDER:
        if name not in trace_headers:
            break
        room_bytes -= _weight((name, trace_headers[name]))
        if len(found) == free or room_bytes < 0:
            break
        found[name] = trace_headers[name]
    return found


def _weight(header: tuple[str, Any]) -> int:
    name, value = header
    return len(name.encode()) + len("String") + len(value.encode(errors="surrogatepass"))


class LeftOut:
    """Counts the messages that go out without a part of their trace, and tells how many, at most once a minute.

    Args:
        queue: the name of the queue.
        clock: tells the time.
    """

    def __init__(self, queue: str, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._count = 0
        self._told_at = float("-inf")

    def note(self, messages: int) -> None:
        """Counts *messages*."""
        self._count += messages
        now = self._clock.monotonic()
        if not self._count or now - self._told_at < _QUIET_S:
            return
        log.warning(
            "messages go out without a part of their trace, because they have no room for it",
            queue=self._queue,
            messages=self._count,
            what_to_do=f"SQS takes {MOST_ATTRIBUTES} attributes: send fewer headers, or shorter messages",
        )
        self._count = 0
        self._told_at = now
