"""The watermark alone: several upstreams, a delay, idle times, and the clock."""

from __future__ import annotations

import pytest

from broadway_py._core.window.watermark import Watermark

SECOND = 1_000_000


def watermark(*upstreams: str, delay: int = 0, idle: float | None = 60.0, now: float = 0.0) -> Watermark:
    made = Watermark(delay, idle)
    for upstream in upstreams:
        made.join(upstream, now)
    return made


@pytest.mark.parametrize("delay", [0, 7])
def test_it_is_the_lowest_of_the_highest_less_the_delay(delay: int) -> None:
    mark = watermark("a", "b", delay=delay)

    moves = [
        mark.observe(*each) for each in [("a", 50), ("b", 20), ("b", 10), ("b", 20), ("a", 60), ("b", 30), ("b", 90)]
    ]

    assert moves == [False, True, False, False, False, True, True]
    assert mark.value == 60 - delay


@pytest.mark.parametrize("delay", [0, 7])
def test_of_one_upstream_it_is_the_highest_less_the_delay(delay: int) -> None:
    mark = watermark("a", delay=delay)

    assert [mark.observe("a", time) for time in (50, 50, 40, 51)] == [True, False, False, True]
    assert mark.value == 51 - delay


@pytest.mark.parametrize("delay", [0, 7])
@pytest.mark.parametrize(
    ("upstream", "time", "after"), [("a", 55, 20), ("b", 15, 20), ("b", 30, 30), ("b", 90, 50), ("a", 10, 20)]
)
def test_it_can_say_where_it_will_be(upstream: str, time: int, after: int, delay: int) -> None:
    mark = watermark("a", "b", delay=delay)
    mark.observe("a", 50)
    mark.observe("b", 20)

    assert mark.after(upstream, time) == after - delay
    assert mark.value == 20 - delay
    mark.observe(upstream, time)
    assert mark.value == after - delay


def test_it_is_not_known_before_every_upstream_has_had_an_event() -> None:
    mark = watermark("a", "b")

    assert mark.after("a", 50) is None
    mark.observe("a", 50)
    assert mark.value is None
    assert mark.after("b", 20) == 20


def test_a_newcomer_holds_it_back_and_does_not_take_it_back() -> None:
    mark = watermark("a")
    mark.observe("a", 50)
    mark.join("b", 1.0)
    mark.observe("a", 60)
    assert mark.value == 50

    assert not mark.observe("b", 10)
    assert not mark.observe("b", 50)
    assert mark.observe("b", 55)

    assert mark.value == 55


def test_one_that_leaves_no_longer_holds_it_back() -> None:
    mark = watermark("a", "b")
    mark.observe("a", 50)
    mark.observe("b", 20)

    mark.leave("b", 1.0)
    assert (mark.value, mark.has_upstreams) == (50, True)
    mark.leave("a", 1.0)

    assert (mark.value, mark.has_upstreams) == (50, False)


def test_an_upstream_is_idle_once_it_was_asked_for_so_long() -> None:
    mark = watermark("a", "b", now=100.0)
    mark.hear("b", 130.0)
    assert mark.next_idle() == 160.0
    mark.hold("a", 120.0)
    assert mark.next_idle() == 190.0
    mark.resume("a", 150.0)
    assert mark.next_idle() == 190.0
    mark.hold("b", 150.5)
    assert mark.next_idle() == 190.0

    mark.pass_idle(190.0)

    assert mark.next_idle() is None
    mark.resume("b", 200.0)
    assert mark.next_idle() == 239.5


def test_only_those_whose_time_has_come_become_idle() -> None:
    mark = watermark("a", "b", "c")
    for upstream, time in (("a", 10), ("b", 20), ("c", 30)):
        mark.observe(upstream, time)
    mark.hear("b", 0.5)
    mark.hold("c", 0.5)

    mark.pass_idle(60.0)

    assert mark.value == 20
    assert mark.next_idle() == 60.5


def test_an_upstream_that_is_heard_while_it_is_held_up_stays_held_up() -> None:
    mark = watermark("a")
    mark.hold("a", 10.0)
    mark.hear("a", 20.0)
    assert mark.next_idle() is None

    mark.resume("a", 30.0)

    assert mark.next_idle() == 90.0


def test_without_a_time_out_nobody_is_idle() -> None:
    assert watermark("a", idle=None).next_idle() is None


def running(delay: int = 0) -> Watermark:
    """At 60 seconds, both became idle."""
    mark = watermark("a", "b", delay=delay)
    mark.observe("a", 50 * SECOND)
    mark.observe("b", 20 * SECOND)
    mark.pass_idle(60.0)
    return mark


def test_when_all_are_idle_it_goes_with_the_clock_from_the_newest_event() -> None:
    mark = running(delay=5 * SECOND)
    assert (mark.value, mark.reaches(47 * SECOND)) == (45 * SECOND, 62.0)

    assert mark.run(61.5)

    assert mark.value == 46.5 * SECOND
    assert mark.reaches(47 * SECOND) == 62.0


def test_it_is_at_least_where_it_was_asked_to_be() -> None:
    mark = running()

    assert mark.run(61.0, at_least=51 * SECOND + 1)

    assert mark.value == 51 * SECOND + 1


def test_it_does_not_go_with_the_clock_while_somebody_is_there_or_held_up() -> None:
    mark = watermark("a", "b")
    mark.observe("a", 50)
    mark.observe("b", 20)
    assert (mark.run(10.0), mark.reaches(51)) == (False, None)
    mark.hold("b", 10.0)
    mark.pass_idle(60.0)
    assert (mark.value, mark.run(70.0), mark.reaches(51)) == (20, False, None)

    mark.resume("b", 100.0)
    mark.pass_idle(150.0)

    assert (mark.value, mark.reaches(50 + SECOND)) == (50, 151.0)


def test_if_all_are_idle_and_one_is_held_up_it_stands() -> None:
    mark = running()
    mark.hold("a", 61.0)
    assert (mark.value, mark.run(70.0)) == (51 * SECOND, False)
    mark.resume("b", 80.0)
    assert not mark.run(90.0)

    mark.resume("a", 100.0)

    assert mark.reaches(52 * SECOND) == 101.0


@pytest.mark.parametrize("what", ["join", "hear", "leave"])
def test_what_changes_the_upstreams_first_takes_it_to_where_the_clock_is(what: str) -> None:
    mark = running()

    getattr(mark, what)("new" if what == "join" else "b", 63.0)

    assert mark.value == 53 * SECOND
    # When one has left, the other is idle as before.
    assert mark.reaches(54 * SECOND) == (64.0 if what == "leave" else None)


def test_resuming_while_it_goes_with_the_clock_does_not_set_it_back() -> None:
    mark = running()

    mark.resume("a", 63.0)

    assert mark.reaches(54 * SECOND) == 64.0


def test_when_all_are_idle_and_none_had_an_event_it_is_still_not_known() -> None:
    mark = watermark("a")

    mark.pass_idle(60.0)

    assert (mark.value, mark.run(70.0)) == (None, False)


def test_what_somebody_else_decides_does_not_take_it_back() -> None:
    mark = watermark()
    for value in (50, 20, 60):
        mark.advance(value)

    assert mark.value == 60
