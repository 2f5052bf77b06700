"""Properties that go onto the wire as they came.

The client library reads more than it writes: it cuts the names of headers to 128 bytes, sends every number with a
fraction in 32 bits and every time stamp in seconds, and has no way back for text that is no UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pamqp import encode
from pamqp.commands import Basic

__all__ = ["FaithfulProperties", "table"]


class FaithfulProperties(Basic.Properties):
    """As the client library's, but for what it would change."""

    def encode_property(self, name: str, value: Any) -> bytes:
        """The bytes of one of them; called by the library.

        Raises:
            TypeError, ValueError, struct.error: there is no way to write it.
        """
        if name == "headers":
            return table(value)
        if isinstance(value, datetime):
            return _time(value)
        return super().encode_property(name, value)


def table(values: Mapping[str, Any]) -> bytes:
    """*values* as a table of AMQP.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError, struct.error: there is no way to write one of them.
    """
    return _long(b"".join(encode.short_string(name) + _field(value) for name, value in values.items()))


def _field(value: Any) -> bytes:
    match value:
        case float():
            return b"d" + encode.double(value)
        case bytes():
            # Text that is no UTF-8, as the library reads it.
            return b"S" + _long(value)
        case datetime():
            return b"T" + _time(value)
        case list():
            return b"A" + _long(b"".join(map(_field, value)))
        case dict():
            return b"F" + table(value)
    return encode.encode_table_value(value)


def _time(value: datetime) -> bytes:
    # AMQP has seconds. What is too large for them the library reads as milliseconds, which many send.
    seconds = value.timestamp()
    return round(seconds * 1000.0 if value.microsecond else seconds).to_bytes(8)


def _long(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data
