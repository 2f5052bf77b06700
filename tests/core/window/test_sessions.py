"""Sessions: merging, touching, late events, longest sessions, and what is kept of a key."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py._core.window.effects import Merge
from broadway_py._core.window.session import SessionWindows
from broadway_py._core.window.spec import Window
from tests.core.window.stage import Stage

Event = tuple[float, str]


def sessions(gap: float = 10, **more: Any) -> Stage:
    trigger_every = more.pop("trigger_every", None)
    window = Window.session(gap, by=lambda event: event[0], **{"longest": None, **more})
    if trigger_every is not None:
        window = window.trigger_every(trigger_every)
    return Stage(window, init=list, reduce=lambda times, event: [*times, event[0]], key=lambda event: event[1])


def spans(stage: Stage) -> list[tuple[Any, Any, Any, list[float]]]:
    return [
        (firing.key, firing.start, firing.end, times)
        for firing, times in zip(stage.firings, stage.emitted, strict=True)
    ]


def x(*times: float) -> list[Event]:
    return [(time, "x") for time in times]


def test_sessions_that_only_touch_stay_apart() -> None:
    stage = sessions(lateness=1_000)
    stage.give(x(0, 10))
    stage.end("a")

    assert spans(stage) == [("x", 0.0, 10.0, [0]), ("x", 10.0, 20.0, [10])]


def test_touching_sessions_are_the_same_whenever_the_watermark_came() -> None:
    early, late = sessions(), sessions(lateness=1_000)
    for stage in (early, late):
        stage.give(x(0, 10, 20))
        stage.end("a")

    assert spans(early) == spans(late) == [("x", t, t + 10.0, [t]) for t in (0, 10, 20)]


def test_an_event_between_two_sessions_joins_them_in_time_order() -> None:
    stage = sessions(lateness=1_000)
    stage.give(x(16, 0, 8))
    stage.end("a")

    assert spans(stage) == [("x", 0.0, 26.0, [0, 16, 8])]


def test_an_event_before_a_session_moves_its_start() -> None:
    stage = sessions(lateness=1_000)
    stage.give(x(16, 7))
    stage.end("a")

    assert spans(stage) == [("x", 7.0, 26.0, [16, 7])]


def test_each_key_has_its_own_sessions() -> None:
    stage = sessions()
    stage.give([(0, "x"), (5, "y"), (9, "x"), (40, "z")])

    assert spans(stage) == [("y", 5.0, 15.0, [5]), ("x", 0.0, 19.0, [0, 9])]


def test_sessions_that_close_together_do_so_by_end_by_start_and_as_they_were_opened() -> None:
    stage = sessions(lateness=100)
    stage.give([(8, "c"), (8, "a"), (5, "b"), (8, "b"), (1, "d")])

    stage.give([(1_000, "z")])

    assert [firing.key for firing in stage.firings] == ["d", "b", "c", "a"]


def test_an_event_whose_time_is_all_behind_the_line_is_late() -> None:
    stage = sessions()
    stage.give([(100, "z"), *x(90, 90.000_001)])

    assert [side.event for side in stage.side] == x(90)


def test_a_late_event_does_not_come_in_because_it_touches_an_open_session() -> None:
    stage = sessions()
    # At 100, the session from 85 is closed; the one from 92 is open, and 89 would reach into it.
    stage.give([*x(92), (100, "z"), *x(89)])

    assert [side.event for side in stage.side] == x(89)


def test_an_event_that_overlaps_a_closed_session_of_its_key_is_late() -> None:
    stage = sessions()
    stage.give([*x(85), (95, "z")])
    assert spans(stage) == [("x", 85.0, 95.0, [85])]

    stage.give([*x(94), (94, "y"), *x(95)])

    assert [side.event for side in stage.side] == x(94)
    assert sorted(str(session.key) for session in stage.engine.open_windows()) == ["x", "y", "z"]


def test_nothing_is_kept_for_a_key_once_the_line_is_a_gap_past_its_last_session() -> None:
    stage = sessions()
    kept = stage.engine._timed
    assert isinstance(kept, SessionWindows)
    stage.give([*x(0), (19.999_999, "z")])
    assert kept._ended == {"x": 10_000_000}

    stage.give([(20, "z")])

    assert (kept._ended, len(kept._endings), list(kept._open)) == ({}, 0, ["z"])


def test_an_older_ending_of_a_key_is_forgotten_without_the_newer_one() -> None:
    stage = sessions()
    kept = stage.engine._timed
    assert isinstance(kept, SessionWindows)
    stage.give([*x(0, 11), (22, "z")])

    assert kept._ended == {"x": 21_000_000}


def test_merging_sessions_add_up_their_counts() -> None:
    stage = sessions(lateness=1_000, trigger_every=4)
    stage.give(x(0, 1, 2, 20, 21, 22))
    assert stage.firings == []

    stage.give(x(11))

    assert [(firing.trigger, firing.count, firing.start, firing.end) for firing in stage.firings] == [
        ("every", 7, 0.0, 32.0)
    ]
    stage.give(x(3, 4, 5))
    assert len(stage.firings) == 1


def test_merging_sessions_add_up_what_came_since_the_last_trigger() -> None:
    stage = sessions(lateness=1_000, trigger_every=5)
    stage.give(x(0, 1, 2, 20))

    stage.give(x(11))

    assert [(firing.trigger, firing.count) for firing in stage.firings] == [("every", 5)]


def test_a_merge_is_news_for_a_periodic_trigger_also_if_its_event_is_dropped() -> None:
    window = Window.session(10, by=lambda event: event[0], longest=None, lateness=1_000).trigger_periodically(1)
    window = window.trigger(int, lambda events, state: ("cont", [each for each in events if each[0] != 9], state))
    stage = Stage(window, init=list, reduce=lambda times, event: [*times, event[0]], key=lambda event: event[1])
    stage.give(x(0, 18))
    stage.pass_time(1)
    stage.firings.clear()

    stage.give(x(9))
    stage.pass_time(1)

    assert [(firing.start, firing.end, firing.number) for firing in stage.firings] == [(0.0, 28.0, 2)]
    assert stage.emitted[-1] == [0, 18]


def test_a_merge_names_the_earlier_and_the_later_session() -> None:
    stage = sessions(lateness=1_000)
    stamped = stage.engine.read(x(20, 0, 12, 5))
    stamped.keys = ["x"] * 4

    (merge,) = (each for each in stage.engine.feed(stamped, 0.0, upstream="a") if isinstance(each, Merge))

    assert (merge.window.serial, merge.absorbed.serial, merge.absorbed.closed) == (1, 0, True)


def test_a_session_that_goes_on_after_it_was_on_time_is_on_time_again() -> None:
    window = Window.session(10, by=lambda event: event[0], longest=None, lateness=100).trigger_on_time()
    stage = Stage(window, init=list, reduce=lambda times, event: [*times, event[0]], key=lambda event: event[1])
    stage.give([*x(0), (12, "z"), *x(5)])
    assert [(firing.key, firing.trigger, firing.end) for firing in stage.firings] == [("x", "watermark", 10.0)]

    stage.give([(15, "z")])

    assert [(firing.key, firing.number, firing.end) for firing in stage.firings] == [("x", 1, 10.0), ("x", 2, 15.0)]


@pytest.mark.parametrize("demand", [1, 3, 100])
def test_an_endless_session_closes_at_its_longest_and_the_next_one_follows(demand: int) -> None:
    stage = sessions(longest=25)
    stage.give(x(*range(60)), demand=demand)

    assert [(start, end, len(times)) for _, start, end, times in spans(stage)] == [(0.0, 25.0, 25), (25.0, 50.0, 25)]
    assert stage.side == []


def test_what_would_be_too_long_together_stays_apart() -> None:
    stage = sessions(longest=25, lateness=1_000)
    stage.give(x(0, 18, 9))
    stage.end("a")

    assert spans(stage) == [("x", 0.0, 18.0, [0, 9]), ("x", 18.0, 28.0, [18])]


def test_a_new_session_ends_where_one_begins_that_it_cannot_join() -> None:
    stage = sessions(longest=15, lateness=1_000)
    stage.give(x(10, 14, 4))
    stage.end("a")

    assert spans(stage) == [("x", 4.0, 10.0, [4]), ("x", 10.0, 24.0, [10, 14])]


def test_a_session_that_is_over_when_it_opens_closes_at_once() -> None:
    stage = sessions(longest=15)
    stage.give(x(10, 13, 4))

    assert spans(stage) == [("x", 4.0, 10.0, [4])]


def test_sessions_need_a_key_for_each_event() -> None:
    stage = sessions()
    stamped = stage.engine.read(x(1, 2))

    with pytest.raises(TypeError) as refused:
        stage.engine.feed(stamped, 0.0, upstream="a")

    assert str(refused.value) == "these windows need a key for each of the 2 events: set stamped.keys"
    stamped.keys = ["x"]
    with pytest.raises(TypeError, match="for each of the 2 events"):
        stage.engine.feed(stamped, 0.0, upstream="a")
