"""Finds damaged rows: each has a CRC-32 of its content and of its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from zlib import crc32

__all__ = ["RowKind", "checksum", "damaged"]

RowKind = Literal["memory", "accumulators", "identities", "results"]

_PLACES: Final = {
    "memory": "its counters of checkpoint {0} are",
    "accumulators": "its accumulators of bucket {0}, checkpoint {1}, are",
    "identities": "its identities of checkpoint {0} are",
}

#: What comes before the content of a row: its kind, and its place as Python writes a tuple.
_BEFORE: Final[Mapping[RowKind, bytes]] = {
    "memory": b"memory(%d,)",
    "accumulators": b"accumulators(%d, %d, %d, %d)",
    "identities": b"identities(%d,)",
    "results": b"results(%d, %d, %d)",
}


def checksum(kind: RowKind, place: tuple[int, ...], content: bytes) -> int:
    """Returns the CRC-32 of a row. *place* is its bucket, number, version and so on: what else must not change.

    The place of results is the sequence number of the first, their version, and how many there are.
    """
    if kind == "results" and place[-1] == 1:
        # A result alone has the checksum that it had when each result was a row.
        return crc32(content, crc32(b"result(%d, %d)" % place[:-1]))
    return crc32(content, crc32(_BEFORE[kind] % place))


def damaged(aggregator: str, kind: RowKind, place: tuple[int, ...]) -> str:
    """Returns a part of a sentence that says which row is damaged."""
    if kind == "results":
        first, _, count = place
        what = f"its result {first} is" if count == 1 else f"its results {first} to {first + count - 1} are"
    else:
        what = _PLACES[kind].format(*place)
    return f"aggregator {aggregator!r}: {what} damaged"
