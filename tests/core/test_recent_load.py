"""How busy each member of a pool was in the last seconds."""

from __future__ import annotations

from broadway_py._core.recent_load import RecentLoad


def test_the_first_shares_are_about_the_time_since_the_start() -> None:
    load = RecentLoad(100.0)
    assert load.shares([1.0, 0.0], 102.0) == (0.5, 0.0)


def test_at_the_very_start_nobody_was_busy() -> None:
    assert RecentLoad(100.0).shares([0.0, 0.0], 100.0) == (0.0, 0.0)


def test_shares_are_about_the_last_seconds_and_forget_what_was_before() -> None:
    load = RecentLoad(0.0)
    for second in range(1, 11):
        load.shares([float(second)], float(second))  # busy all the time
    assert load.shares([10.0], 15.0) == (0.0,)  # and then not at all


def test_calls_in_quick_succession_do_not_shorten_the_time_that_shares_are_about() -> None:
    load = RecentLoad(0.0)
    for step in range(1, 200):
        load.shares([step * 0.005], step * 0.01)
    # Busy in the last hundredth only: a short window would say 1.
    assert load.shares([0.995 + 0.01], 2.0) == (0.5025,)


def test_the_marks_stay_few_however_often_and_long_it_is_asked() -> None:
    load = RecentLoad(0.0)
    for step in range(1, 10_000):
        load.shares([0.0], step * 0.1)
    assert len(load._marks) <= 7


def test_a_member_that_took_the_place_of_another_one_begins_at_zero() -> None:
    load = RecentLoad(0.0)
    load.shares([4.0, 4.0], 4.0)
    assert load.shares([4.0], 5.0) == (0.8,)
    assert load.shares([4.0, 1.0], 6.0) == (4 / 6, 1 / 6)


def test_a_share_is_one_at_most() -> None:
    assert RecentLoad(0.0).shares([3.0], 2.0) == (1.0,)
