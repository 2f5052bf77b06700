"""For how long a producer was read."""

from __future__ import annotations

from broadway_py._core.deduplication.read_time import ReadTime


def test_time_passes_while_a_copy_reads() -> None:
    time = ReadTime(2)
    one, other = time.readers

    one.reads(10.0)
    other.reads(12.0)
    one.pauses(15.0)
    assert time.active(17.0) == 7.0

    other.lost(20.0, returns_within_s=30.0)
    assert time.active(99.0) == 10.0

    one.reads(100.0)
    assert time.active(101.5) == 11.5


def test_it_has_ended_when_all_copies_have() -> None:
    time = ReadTime(2)
    for start, reader in enumerate(time.readers):
        assert not time.has_ended
        reader.reads(2.0 * start)
        reader.ended(2.0 * start + 1.0)

    assert time.has_ended
    assert time.active(9.0) == 2.0


def test_a_copy_that_is_asked_changes_nothing() -> None:
    time = ReadTime(1)
    (reader,) = time.readers

    reader.reads(1.0)
    reader.asks(2.0)
    reader.rests()

    assert time.active(4.0) == 3.0
