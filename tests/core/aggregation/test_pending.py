"""Results that wait for emit: order, lists, failures alone and together."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.aggregation.pending import DueResult, PendingResults


def due(sequence: int, window: str = "") -> DueResult:
    return DueResult(sequence, window or f"w{sequence}", b"", 1)


def numbers(taken: list[DueResult]) -> list[int]:
    return [result.sequence for result in taken]


def test_a_call_gets_the_oldest_results_and_no_more_than_the_most() -> None:
    pending = PendingResults(2)
    pending.add([due(1), due(2)])
    pending.add([due(3)])
    assert numbers(pending.take(0.0)) == [1, 2]
    assert numbers(pending.take(0.0)) == [3]
    assert pending.take(0.0) == []


def test_what_was_taken_is_told_once_and_counts_no_more() -> None:
    pending = PendingResults(10)
    pending.add([due(1), due(2)])
    pending.succeeded(pending.take(0.0))
    assert len(pending) == 0
    assert pending.has_emitted
    assert pending.pop_emitted() == [1, 2]
    assert pending.pop_emitted() == []
    assert not pending.has_emitted


def test_a_list_that_fails_is_tried_one_by_one_at_once() -> None:
    pending = PendingResults(10)
    pending.add([due(1), due(2), due(3)])
    pending.failed(pending.take(0.0), 0.0)
    assert numbers(pending.take(0.0)) == [1]
    assert len(pending) == 3


def test_a_bad_result_waits_and_the_others_go_on() -> None:
    pending = PendingResults(10)
    pending.add([due(1), due(2)])
    pending.failed(pending.take(0.0), 0.0)
    pending.failed(pending.take(0.0), 0.0)  # 1 alone
    assert pending.take(0.0) == []
    assert pending.next_call(0.0) == pytest.approx(0.1)
    two = pending.take(0.2)
    assert numbers(two) == [2]
    pending.succeeded(two)
    pending.add([due(3)])
    assert numbers(pending.take(0.3)) == [1]


def test_a_bad_result_that_was_the_only_one_does_not_hold_up_those_that_come_later() -> None:
    pending = PendingResults(10)
    # Its window has fired twice, so it fails in a list before it fails alone.
    pending.add([due(0, "bad"), due(1, "bad")])
    now = 0.0
    told: list[int] = []
    for _ in range(3):
        pending.failed(pending.take(now), now)
        now = pending.next_call(now) or now
    for number in range(2, 6):
        pending.add([due(number), due(10 * number, "bad")])
        for _ in range(10):
            at = pending.next_call(now)
            assert at is not None
            now = max(now, at)
            is_retry = pending.is_retry(now)
            taken = pending.take(now)
            assert is_retry == (numbers(taken) == [0])
            if is_retry:
                pending.failed(taken, now)
            elif taken:
                told += numbers(taken)
                pending.succeeded(taken)
        assert told == list(range(2, number + 1))
    assert pending.failing == 1


def test_a_bad_result_is_tried_again_however_many_others_come() -> None:
    pending = PendingResults(1)
    pending.add([due(0)])
    pending.failed(pending.take(0.0), 0.0)
    retries = 0
    for number in range(1, 21):
        pending.add([due(number)])
        taken = pending.take(10.0 * number)
        retries += numbers(taken) == [0]
        if numbers(taken) == [0]:
            pending.failed(taken, 10.0 * number)
        else:
            pending.succeeded(taken)
    assert retries > 3


def test_the_wait_of_a_bad_result_doubles_up_to_the_most() -> None:
    pending = PendingResults(1)
    pending.add([due(1)])
    now, waits = 0.0, []
    for _ in range(12):
        taken = pending.take(now)
        assert numbers(taken) == [1]
        pending.failed(taken, now)
        at = pending.next_call(now)
        assert at is not None
        waits.append(round(at - now, 3))
        now = at
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 30.0


def test_later_firings_of_a_window_wait_for_the_one_that_failed() -> None:
    pending = PendingResults(10)
    pending.add([due(1, "a")])
    pending.failed(pending.take(0.0), 0.0)
    pending.add([due(2, "a"), due(3, "b")])
    taken = pending.take(0.05)
    assert numbers(taken) == [3]
    pending.succeeded(taken)
    again = pending.take(0.2)
    assert numbers(again) == [1]
    pending.succeeded(again)
    assert numbers(pending.take(0.2)) == [2]


def test_the_second_firing_in_a_list_that_fails_waits_for_the_first() -> None:
    pending = PendingResults(10)
    pending.add([due(1, "a"), due(2, "a"), due(3, "b")])
    pending.failed(pending.take(0.0), 0.0)
    first = pending.take(0.0)
    assert numbers(first) == [1]
    pending.succeeded(first)
    assert numbers(pending.take(0.0)) == [3]
    assert numbers(pending.take(0.0)) == [2]


def test_only_what_has_failed_is_a_retry() -> None:
    pending = PendingResults(10)
    pending.add([due(1), due(2)])
    assert not pending.is_retry(0.0)
    pending.failed(pending.take(0.0), 0.0)
    assert pending.is_retry(0.0)
    pending.failed(pending.take(0.0), 0.0)  # the second failure in a row: all calls wait
    assert not pending.is_retry(0.05)
    assert pending.is_retry(0.1)
    pending.succeeded(pending.take(0.1))
    assert pending.is_retry(0.1)  # the first one is due again
    assert numbers(pending.take(0.1)) == [1]


def test_dropped_results_are_never_taken_and_count_as_emitted() -> None:
    pending = PendingResults(10)
    pending.add([due(number) for number in range(1, 6)])
    assert pending.drop([2, 4, 77]) == 2
    assert len(pending) == 3
    assert pending.pop_emitted() == [2, 4]
    assert pending.drop([2, 4]) == 0
    assert pending.drop([]) == 0
    assert numbers(pending.take(0.0)) == [1, 3, 5]
    assert not pending.has_emitted


@pytest.mark.parametrize("waits", ["alone", "later"])
def test_what_waits_behind_a_dropped_result_goes_on(waits: str) -> None:
    pending = PendingResults(10)
    pending.add([due(1, "w"), due(2, "w"), due(3, "w"), due(4)])
    pending.failed(pending.take(0.0), 0.0)  # 1 and 4 are to be tried alone; 2 and 3 wait for 1
    if waits == "later":
        pending.failed(pending.take(0.0), 0.0)
    assert pending.drop([1, 3]) == 2
    assert pending.failing == 1
    taken = []
    while one := pending.take(10.0):
        taken += numbers(one)
        pending.succeeded(one)
    assert taken == [4, 2]
    assert len(pending) == 0
    assert sorted(pending.pop_emitted()) == [1, 2, 3, 4]


def test_a_dropped_result_that_waits_behind_another_leaves_that_one_as_it_is() -> None:
    pending = PendingResults(10)
    pending.add([due(1, "w"), due(2, "w"), due(3, "w")])
    pending.failed(pending.take(0.0), 0.0)
    assert pending.drop([2]) == 1
    assert numbers(pending.take(0.0)) == [1]
    pending.succeeded([due(1, "w")])
    assert numbers(pending.take(0.0)) == [3]


def gave_up(pending: PendingResults) -> bool:
    return pending.has_given_up


def tried_once(pending: PendingResults, bad: Collection[int], now: float = 0.0) -> list[list[int]]:
    """Calls until no result is to be taken, without letting time pass. A list with one of *bad* fails."""
    calls: list[list[int]] = []
    while pending.next_call(now) == now and not gave_up(pending):
        taken = pending.take(now)
        if not taken:
            continue  # all that were ready wait behind others
        calls.append(numbers(taken))
        if bad and not set(bad).isdisjoint(calls[-1]):
            pending.failed(taken, now)
        else:
            pending.succeeded(taken)
    return calls


def test_the_last_tries_are_one_for_each_result_without_a_pause_those_first_that_have_not_failed() -> None:
    pending = PendingResults(2)
    pending.add([due(1), due(2)])
    pending.failed(pending.take(0.0), 0.0)
    for now in (0.0, 0.1, 10.0, 20.0, 30.0):
        pending.failed(pending.take(now), now)
    pending.add([due(3), due(4), due(5)])
    assert pending.take(30.0) == []
    pending.begin_last_tries()
    assert not gave_up(pending)
    assert tried_once(pending, {1, 2, 4}, 30.0) == [[3, 4], [5], [1], [2], [3], [4]]
    assert gave_up(pending)
    assert (len(pending), pending.failing, pending.next_call(30.0)) == (3, 3, None)
    assert pending.pop_emitted() == [5, 3]


def test_later_firings_go_out_after_a_last_try_that_succeeds_and_else_stay() -> None:
    pending = PendingResults(10)
    pending.add([due(1, "a"), due(2, "b"), due(3, "a"), due(4, "b")])
    pending.failed(pending.take(0.0), 0.0)
    pending.begin_last_tries()
    pending.begin_last_tries()
    assert tried_once(pending, {1}) == [[1], [2], [4]]
    assert gave_up(pending)
    assert len(pending) == 2
    # What comes later is tried, too, but not behind one that was given up.
    pending.add([due(5, "a"), due(6, "c")])
    assert not gave_up(pending)
    assert tried_once(pending, ()) == [[6]]
    assert gave_up(pending)
    assert len(pending) == 3


def test_dropped_results_are_not_given_up() -> None:
    pending = PendingResults(10)
    pending.add([due(1, "a"), due(2, "a")])
    pending.begin_last_tries()
    assert tried_once(pending, {1}) == [[1, 2], [1]]
    assert gave_up(pending)
    assert pending.drop([1]) == 1
    assert tried_once(pending, ()) == [[2]]
    assert not gave_up(pending)
    assert len(pending) == 0


def test_nothing_is_tried_after_a_hundred_calls_in_a_row_that_failed() -> None:
    everything = range(1, 1_001)
    pending = PendingResults(10)
    pending.add([due(number) for number in everything])
    for _ in range(60):
        now = pending.next_call(0.0) or 0.0
        pending.failed(pending.take(now), now)
    # A call that succeeds begins the count anew, and so do the last tries.
    pending.begin_last_tries()
    assert len(tried_once(pending, everything)) == 100
    assert gave_up(pending)
    assert len(pending) == 1_000
    pending.add([due(2_000)])
    assert pending.next_call(1_000.0) is None
    assert pending.take(1_000.0) == []


def test_a_call_that_succeeds_begins_the_count_of_failures_anew() -> None:
    pending = PendingResults(1)
    pending.add([due(number) for number in range(1, 301)])
    pending.begin_last_tries()
    good = {80, 160, 240}
    calls = tried_once(pending, set(range(1, 301)) - good)
    assert len(calls) == 300
    assert pending.pop_emitted() == sorted(good)


def test_while_nothing_succeeds_all_calls_wait_longer_and_longer() -> None:
    pending = PendingResults(1)
    pending.add([due(number) for number in range(50)])
    now, calls = 0.0, 0
    while now < 60.0:
        taken = pending.take(now)
        if taken:
            calls += 1
            pending.failed(taken, now)
        at = pending.next_call(now)
        assert at is not None
        now = max(at, now)
    assert calls < 15


@given(
    windows=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    outcomes=st.lists(st.booleans(), max_size=200),
    most=st.integers(1, 7),
)
def test_each_result_is_taken_once_and_each_window_in_order(
    windows: list[int], outcomes: list[bool], most: int
) -> None:
    pending = PendingResults(most)
    pending.add([due(number, str(window)) for number, window in enumerate(windows)])
    told: list[int] = []
    now = 0.0
    answers: Iterator[bool] = iter(outcomes)
    for _ in range(1_000):
        taken = pending.take(now)
        assert len(taken) <= most
        if taken and next(answers, True) is True:
            told += numbers(taken)
            pending.succeeded(taken)
        elif taken:
            pending.failed(taken, now)
        else:
            at = pending.next_call(now)
            if at is None:
                break
            now = max(now + 0.001, at)
    assert sorted(told) == list(range(len(windows)))
    for window in set(windows):
        own = [number for number in told if windows[number] == window]
        assert own == sorted(own)
    assert len(pending) == 0
    assert pending.failing == 0


@given(
    windows=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    before=st.lists(st.booleans(), max_size=40),
    bad=st.sets(st.integers(0, 29)),
    most=st.integers(1, 7),
)
def test_the_last_tries_take_all_that_can_be_taken_and_try_each_result_alone_at_most_once(
    windows: list[int], before: list[bool], bad: set[int], most: int
) -> None:
    pending = PendingResults(most)
    pending.add([due(number, str(window)) for number, window in enumerate(windows)])
    told: list[int] = []
    now = 0.0
    for outcome in before:
        taken = pending.take(now)
        if not taken:
            now = max(now, pending.next_call(now) or now)
        elif outcome and bad.isdisjoint(numbers(taken)):
            told += numbers(taken)
            pending.succeeded(taken)
        else:
            pending.failed(taken, now)
    pending.begin_last_tries()
    calls = tried_once(pending, bad, now)
    told += [number for call in calls if bad.isdisjoint(call) for number in call]
    # All but the bad ones and what comes after them in their windows.
    first_bad = {
        window: min(n for n in bad if n < len(windows) and windows[n] == window)
        for window in {windows[n] for n in bad if n < len(windows)}
    }
    assert sorted(told) == [n for n, window in enumerate(windows) if n < first_bad.get(window, len(windows))]
    for window in set(windows):
        own = [number for number in told if windows[number] == window]
        assert own == sorted(own)
    alone = [call[0] for call in calls if len(call) == 1]
    assert most == 1 or len(alone) == len(set(alone))
    assert gave_up(pending) is (len(told) < len(windows))
    assert len(pending) == len(windows) - len(told)
