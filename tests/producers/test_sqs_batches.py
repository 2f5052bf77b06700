from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadway_py.producers.sqs.deliveries.fifo_groups import Groups
from broadway_py.producers.sqs.requests.batch_entries import retry_delay
from broadway_py.producers.sqs.settlements.batches import LINGER_S, Batches
from broadway_py.producers.sqs.settlements.pending_settlement import Fate
from tests.support.conformance import conforms


@conforms("S-038")
def test_ten_leave_at_once_and_the_rest_waits() -> None:
    batches: Batches[int] = Batches(linger_s=0.04)
    for number in range(23):
        batches.add(number, 1.0)

    assert batches.due(1.0) == [list(range(10)), list(range(10, 20))]
    assert (len(batches), batches.next_due()) == (3, 1.04)
    assert batches.due(1.03) == []
    assert batches.due(1.04) == [[20, 21, 22]]
    assert (len(batches), batches.next_due()) == (0, None)


def test_nobody_waits_longer_than_the_linger_which_is_at_most_50_ms() -> None:
    assert LINGER_S <= 0.05
    batches: Batches[int] = Batches(linger_s=0.04)
    for number in range(10):
        batches.add(number, 1.00)
    for number in range(10, 15):
        batches.add(number, 1.02)
    batches.due(1.02)

    assert batches.next_due() == 1.06


def test_a_flush_waits_for_nobody() -> None:
    batches: Batches[int] = Batches()
    batches.add(1, 0.0)

    assert batches.due(0.0, flush=True) == [[1]]


def test_what_is_tried_again_leaves_when_its_time_has_come_and_takes_others_along() -> None:
    batches: Batches[str] = Batches(linger_s=0.04)
    batches.again("again", 2.0)
    batches.add("new", 1.99)

    assert batches.due(1.99) == []
    assert batches.next_due() == 2.0
    assert batches.due(2.0) == [["again", "new"]]


@given(st.lists(st.tuples(st.sampled_from(["add", "again", "wait"]), st.floats(0.0, 0.1))))
def test_every_entry_comes_back_exactly_once_in_tens_at_most(steps: list[tuple[str, float]]) -> None:
    batches: Batches[int] = Batches()
    now, given_in, came = 0.0, 0, []
    for what, seconds in steps:
        if what == "wait":
            now += seconds
        elif what == "add":
            batches.add(given_in, now)
            given_in += 1
        else:
            batches.again(given_in, now + seconds)
            given_in += 1
        came += batches.due(now)
    came += batches.due(float("inf"), flush=True)

    assert sorted(number for batch in came for number in batch) == list(range(given_in))
    assert all(1 <= len(batch) <= 10 for batch in came)


def test_what_sqs_could_not_do_is_tried_again_after_growing_delays_until_it_is_too_late() -> None:
    delays = [retry_delay("busy", tries, 0.0, 100.0, 1.0) for tries in range(1, 8)]

    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert retry_delay("away", 1, 99.9, 100.0, 1.0) is None


def test_what_sqs_refuses_or_does_not_know_is_not_tried_again() -> None:
    never: list[Fate] = ["refused", "gone", "stale", "wrong", "closed", "unsent"]

    assert [retry_delay(kind, 1, 0.0, 100.0, 1.0) for kind in never] == [None] * 6


def test_one_of_a_group_starts_and_the_others_follow_in_order() -> None:
    groups: Groups[str] = Groups()

    assert [groups.arrived("a", "a1"), groups.arrived("a", "a2"), groups.arrived("b", "b1")] == [True, False, True]
    assert groups.arrived("a", "a3") is False
    assert groups.parked == 2
    assert [groups.done("a"), groups.done("a"), groups.done("a")] == ["a2", "a3", None]
    assert groups.arrived("a", "a4") is True


def test_when_one_fails_the_rest_of_its_group_goes_back_with_it() -> None:
    groups: Groups[str] = Groups()
    for message in ("a1", "a2", "a3"):
        groups.arrived("a", message)

    assert groups.failed("a") == ["a2", "a3"]
    assert groups.parked == 0
    assert groups.arrived("a", "a1 again") is True
    assert groups.failed("nobody") == []


@given(st.lists(st.tuples(st.sampled_from(["arrive", "done", "fail"]), st.sampled_from("abc"))))
def test_never_two_of_a_group_are_at_work_and_none_overtakes(steps: list[tuple[str, str]]) -> None:
    groups: Groups[int] = Groups()
    at_work: dict[str, int] = {}
    queued: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for number, (what, group) in enumerate(steps):
        if what == "arrive":
            if groups.arrived(group, number):
                assert group not in at_work
                at_work[group] = number
            else:
                queued[group].append(number)
        elif group in at_work:
            if what == "done":
                following = groups.done(group)
                assert following == (queued[group].pop(0) if queued[group] else None)
                at_work.pop(group)
                if following is not None:
                    at_work[group] = following
            else:
                assert list(groups.failed(group)) == queued[group]
                queued[group].clear()
                at_work.pop(group)
        assert groups.parked == sum(map(len, queued.values()))
