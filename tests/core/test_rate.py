"""A rate limit means what it says: never more than so many in any one window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.rate import Rate


def test_a_window_grants_what_is_allowed_and_the_next_one_again() -> None:
    rate = Rate(3, 10.0)

    assert [rate.take(2, 100.0), rate.take(2, 105.0), rate.take(2, 109.9)] == [2, 1, 0]
    assert [rate.take(5, 110.0), rate.take(5, 119.0), rate.take(5, 120.0)] == [3, 0, 3]


def test_a_window_begins_with_its_first_message_and_an_unused_one_leaves_nothing_behind() -> None:
    rate = Rate(3, 10.0)
    rate.take(1, 100.0)

    assert rate.take(9, 175.0) == 3
    assert rate.opens_at(176.0) == 185.0


def test_it_says_when_the_next_message_may_start() -> None:
    rate = Rate(1, 10.0)

    assert rate.opens_at(100.0) == 100.0
    rate.take(1, 100.0)
    assert rate.opens_at(101.0) == 110.0
    assert rate.opens_at(110.0) == 110.0
    assert rate.opens_at(111.0) == 111.0


def test_new_values_hold_from_the_next_window_on() -> None:
    rate = Rate(1, 10.0)
    rate.take(1, 100.0)

    rate.update(5, 2.0, reset=False)

    assert (rate.allowed, rate.interval_s) == (5, 2.0)
    assert rate.take(5, 109.0) == 0
    assert rate.opens_at(109.0) == 110.0
    assert rate.take(9, 110.0) == 5
    assert rate.opens_at(110.0) == 112.0


def test_with_reset_a_new_window_begins_at_once() -> None:
    rate = Rate(1, 10.0)
    rate.take(1, 100.0)

    rate.update(3, None, reset=True)

    assert rate.opens_at(101.0) == 101.0
    assert rate.take(9, 101.0) == 3
    assert rate.opens_at(101.0) == 111.0


def test_an_update_of_nothing_keeps_everything() -> None:
    rate = Rate(1, 10.0)
    rate.take(1, 100.0)

    rate.update(None, None, reset=False)

    assert (rate.allowed, rate.interval_s, rate.opens_at(101.0)) == (1, 10.0, 110.0)


@given(
    st.integers(1, 9),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 15)), max_size=40),
)
def test_no_window_grants_more_than_is_allowed_and_none_grants_less_when_asked(
    allowed: int, interval: int, asked: list[tuple[int, int]]
) -> None:
    rate = Rate(allowed, float(interval))
    now = 100
    window_end, left = 0, 0

    for waited, wanted in asked:
        now += waited
        if now >= window_end:
            window_end, left = now + interval, allowed
        opens_at = rate.opens_at(float(now))
        granted = rate.take(wanted, float(now))

        assert granted == min(wanted, left)
        left -= granted
        assert (opens_at > now) == (left + granted == 0)


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 12), st.integers(1, 15)), max_size=40))
def test_waiting_until_it_opens_always_gets_something(allowed: int, asked: list[tuple[int, int]]) -> None:
    rate = Rate(allowed, 7.0)
    now = 100.0

    for waited, wanted in asked:
        now = rate.opens_at(now + waited)

        assert rate.take(wanted, now) >= 1
