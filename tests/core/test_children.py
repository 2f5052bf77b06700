"""How many children run, and when more events are asked for."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broadway_py._core.children import Slots


@pytest.mark.parametrize(
    ("most", "least", "asks"),
    [
        (10, 9, [1] * 10),  # the default of a supervisor: one ends, one comes
        (10, 2, [0] * 7 + [8, 0, 0]),
        (3, 0, [0, 0, 3]),
        (1, 0, [1]),
    ],
)
def test_more_are_asked_for_when_so_many_or_fewer_run(most: int, least: int, asks: list[int]) -> None:
    slots = Slots[str]()
    slots.subscribe("s", most, least)
    slots.arrived("s", most)

    assert [slots.ended("s") for _ in asks] == asks


def test_what_was_asked_for_and_has_not_come_takes_a_slot_too() -> None:
    slots = Slots[str]()
    slots.subscribe("s", 3, 1)
    slots.arrived("s", 2)

    assert slots.ended("s") == 0  # one runs, one is to come
    assert slots.ended("s") == 2


def test_children_of_a_subscription_that_has_ended_ask_for_nothing() -> None:
    slots = Slots[str]()
    slots.subscribe("s", 1, 0)
    slots.arrived("s", 1)
    slots.cancel("s")
    slots.cancel("s")

    assert slots.ended("s") == 0
    slots.arrived("s", 1)
    assert slots.ended("s") == 0


class SlotMachine(RuleBasedStateMachine):
    @initialize(most=st.integers(1, 6), least=st.integers(0, 5))
    def subscribe(self, most: int, least: int) -> None:
        self.most, self.least = most, min(least, most - 1)
        self.slots = Slots[str]()
        self.slots.subscribe("s", most, self.least)
        self.coming, self.running = most, 0

    @precondition(lambda self: self.coming)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, self.coming))
        self.slots.arrived("s", count)
        self.coming -= count
        self.running += count

    @precondition(lambda self: self.running)
    @rule()
    def end(self) -> None:
        self.running -= 1
        self.coming += self.slots.ended("s")

    @invariant()
    def never_too_many_and_never_stuck(self) -> None:
        if hasattr(self, "slots"):
            assert self.least < self.coming + self.running <= self.most


TestSlotMachine = SlotMachine.TestCase
