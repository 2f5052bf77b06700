"""How long to wait, and how often a crash is mended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.backoff import Backoff
from broadway_py._core.restarts import Restarts


def ceiling(low: float, high: float) -> float:
    """In place of chance: the longest delay there can be."""
    assert low == 0.0, "full jitter reaches down to zero"
    return high


def test_the_ceiling_doubles_up_to_the_most() -> None:
    backoff = Backoff(1.0, 30.0, uniform=ceiling)

    assert [backoff.failed() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_the_first_delay_is_never_longer_than_the_most() -> None:
    assert Backoff(10.0, 3.0, uniform=ceiling).failed() == 3.0


@pytest.mark.parametrize(("lasted", "then"), [(0.0, 8.0), (29.9, 8.0), (30.0, 1.0), (3600.0, 1.0)])
def test_only_a_success_that_lasted_starts_the_growth_anew(lasted: float, then: float) -> None:
    backoff = Backoff(1.0, 60.0, healthy_s=30.0, uniform=ceiling)
    for _ in range(3):
        backoff.failed()

    assert backoff.failed(lasted) == then
    assert backoff.failed() == 2 * then


def test_who_must_wait_longer_waits_that_besides() -> None:
    backoff = Backoff(1.0, 30.0, uniform=ceiling)

    assert [backoff.failed(0.0, 60.0), backoff.failed()] == [61.0, 2.0]


def test_it_can_fail_for_years() -> None:
    backoff = Backoff(1.0, 30.0, uniform=ceiling)

    assert {backoff.failed() for _ in range(3000)} == {1.0, 2.0, 4.0, 8.0, 16.0, 30.0}


@given(st.lists(st.floats(0.0, 100.0), max_size=30))
def test_every_delay_lies_between_zero_and_the_grown_ceiling(lasted: list[float]) -> None:
    backoff = Backoff(0.5, 20.0, healthy_s=30.0)
    failures = 0

    for seconds in lasted:
        failures = 0 if seconds >= 30.0 else failures
        assert 0.0 <= backoff.failed(seconds) <= min(20.0, 0.5 * 2**failures)
        failures += 1


# --- restarts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "crashes", "allowed"),
    [
        (3, [0, 1, 2, 3], [True, True, True, False]),
        (3, [0, 1, 2, 6], [True, True, True, True]),
        (3, [0, 1, 2, 5], [True, True, True, False]),  # five seconds after the first is still within five seconds
        (3, [0, 1, 2, 6, 6], [True, True, True, True, False]),
        (1, [0, 6, 12, 13], [True, True, True, False]),
        (0, [0, 100], [False, False]),
    ],
)
def test_more_crashes_than_allowed_within_the_window_are_too_many(
    most: int, crashes: list[float], allowed: list[bool]
) -> None:
    restarts = Restarts(most, 5.0)

    assert [restarts.crashed(at) for at in crashes] == allowed
    assert restarts.count == len(crashes)


@given(st.integers(0, 4), st.lists(st.integers(0, 4), max_size=30))
def test_a_restart_is_allowed_when_the_window_holds_no_more_than_the_most(most: int, waits: list[int]) -> None:
    restarts = Restarts(most, 5.0)
    now, crashes = 100, list[int]()

    for waited in waits:
        now += waited
        crashes.append(now)
        recent = sum(now - at <= 5 for at in crashes)

        assert restarts.crashed(float(now)) == (recent <= most)
