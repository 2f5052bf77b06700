"""Windows that an operator closes: they give their results, and do not open again."""

from __future__ import annotations

import pytest

from broadway_py._core.window.spec import Window
from tests.core.window.keyed_streams import restart
from tests.core.window.stage import Stage
from tests.core.window.test_saved import SECOND, advance, fixed, ids, keyed, session, stage_of, told


def close(stage: Stage, before: float | None = None) -> None:
    stage.carry_out(keyed(stage).close(None if before is None else round(before * SECOND), stage.now))


def test_windows_that_end_in_time_close_and_the_others_stay() -> None:
    stage = stage_of(fixed())
    stage.give([(5, "x"), (6, "y"), (12, "x"), (25, "x")])
    close(stage, 20)

    assert told(stage) == [("closed", 1, True, [5]), ("closed", 1, True, [6]), ("closed", 1, True, [12])]
    assert ids(stage) == ["20000000_30000000"]
    advance(stage, 30)
    assert told(stage) == [("watermark", 1, True, [25])]


def test_one_microsecond_decides() -> None:
    stage = stage_of(fixed())
    stage.give([(5, "x")])
    close(stage, 9.999999)
    assert told(stage) == []
    close(stage, 10)
    assert told(stage) == [("closed", 1, True, [5])]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_events_for_closed_windows_are_late_and_others_are_not(is_restarted: bool) -> None:
    stage = stage_of(fixed())
    stage.give([(5, "x")])
    close(stage, 1_000)
    told(stage)
    if is_restarted:
        restart(stage, fixed())
    stage.give([(6, "x"), (6, "new"), (10, "x")])

    assert [side.event for side in stage.side] == [(6, "x"), (6, "new")]
    assert ids(stage) == ["10000000_20000000"]


def test_without_an_end_all_windows_close() -> None:
    stage = stage_of(fixed())
    stage.give([(5, "x"), (95, "x")])
    close(stage)
    close(stage)

    assert told(stage) == [("closed", 1, True, [5]), ("closed", 1, True, [95])]
    assert ids(stage) == []


def test_a_window_that_has_fired_says_only_what_is_new() -> None:
    stage = stage_of(fixed(lateness=100))
    stage.give([(5, "x"), (5, "y")])
    advance(stage, 10)
    stage.give([(6, "x")])
    told(stage)
    close(stage)

    assert told(stage) == [("closed", 2, True, [5, 6])]


def test_a_closed_session_does_not_grow_and_other_keys_are_free() -> None:
    stage = stage_of(session())
    stage.give([(20, "x"), (50, "x")])
    close(stage, 30)
    assert told(stage) == [("closed", 1, True, [20])]
    stage.give([(29, "x"), (5, "y"), (30, "x")])

    assert [side.event for side in stage.side] == [(29, "x")]
    assert ids(stage) == ["30000000.3", "5000000.2", "50000000.1"]


def test_windows_of_count_close_whatever_they_have() -> None:
    stage = stage_of(Window.count(3))
    stage.give([(1, "x"), (2, "x"), (3, "y")])
    close(stage)
    stage.give([(4, "x")])

    assert told(stage) == [("closed", 1, True, [1, 2]), ("closed", 1, True, [3])]
    assert ids(stage) == ["2"]


@pytest.mark.parametrize("window", [Window.periodic(10), Window.global_()], ids=lambda window: window.kind)
def test_the_global_window_and_periodic_ones_stay_open(window: Window) -> None:
    stage = stage_of(window)
    stage.give([(1, "x")])
    close(stage)

    assert told(stage) == []
    assert len(ids(stage)) == 1
