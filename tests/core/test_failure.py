"""What is to become of a failed message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.failure import Action, FailureRules, Verdict
from broadway_py.errors import Reject, RetryLater, Unavailable
from broadway_py.message import Cause, Failed


def longest(low: float, high: float) -> float:
    """In place of chance: the longest delay there can be."""
    assert low == high / 2.0, "a delay is drawn from the upper half"
    return high


def rules(
    attempts: int = 5,
    backoff_s: tuple[float, float] = (1.0, 300.0),
    final: Action = "dead_letter",
    classify: Mapping[type[BaseException], Action] | None = None,
    uniform: Callable[[float, float], float] = longest,
) -> FailureRules:
    return FailureRules(attempts, backoff_s, final, classify or {}, uniform)


def raised(error: BaseException) -> Failed:
    return Failed("raised", "it raised", error)


def test_each_attempt_but_the_last_is_followed_by_another_after_twice_the_time() -> None:
    decided = [rules(attempts=5).decide(Failed("failed"), attempt) for attempt in range(1, 7)]

    assert decided == [
        Verdict("retry", 1.0),
        Verdict("retry", 2.0),
        Verdict("retry", 4.0),
        Verdict("retry", 8.0),
        Verdict("dead_letter"),
        Verdict("dead_letter"),
    ]


def test_the_delay_grows_no_further_than_to_the_most() -> None:
    many = rules(attempts=10_000, backoff_s=(10.0, 35.0))

    assert [many.decide(Failed("failed"), n).delay_s for n in (1, 2, 3, 4, 9_999)] == [10.0, 20.0, 35.0, 35.0, 35.0]


def test_one_attempt_is_never_followed_by_another() -> None:
    assert rules(attempts=1).decide(raised(OSError()), 1) == Verdict("dead_letter")


@pytest.mark.parametrize("final", ["dead_letter", "drop", "reject", "stop"])
def test_the_last_attempt_is_followed_by_the_final_action(final: Action) -> None:
    assert rules(attempts=2, final=final).decide(Failed("timeout"), 2) == Verdict(final)


@pytest.mark.parametrize(
    "status",
    [
        Failed("invalid", "not JSON"),
        Failed("invalid", "", ValueError()),
        Failed("worker_died"),
        Failed("late"),
        Failed("future_event_time"),
        raised(Reject("no such customer")),
    ],
)
def test_what_can_never_succeed_is_not_tried_again(status: Failed) -> None:
    assert rules(final="reject", classify={ValueError: "retry"}).decide(status, 1) == Verdict("reject")


@pytest.mark.parametrize(
    "cause", ["raised", "failed", "timeout", "not_returned", "unknown_batcher", "cancelled", "crashed", "stopped"]
)
def test_every_other_cause_is_tried_again(cause: Cause) -> None:
    assert rules().decide(Failed(cause), 1).action == "retry"


@pytest.mark.parametrize(
    ("after", "expected"), [(None, 2.0), (0.0, 0.0), (0.25, 0.25), (7_200.0, 7_200.0), (-3.0, 0.0)]
)
def test_a_handler_may_say_when_it_wants_the_message_again(after: float | None, expected: float) -> None:
    assert rules().decide(raised(RetryLater(after)), 2) == Verdict("retry", expected)


def test_asking_to_be_retried_counts_as_an_attempt() -> None:
    assert rules(attempts=3).decide(raised(RetryLater(1.0)), 3) == Verdict("dead_letter")


@pytest.mark.parametrize("attempt", [1, 5, 500])
def test_what_is_unavailable_costs_no_message_its_last_attempt(attempt: int) -> None:
    decided = rules(attempts=5, classify={Exception: "drop"}).decide(raised(Unavailable("the database")), attempt)

    assert decided.action == "retry"
    assert decided.delay_s > 0.0


@pytest.mark.parametrize("attempt", [4, 5, 90])
def test_while_the_sink_is_away_no_attempt_is_the_last(attempt: int) -> None:
    assert rules(attempts=5, backoff_s=(1.0, 4.0)).decide(raised(OSError()), attempt, is_sink_away=True) == Verdict(
        "retry", 4.0
    )
    assert rules(attempts=5, classify={OSError: "drop"}).decide(raised(OSError()), attempt, is_sink_away=True) == (
        Verdict("drop")
    )
    assert rules(attempts=5).decide(Failed("invalid"), attempt, is_sink_away=True) == Verdict("dead_letter")


TABLE: Mapping[type[BaseException], Action] = {
    LookupError: "drop",
    KeyError: "dead_letter",
    OSError: "reject",
    ConnectionError: "retry",
    MemoryError: "stop",
}


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (KeyError("its own entry counts"), "dead_letter"),
        (IndexError("the base class counts"), "drop"),
        (FileNotFoundError(), "reject"),
        (ConnectionResetError("the closest base class counts"), "retry"),
        (MemoryError(), "stop"),
        (ValueError("no entry"), "retry"),
    ],
)
def test_the_type_of_the_exception_or_its_closest_base_decides(error: BaseException, action: Action) -> None:
    assert rules(classify=TABLE).decide(raised(error), 1).action == action


def test_what_is_to_be_retried_by_its_type_ends_with_the_last_attempt_all_the_same() -> None:
    assert rules(attempts=4, classify=TABLE).decide(raised(ConnectionResetError()), 4) == Verdict("dead_letter")


def test_a_class_with_two_bases_goes_by_the_first() -> None:
    class Both(OSError, LookupError):
        pass

    assert rules(classify=TABLE).decide(raised(Both()), 1) == Verdict("reject")


@given(
    attempts=st.integers(2, 60),
    first=st.floats(0.001, 100.0),
    times=st.floats(1.0, 1000.0),
    chance=st.randoms(use_true_random=False),
)
def test_the_delays_of_one_message_never_shrink_and_stay_in_their_bounds(
    attempts: int, first: float, times: float, chance: Any
) -> None:
    most = first * times
    policy = rules(attempts=attempts, backoff_s=(first, most), uniform=chance.uniform)
    delays = [policy.decide(Failed("raised"), attempt).delay_s for attempt in range(1, attempts)]

    assert all(first / 2.0 <= delay <= most for delay in delays)
    # Up to the ceiling each is drawn from above the one before.
    grown = [delay for n, delay in enumerate(delays) if first * 2.0**n <= most]
    assert grown == sorted(grown)


@given(st.integers(1, 20), st.integers(1, 40), st.sampled_from(["dead_letter", "drop", "reject", "stop"]))
def test_a_message_gets_exactly_its_attempts(attempts: int, attempt: int, final: Action) -> None:
    decided = rules(attempts=attempts, final=final).decide(Failed("failed"), attempt)

    assert decided.action == ("retry" if attempt < attempts else final)
