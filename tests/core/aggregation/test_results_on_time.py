"""Results on time in parts: the same as in one step, also if the settings change over a restart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py._core.aggregation.aggregation import Aggregation
from broadway_py._core.aggregation.outcome import Checkpoint
from broadway_py._core.aggregation.values import Functions
from broadway_py._core.window.effects import OpenWindow
from broadway_py._core.window.spec import Window
from tests.core.aggregation.test_aggregation import (
    ALL,
    LISTS,
    SUMS,
    WALL,
    Event,
    Stored,
    Told,
    by,
    facts,
    told_by,
)

PLAIN = Window.fixed(10, by=by, delay=0, lateness=5, max_ahead=None)
SHORTER = Window.fixed(10, by=by, delay=0, max_ahead=None)
EVERY = PLAIN.trigger_every(2)
PERIODICALLY = PLAIN.trigger_periodically(3)


def restarted(window: Window, keys: str, *, until: int, most: int, then: Window) -> tuple[Checkpoint, Aggregation]:
    """Returns the last checkpoint of a process with *window*, and the aggregation of the next one with *then*."""
    aggregation, stored = Aggregation(window, SUMS, 0.0), Stored()
    aggregation.add([Event(key, 1.0) for key in keys], 0.0, WALL)
    aggregation.tick(3.0)
    aggregation.advance(until * 1_000_000, 3.0)
    made = aggregation.checkpoint(3.0, most)
    stored.commit(made)
    return made, stored.restored(then, SUMS, 3.0)


@pytest.mark.parametrize(
    ("before", "early"),
    [(EVERY, [("a", 1, 2, "every")]), (PERIODICALLY, [("a", 1, 2, "periodic"), ("b", 1, 1, "periodic")])],
    ids=["every", "periodically"],
)
def test_a_key_that_fired_early_with_a_trigger_of_the_process_before_fires_on_time(
    before: Window, early: list[tuple[Any, int, int, str]]
) -> None:
    made, aggregation = restarted(before, "aab", until=5, most=ALL, then=PLAIN)
    assert facts(made) == early
    aggregation.advance(10_000_000, 3.0)
    numbers = {key: number for key, number, _, _ in early}
    on_time = [("a", numbers["a"] + 1, 2, "watermark"), ("b", numbers.get("b", 0) + 1, 1, "watermark")]
    assert facts(aggregation.checkpoint(3.0, ALL)) == on_time


def test_news_for_a_trigger_of_the_process_before_are_in_the_result_on_time_and_come_no_second_time() -> None:
    aggregation, stored = Aggregation(PERIODICALLY, SUMS, 0.0), Stored()
    aggregation.add([Event("a", 1.0)], 0.0, WALL)
    stored.commit(aggregation.checkpoint(0.0, ALL))
    aggregation = stored.restored(PLAIN, SUMS, 0.0)
    aggregation.advance(10_000_000, 0.0)
    assert facts(aggregation.checkpoint(0.0, ALL)) == [("a", 1, 1, "watermark")]
    aggregation.advance(15_000_000, 0.0)
    assert facts(aggregation.checkpoint(0.0, ALL)) == []


@pytest.mark.parametrize("then", [EVERY, PERIODICALLY], ids=["every", "periodically"])
def test_results_on_time_that_are_left_come_also_if_the_window_has_a_trigger_now(then: Window) -> None:
    made, aggregation = restarted(PLAIN, "abc", until=10, most=1, then=then)
    assert facts(made) == [("a", 1, 1, "watermark")]
    aggregation.add([Event("b", 2.0)], 3.0, WALL)
    results = facts(aggregation.checkpoint(3.0, ALL))
    assert results[:2] == [("b", 1, 1, "watermark"), ("c", 1, 1, "watermark")]
    assert [(key, number, value) for key, number, value, _ in results[2:]] == [("b", 2, 2)]


def test_results_on_time_that_are_left_come_also_if_lateness_is_shorter_and_the_process_dies_at_once() -> None:
    made, aggregation = restarted(PLAIN, "abc", until=10, most=1, then=SHORTER)
    told, stored = facts(made), Stored()
    stored.number = made.number
    stored.commit(made := aggregation.checkpoint(3.0, 0))
    told += facts(made)
    told += facts(stored.restored(SHORTER, SUMS, 3.0).checkpoint(3.0, ALL))
    assert told == [(key, 1, 1, "watermark") for key in "abc"]


def test_a_restart_with_sessions_looks_for_no_results_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be a million of them, and to put them in order would take seconds, in one step."""
    window = Window.session(5, by=by, delay=0, lateness=5, max_ahead=None)
    aggregation, stored = Aggregation(window, SUMS, 0.0), Stored()
    aggregation.add([Event(key, 1.0) for key in "abc"], 0.0, WALL)
    aggregation.advance(8_000_000, 0.0)
    stored.commit(aggregation.checkpoint(0.0, ALL))

    def order(_: OpenWindow) -> tuple[int, int, int]:
        raise AssertionError("a session was put in order")

    with monkeypatch.context() as patch:
        patch.setattr(OpenWindow, "order", property(order))
        aggregation = stored.restored(window, SUMS, 0.0)
    assert (aggregation.open, aggregation.due) == (3, 0)


#: Of each event the key, its time before or after the watermark, and where it raises.
EVENTS = st.tuples(st.sampled_from("abcdef"), st.integers(-12, 6), st.sampled_from(["", "", "", "add"]))
#: The lateness of a process, and its trigger.
SETTINGS = st.tuples(st.sampled_from([0, 5, 20]), st.sampled_from(["", "", "every", "periodic"]))
STEPS = st.one_of(
    st.tuples(st.just("add"), st.lists(EVENTS, min_size=1, max_size=8)),
    st.tuples(st.just("advance"), st.integers(1, 8)),
    st.tuples(st.just("tick"), st.just(3)),
    st.tuples(st.just("close"), st.none() | st.integers(0, 20)),
    st.tuples(st.just("checkpoint"), st.integers(0, 2)),
    st.tuples(st.just("restart"), SETTINGS),
    st.tuples(st.just("go_back"), st.none()),
)


def window_of(slide: int, lateness: int, trigger: str) -> Window:
    window = Window.sliding(10, slide, by=by, delay=0, lateness=lateness, max_ahead=None)
    if trigger:
        return window.trigger_every(2) if trigger == "every" else window.trigger_periodically(3)
    return window


def by_result(told: list[Told]) -> dict[str, list[Told]]:
    """The results of each key and window, in their order."""
    found: dict[str, list[Told]] = {}
    for one in told:
        found.setdefault(one.id, []).append(one)
    return found


class Pair:
    """Two aggregations that do the same. The first one takes all results with each checkpoint, the other one parts."""

    def __init__(self, functions: Functions, slide: int, first: tuple[int, str]) -> None:
        self.functions = functions
        self.slide = slide
        self.window = window_of(slide, *first)
        #: What was added since the last checkpoint.
        self.held: list[Event] = []
        self.now = 100.0
        self.watermark = 20
        self.both = [Aggregation(self.window, functions, self.now) for _ in range(2)]
        self.stores = [Stored(), Stored()]
        self.told: list[list[Told]] = [[], []]

    def add(self, events: list[tuple[str, int, str]]) -> None:
        self._add([Event(key, float(self.watermark + ahead), bad) for key, ahead, bad in events])

    def _add(self, events: list[Event]) -> None:
        first, other = (aggregation.add(events, self.now, WALL).added for aggregation in self.both)
        assert first == other
        self.held += first

    def advance(self, seconds: int) -> None:
        self.watermark += seconds
        for aggregation in self.both:
            aggregation.advance(self.watermark * 1_000_000, self.now)

    def close(self, ahead: int | None) -> None:
        for aggregation in self.both:
            aggregation.close(None if ahead is None else (self.watermark + ahead) * 1_000_000, self.now)

    def tick(self, seconds: int) -> None:
        self.now += seconds
        for aggregation in self.both:
            aggregation.tick(self.now)

    def checkpoint(self, most: int) -> None:
        for place, own in enumerate([ALL, most]):
            made = self.both[place].checkpoint(self.now, own)
            self.stores[place].commit(made)
            self.told[place].extend(told_by(made))
        self.held = []
        last = {one.id: one.events for one in self.told[0]}
        for window in self.both[0].open_windows():
            assert window.shared is not None
            for record in window.shared.records.values() if window.on_time else ():
                assert last[f"{window.id} {record.key}"] == record.count

    def restart(self, changed: tuple[int, str]) -> None:
        self.checkpoint(1)
        self.window = window_of(self.slide, *changed)
        self._restore()

    def go_back(self, _: None) -> None:
        """Takes both back to what is stored, and adds what came since, as after a value that cannot be stored."""
        self._restore()
        held, self.held = self.held, []
        self._add(held)
        self.advance(0)

    def _restore(self) -> None:
        self.both = [stored.restored(self.window, self.functions, self.now) for stored in self.stores]

    def end(self) -> None:
        for aggregation in self.both:
            aggregation.end(self.now)
        self.checkpoint(2)
        while self.both[1].has_parts:
            self.checkpoint(2)


@pytest.mark.parametrize("functions", [SUMS, LISTS], ids=["sums", "lists"])
@given(slide=st.sampled_from([4, 10]), first=SETTINGS, steps=st.lists(STEPS, min_size=10, max_size=25))
@settings(deadline=None)
def test_parts_change_no_result_of_any_key(
    functions: Functions, slide: int, first: tuple[int, str], steps: list[tuple[str, Any]]
) -> None:
    pair = Pair(functions, slide, first)
    for name, value in steps:
        getattr(pair, name)(value)
        assert pair.both[0].open == pair.both[1].open
    pair.end()
    assert by_result(pair.told[1]) == by_result(pair.told[0])
    assert (pair.both[1].due, pair.both[1].open) == (0, 0)
