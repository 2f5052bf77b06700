"""What is held back is replayed one by one, in the order in which it came."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from broadway_py._core.accumulate import Accumulated
from broadway_py._core.buffer import Keep


def replayed(held: Accumulated[Any]) -> list[Any]:
    entries = []
    while held:
        entries.append(held.replay_next())
    return entries


def test_demand_and_events_are_replayed_one_by_one_and_not_summed() -> None:
    held = Accumulated[str](10, "last")

    held.ask(2)
    assert held.emit(["a", "b"]) == 0
    held.ask(3)
    assert held.emit([]) == 0
    assert held.emit(("c",)) == 0

    assert held.events == 3
    assert replayed(held) == [2, ["a", "b"], 3, ["c"]]
    assert held.events == 0


@pytest.mark.parametrize(
    ("keep", "entries"),
    [("last", [1, [2], 2, [3, 4, 5]]), ("first", [[0, 1], 1, [2], 2, [3]])],
)
def test_too_many_events_are_discarded_and_the_demand_stays(keep: Keep, entries: list[int | list[int]]) -> None:
    held = Accumulated[int](4, keep)

    held.emit([0, 1])
    held.ask(1)
    held.emit([2])
    held.ask(2)

    assert held.emit([3, 4, 5]) == 2
    assert held.events == 4
    assert replayed(held) == entries


def test_a_list_that_is_too_long_pushes_everything_out() -> None:
    held = Accumulated[int](2, "last")
    held.emit([0, 1])

    assert held.emit([2, 3, 4]) == 3
    assert replayed(held) == [[3, 4]]


def test_without_a_limit_nothing_is_discarded() -> None:
    held = Accumulated[int](None, "last")

    assert held.emit(list(range(100))) == 0
    assert held.events == 100


def test_to_discard_one_event_takes_no_more_steps_when_many_are_held() -> None:
    def steps(size: int) -> int:
        held = Accumulated[int](size, "last")
        for number in range(size):
            held.emit([number])
        calls: list[str] = []
        sys.setprofile(lambda *call: calls.append(call[1]))
        try:
            discarded = held.emit([size])
        finally:
            sys.setprofile(None)
        assert (discarded, held.events) == (1, size)
        return len(calls)

    assert steps(1000) == steps(10)
