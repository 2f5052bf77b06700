"""When so much fails that the sink must be at fault."""

from __future__ import annotations

import itertools
import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.breaker import CircuitBreaker

_numbers = itertools.count()


def others(count: int) -> list[int]:
    """The names of so many messages that nobody has seen before."""
    return list(islice(_numbers, count))


def state_of(breaker: CircuitBreaker) -> str:
    """Read anew: the type checker takes it for what the last comparison said."""
    return breaker.state


def opened(first_wait_s: float = 1.0, most_wait_s: float = 30.0) -> CircuitBreaker:
    """One that has opened at the time 0."""
    breaker = CircuitBreaker(0.5, 10, first_wait_s, most_wait_s)
    for count in (3, 3, 4):
        breaker.note(0, others(count), 0.0)
    assert state_of(breaker) == "open"
    return breaker


@pytest.mark.parametrize(
    ("rounds", "state"),
    [
        ([(0, 3)] * 3, "closed"),  # too few to judge
        ([(1, 2)] * 3, "closed"),
        ([(0, 2), (1, 2), (3, 2)], "closed"),  # one message with a fault of its own may have spoilt three batches
        ([(0, 2), (1, 1), (1, 1), (1, 1), (1, 1)], "open"),
        ([(1, 2), (1, 2), (3, 1)], "closed"),  # not more than the ratio
        ([(0, 100)], "closed"),  # one call may have failed them all
        ([(0, 100), (0, 100)], "closed"),
        ([(0, 100), (0, 100), (0, 1)], "open"),
        ([(0, 100), (100, 0)] * 2, "closed"),
        ([(10, 0), (0, 2), (0, 2), (0, 1)], "closed"),
        ([(10, 0), *[(0, 1)] * 4, (0, 2)], "open"),  # the oldest leave as new ones come
        ([(1_000_000, 0), (0, 3), (0, 3), (0, 4)], "open"),  # a long good life does not hide that all of it fails now
        ([(1, 0)] * 10 + [(0, 1)] * 5, "closed"),
        ([(1, 0)] * 10 + [(0, 1)] * 6, "open"),
        ([(0, 1), (1, 0)] * 100, "closed"),
        ([(0, 1)] * 5 + [(4, 0)] * 5 + [(0, 1)] * 5, "closed"),  # failures that were long ago do not count
        ([], "closed"),
        ([(0, 0)] * 100, "closed"),
    ],
)
def test_it_opens_when_more_than_the_ratio_of_the_last_ones_failed(rounds: list[tuple[int, int]], state: str) -> None:
    breaker = CircuitBreaker(0.5, 10)
    for successes, failures in rounds:
        breaker.note(successes, others(failures), 0.0)

    assert state_of(breaker) == state


@pytest.mark.parametrize(("over", "streak"), [(100, 10), (50, 10), (1_000, 100), (4, 4), (1, 1)])
def test_it_opens_when_so_many_different_ones_failed_in_a_row(over: int, streak: int) -> None:
    breaker = CircuitBreaker(0.9, over)
    breaker.note(10_000, (), 0.0)
    for _ in range(streak - 1):
        breaker.note(0, others(1), 0.0)
        assert state_of(breaker) == "closed"
    breaker.note(0, others(1), 0.0)

    assert state_of(breaker) == "open"


def test_a_success_in_between_begins_the_row_anew() -> None:
    breaker = CircuitBreaker(0.9, 1_000)
    for _ in range(20):
        for _ in range(99):
            breaker.note(0, others(1), 0.0)
        breaker.note(20, (), 0.0)

    assert state_of(breaker) == "closed"


def test_those_that_fail_again_and_again_count_once() -> None:
    breaker = CircuitBreaker(0.5, 100)
    for _ in range(1_000):
        for name in range(9):
            breaker.note(0, [name], 0.0)

    assert state_of(breaker) == "closed"
    breaker.note(0, others(1), 0.0)
    assert state_of(breaker) == "open"


def test_a_fifth_that_fails_opens_nothing_however_often_it_comes_again() -> None:
    breaker = CircuitBreaker(0.5, 100)
    for number in range(0, 10_000, 5):
        # Four that succeed, a new one that fails, and nine attempts of those before it.
        breaker.note(4, (), 0.0)
        breaker.note(0, [f"bad {number}"], 0.0)
        for earlier in range(1, 10):
            breaker.note(0, [f"bad {number - 5 * earlier}"] if number >= 5 * earlier else (), 0.0)
        assert state_of(breaker) == "closed"


def test_of_very_many_that_failed_the_first_are_forgotten() -> None:
    breaker = CircuitBreaker(0.9, 10)
    for number in range(5_000):
        breaker.note(1, [number], 0.0)

    assert len(breaker._seen) == 1_000
    for number in range(10):
        breaker.note(0, [number], 0.0)
    assert state_of(breaker) == "open"


@pytest.mark.parametrize("chunk", [1, 2, 5, 10, 50])
def test_a_fifth_that_fails_opens_nothing(chunk: int) -> None:
    # Ten in a row come once in twelve million messages; this seed has none in its hundred thousand.
    breaker, chance = CircuitBreaker(0.5, 100), random.Random(1)
    for _ in range(100_000 // chunk):
        failures = sum(chance.random() < 0.2 for _ in range(chunk))
        breaker.note(chunk - failures, others(failures), 0.0)
        assert state_of(breaker) == "closed"


def test_it_lets_nothing_through_before_the_wait_is_over_and_one_after_it() -> None:
    breaker = opened(first_wait_s=2.0)

    assert breaker.probe_at == 2.0
    assert not breaker.may_probe(1.999)
    assert state_of(breaker) == "open"
    assert breaker.may_probe(2.0)
    assert state_of(breaker) == "half_open"
    assert not breaker.may_probe(2.0)


def test_a_closed_one_needs_no_probe() -> None:
    assert not CircuitBreaker(0.5, 10).may_probe(1e9)


def test_a_good_probe_closes_it_and_the_past_is_forgotten() -> None:
    breaker = opened()
    assert breaker.may_probe(1.0)
    breaker.note(1, (), 1.5)
    assert state_of(breaker) == "closed"

    for count in (3, 3, 3):
        breaker.note(0, others(count), 2.0)
        assert state_of(breaker) == "closed"
    breaker.note(0, others(1), 2.0)
    assert state_of(breaker) == "open"
    assert breaker.probe_at == 3.0


def test_the_waits_between_bad_probes_double_up_to_the_most() -> None:
    breaker = opened(first_wait_s=1.0, most_wait_s=6.0)
    waits = [breaker.probe_at]
    for _ in range(5):
        now = breaker.probe_at
        assert breaker.may_probe(now)
        breaker.note(0, others(1), now)
        assert state_of(breaker) == "open"
        waits.append(breaker.probe_at - now)

    assert waits == [1.0, 2.0, 4.0, 6.0, 6.0, 6.0]


def test_after_a_good_probe_the_waits_begin_anew() -> None:
    breaker = opened()
    for _ in range(4):
        assert breaker.may_probe(breaker.probe_at)
        breaker.note(0, others(1), breaker.probe_at)
    assert breaker.may_probe(breaker.probe_at)
    breaker.note(1, (), breaker.probe_at)

    breaker.unavailable(1000.0)
    assert breaker.probe_at == 1001.0


def test_a_probe_without_an_outcome_is_followed_by_another_after_the_same_wait() -> None:
    breaker = opened()
    assert breaker.may_probe(1.0)
    breaker.note(0, (), 1.5)

    assert state_of(breaker) == "half_open"
    assert not breaker.may_probe(1.9)
    assert breaker.may_probe(2.0)


def test_what_was_under_way_when_it_opened_changes_nothing() -> None:
    breaker = opened(first_wait_s=5.0)
    breaker.note(100, (), 1.0)
    breaker.note(0, others(100), 2.0)
    breaker.unavailable(3.0)

    assert (breaker.state, breaker.probe_at) == ("open", 5.0)


def test_one_that_is_unavailable_opens_it_at_once() -> None:
    breaker = CircuitBreaker(0.5, 10)
    breaker.note(1_000, (), 0.0)
    breaker.unavailable(7.0)

    assert (breaker.state, breaker.probe_at) == ("open", 8.0)


def test_a_probe_that_finds_it_unavailable_waits_longer() -> None:
    breaker = opened()
    assert breaker.may_probe(1.0)
    breaker.unavailable(1.0)

    assert (breaker.state, breaker.probe_at) == ("open", 3.0)


@given(
    st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]),
    st.integers(2, 20),
    st.lists(st.booleans(), max_size=300),
)
def test_of_single_messages_it_looks_at_exactly_the_last(ratio: float, over: int, fails: list[bool]) -> None:
    breaker = CircuitBreaker(ratio, over)
    for number, failed in enumerate(fails, 1):
        breaker.note(int(not failed), others(int(failed)), 0.0)
        last = fails[max(0, number - over) : number]
        in_a_row = fails[max(0, number - 10) : number] if over > 10 else last
        should_open = (len(last) == over and sum(last) > ratio * over and sum(last) >= min(5, over)) or (
            len(in_a_row) == min(10, over) and all(in_a_row)
        )
        assert (breaker.state == "open") == should_open
        if should_open:
            return


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=200))
def test_it_never_opens_while_at_most_the_ratio_of_every_round_fails(rounds: list[tuple[int, int]]) -> None:
    breaker = CircuitBreaker(0.5, 20)
    for a, b in rounds:
        breaker.note(max(a, b), others(min(a, b)), 0.0)
        assert state_of(breaker) == "closed"


@given(st.lists(st.sampled_from(["good", "bad", "away", "lost"]), max_size=60))
def test_it_is_open_or_probing_until_a_probe_succeeds(probes: list[str]) -> None:
    breaker, now = opened(), 0.0
    for outcome in probes:
        assert breaker.probe_at > now
        assert breaker.probe_at - now <= 30.0
        now = breaker.probe_at
        assert breaker.may_probe(now)
        if outcome == "good":
            breaker.note(1, (), now)
            assert state_of(breaker) == "closed"
            return
        if outcome == "bad":
            breaker.note(0, others(1), now)
        elif outcome == "away":
            breaker.unavailable(now)
        assert state_of(breaker) == ("half_open" if outcome == "lost" else "open")
