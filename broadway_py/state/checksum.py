"""Finds damaged rows: each has a CRC-32 of its content and of its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from zlib import crc32

__all__ = ["RowKind", "checksum", "damaged"]

RowKind = Literal["memory", "accumulators", "identities", "result"]

_PLACES: Final = {
    "memory": "its counters of checkpoint {0} are",
    "accumulators": "its accumulators of bucket {0}, checkpoint {1}, are",
    "identities": "its identities of checkpoint {0} are",
    "result": "its result {0} is",
}


#: What comes before the content of a row: its kind, and its place as Python writes a tuple.
_BEFORE: Final[Mapping[RowKind, bytes]] = {
    "memory": b"memory(%d,)",
    "accumulators": b"accumulators(%d, %d, %d, %d)",
    "identities": b"identities(%d,)",
    "result": b"result(%d, %d)",
}


def checksum(kind: RowKind, place: tuple[int, ...], content: bytes) -> int:
    """Returns the CRC-32 of a row. *place* is its bucket, number, version and so on: what else must not change."""
    return crc32(content, crc32(_BEFORE[kind] % place))


def damaged(aggregator: str, kind: RowKind, place: tuple[int, ...]) -> str:
    """Returns a part of a sentence that says which row is damaged."""
    return f"aggregator {aggregator!r}: {_PLACES[kind].format(*place)} damaged"
