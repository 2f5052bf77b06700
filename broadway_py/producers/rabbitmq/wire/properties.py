"""Properties that are written to the wire exactly as they came.

The client library reads more than it can write. It cuts the names of headers to 128 bytes, sends every fractional
number in 32 bits and every time stamp in seconds, and cannot write text that is not UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pamqp import encode
from pamqp.commands import Basic

__all__ = ["FaithfulProperties", "table"]


class FaithfulProperties(Basic.Properties):
    """Works like the client library's properties, but changes no values."""

    def encode_property(self, name: str, value: Any) -> bytes:
        """Returns the bytes of one property. Called by the library.

        Raises:
            TypeError, ValueError, struct.error: it cannot be written.
        """
        if name == "headers":
            return table(value)
        if isinstance(value, datetime):
            return _time(value)
        return super().encode_property(name, value)


def table(values: Mapping[str, Any]) -> bytes:
    """Returns *values* as an AMQP table.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError, struct.error: one of them cannot be written.
    """
    return _long(b"".join(encode.short_string(name) + _field(value) for name, value in values.items()))


def _field(value: Any) -> bytes:
    match value:
        case float():
            return b"d" + encode.double(value)
        case bytes():
            # The library reads text that is not UTF-8 as bytes.
            return b"S" + _long(value)
        case datetime():
            return b"T" + _time(value)
        case list():
            return b"A" + _long(b"".join(map(_field, value)))
        case dict():
            return b"F" + table(value)
    return encode.encode_table_value(value)


def _time(value: datetime) -> bytes:
    # AMQP uses seconds. The library reads a number that is too large for seconds as milliseconds, which many clients
    # send.
    seconds = value.timestamp()
    return round(seconds * 1000.0 if value.microsecond else seconds).to_bytes(8)


def _long(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data
