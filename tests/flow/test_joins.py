"""Elements of two flows meet by key, in each window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broadway_py._core.window.effects import SideOutput
from broadway_py._core.window.spec import Window
from broadway_py._core.window.times import EventTimes
from broadway_py.flow.description.operators import Join, JoinMode
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.operator_errors import OperatorError
from broadway_py.flow.work.work import Work
from tests.flow.works import chain, count_by, elements_of, emit, layer, total
from tests.support.conformance import conforms

sizes = pytest.mark.parametrize("size", [1, 2, 1_000])
LEFT, RIGHT = 0, 1


def pair(left: Any, right: Any) -> Any:
    return left, right


async def pair_later(left: Any, right: Any) -> Any:
    return left, right


def join(mode: JoinMode, fn: Callable[..., Any] = pair, **settings: Any) -> Work:
    on_error = settings.pop("on_error", "raise")
    made = Join(mode, lambda number: number, lambda number: number - 3, fn, 1)
    return Work(layer(join=made, **settings), on_error=on_error)


def rows(work: Work, left: list[Any], right: list[Any], size: int = 2) -> list[Any]:
    """Returns what comes out if lists of both sides come in turns."""
    out = elements_of(work.start(0.0))
    for place in range(0, max(len(left), len(right)), size):
        for side, elements in ((LEFT, left), (RIGHT, right)):
            out += elements_of(work.feed(Frame(elements[place : place + size], side=side), 0.0))
    return out + elements_of(work.end(0.0))


MATCHED = [(1, 4), (2, 5), (3, 6)]
LEFT_ALONE = [(0, None)]
RIGHT_ALONE = [(None, 7), (None, 8)]


@sizes
@pytest.mark.parametrize("fn", [pair, pair_later])
@pytest.mark.parametrize(
    ("mode", "alone"),
    [
        ("inner", []),
        ("left_outer", LEFT_ALONE),
        ("right_outer", RIGHT_ALONE),
        ("full_outer", [*LEFT_ALONE, *RIGHT_ALONE]),
    ],
)
@conforms("F-134", "F-136", "F-138")
def test_pairs_come_first_and_then_what_is_alone(mode: JoinMode, alone: list[Any], fn: Any, size: int) -> None:
    found = rows(join(mode, fn), [0, 1, 2, 3], [4, 5, 6, 7, 8], size)
    assert (sorted(found[:3]), found[3:]) == (MATCHED, alone)


@sizes
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("inner", []),
        ("left_outer", [(0, None), (1, None)]),
        ("right_outer", [(None, 14), (None, 15)]),
        ("full_outer", [(0, None), (1, None), (None, 14), (None, 15)]),
    ],
)
@conforms("F-135", "F-137", "F-139")
def test_nothing_matches(mode: JoinMode, expected: list[Any], size: int) -> None:
    assert rows(join(mode), [0, 1], [14, 15], size) == expected


@conforms("F-140", "F-141")
def test_an_empty_side() -> None:
    assert rows(join("full_outer"), [], [4, 5]) == [(None, 4), (None, 5)]
    assert rows(join("full_outer"), [], []) == []


@sizes
def test_all_pairs_of_equal_keys_are_made(size: int) -> None:
    assert sorted(rows(join("full_outer"), [1, 1], [4, 4, 4], size)) == [(1, 4)] * 6


@sizes
@conforms("F-142", "F-143")
def test_operators_follow_a_join(size: int) -> None:
    def both(row: tuple[int, int]) -> int:
        return row[0] + row[1]

    mappers = chain(("map", both))
    assert sorted(rows(join("inner", mappers=mappers), [0, 1, 2, 3], [4, 5, 6, 7], size)) == [5, 7, 9]
    settings: dict[str, Any] = {"mappers": mappers, "reduction": total(), "emission": emit("state")}
    assert rows(join("inner", **settings), [0, 1, 2, 3], [4, 5, 6, 7], size) == [21]


@sizes
def test_rows_are_combined_by_key(size: int) -> None:
    made = Join("full_outer", lambda number: number, lambda number: number - 3, pair, 1)
    reduction = count_by(lambda row: None in row, combine=lambda one, other: one + other)
    work = Work(layer(join=made, reduction=reduction), part="partial")
    assert rows(work, [0, 1, 2, 3], [4, 5, 6, 7, 8], size) == [(False, 3), (True, 3)]


@sizes
def test_what_is_alone_is_reduced_before_the_window_fires(size: int) -> None:
    settings: dict[str, Any] = {"mappers": chain(("map", len)), "reduction": total(), "emission": emit("state")}
    assert rows(join("full_outer", **settings), [0, 1], [4, 9], size) == [6]


IN_WINDOWS = [(0, None), (1, 4), (2, 5), (3, 6), (9, None), (10, 13), (11, None), (None, 7), (None, 8), (None, 12)]


@sizes
@conforms("F-145")
def test_pairs_are_made_within_a_window(size: int) -> None:
    window = Window.fixed(0.01, by=lambda number: number / 1_000).trigger_every(2)
    made = Join("full_outer", lambda number: number, lambda number: number - 3, pair, 1)
    work = Work(layer(join=made, window=window), sources=[LEFT, RIGHT])
    out = elements_of(work.start(0.0))
    for side, elements in ((RIGHT, [4, 5, 6, 7, 8, 12, 13]), (LEFT, [0, 1, 2, 3, 9, 10, 11])):
        for place in range(0, len(elements), size):
            frame = Frame(elements[place : place + size], side=side, origin=Origin(side, place))
            out += elements_of(work.feed(frame, 0.0))
        out += elements_of(work.source_ended(side, 0.0))
    assert sorted(map(str, out)) == sorted(map(str, IN_WINDOWS))
    assert work.late == 0


@sizes
def test_each_window_keeps_its_own_elements(size: int) -> None:
    work = join("full_outer", window=Window.fixed(10, by=float, delay=1_000).trigger_every(2))
    left, right = [0, 1, 2, 3, 9, 10, 11], [4, 5, 6, 7, 8, 12, 13]
    found = rows(work, left, right, size)
    assert sorted(map(str, found)) == sorted(map(str, IN_WINDOWS))
    assert work.late == 0


def test_count_windows_of_a_join_count_both_sides() -> None:
    assert rows(join("full_outer", window=Window.count(2)), [1, 2], [4, 9], 1) == [(1, 4), (2, None), (None, 9)]


@sizes
def test_rows_of_sliding_windows_come_in_the_order_of_the_elements(size: int) -> None:
    work = join("inner", window=Window.sliding(4, 2, by=lambda number: number % 3, delay=1_000))
    assert rows(work, [0, 1, 2], [3, 4, 5], 1_000) == [(0, 3), (0, 3), (1, 4), (1, 4), (2, 5), (2, 5)]


def test_sessions_that_become_one_are_joined() -> None:
    def time(event: Any) -> float:
        return float(event[1])

    made = Join("full_outer", lambda event: event[0], lambda event: event[0], lambda left, right: (left, right), 1)
    window = Window.session(10, by=time, delay=1_000)
    work = Work(layer(join=made, window=window))
    out = elements_of(work.start(0.0))
    for side, event in ((LEFT, ("a", 0.0)), (RIGHT, ("a", 1.0)), (RIGHT, ("a", 15.0)), (LEFT, ("a", 16.0))):
        frame = Frame([event], side=side)
        frame.stamped = stamped = EventTimes(time).read([event])
        stamped.keys = ["a"]
        out += elements_of(work.feed(frame, 0.0))
    assert [(left[1], right[1]) for left, right in out] == [(0.0, 1.0), (16.0, 15.0)]
    frame = Frame([("a", 8.0)], side=LEFT)
    frame.stamped = stamped = EventTimes(time).read(frame.elements)
    stamped.keys = ["a"]
    joined = elements_of(work.feed(frame, 0.0))
    assert sorted((left[1], right[1]) for left, right in joined) == [(0.0, 15.0), (8.0, 1.0), (8.0, 15.0), (16.0, 1.0)]
    assert elements_of(work.end(0.0)) == []


def test_a_late_element_is_given_to_on_late_without_its_side() -> None:
    def noted(number: int, info: SideOutput) -> list[Any]:
        return [(number, info.event, info.cause)]

    work = join("inner", window=Window.fixed(10, by=float), on_late=noted)
    assert rows(work, [1, 20], [2, 23]) == [(2, 2, "late"), (20, 23)]


def test_an_element_that_the_function_fails_on_is_left_out() -> None:
    def divide(left: int, right: int) -> float:
        return left / (right - 4)

    work = join("inner", divide, on_error="skip")
    assert rows(work, [1, 2], [4, 5]) == [2.0]
    assert work.errors.skipped == {"join 1: divide": 1}
    with pytest.raises(OperatorError) as caught:
        rows(join("inner", divide), [1], [4])
    assert (caught.value.failed.operator, caught.value.failed.element) == ("join 1: divide", 4)
    assert rows(join("full_outer", lambda left, right: left + right, on_error="skip"), [0], [5]) == []


def test_the_place_of_a_row_is_not_known() -> None:
    def fails(row: tuple[int, int]) -> float:
        return 1 / (row[0] - 2)

    with pytest.raises(OperatorError) as caught:
        rows(join("inner", mappers=chain(("map", fails))), [1, 2], [4, 5])
    assert (caught.value.failed.element, caught.value.failed.index) == ((2, 5), None)
