"""What a stage takes, in which order, and what it asks its producers for."""

from __future__ import annotations

from typing import Any

from broadway_py._core.dispatch import DemandDispatcher
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.stages.intake import Ended, FlowOutlet, Intake
from broadway_py.flow.stages.order import Released
from broadway_py.stage import Wake


def frame(source: int, number: int) -> Frame:
    return Frame([(source, number)], origin=Origin(source, number))


def connected(parts: dict[int, int], *origins: tuple[int, ...], lists: int = 1) -> tuple[Intake, list[FlowOutlet]]:
    """An intake, and a producer for each of *origins*."""
    intake = Intake(Wake(), 0, parts, 500)
    outlets = [FlowOutlet(DemandDispatcher(), Wake()) for _ in origins]
    for outlet, sources in zip(outlets, origins, strict=True):
        intake.subscribe(outlet, lists, sources)
    intake.ask_first()
    return intake, outlets


def taken(intake: Intake) -> Any:
    """The elements of the next list, which is worked on then."""
    released = intake.next()
    if type(released) is not Released:
        return released
    intake.ask_again(released)
    return released.frame.elements


def demands(outlets: list[FlowOutlet]) -> list[int]:
    return [outlet.demand for outlet in outlets]


def test_a_list_is_asked_for_when_another_one_was_worked_on() -> None:
    intake, outlets = connected({}, (0,), (1,), lists=2)
    assert demands(outlets) == [2, 2]

    outlets[0].dispatch([frame(0, 0), frame(0, 1)])
    first = intake.next()
    assert demands(outlets) == [0, 2]

    assert type(first) is Released
    intake.ask_again(first)
    assert demands(outlets) == [1, 2]
    assert taken(intake) == [(0, 1)]
    assert (demands(outlets), intake.next(), intake.has_ended) == ([2, 2], None, False)


def test_lists_that_wait_for_another_one_are_not_replaced() -> None:
    intake, outlets = connected({0: 1}, (0,), (0,), lists=2)

    outlets[0].dispatch([frame(0, 1), frame(0, 2)])
    assert intake.next() is None
    # The first producer has sent what comes later: the missing list is not there.
    assert demands(outlets) == [0, 2]

    outlets[1].dispatch([frame(0, 0)])
    assert [taken(intake) for _ in range(3)] == [[(0, 0)], [(0, 1)], [(0, 2)]]
    assert demands(outlets) == [2, 2]


def test_producers_that_hold_each_other_up_are_asked_for_what_is_missing() -> None:
    """Each has sent a list that waits for one of the other, which stands behind it."""
    intake, outlets = connected({0: 1, 1: 1}, (0, 1), (0, 1))

    outlets[0].dispatch([frame(0, 1)])
    outlets[1].dispatch([frame(1, 1)])
    assert intake.next() is None
    assert demands(outlets) == [1, 1]

    outlets[0].dispatch([frame(1, 0)])
    assert [taken(intake), taken(intake)] == [[(1, 0)], [(1, 1)]]
    outlets[1].dispatch([frame(0, 0)])
    assert [taken(intake), taken(intake)] == [[(0, 0)], [(0, 1)]]
    # In the end, each is asked for as many as in the beginning.
    assert demands(outlets) == [1, 1]


def test_a_producer_that_may_send_what_is_missing_is_asked_again_after_each_list_that_did_not_end_the_wait() -> None:
    intake, outlets = connected({0: 1, 1: 1}, (0, 1), (0, 1))
    outlets[0].dispatch([frame(1, 2)])
    outlets[1].dispatch([frame(0, 1)])
    assert intake.next() is None
    assert demands(outlets) == [1, 1]

    outlets[1].dispatch([frame(1, 0)])
    assert taken(intake) == [(1, 0)]
    assert intake.next() is None
    # The second holds the list that waits for the first one, and has the other missing one, too.
    assert demands(outlets) == [1, 1]

    outlets[1].dispatch([frame(1, 1)])
    assert [taken(intake), taken(intake)] == [[(1, 1)], [(1, 2)]]
    outlets[0].dispatch([frame(0, 0)])
    assert [taken(intake), taken(intake)] == [[(0, 0)], [(0, 1)]]
    assert demands(outlets) == [1, 1]


def test_the_end_of_a_producer_comes_behind_its_lists_with_the_sources_that_end_with_it() -> None:
    intake, outlets = connected({}, (0, 1), (1,))

    outlets[0].dispatch([frame(0, 0)])
    outlets[0].finish()
    assert taken(intake) == [(0, 0)]
    assert intake.next() == Ended(0, [0])
    assert not intake.has_ended

    outlets[1].finish()
    assert not intake.has_ended
    assert intake.next() == Ended(1, [1])
    assert intake.has_ended


def test_leaving_ends_all_subscriptions() -> None:
    intake, outlets = connected({}, (0,), (1,))

    intake.leave()

    assert [outlet.is_left for outlet in outlets] == [True, True]
    assert intake.has_ended
