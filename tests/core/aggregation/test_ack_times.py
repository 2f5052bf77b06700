"""How long checkpoints are remembered: from their ack, in connected time, also over a restart."""

from __future__ import annotations

import json

import pytest

from broadway_py._core.aggregation.ack_times import AckTimes


def test_a_checkpoint_is_forgotten_once_its_time_after_the_ack_is_over() -> None:
    times = AckTimes(600.0)
    times.acked(1, 5.0)
    times.acked(2, 100.0)

    assert times.forget(604.9) == 1
    assert times.forget(605.0) == 2
    assert times.forget(700.0) == 3
    assert times.forget(10_000.0) == 3


def test_what_was_not_acked_is_not_forgotten() -> None:
    times = AckTimes(600.0)
    times.acked(1, 0.0)

    assert times.forget(1e9) == 2
    assert (times.age(1, 1e9), times.age(2, 1e9)) == (None, None)


def test_few_times_are_kept_and_none_is_forgotten_too_early() -> None:
    times = AckTimes(640.0)
    acked = {number: number / 10 for number in range(1, 100_001)}
    for number, at in acked.items():
        times.acked(number, at)
        if number % 100 == 0:
            first = times.forget(at)
            assert all(acked[one] + 640.0 <= at for one in (1, first - 1) if 1 <= one < first)
            assert first >= (at - 640.0 - 10.0) * 10 - 1, "at most a 64th of the time longer"

    assert len(times.saved()["times"]) <= 66


@pytest.mark.parametrize(("acked", "age"), [(1, 95.0), (2, 95.0), (3, 50.0)])
def test_an_age_is_never_too_large(acked: int, age: float) -> None:
    times = AckTimes(640.0)
    times.acked(1, 1.0)
    times.acked(2, 5.0)  # so soon after the first that both count as acked now
    times.acked(3, 50.0)

    assert times.age(acked, 100.0) == age


def test_a_restart_goes_on_where_it_was_and_counts_later_checkpoints_from_now() -> None:
    before = AckTimes(600.0)
    before.acked(3, 50.0)
    saved = json.loads(json.dumps(before.saved()))

    times = AckTimes(600.0)
    times.restore(saved, 5, 120.0)

    assert times.forget(649.0) == 1
    assert times.forget(650.0) == 4
    assert times.forget(719.0) == 4
    assert times.forget(720.0) == 6


def test_a_restart_without_later_checkpoints_adds_none() -> None:
    before = AckTimes(600.0)
    before.acked(3, 50.0)
    before.forget(650.0)

    times = AckTimes(600.0)
    times.restore(before.saved(), 3, 700.0)

    assert times.saved() == {"forgotten_before": 4, "numbers": [], "times": []}
