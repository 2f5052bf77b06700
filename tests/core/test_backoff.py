"""How long to wait, and how often a crash is mended."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.backoff import Backoff, BackoffKind
from broadway_py._core.restarts import Restarts
from tests.support.conformance import conforms


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


# --- the other kinds -------------------------------------------------------------------------------------------------


@conforms("R-079", "R-080")
def test_exp_doubles_from_the_first_to_the_most() -> None:
    backoff = Backoff(0.01, 0.1, kind="exp")

    assert [backoff.failed() for _ in range(6)] == [0.01, 0.02, 0.04, 0.08, 0.1, 0.1]


@conforms("R-081")
def test_exp_begins_anew_after_a_success_that_lasted() -> None:
    backoff = Backoff(1.0, 30.0, kind="exp")
    for _ in range(4):
        backoff.failed()

    assert [backoff.failed(30.0), backoff.failed()] == [1.0, 2.0]


def test_exp_from_zero_stays_there() -> None:
    backoff = Backoff(0.0, 30.0, kind="exp")

    assert [backoff.failed() for _ in range(3)] == [0.0, 0.0, 0.0]


@conforms("R-082", "R-083", "R-085")
def test_rand_is_anything_between_the_two_and_never_grows() -> None:
    backoff = Backoff(2.0, 8.0, kind="rand", uniform=random.Random(7).uniform)
    delays = [backoff.failed(30.0 if number % 2 else 0.0) for number in range(200)]

    assert all(2.0 <= delay <= 8.0 for delay in delays)
    assert len(set(delays)) == 200


@conforms("R-086", "R-089")
@given(st.integers(0, 1000), st.floats(0.1, 5.0), st.floats(5.0, 100.0))
def test_rand_exp_stays_between_the_two_and_begins_low(seed: int, first: float, most: float) -> None:
    backoff = Backoff(first, most, kind="rand_exp", uniform=random.Random(seed).uniform)
    delays = [backoff.failed() for _ in range(30)]

    assert first <= delays[0] <= 3 * first
    assert all(first <= delay <= most for delay in delays)
    assert first <= backoff.failed(30.0) <= 3 * first


@conforms("R-087")
def test_rand_exp_never_falls_until_a_third_of_the_most() -> None:
    for seed in range(50):
        backoff = Backoff(1.0, 30.0, kind="rand_exp", uniform=random.Random(seed).uniform)
        previous = 1.0
        for _ in range(20):
            delay = backoff.failed()
            assert delay >= min(previous, 10.0)
            previous = delay


@conforms("R-084", "R-088")
@pytest.mark.parametrize("kind", ["rand", "rand_exp"])
def test_the_same_chance_gives_the_same_delays(kind: BackoffKind) -> None:
    one, other = (Backoff(1.0, 30.0, kind=kind, uniform=random.Random(3).uniform) for _ in range(2))

    assert [one.failed() for _ in range(10)] == [other.failed() for _ in range(10)]


def test_stop_waits_for_ever() -> None:
    assert Backoff(kind="stop").failed() == math.inf
