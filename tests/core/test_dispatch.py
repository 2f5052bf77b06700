"""Who gets which events: tables of deliveries, and machines that subscribe, ask, dispatch and leave at random."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broadway_py._core.dispatch import DROP, BroadcastDispatcher, Delivery, DemandDispatcher, PartitionDispatcher
from broadway_py.errors import OptionsError
from tests.support.conformance import conforms


def hungry(**demand: int) -> DemandDispatcher[str, int]:
    dispatcher = DemandDispatcher[str, int]()
    for consumer, count in demand.items():
        dispatcher.subscribe(consumer)
        assert dispatcher.ask(consumer, count) == (count, [])
    return dispatcher


# --- to whoever is hungry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "events", "deliveries"),
    [
        ({"a": 10}, 3, [("a", [0, 1, 2])]),
        ({"a": 10, "b": 10}, 4, [("a", [0, 1]), ("b", [2, 3])]),
        ({"a": 10, "b": 10, "c": 10}, 10, [("a", [0, 1, 2, 3]), ("b", [4, 5, 6]), ("c", [7, 8, 9])]),
        ({"a": 10, "b": 10, "c": 10}, 2, [("a", [0]), ("b", [1])]),
        ({"a": 3, "b": 2}, 5, [("a", [0, 1, 2]), ("b", [3, 4])]),
        ({"a": 1, "b": 10}, 6, [("b", [0, 1, 2]), ("a", [3]), ("b", [4, 5])]),
        ({"a": 10, "b": 0}, 2, [("a", [0, 1])]),
        ({}, 2, []),
        ({"a": 10}, 0, []),
    ],
)
def test_a_list_is_cut_into_one_slice_for_each_hungry_consumer(
    demand: dict[str, int], events: int, deliveries: list[Delivery[str, int]]
) -> None:
    assert hungry(**demand).dispatch(range(events))[0] == deliveries


@conforms("G-129")
@pytest.mark.parametrize(
    ("further", "order"),
    [([], ["a", "c", "b"]), ([("c", 2)], ["c", "a", "b"]), ([("c", 2), ("b", 4)], ["b", "c", "a"])],
)
def test_who_wants_most_is_served_first(further: list[tuple[str, int]], order: list[str]) -> None:
    dispatcher = hungry(a=4, b=2, c=3)
    for consumer, count in further:
        assert dispatcher.ask(consumer, count) == (count, [])

    assert [consumer for consumer, _ in dispatcher.dispatch([0, 1, 2])[0]] == order


def test_asking_again_puts_a_consumer_behind_its_equals() -> None:
    dispatcher = hungry(a=1, b=2)
    dispatcher.ask("a", 1)

    assert [consumer for consumer, _ in dispatcher.dispatch([0, 1])[0]] == ["b", "a"]


@conforms("G-128")
def test_what_nobody_wants_comes_back() -> None:
    dispatcher = hungry(a=3)

    assert dispatcher.dispatch([1]) == ([("a", [1])], (), 0)
    assert dispatcher.ask("a", 3) == (3, [])
    assert dispatcher.wanted == 5
    assert dispatcher.dispatch([2, 3, 4, 5, 6, 7, 8]) == ([("a", [2, 3, 4, 5, 6])], [7, 8], 0)
    assert dispatcher.dispatch([9, 10]) == ([], [9, 10], 0)
    assert dispatcher.wanted == 0


@conforms("G-125")
def test_a_new_consumer_has_asked_for_nothing_and_leaves_nothing() -> None:
    dispatcher = hungry()
    dispatcher.subscribe("a")
    assert (dispatcher.wanted, dispatcher.cancel("a")) == (0, 0)
    assert dispatcher.dispatch([1]) == ([], [1], 0)


@conforms("G-126")
def test_the_demand_of_a_leaver_stays_until_it_is_asked_for_or_lost() -> None:
    dispatcher = hungry(a=10)
    dispatcher.cancel("a")
    dispatcher.subscribe("b")
    assert dispatcher.ask("b", 5) == (0, [])
    dispatcher.cancel("b")
    dispatcher.subscribe("c")

    # Three of the ten have come and are lost with nobody here, so seven are still to come.
    assert dispatcher.lost(3) == 0
    assert dispatcher.ask("c", 10) == (3, [])


@conforms("G-130")
def test_those_who_want_most_get_their_slice_first() -> None:
    dispatcher = hungry(r1=3, r2=2)

    assert dispatcher.dispatch([1, 2, 3, 4, 5]) == ([("r1", [1, 2, 3]), ("r2", [4, 5])], (), 0)
    assert dispatcher.dispatch([6, 7]) == ([], [6, 7], 0)
    dispatcher.ask("r1", 3)
    dispatcher.ask("r2", 3)
    # There the first two go to r1; here nobody is idle while there is something for both.
    assert dispatcher.dispatch([8, 9])[0] == [("r1", [8]), ("r2", [9])]


def test_a_whole_list_can_be_taken_for_the_only_consumer() -> None:
    dispatcher = hungry(a=3)

    assert (dispatcher.take_whole(4), dispatcher.take_whole(2), dispatcher.wanted) == (None, "a", 1)
    assert (dispatcher.take_whole(1), dispatcher.wanted) == ("a", 0)
    dispatcher.ask("a", 1)
    dispatcher.subscribe("b")
    assert (dispatcher.take_whole(1), dispatcher.wanted) == (None, 1)
    assert (hungry().take_whole(1), hungry().take_whole(0)) == (None, None)


def test_the_demand_of_a_consumer_that_left_is_not_asked_for_twice() -> None:
    dispatcher = hungry(a=10, b=1)
    dispatcher.cancel("a")

    assert dispatcher.ask("b", 4) == (0, [])
    assert dispatcher.ask("b", 7) == (1, [])
    assert dispatcher.dispatch(range(12)) == ([("b", list(range(12)))], (), 0)


@conforms("G-127")
def test_a_consumer_that_left_gets_nothing_more() -> None:
    dispatcher = hungry(a=3, b=3)
    dispatcher.cancel("a")

    assert dispatcher.dispatch([0, 1, 2, 3, 4]) == ([("b", [0, 1, 2])], [3, 4], 0)
    # The six that were asked for upstream cover these three: two came back, one is still to come.
    assert dispatcher.ask("b", 3) == (0, [])
    assert dispatcher.dispatch([3, 4]) == ([("b", [3, 4])], (), 0)


def test_what_the_last_consumer_had_asked_for_waits_for_its_successor() -> None:
    dispatcher = hungry(a=3)
    dispatcher.cancel("a")

    assert dispatcher.dispatch([0, 1, 2]) == ([], [0, 1, 2], 0)
    dispatcher.subscribe("b")
    assert dispatcher.ask("b", 5) == (2, [])
    assert dispatcher.dispatch([0, 1, 2]) == ([("b", [0, 1, 2])], (), 0)


def test_a_consumer_that_came_back_starts_with_nothing() -> None:
    dispatcher = hungry(a=3, b=1)
    dispatcher.cancel("a")
    dispatcher.subscribe("a")

    assert dispatcher.dispatch([0, 1]) == ([("b", [0])], [1], 0)
    assert dispatcher.ask("a", 1) == (0, [])
    assert dispatcher.dispatch([1]) == ([("a", [1])], (), 0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 30))
def test_slices_are_contiguous_even_and_as_many_as_can_be(demand: list[int], size: int) -> None:
    dispatcher = hungry(**{f"c{place}": wanted for place, wanted in enumerate(demand)})

    deliveries, _, _ = dispatcher.dispatch(range(size))

    assert [event for _, events in deliveries for event in events] == list(range(min(size, sum(demand))))
    assert len({consumer for consumer, _ in deliveries}) == min(len(demand), size)
    if size <= len(demand) * min(demand):  # nobody's demand cuts an even share short
        sizes = [len(events) for _, events in deliveries]
        assert len(sizes) == min(len(demand), size)
        assert not sizes or max(sizes) - min(sizes) <= 1


class DemandMachine(RuleBasedStateMachine):
    """Any order of subscriptions, asks, dispatches and departures, against plain books."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = DemandDispatcher[int, int]()
        self.wanted: dict[int, int] = {}
        self.orphaned = 0
        self.arrivals = 0
        self.sent = 0
        self.waiting: list[int] = []

    def carry_out(self, deliveries: list[Delivery[int, int]]) -> None:
        for consumer, events in deliveries:
            assert events
            assert len(events) <= self.wanted[consumer]
            # First come, first served over all consumers: so each one gets its own in order, none twice, none lost.
            assert events == self.waiting[: len(events)]
            del self.waiting[: len(events)]
            self.wanted[consumer] -= len(events)

    @rule()
    def subscribe(self) -> None:
        self.arrivals += 1
        self.dispatcher.subscribe(self.arrivals)
        self.wanted[self.arrivals] = 0

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        consumer = data.draw(st.sampled_from(sorted(self.wanted)))
        self.dispatcher.cancel(consumer)
        self.orphaned += self.wanted.pop(consumer)

    @precondition(lambda self: self.wanted)
    @rule(data=st.data(), count=st.integers(1, 12))
    def ask(self, data: st.DataObject, count: int) -> None:
        consumer = data.draw(st.sampled_from(sorted(self.wanted)))
        new, deliveries = self.dispatcher.ask(consumer, count)
        known = min(self.orphaned, count)
        self.orphaned -= known
        assert (new, deliveries) == (count - known, [])
        self.wanted[consumer] += count

    @rule(count=st.integers(0, 20))
    def dispatch(self, count: int) -> None:
        self.waiting = list(range(self.sent, self.sent + count))
        self.sent += count
        deliveries, left, new = self.dispatcher.dispatch(list(self.waiting))
        self.carry_out(deliveries)
        assert (list(left), new) == (self.waiting, 0)
        assert not self.waiting or not any(self.wanted.values()), "events come back only while nobody is hungry"

    @rule(count=st.integers(0, 20))
    def lose(self, count: int) -> None:
        known = min(self.orphaned, count)
        self.orphaned -= known
        assert self.dispatcher.lost(count) == count - known

    @invariant()
    def what_is_wanted_adds_up(self) -> None:
        assert self.dispatcher.wanted == sum(self.wanted.values())


TestDemandMachine = DemandMachine.TestCase


# --- to the consumer of a partition ---------------------------------------------------------------------------------

PARTITIONS = ("even", "odd")


def parity(event: int) -> str | None:
    return None if event < 0 else PARTITIONS[event % 2]


def partitioned(**demand: int) -> PartitionDispatcher[str, int]:
    """Consumers are called as their partitions, in capitals."""
    dispatcher = PartitionDispatcher[str, int](PARTITIONS, parity)
    for partition, count in demand.items():
        dispatcher.subscribe(partition.upper(), partition)
        assert dispatcher.ask(partition.upper(), count) == (count, [])
    return dispatcher


def test_each_event_goes_to_the_consumer_of_its_partition_in_order() -> None:
    dispatcher = partitioned(even=5, odd=5)

    assert dispatcher.dispatch([4, 1, 2, 3, 0]) == ([("EVEN", [4, 2, 0]), ("ODD", [1, 3])], (), 0)
    assert dispatcher.queued == 0


def test_what_a_partition_has_no_demand_for_waits_for_it_alone() -> None:
    dispatcher = partitioned(even=2, odd=3)

    assert dispatcher.dispatch([0, 2, 4, 1])[0] == [("EVEN", [0, 2]), ("ODD", [1])]
    assert dispatcher.dispatch([6, 3])[0] == [("ODD", [3])]
    assert dispatcher.queued == 2
    assert dispatcher.ask("ODD", 5) == (5, [])
    assert dispatcher.ask("EVEN", 5) == (5, [("EVEN", [4, 6])])
    assert dispatcher.queued == 0


@pytest.mark.parametrize(
    ("demand", "chosen"),
    [({"even": 5, "odd": 2}, "EVEN"), ({"even": 2, "odd": 5}, "ODD"), ({"even": 2, "odd": 2}, "EVEN")],
)
def test_an_event_of_no_partition_goes_where_there_is_most_demand(demand: dict[str, int], chosen: str) -> None:
    assert partitioned(**demand).dispatch([-1])[0] == [(chosen, [-1])]


def test_events_of_no_partition_spread_as_the_queues_fill() -> None:
    dispatcher = partitioned(even=2, odd=2)

    assert dispatcher.dispatch([-1, -2, -3, -4])[0] == [("EVEN", [-1, -3]), ("ODD", [-2, -4])]


def test_the_queue_of_a_partition_waits_for_its_next_consumer() -> None:
    dispatcher = partitioned(even=1, odd=1)
    dispatcher.dispatch([0, 2, 4])
    dispatcher.cancel("EVEN")

    assert dispatcher.dispatch([6]) == ([], (), 0)
    dispatcher.subscribe("successor", "even")
    assert dispatcher.queued == 3
    assert dispatcher.ask("successor", 10) == (10, [("successor", [2, 4, 6])])


def test_the_demand_of_a_partitions_consumer_that_left_is_not_asked_for_twice() -> None:
    dispatcher = partitioned(even=4, odd=1)
    dispatcher.cancel("EVEN")

    assert dispatcher.ask("ODD", 3) == (0, [])
    assert dispatcher.ask("ODD", 3) == (2, [])
    # It has asked for nothing, so nothing reaches it.
    dispatcher.subscribe("successor", "even")
    assert dispatcher.dispatch([0]) == ([], (), 0)


def test_what_is_given_up_comes_partition_by_partition() -> None:
    dispatcher = partitioned(even=0, odd=0)
    dispatcher.dispatch([1, 0, 3, 2])

    assert dispatcher.take_queued() == [0, 2, 1, 3]
    assert (dispatcher.queued, dispatcher.take_queued()) == (0, [])


class PartitionMachine(RuleBasedStateMachine):
    """Events are (number, partition or None); consumers are (partition, number), one per partition at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = PartitionDispatcher[tuple[str, int], tuple[int, str | None]](
            list("abc"), lambda event: event[1]
        )
        self.consumers: dict[str, tuple[str, int]] = {}
        self.wanted = dict.fromkeys("abc", 0)
        self.orphaned = 0
        self.arrivals = 0
        self.sent = 0
        self.last = dict.fromkeys("abc", -1)
        self.waiting: set[tuple[int, str | None]] = set()

    def carry_out(self, deliveries: list[Delivery[tuple[str, int], tuple[int, str | None]]]) -> None:
        for consumer, events in deliveries:
            partition = consumer[0]
            assert self.consumers[partition] == consumer
            assert 0 < len(events) <= self.wanted[partition]
            self.wanted[partition] -= len(events)
            for event in events:
                self.waiting.remove(event)  # raises for what was never sent, or comes twice
                assert event[1] in {None, partition}
                assert event[0] > self.last[partition], "the order of arrival, within a partition"
                self.last[partition] = event[0]

    @precondition(lambda self: len(self.consumers) < 3)
    @rule(data=st.data())
    def subscribe(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(set("abc") - set(self.consumers))))
        self.arrivals += 1
        self.consumers[partition] = (partition, self.arrivals)
        self.dispatcher.subscribe(self.consumers[partition], partition)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.consumers)))
        self.dispatcher.cancel(self.consumers.pop(partition))
        self.orphaned += self.wanted[partition]
        self.wanted[partition] = 0

    @precondition(lambda self: self.consumers)
    @rule(data=st.data(), count=st.integers(1, 8))
    def ask(self, data: st.DataObject, count: int) -> None:
        partition = data.draw(st.sampled_from(sorted(self.consumers)))
        self.wanted[partition] += count
        known = min(self.orphaned, count)
        self.orphaned -= known
        new, deliveries = self.dispatcher.ask(self.consumers[partition], count)
        assert new == count - known
        self.carry_out(deliveries)

    @rule(partitions=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12))
    def dispatch(self, partitions: list[str | None]) -> None:
        events = [(self.sent + place, partition) for place, partition in enumerate(partitions)]
        self.sent += len(events)
        self.waiting.update(events)
        deliveries, left, new = self.dispatcher.dispatch(events)
        self.carry_out(deliveries)
        assert (left, new) == ((), 0)

    @rule()
    def take_queued(self) -> None:
        taken = self.dispatcher.take_queued()
        assert len(taken) == len(self.waiting)
        assert set(taken) == self.waiting
        self.waiting.clear()

    @invariant()
    def what_waits_has_no_hungry_consumer(self) -> None:
        assert self.dispatcher.queued == len(self.waiting)
        for _, partition in self.waiting:
            assert partition is None or self.wanted[partition] == 0


TestPartitionMachine = PartitionMachine.TestCase


@conforms("G-155", "G-156")
@pytest.mark.parametrize(
    ("returned", "kind"),
    [(7, "an int"), ("x" * 200, "a str"), ((0, 1), "a tuple"), ([0], "a list"), (([0],), "a tuple")],
)
@pytest.mark.parametrize("events", [[0, 7], [7]])
def test_an_unknown_partition_is_refused_and_leaves_the_books_in_order(
    returned: Any, kind: str, events: list[int]
) -> None:
    dispatcher = PartitionDispatcher[str, int]([0, 1], lambda event: returned if event == 7 else event)

    with pytest.raises(OptionsError) as refused:
        dispatcher.dispatch(events)

    assert str(refused.value) == f"dispatcher.hash: expected one of 0, 1, None or DROP, got {kind} for an event"
    assert (dispatcher.queued, dispatcher.take_queued()) == (0, [])


# --- partitions: events that nobody gets, infos, limits, wrong settings ---------------------------------------------


@conforms("G-145")
def test_what_a_partition_without_consumer_gets_is_queued_and_uses_the_demand_up() -> None:
    dispatcher = PartitionDispatcher[str, int](2)
    dispatcher.subscribe("a", 0)
    assert dispatcher.ask("a", 10) == (10, [])
    dispatcher.cancel("a")
    dispatcher.subscribe("b", 1)
    assert dispatcher.ask("b", 5) == (0, [])
    dispatcher.cancel("b")

    assert dispatcher.dispatch([1, 2, 5, 6]) == ([], (), 0)
    assert dispatcher.queued == 4


@conforms("G-146")
def test_one_partition_is_served_as_far_as_it_has_asked() -> None:
    dispatcher = PartitionDispatcher[str, int](1)
    dispatcher.subscribe("a", 0)
    dispatcher.ask("a", 3)
    assert dispatcher.dispatch([1])[0] == [("a", [1])]
    dispatcher.ask("a", 3)
    assert dispatcher.dispatch([2, 5, 6, 7, 8, 9, 11])[0] == [("a", [2, 5, 6, 7, 8])]
    assert dispatcher.ask("a", 2) == (2, [("a", [9, 11])])


@conforms("G-147")
def test_partitions_may_have_names() -> None:
    dispatcher = partitioned(odd=6)

    assert dispatcher.dispatch([1, 3, 5, 7, 9, 11, 13, 15])[0] == [("ODD", [1, 3, 5, 7, 9, 11])]
    assert dispatcher.queued == 2


@conforms("G-148")
def test_an_event_that_is_dropped_takes_no_demand() -> None:
    dispatcher = PartitionDispatcher[str, int](PARTITIONS, lambda n: DROP if n % 3 == 0 else PARTITIONS[n % 2])
    for partition in PARTITIONS:
        dispatcher.subscribe(partition.upper(), partition)
        dispatcher.ask(partition.upper(), 4)

    assert dispatcher.dispatch(range(1, 12)) == ([("ODD", [1, 5, 7, 11]), ("EVEN", [2, 4, 8, 10])], (), 3)
    assert dispatcher.dispatch([12]) == ([], (), 1)
    assert dispatcher.queued == 0


@conforms("G-149", "G-150")
def test_a_queue_is_served_at_once_when_its_consumer_asks() -> None:
    dispatcher = PartitionDispatcher[str, int](2, lambda event: 0 if event < 7 else 1)
    dispatcher.subscribe("b", 1)
    dispatcher.ask("b", 5)
    assert dispatcher.dispatch([1, 2, 3, 4, 5]) == ([], (), 0)
    assert dispatcher.queued == 5

    dispatcher.subscribe("a", 0)

    assert dispatcher.ask("a", 5) == (5, [("a", [1, 2, 3, 4, 5])])


@conforms("G-151")
def test_the_queue_of_a_partition_and_the_info_behind_it_wait_for_the_next_consumer() -> None:
    dispatcher = partitioned(even=1, odd=1)
    dispatcher.dispatch([0, 2, 4])
    assert dispatcher.hold("info")

    assert dispatcher.cancel("EVEN") == 0
    assert (dispatcher.queued, dispatcher.released()) == (2, [])
    dispatcher.subscribe("successor", "even")
    assert dispatcher.ask("successor", 2) == (2, [("successor", [2, 4])])
    assert dispatcher.released() == ["info"]


@conforms("G-152", "G-153")
def test_an_info_goes_straight_through_when_nothing_is_queued() -> None:
    assert not partitioned(even=1).hold("info")


@conforms("G-154")
def test_an_info_is_released_when_the_last_of_the_queues_has_passed_it() -> None:
    dispatcher = partitioned(even=1, odd=1)
    dispatcher.dispatch([0, 2, 4, 1, 3])
    dispatcher.hold("first")
    dispatcher.dispatch([6])
    dispatcher.hold("second")

    dispatcher.ask("EVEN", 2)
    assert dispatcher.released() == []
    dispatcher.ask("ODD", 1)
    assert dispatcher.released() == ["first"]
    dispatcher.ask("EVEN", 1)
    assert (dispatcher.released(), dispatcher.released()) == (["second"], [])


@pytest.mark.parametrize(("keep", "left", "released"), [("last", [8, 1, 3], ["before 8"]), ("first", [0, 1, 3], [])])
def test_the_longest_queue_is_cut_when_there_is_too_much(keep: str, left: list[int], released: list[str]) -> None:
    dispatcher = partitioned(even=0, odd=0)
    dispatcher.dispatch([0, 2, 4, 6])
    dispatcher.hold("before 8")
    dispatcher.dispatch([8, 1, 3])

    assert dispatcher.discard(4, keep) == 4
    assert dispatcher.queued == len(left)
    assert dispatcher.released() == released
    assert dispatcher.take_queued() == left


@pytest.mark.parametrize(("count", "left"), [(1, [2, 4, 6, 1, 3]), (2, [4, 6, 1, 3]), (4, [6, 3]), (3, [6, 1, 3])])
def test_queues_are_cut_to_the_same_length(count: int, left: list[int]) -> None:
    dispatcher = partitioned(even=0, odd=0)
    dispatcher.dispatch([0, 2, 4, 6, 1, 3])

    assert dispatcher.discard(count, "last") == count
    assert dispatcher.queued == len(left)
    assert dispatcher.take_queued() == left


def test_lost_events_of_partitions_use_the_demand_of_leavers_up_first() -> None:
    dispatcher = partitioned(even=4, odd=1)
    dispatcher.cancel("EVEN")

    assert [dispatcher.lost(3), dispatcher.lost(3)] == [0, 2]
    assert dispatcher.ask("ODD", 2) == (2, [])


def test_without_a_function_events_are_spread_over_the_partitions() -> None:
    dispatcher = PartitionDispatcher[int, int](3)
    dispatcher.dispatch([0, 1, 2, 3, 4, 5])

    assert dispatcher.take_queued() == [0, 3, 1, 4, 2, 5]


def test_no_more_is_discarded_than_is_queued() -> None:
    dispatcher = partitioned(even=0)
    dispatcher.dispatch([0, 1])

    assert dispatcher.discard(5, "last") == 2
    assert dispatcher.queued == 0


def test_the_queue_of_the_only_partition_may_be_cut() -> None:
    dispatcher = PartitionDispatcher[int, int](1)
    dispatcher.dispatch([0, 1, 2])

    assert dispatcher.discard(2, "last") == 2
    assert dispatcher.take_queued() == [2]


def test_an_info_does_not_wait_for_events_that_were_discarded_before_it() -> None:
    dispatcher = partitioned(even=0)
    dispatcher.dispatch([0, 2, 4])
    dispatcher.hold("info")
    dispatcher.discard(2, "first")

    dispatcher.ask("EVEN", 1)

    assert dispatcher.released() == ["info"]


def test_an_info_does_not_wait_for_a_queue_that_was_empty_before_it() -> None:
    dispatcher = partitioned(even=0, odd=0)
    dispatcher.dispatch([0])
    dispatcher.hold("info")
    dispatcher.dispatch([1, 3])
    assert dispatcher.discard(1, "first") == 1

    dispatcher.ask("EVEN", 1)

    assert dispatcher.released() == ["info"]


@pytest.mark.parametrize("events", [list(range(50)), list("abcdefgh"), [(1, "a"), (2, None)]])
def test_without_a_function_equal_events_go_to_one_partition(events: list[Any]) -> None:
    dispatcher = PartitionDispatcher[int, Any](3)
    for partition in range(3):
        dispatcher.subscribe(partition, partition)
        dispatcher.ask(partition, 1000)

    first, again = dispatcher.dispatch(events)[0], dispatcher.dispatch(events)[0]

    assert first == again
    assert sorted(map(repr, events)) == sorted(repr(event) for _, part in first for event in part)


@conforms("G-157")
@pytest.mark.parametrize(
    ("partitions", "sentence"),
    [
        ("ab", "dispatcher.partitions: expected a number or names of partitions, got a str"),
        (None, "dispatcher.partitions: expected a number or names of partitions, got a NoneType"),
        (True, "dispatcher.partitions: expected a number or names of partitions, got a bool"),
        (0, "dispatcher.partitions: expected at least 1 partition, got none"),
        ([], "dispatcher.partitions: expected at least 1 partition, got none"),
        (["a"], "dispatcher.hash: expected a function event -> partition, because the partitions have names"),
        ([["a"]], "dispatcher.partitions: expected hashable names of partitions"),
    ],
)
def test_wrong_partitions_are_refused(partitions: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        PartitionDispatcher(partitions)

    assert str(refused.value) == sentence


def test_a_hash_that_is_no_function_is_refused() -> None:
    with pytest.raises(OptionsError) as refused:
        PartitionDispatcher(2, hash=3)  # type: ignore[arg-type]  # that is the test

    assert str(refused.value) == "dispatcher.hash: expected a function event -> partition, got an int"


def test_a_partition_that_does_not_hash_is_unknown() -> None:
    with pytest.raises(OptionsError) as refused:
        PartitionDispatcher[Any, Any](2).check([1], None)  # type: ignore[arg-type]  # that is the test

    assert str(refused.value) == "partition: expected one of 0, 1, got [1]"


@conforms("G-158")
@pytest.mark.parametrize(
    ("partition", "sentence"),
    [
        (None, "partition: expected one of 0, 1, got none"),
        (-1, "partition: expected one of 0, 1, got -1"),
        ("oops", "partition: expected one of 0, 1, got 'oops'"),
        (0, "partition: expected one without a consumer, but 0 has one"),
    ],
)
def test_a_partition_that_is_missing_unknown_or_taken_is_refused(partition: Any, sentence: str) -> None:
    dispatcher = PartitionDispatcher[str, int](2)
    dispatcher.subscribe("a", 0)

    with pytest.raises(OptionsError) as refused:
        dispatcher.check(partition, None)

    assert str(refused.value) == sentence
    dispatcher.check(1, None)


def test_a_partition_is_for_dispatchers_with_partitions_only() -> None:
    with pytest.raises(OptionsError) as refused:
        DemandDispatcher[str, int]().check(0, None)

    assert str(refused.value) == "partition: expected none, because the producer has no PartitionDispatcher, got 0"
    DemandDispatcher[str, int]().check(None, None)


@pytest.mark.parametrize(
    ("dispatcher", "partition", "sentence"),
    [
        (DemandDispatcher(), None, "selector: expected none, because the producer has no BroadcastDispatcher"),
        (PartitionDispatcher(1), 0, "selector: expected none, because the producer has no BroadcastDispatcher"),
    ],
)
def test_a_selector_is_for_broadcasts_only(dispatcher: Any, partition: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        dispatcher.check(partition, lambda event: event)

    assert str(refused.value) == sentence


@pytest.mark.parametrize("made", [DemandDispatcher(), BroadcastDispatcher(), PartitionDispatcher(1)])
def test_a_fresh_dispatcher_has_the_settings_and_none_of_the_consumers(made: Any) -> None:
    made.subscribe("a", 0)

    fresh = made.fresh()
    fresh.subscribe("b", 0)

    assert type(fresh) is type(made)
    assert fresh.ask("b", 1) == (1, [])


def test_a_fresh_dispatcher_for_partitions_has_their_names_and_function() -> None:
    fresh = partitioned(even=1).fresh()

    fresh.subscribe("a", "odd")
    fresh.ask("a", 1)
    assert fresh.dispatch([1])[0] == [("a", [1])]
