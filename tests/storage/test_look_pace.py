from __future__ import annotations

import pytest

from broadway_py.storage.look_pace import LOOK_LAST, LOOK_WATCHED, LookPace

#: Looks of eight quiet seconds.
SECONDS = 8.0


def looks(pace: LookPace, *, watches: bool) -> list[float]:
    """When the looks of some quiet seconds are."""
    times: list[float] = []
    while (now := pace.next_look) < SECONDS:
        times.append(now)
        pace.looked(now)
        if watches and pace.is_quiet:
            pace.watched(now)
    return times


def test_the_looks_become_rarer_but_no_commit_is_seen_later_than_a_tenth_of_a_second() -> None:
    times = looks(LookPace(0.0), watches=False)

    pauses = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert pauses == pytest.approx(sorted(pauses))
    assert pauses[0] == 0.005
    assert pauses[-1] == pytest.approx(LOOK_LAST)
    assert len(times) < 90


def test_with_a_watch_there_are_hardly_any() -> None:
    times = looks(LookPace(0.0), watches=True)

    assert times == pytest.approx([0.005, 0.0125, 0.02375, 0.040625, 0.040625 + LOOK_WATCHED])


def test_after_a_write_they_are_frequent_again() -> None:
    pace = LookPace(0.0)
    looks(pace, watches=True)

    pace.restart(100.0)

    assert not pace.is_quiet
    assert pace.next_look == pytest.approx(100.005)


def test_a_look_during_a_watch_does_not_end_it() -> None:
    pace = LookPace(0.0)
    pace.watched(1.0)

    pace.looked(2.0)

    assert pace.next_look == pytest.approx(2.0 + LOOK_WATCHED)
