"""What a stage keeps while nobody asks: events in order, infos at their places, and never more than the limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broadway_py._core.buffer import Buffer, Keep
from tests.support.conformance import conforms


def filled(*content: object, size: int | None = 10, keep: Keep = "last") -> Buffer[str]:
    """Text is an event, anything else is an info."""
    buffer = Buffer[str](size, keep)
    for each in content:
        if isinstance(each, str):
            assert buffer.store([each]) == (0, [])
        else:
            assert buffer.hold(each)
    return buffer


@conforms("G-159")
def test_infos_take_no_room() -> None:
    assert len(filled("a", 1, "b", 2).events) == 2


@conforms("G-160")
def test_the_first_stay_when_the_last_are_refused() -> None:
    buffer = filled("a", "b", "c", size=3, keep="first")

    assert buffer.store(["d", "e", "f"]) == (3, [])
    assert buffer.take(9) == (["a", "b", "c"], [])


@conforms("G-161")
def test_without_a_limit_everything_stays() -> None:
    buffer = Buffer[int]()

    assert buffer.store(range(1000)) == (0, [])
    assert len(buffer.events) == 1000


@conforms("G-162")
def test_the_last_stay_when_the_first_are_removed() -> None:
    buffer = filled("a", "b", "c", size=3)

    assert buffer.store(["d", "e", "f"]) == (3, [])
    assert buffer.take(9) == (["d", "e", "f"], [])


@conforms("G-163")
def test_infos_whose_events_are_removed_come_back() -> None:
    buffer = filled("a", "b", 1, 2, size=3)

    assert buffer.store(["c", "d", "e"]) == (2, [1, 2])
    assert buffer.take(9) == (["c", "d", "e"], [])


@conforms("G-164")
def test_an_empty_buffer_holds_no_info() -> None:
    assert not Buffer[str]().hold(1)


@conforms("G-165")
def test_nothing_can_be_taken_from_an_empty_buffer() -> None:
    assert Buffer[str]().take(5) == ([], [])


@conforms("G-166")
def test_taking_stops_at_an_info() -> None:
    buffer = filled("t1", "t2", 3, "t4")

    assert buffer.take(5) == (["t1", "t2"], [3])
    assert buffer.take(3) == (["t4"], [])


@conforms("G-167")
def test_infos_at_one_place_come_in_the_order_in_which_they_came() -> None:
    assert filled("a", 1, 2, 3).take(1) == (["a"], [1, 2, 3])


@conforms("G-168")
def test_events_and_infos_keep_their_order() -> None:
    buffer = filled("t1", "t2", 3, 4, "t5", "t6", "t7", 8, 9, "t10", 11)

    assert buffer.take(3) == (["t1", "t2"], [3, 4])
    assert buffer.take(4) == (["t5", "t6", "t7"], [8, 9])
    assert buffer.take(2) == (["t10"], [11])


@pytest.mark.parametrize("keep", ["first", "last"])
def test_a_size_of_0_keeps_nothing(keep: Keep) -> None:
    buffer = Buffer[int](0, keep)

    assert buffer.store([1, 2]) == (2, [])
    assert not buffer.hold("info")
    assert not buffer.events


def test_a_part_of_the_events_can_be_taken_and_the_rest_stays_in_order() -> None:
    buffer = filled("a", "b", "c", 1, "d")

    assert buffer.take(2) == (["a", "b"], [])
    assert buffer.take(0) == ([], [])
    assert buffer.take(9) == (["c"], [1])


def test_all_events_can_be_taken_from_between_the_infos() -> None:
    buffer = filled("a", 1, "b", 2)

    assert buffer.take_events() == ["a", "b"]
    assert buffer.take(1) == ([], [1, 2])


class BufferMachine(RuleBasedStateMachine):
    """Against a plain list of events and infos, which are tuples."""

    @initialize(size=st.one_of(st.none(), st.integers(0, 6)), keep=st.sampled_from(["first", "last"]))
    def make(self, size: int | None, keep: Keep) -> None:
        self.size, self.keep = size, keep
        self.buffer = Buffer[int](size, keep)
        self.content: list[Any] = []
        self.count = 0

    def events(self) -> list[int]:
        return [each for each in self.content if isinstance(each, int)]

    def leading_infos(self) -> list[Any]:
        infos = []
        while self.content and isinstance(self.content[0], tuple):
            infos.append(self.content.pop(0))
        return infos

    @rule(count=st.integers(0, 8))
    def store(self, count: int) -> None:
        fresh = list(range(self.count, self.count + count))
        self.count += count
        self.content += fresh
        excess = 0 if self.size is None else max(0, len(self.events()) - self.size)
        gone = self.events()[-excess:] if self.keep == "first" else self.events()[:excess]
        self.content = [each for each in self.content if isinstance(each, tuple) or not excess or each not in gone]
        infos = self.leading_infos()
        assert self.buffer.store(fresh) == (excess, infos)

    @rule()
    def hold(self) -> None:
        self.count += 1
        assert self.buffer.hold((self.count,)) == bool(self.events())
        if self.events():
            self.content.append((self.count,))

    @rule(most=st.integers(0, 8))
    def take(self, most: int) -> None:
        taken: list[int] = []
        while len(taken) < most and self.content and isinstance(self.content[0], int):
            taken.append(self.content.pop(0))
        assert self.buffer.take(most) == (taken, self.leading_infos())

    @invariant()
    def the_same_is_here(self) -> None:
        if hasattr(self, "buffer"):
            assert list(self.buffer.events) == self.events()


TestBufferMachine = BufferMachine.TestCase
