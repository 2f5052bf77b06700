"""The checksums of rows are those that files of earlier versions have."""

from __future__ import annotations

from zlib import crc32

import pytest

from broadway_py.state.checksum import RowKind, checksum


@pytest.mark.parametrize(
    ("kind", "place", "before"),
    [
        ("memory", (7,), b"memory(7,)"),
        ("accumulators", (-60_000_000, 7, 1, 20), b"accumulators(-60000000, 7, 1, 20)"),
        ("identities", (7,), b"identities(7,)"),
        ("results", (12, 1, 1), b"result(12, 1)"),
        ("results", (12, 1, 200), b"results(12, 1, 200)"),
    ],
)
def test_it_is_the_crc_of_the_kind_the_place_and_the_content(
    kind: RowKind, place: tuple[int, ...], before: bytes
) -> None:
    assert checksum(kind, place, b"content") == crc32(before + b"content")
