"""The time during which every source could have delivered something again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.aggregation.connected_time import ConnectedTime


def test_it_goes_on_from_what_was_counted() -> None:
    time = ConnectedTime(7.0)

    assert time.advance({"a": 100.0}) == 7.0
    assert time.advance({"a": 110.0}) == 17.0


def test_it_stands_still_while_any_source_is_away() -> None:
    time = ConnectedTime()
    time.advance({"a": 0.0, "b": 0.0})

    assert time.advance({"a": 10.0, "b": 10.0}) == 10.0
    assert time.advance({"a": 500.0, "b": 10.0}) == 10.0, "b is away"
    assert time.advance({"a": 500.0, "b": 400.0}) == 10.0, "a is away; that b catches up does not count"
    assert time.advance({"a": 505.0, "b": 405.0}) == 15.0


def test_a_source_that_has_ended_holds_up_nothing_and_one_that_is_new_counts_from_now() -> None:
    time = ConnectedTime()
    time.advance({"a": 0.0, "b": 0.0})

    assert time.advance({"b": 10.0}) == 10.0
    assert time.advance({"b": 20.0, "c": 1000.0}) == 10.0
    assert time.advance({"b": 30.0, "c": 1010.0}) == 20.0
    assert time.advance({}) == 20.0


@given(st.lists(st.tuples(*[st.floats(0.0, 1000.0)] * 3), max_size=20))
def test_it_is_never_faster_than_any_source(steps: list[tuple[float, float, float]]) -> None:
    time, read = ConnectedTime(), [0.0, 0.0, 0.0]
    moments = [(time.advance(dict(enumerate(read))), *read)]
    for step in steps:
        read = [before + more for before, more in zip(read, step, strict=True)]
        moments.append((time.advance(dict(enumerate(read))), *read))

    for at, (since, *before) in enumerate(moments):
        for until, *after in moments[at:]:
            for one, other in zip(before, after, strict=True):
                assert 0.0 <= until - since <= other - one + 1e-6
