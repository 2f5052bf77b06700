from __future__ import annotations

from broadway_py._core.backoff import Backoff
from broadway_py.producers.sqs.deliveries.poll_plan import PollPlan
from tests.support.conformance import conforms


def plan(*, most: int = 8, spare: bool = False, interval: float = 1.0) -> PollPlan:
    return PollPlan(
        batch=10,
        most=most,
        interval_s=interval,
        may_spare=spare,
        backoff=lambda: Backoff(1.0, 8.0, uniform=max),
    )


def begin(polls: PollPlan, wanted: int, now: float = 0.0) -> list[int]:
    """Start every receive that may start now; what they ask for."""
    asked = []
    while (count := polls.ask(wanted, now)) > 0:
        polls.started(count)
        asked.append(count)
    return asked


def test_without_demand_nothing_is_received() -> None:
    assert begin(plan(), 0) == []


def test_it_begins_with_one_receive_however_much_is_wanted() -> None:
    assert begin(plan(), 500) == [10]


@conforms("S-006", "S-035")
def test_receives_ask_for_what_is_wanted_and_ten_at_most() -> None:
    polls = plan()
    asked = []
    for wanted, brought in ((10, 10), (5, 5), (5, 5), (5, 0)):
        asked += begin(polls, wanted)
        polls.found(asked[-1], brought, 0.0, 0.0)

    assert asked == [10, 5, 5, 5]


def test_receives_that_find_messages_double_up_to_the_most() -> None:
    polls = plan(most=6)
    running: list[int] = []
    seen = []
    for _ in range(5):
        running += begin(polls, 500)
        seen.append(len(running))
        for asked in running:
            polls.found(asked, 10, 0.0, 5.0)
        running = []

    assert seen == [1, 2, 6, 6, 6]


def test_small_answers_at_once_mean_more_messages_too() -> None:
    polls = plan()
    begin(polls, 500)
    polls.found(10, 1, 0.0, 0.2)

    assert begin(polls, 499, 0.2) == [10, 10]


def test_a_single_message_after_a_long_wait_brings_no_more_receives() -> None:
    polls = plan()
    begin(polls, 500)
    polls.found(10, 1, 0.0, 12.0)

    assert begin(polls, 499, 12.0) == [10]


def test_an_empty_answer_halves_them() -> None:
    polls = plan(interval=0.0)
    for _ in range(3):
        for asked in begin(polls, 500):
            polls.found(asked, 10, 0.0, 0.0)
    for asked in begin(polls, 500)[:2]:
        polls.found(asked, 0, 0.0, 20.0)

    assert polls.running == 6
    assert begin(polls, 500, 20.0) == []


def test_messages_on_their_way_count_as_there() -> None:
    polls = plan()
    begin(polls, 10)
    polls.found(10, 10, 0.0, 0.0)
    assert begin(polls, 12) == [10]

    assert begin(polls, 12) == []  # two can wait for the others
    assert begin(polls, 18) == [8]


def test_where_there_is_room_five_wanted_are_asked_for_as_ten() -> None:
    assert begin(plan(spare=True), 5) == [10]
    assert begin(plan(spare=True), 4) == [4]
    assert begin(plan(spare=False), 5) == [5]


def test_after_an_empty_answer_the_next_receive_keeps_its_distance_from_the_start_of_the_last() -> None:
    polls = plan(interval=1.0)
    begin(polls, 10, 100.0)
    polls.found(10, 0, 100.0, 100.1)

    assert polls.ask(10, 100.5) == 0
    assert polls.waits_until(100.5) == 101.0
    assert polls.ask(10, 101.0) == 10
    # A receive that has waited for longer than that is followed at once.
    polls.started(10)
    polls.found(10, 0, 101.0, 121.0)
    assert polls.waits_until(121.0) is None


def test_failures_wait_longer_each_time_with_one_receive_until_the_source_counts_as_away() -> None:
    polls = plan()
    now, away = 0.0, []
    waits = []
    for _ in range(4):
        (asked,) = begin(polls, 500, now)
        away.append(polls.failed(asked, now, now))
        waits.append((polls.waits_until(now) or now) - now)
        now += waits[-1]

    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert away == [False, False, False, True]


def test_receives_that_fail_together_count_once() -> None:
    polls = plan()
    for asked in begin(polls, 500):
        polls.found(asked, 10, 0.0, 0.0)
    for asked in begin(polls, 500, 1.0):
        polls.failed(asked, 1.0, 2.0)

    assert polls.failures == 1
    assert polls.running == 0


def test_one_answer_forgets_the_failures() -> None:
    polls = plan()
    begin(polls, 10)
    polls.failed(10, 0.0, 0.0)
    begin(polls, 10, 1.0)
    polls.found(10, 10, 1.0, 1.0)
    begin(polls, 10, 1.0)
    polls.failed(10, 1.0, 1.0)

    assert polls.failures == 1
    assert polls.waits_until(1.0) == 2.0
