"""The time during which every source could have delivered something again."""

from __future__ import annotations

from broadway_py._core.aggregation.connected_time import ConnectedTime


def test_it_runs_only_while_every_source_is_connected() -> None:
    time = ConnectedTime(["a", "b"], 7.0)
    time.connected("a", 10.0)
    assert time.seconds(20.0) == 7.0

    time.connected("b", 20.0)
    time.connected("b", 25.0)
    assert time.seconds(30.0) == 17.0

    time.disconnected("a", 30.0)
    time.disconnected("a", 40.0)
    time.disconnected("b", 50.0)
    assert time.seconds(60.0) == 17.0

    time.connected("a", 60.0)
    time.connected("b", 70.0)
    assert time.seconds(75.0) == 22.0


def test_a_source_that_has_ended_holds_up_nothing() -> None:
    time = ConnectedTime(["a", "b"])
    time.ended("a", 1.0)
    time.connected("b", 2.0)

    assert time.seconds(10.0) == 8.0


def test_a_clock_that_was_asked_earlier_takes_nothing_back() -> None:
    time = ConnectedTime(["a"], 3.0)
    time.connected("a", 10.0)

    assert time.seconds(9.0) == 3.0
