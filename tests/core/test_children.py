"""How many children run, and when more events are asked for."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broadway_py._core.children import Places


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
    places = Places("s", most, least)
    assert places.ask() == most
    assert places.ask() == 0
    places.begin(most)

    assert [places.end() for _ in asks] == asks


def test_what_was_asked_for_and_has_not_come_takes_a_place_too() -> None:
    places = Places("s", 3, 1)
    places.ask()
    places.begin(2)

    assert places.end() == 0  # one runs, one is to come
    assert places.end() == 2


def test_what_comes_without_being_asked_for_takes_a_place_too() -> None:
    places = Places("s", 2, 1)
    places.ask()
    places.begin(3)

    assert [places.end() for _ in range(3)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("running", "waiting", "first", "asks"),
    [
        (1, 0, 3, [0, 2]),
        (1, 1, 2, [0, 2]),
        (2, 1, 0, [2, 0]),
        (3, 2, 0, [0, 0, 2]),
    ],
)
def test_children_of_former_subscriptions_take_places(running: int, waiting: int, first: int, asks: list[int]) -> None:
    places = Places("s", 4, 2, running=running, waiting=waiting)
    assert places.ask() == first
    places.begin(waiting + first)

    assert [places.end() for _ in asks] == asks


class PlaceMachine(RuleBasedStateMachine):
    @initialize(most=st.integers(1, 6), least=st.integers(0, 5), running=st.integers(0, 9), waiting=st.integers(0, 9))
    def subscribe(self, most: int, least: int, running: int, waiting: int) -> None:
        self.least = min(least, most - 1)
        self.places = Places("s", most, self.least, running=running, waiting=waiting)
        self.most = max(most, running + waiting)
        self.running, self.coming = running, waiting + self.places.ask()

    @precondition(lambda self: self.coming)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, self.coming))
        self.places.begin(count)
        self.coming -= count
        self.running += count

    @precondition(lambda self: self.running)
    @rule()
    def end(self) -> None:
        self.running -= 1
        self.coming += self.places.end()

    @invariant()
    def never_too_many_and_never_stuck(self) -> None:
        if hasattr(self, "places"):
            assert self.least < self.coming + self.running <= self.most


TestPlaceMachine = PlaceMachine.TestCase
