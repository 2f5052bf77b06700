"""The books of a producer add up at every moment, whatever comes in and however it ends."""

from __future__ import annotations

import gc

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.tracked_ledger import TrackedLedger, arrive
from broadway_py._core.ledger import OUTCOMES, Ledger, LedgerEntry, runs_of
from broadway_py._core.settlement import record
from broadway_py.message import Message, Outcome


def test_new_books_know_every_outcome_and_nothing_else() -> None:
    ledger = Ledger("orders")

    assert dict(ledger.outcomes) == {
        "acked": 0,
        "retried": 0,
        "dead_lettered": 0,
        "rejected": 0,
        "dropped": 0,
        "returned": 0,
        "unknown": 0,
    }
    assert (ledger.received, ledger.in_flight, ledger.bytes_in_flight, ledger.redelivered) == (0, 0, 0, 0)
    assert ledger.oldest_age(5.0) == 0.0


def received(ledger: Ledger, count: int, now: float) -> LedgerEntry:
    entry = LedgerEntry(ledger, now)
    ledger.receive(entry, [Message(bytes(10)) for _ in range(count)], 10 * count)
    return entry


def test_a_receipt_names_its_producer() -> None:
    assert LedgerEntry(Ledger("orders"), 0.0).producer == "orders"


def test_neighbours_with_one_entry_are_a_run() -> None:
    one, other = LedgerEntry(Ledger("orders"), 0.0), LedgerEntry(Ledger("orders"), 0.0)
    messages = []
    for entry in (one, one, other, one):
        messages.append(Message(b""))
        messages[-1]._ledger_entry = entry

    assert runs_of(messages) == [(one, 0, 2), (other, 2, 3), (one, 3, 4)]
    assert runs_of(messages[:2]) == [(one, 0, 2)]
    assert runs_of([]) == []


def test_deliveries_of_before_are_counted_besides() -> None:
    ledger = Ledger("orders")

    ledger.receive(LedgerEntry(ledger, 0.0), [Message(None)] * 5, 0, redelivered=2)

    assert (ledger.received, ledger.redelivered) == (5, 2)


def test_a_receipt_for_nothing_leaves_no_trace() -> None:
    ledger = Ledger("orders")

    received(ledger, 0, 10.0)

    assert (ledger.in_flight, ledger.oldest_age(15.0)) == (0, 0.0)


def test_latency_is_counted_once_for_each_message_from_its_arrival() -> None:
    ledger = Ledger("orders")
    entry = received(ledger, 3, 100.0)

    ledger.settle(entry, "acked", 2, 20, 100.02)
    ledger.settle(entry, "unknown", 1, 10, 130.0)

    counted = {
        bound: count
        for bound, count in zip((*ledger.latency.bounds, float("inf")), ledger.latency.counts, strict=True)
        if count
    }
    assert counted == {0.025: 2, 60.0: 1}


def test_the_oldest_age_is_that_of_the_first_arrival_with_anything_open() -> None:
    ledger = Ledger("orders")
    first, second = received(ledger, 2, 10.0), received(ledger, 1, 12.0)

    assert ledger.oldest_age(15.0) == 5.0
    ledger.settle(first, "acked", 1, 10, 15.0)
    assert ledger.oldest_age(15.0) == 5.0
    ledger.settle(first, "acked", 1, 10, 15.0)
    assert ledger.oldest_age(15.0) == 3.0
    ledger.settle(second, "acked", 1, 10, 15.0)
    assert ledger.oldest_age(15.0) == 0.0


def test_when_nobody_settles_any_more_the_rest_is_unknown_for_good() -> None:
    ledger = Ledger("orders")
    entry = received(ledger, 3, 10.0)
    ledger.settle(entry, "acked", 1, 10, 11.0)

    assert ledger.close() == 2
    ledger.settle(entry, "acked", 2, 20, 12.0)

    assert (ledger.outcomes["acked"], ledger.outcomes["unknown"]) == (1, 2)
    assert (ledger.in_flight, ledger.bytes_in_flight, ledger.oldest_age(20.0)) == (0, 0, 0.0)
    assert ledger.close() == 0


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = self.new_ledger()
        self.now = 1000.0
        self.open: list[tuple[float, Message[bytes]]] = []
        self.ended: list[Outcome] = []
        self.came = 0
        self.lost = 0

    def new_ledger(self) -> Ledger:
        return Ledger("orders")

    @rule(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), waited=st.floats(0, 10))
    def receive(self, sizes: list[int], waited: float) -> None:
        self.now += waited
        messages = [Message(bytes(size)) for size in sizes]
        entry = self.ledger.begin(self.now)
        self.ledger.receive(entry, messages, sum(sizes))
        for message in messages:
            message._ledger_entry = entry
            self.open.append((self.now, message))
        self.came += len(sizes)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), waited=st.floats(0, 10))
    def settle(self, data: st.DataObject, outcome: Outcome, waited: float) -> None:
        self.now += waited
        chosen = data.draw(st.lists(st.integers(0, len(self.open) - 1), unique=True, max_size=6))
        record([self.open[place][1] for place in chosen], outcome, self.now)
        self.ended += [outcome] * len(chosen)
        self.open = [entry for place, entry in enumerate(self.open) if place not in chosen]

    @rule()
    def close(self) -> None:
        assert self.ledger.close() == len(self.open)
        self.lost += len(self.open)
        self.open.clear()

    @invariant()
    def the_books_add_up(self) -> None:
        ledger = self.ledger
        assert ledger.received == self.came
        assert ledger.received == sum(ledger.outcomes.values()) + ledger.in_flight
        assert ledger.in_flight == len(self.open)
        ended = {outcome: self.ended.count(outcome) for outcome in OUTCOMES}
        assert dict(ledger.outcomes) == {**ended, "unknown": ended["unknown"] + self.lost}
        assert ledger.bytes_in_flight == sum(message.size for _, message in self.open)
        assert ledger.oldest_age(self.now) == self.now - min((at for at, _ in self.open), default=self.now)
        assert sum(ledger.latency.counts) == len(self.ended)


TestLedgerMachine = LedgerMachine.TestCase


class TrackedLedgerMachine(LedgerMachine):
    """The books of a ledger that follows its messages: those that have arrived count as in flight all the same."""

    def new_ledger(self) -> Ledger:
        return TrackedLedger("orders", progress=Progress(), identity_of=lambda _: None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.integers(0, len(self.open) - 1), max_size=6))
        arrive([self.open[place][1] for place in chosen], self.now)


TestTrackedLedgerMachine = TrackedLedgerMachine.TestCase


def entries_left() -> int:
    return sum(type(one).__module__ == TrackedLedger.__module__ for one in gc.get_objects())


@pytest.mark.parametrize("arrives", ["before", "between", "after", "never"])
def test_the_entries_of_settled_messages_need_no_garbage_collector(arrives: str) -> None:
    ledger = TrackedLedger("orders", progress=Progress(), identity_of=lambda _: None)
    gc.collect()
    gc.disable()
    try:
        before = entries_left()
        for _ in range(10):
            entry = ledger.begin(0.0)
            messages = [Message(None), Message(None)]
            for one in messages:
                one._ledger_entry = entry
            ledger.receive(entry, messages, 2)
            for place, one in enumerate(messages):
                if arrives == "before" or (arrives == "between" and place == 1):
                    arrive(messages, 0.0)
                record([one], "acked", 0.0)
            if arrives == "after":
                arrive(messages, 0.0)
        assert ledger.in_flight == 0
        del entry, messages, one
        assert entries_left() == before
    finally:
        gc.enable()
