"""Everything to everybody, at the pace of the slowest, with selectors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from broadway_py._core.dispatch import BroadcastDispatcher
from broadway_py.errors import OptionsError
from tests.support.conformance import conforms


def broadcast(*consumers: str) -> BroadcastDispatcher[str, str]:
    dispatcher = BroadcastDispatcher[str, str]()
    for consumer in consumers:
        dispatcher.subscribe(consumer)
    return dispatcher


@conforms("G-134")
def test_who_has_left_gets_nothing() -> None:
    dispatcher = broadcast("a", "b")
    assert dispatcher.cancel("b") == 0
    dispatcher.ask("a", 1)

    assert dispatcher.dispatch(["x"]) == ([("a", ["x"])], [], 0)


@conforms("G-135")
def test_what_was_asked_for_and_has_nobody_left_comes_back() -> None:
    dispatcher = broadcast("a")
    assert dispatcher.ask("a", 10) == (10, [])
    assert dispatcher.wanted == 10
    dispatcher.cancel("a")

    assert dispatcher.wanted == 0
    assert dispatcher.dispatch(["x", "y"]) == ([], ["x", "y"], 0)


@conforms("G-136")
def test_a_newcomer_stops_all_until_it_asks_and_nothing_is_asked_for_twice() -> None:
    dispatcher = broadcast("a")
    assert dispatcher.ask("a", 10) == (10, [])
    dispatcher.subscribe("b")
    assert dispatcher.wanted == 0
    assert dispatcher.cancel("a") == 0
    assert dispatcher.ask("b", 10) == (0, [])
    assert dispatcher.wanted == 10


@conforms("G-137")
def test_when_the_one_who_did_not_ask_leaves_the_others_demand_counts() -> None:
    dispatcher = broadcast("a", "b")
    assert dispatcher.ask("a", 10) == (0, [])
    assert dispatcher.cancel("b") == 10
    assert dispatcher.ask("a", 10) == (10, [])
    assert dispatcher.wanted == 20


@conforms("G-138")
def test_the_slowest_says_how_much_is_sent() -> None:
    dispatcher = broadcast("a", "b")
    assert [dispatcher.ask("a", 3)[0], dispatcher.ask("b", 2)[0]] == [0, 2]
    assert dispatcher.dispatch(["a", "b"]) == ([("a", ["a", "b"]), ("b", ["a", "b"])], [], 0)
    assert dispatcher.ask("b", 2)[0] == 1
    assert dispatcher.dispatch(["c", "d"]) == ([("a", ["c"]), ("b", ["c"])], ["d"], 0)
    dispatcher.subscribe("c")
    assert dispatcher.dispatch(["d", "e"]) == ([], ["d", "e"], 0)
    assert [dispatcher.ask(each, count)[0] for each, count in (("a", 3), ("b", 2), ("c", 3))] == [0, 0, 3]
    assert dispatcher.dispatch(["d", "e", "f"])[0] == [(each, ["d", "e", "f"]) for each in "abc"]


@conforms("G-139")
def test_a_newcomer_gets_what_was_asked_for_before_it() -> None:
    dispatcher = broadcast("a")
    dispatcher.ask("a", 10)
    dispatcher.dispatch(list("123"))
    dispatcher.subscribe("b")
    assert dispatcher.ask("b", 20) == (0, [])
    assert dispatcher.dispatch(list("1234567"))[0] == [("a", list("1234567")), ("b", list("1234567"))]
    assert dispatcher.wanted == 0
    dispatcher.ask("a", 100)
    assert dispatcher.wanted == 13


@conforms("G-140")
def test_what_a_leaver_had_asked_for_is_remembered() -> None:
    dispatcher = broadcast("a")
    dispatcher.ask("a", 10)
    dispatcher.cancel("a")
    dispatcher.subscribe("b")
    assert dispatcher.ask("b", 5) == (0, [])
    assert dispatcher.dispatch(list("123"))[0] == [("b", list("123"))]
    assert dispatcher.ask("b", 5) == (0, [])  # 7 are still to come, and 7 are wanted
    assert dispatcher.ask("b", 1) == (1, [])


@conforms("G-141")
def test_demand_that_a_newcomer_held_up_is_asked_for_when_it_leaves() -> None:
    dispatcher = broadcast("a")
    dispatcher.ask("a", 10)
    dispatcher.subscribe("b")
    assert dispatcher.ask("a", 5) == (0, [])
    assert dispatcher.cancel("b") == 5
    assert dispatcher.wanted == 15


@conforms("G-142")
def test_what_a_selector_leaves_out_is_made_up_for() -> None:
    dispatcher = BroadcastDispatcher[str, str]()
    dispatcher.subscribe("a", selector=lambda event: event.startswith("pre"))
    dispatcher.subscribe("b", selector=lambda event: event.startswith("pref"))
    dispatcher.ask("a", 4)
    dispatcher.ask("b", 4)

    deliveries, left, new = dispatcher.dispatch(["pre-1", "pref-1", "pref-2", "other"])

    assert deliveries == [("a", ["pre-1", "pref-1", "pref-2"]), ("b", ["pref-1", "pref-2"])]
    assert (left, new, dispatcher.wanted) == ([], 1, 1)


def test_a_selector_that_leaves_out_everything_lets_the_rest_pass() -> None:
    dispatcher = BroadcastDispatcher[str, str]()
    dispatcher.subscribe("a", selector=lambda event: event == "z")
    dispatcher.ask("a", 1)

    assert dispatcher.dispatch(["x", "y", "z", "z"]) == ([("a", ["z"])], ["z"], 2)


def test_each_consumer_has_a_list_of_its_own() -> None:
    dispatcher = broadcast("a", "b")
    dispatcher.ask("a", 2)
    dispatcher.ask("b", 2)

    (_, first), (_, second) = dispatcher.dispatch(["x"])[0]

    assert first == second
    assert first is not second


class Counted(int):
    """A number that counts how often it, or a sum of it, is compared."""

    compared = 0

    def __add__(self, other: int) -> Counted:
        return Counted(int(self) + other)

    __radd__ = __add__

    def __sub__(self, other: int) -> Counted:
        return Counted(int(self) - other)

    def __lt__(self, other: int) -> bool:
        Counted.compared += 1
        return int(self) < other

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return int(self) == other

    __hash__ = int.__hash__


@pytest.mark.parametrize("step", [0, 1])
def test_twice_as_many_consumers_cost_little_more_than_twice_as_much(step: int) -> None:
    def comparisons(consumers: int) -> int:
        Counted.compared = 0
        dispatcher = BroadcastDispatcher[int, int]()
        for consumer in range(consumers):
            dispatcher.subscribe(consumer)
            dispatcher.ask(consumer, Counted(3 + step * consumer))
        for _ in range(3):
            dispatcher.dispatch([1])
            for consumer in range(consumers):
                dispatcher.ask(consumer, Counted(1 + consumers * step))
        for consumer in range(consumers):
            dispatcher.cancel(consumer)
        return Counted.compared

    assert comparisons(800) < 2.5 * comparisons(400)


def test_who_has_left_and_comes_again_is_waited_for() -> None:
    dispatcher = broadcast("a", "b")
    dispatcher.ask("a", 5)
    dispatcher.ask("b", 7)
    dispatcher.cancel("b")
    dispatcher.subscribe("b")
    assert dispatcher.wanted == 0

    dispatcher.ask("b", 1)
    assert dispatcher.dispatch(["x", "y"]) == ([("a", ["x"]), ("b", ["x"])], ["y"], 0)
    dispatcher.ask("b", 9)
    assert dispatcher.wanted == 4


def test_nothing_is_kept_of_consumers_that_come_and_go_while_one_does_not_ask() -> None:
    dispatcher = broadcast("a")
    for number in range(1000):
        dispatcher.subscribe(str(number))
        dispatcher.ask(str(number), 1)
        dispatcher.cancel(str(number))
        assert len(dispatcher._positions._heap) <= 3


def test_consumers_need_no_order() -> None:
    dispatcher = BroadcastDispatcher[object, str]()
    one, *others = [object() for _ in range(9)]
    dispatcher.subscribe(one)
    for consumer in others:
        dispatcher.subscribe(consumer)
    for consumer in others:
        dispatcher.ask(consumer, 2)
        dispatcher.cancel(consumer)
    for consumer in others:
        dispatcher.subscribe(consumer)
        dispatcher.ask(consumer, 2)
    assert dispatcher.ask(one, 3) == (2, [])

    assert dispatcher.dispatch(["x", "y"]) == ([(each, ["x", "y"]) for each in (one, *others)], [], 0)
    assert dispatcher.wanted == 0


def test_lost_events_are_asked_for_again_only_if_everybody_wants_them() -> None:
    dispatcher = broadcast("a")
    dispatcher.ask("a", 5)
    assert dispatcher.lost(2) == 2
    dispatcher.subscribe("b")
    assert dispatcher.lost(2) == 0
    assert dispatcher.ask("b", 5)[0] == 2


@pytest.mark.parametrize(
    ("partition", "selector", "sentence"),
    [
        (1, None, "partition: expected none, because the producer has no PartitionDispatcher, got 1"),
        (None, 3, "selector: expected a function event -> bool, got an int"),
    ],
)
def test_wrong_options_of_a_subscription_are_refused(partition: object, selector: object, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        broadcast().check(partition, selector)  # type: ignore[arg-type]  # wrong on purpose

    assert str(refused.value) == sentence


def test_a_function_or_none_is_a_selector() -> None:
    broadcast().check(None, None)
    broadcast().check(None, bool)


class BroadcastMachine(RuleBasedStateMachine):
    """Any order of subscriptions, asks, dispatches and departures, against one plain list of what each is owed."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = BroadcastDispatcher[int, int]()
        self.asked: dict[int, int] = {}
        self.divisors: dict[int, int] = {}
        self.next: dict[int, int] = {}
        self.sent = 0
        self.delivered = 0
        self.upstream = 0
        self.waiting: list[int] = []
        self.arrivals = 0

    def selector(self, divisor: int) -> Callable[[int], bool] | None:
        return None if divisor == 1 else lambda event: event % divisor == 0

    @rule(divisor=st.integers(1, 3))
    def subscribe(self, divisor: int) -> None:
        self.arrivals += 1
        self.dispatcher.subscribe(self.arrivals, selector=self.selector(divisor))
        self.asked[self.arrivals] = 0
        self.divisors[self.arrivals] = divisor

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        consumer = data.draw(st.sampled_from(sorted(self.asked)))
        del self.asked[consumer], self.divisors[consumer]
        self.upstream += self.dispatcher.cancel(consumer)
        self.drain()

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), count=st.integers(1, 9))
    def ask(self, data: st.DataObject, count: int) -> None:
        consumer = data.draw(st.sampled_from(sorted(self.asked)))
        self.asked[consumer] += count
        new, deliveries = self.dispatcher.ask(consumer, count)
        assert deliveries == []
        self.upstream += new
        self.drain()

    @rule(count=st.integers(0, 9))
    def dispatch(self, count: int) -> None:
        self.waiting += range(self.sent, self.sent + count)
        self.sent += count
        self.upstream -= count
        self.drain()

    def drain(self) -> None:
        before, floor = list(self.waiting), min(self.asked.values(), default=0)
        deliveries, left, new = self.dispatcher.dispatch(before)
        self.upstream += new
        self.waiting = list(left)
        gone = before[: len(before) - len(left)]
        got: dict[int, list[int]] = {consumer: [] for consumer in self.asked}
        for consumer, events in deliveries:
            got[consumer] += events
        for consumer, divisor in self.divisors.items():
            assert got[consumer] == [event for event in gone if event % divisor == 0]
            self.asked[consumer] -= len(got[consumer])
            assert self.asked[consumer] >= 0
        assert len(gone) >= min(floor, len(before))
        wanted = min(self.asked.values(), default=0)
        assert self.dispatcher.wanted == wanted
        assert not self.waiting or not wanted
        # What is still to come covers what everybody wants, and is not asked for twice.
        assert self.upstream + len(self.waiting) >= wanted


TestBroadcastMachine = BroadcastMachine.TestCase
