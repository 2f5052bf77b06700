"""The times of events that went to other stages move the watermark as if they had come here."""

from __future__ import annotations

from broadway_py._core.window.firing import Firing
from broadway_py._core.window.spec import Window
from tests.core.window.stage import Stage


def stage(window: Window, *upstreams: str) -> Stage:
    return Stage(window, upstreams=upstreams)


def window(**settings: float) -> Window:
    return Window.fixed(10, by=float, **settings)


def observe(stage: Stage, time: float, upstream: str = "a") -> list[int]:
    """Returns the sums that are emitted because of it."""
    before = len(stage.emitted)
    stage.carry_out(stage.engine.observe(upstream, round(time * 1_000_000), stage.now))
    return stage.emitted[before:]


def test_a_window_closes_without_an_event_of_its_own_stage() -> None:
    one = stage(window(delay=5.0), "a")
    one.give([1, 2])
    assert observe(one, 14.9) == []
    assert observe(one, 15.0) == [3]
    assert one.engine.line == 10_000_000
    assert [firing.final for firing in one.firings] == [True]


def test_the_line_is_behind_the_watermark_by_the_lateness() -> None:
    one = stage(window(lateness=3.0), "a")
    one.give([1])
    assert observe(one, 12.0) == []
    assert (one.engine.watermark, one.engine.line) == (12_000_000, 9_000_000)
    assert (stage(window(), "a").engine.line, Stage(Window.count(3)).engine.line) == (None, None)


def test_an_event_behind_a_time_that_was_observed_is_late() -> None:
    one = stage(window(), "a")
    observe(one, 20.0)
    one.give([19, 20])
    assert [late.event for late in one.side] == [19]


def test_other_upstreams_still_hold_windows_back() -> None:
    one = stage(window(), "a", "b")
    one.give([1], upstream="a")
    assert observe(one, 50.0, "a") == []
    assert observe(one, 50.0, "b") == [1]


def test_an_upstream_whose_events_go_elsewhere_is_not_idle() -> None:
    one = stage(Window.fixed(10, by=float, idle_timeout=60.0), "a", "b")
    one.give([1], upstream="a")
    one.give([2], upstream="b")
    one.pass_time(40.0)
    observe(one, 3.0, "b")
    one.pass_time(40.0)
    one.give([30], upstream="a")
    assert one.emitted == []
    one.pass_time(20.0)
    assert one.emitted == [3]


def test_a_session_ends_by_the_time_of_another_key() -> None:
    one = Stage(Window.session(10, by=float), key=lambda event: event % 2)
    one.give([1, 3])
    assert observe(one, 12.0) == []
    assert observe(one, 13.0) == [4]
    described: Firing = one.firings[0]
    assert (described.key, described.start, described.end) == (1, 1.0, 13.0)
