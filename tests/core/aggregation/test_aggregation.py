"""Aggregation: values against brute force, events that fail, and a restart at any checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py._core.aggregation.aggregation import Aggregation
from broadway_py._core.aggregation.changes import Part
from broadway_py._core.aggregation.outcome import Added, Checkpoint
from broadway_py._core.aggregation.values import Functions
from broadway_py._core.window.spec import Window

WALL = 1_000_000.0
#: More last results than any window has here.
ALL = 10_000


@dataclass(eq=False)
class Event:
    key: Any
    time: float
    #: Where it raises: "" for nowhere.
    bad: str = ""


def key_of(event: Event) -> Hashable:
    if event.bad == "key":
        raise ValueError("no key")
    return cast("Hashable", event.key)


def by(event: Event) -> float:
    if event.bad == "by":
        raise ValueError("no time")
    return event.time


def plus(total: int, event: Event) -> int:
    if event.bad == "add":
        raise ValueError("no sum")
    return total + 1


def append(values: list[float], event: Event) -> list[float]:
    values.append(event.time)
    if event.bad == "add":
        raise ValueError("too late to raise")
    return values


def no_check(*_: object) -> None:
    """Everything can be stored."""


SUMS = Functions(key_of, int, plus, lambda a, b: a + b, no_check, no_check, json.dumps, in_place=False)
LISTS = Functions(key_of, list, append, lambda a, b: a + b, no_check, no_check, json.dumps, in_place=True)

KINDS: dict[str, Callable[[], Window]] = {
    "fixed": lambda: Window.fixed(10, by=by, delay=0, lateness=15, max_ahead=None),
    "sliding": lambda: Window.sliding(10, 4, by=by, delay=0, max_ahead=None),
    "every": lambda: Window.fixed(10, by=by, delay=0, lateness=5, max_ahead=None).trigger_every(2),
    "sliding every": lambda: Window.sliding(10, 4, by=by, delay=0, max_ahead=None).trigger_every(3),
    "periodically": lambda: Window.fixed(10, by=by, delay=0, max_ahead=None).trigger_periodically(3),
    "session": lambda: Window.session(5, by=by, delay=0, lateness=6, max_ahead=None),
    "session on time": lambda: Window.session(5, by=by, delay=0, max_ahead=None),
    "session every": lambda: Window.session(5, by=by, delay=0, longest=20, max_ahead=None).trigger_every(2),
    "count": lambda: Window.count(3),
    "periodic": lambda: Window.periodic(4),
    "global": Window.global_,
}


class Told(NamedTuple):
    id: str
    firing: int
    key: Any
    value: Any
    events: int
    trigger: str
    is_last: bool
    replaces: tuple[str, ...]


def told_by(checkpoint: Checkpoint) -> list[Told]:
    return [
        Told(f"{one.window} {key}", firing, key, deepcopy(value), count, one.trigger, one.is_last, one.replaces)
        for one in checkpoint.results
        for key, count, firing, value in one.entries
    ]


class Stored:
    """What a store keeps of checkpoints: a bucket's parts, until they are dropped."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Part]] = []
        self.memory: dict[str, Any] | None = None
        self.number = 0

    def commit(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.number == self.number + 1
        self.number = checkpoint.number
        self.memory = json.loads(json.dumps(checkpoint.memory))
        self.rows += [(checkpoint.number, deepcopy_of(part)) for part in checkpoint.parts]
        for bucket, before in checkpoint.dropped:
            self.rows = [row for row in self.rows if row[1].bucket != bucket or row[0] >= before]

    def restored(self, window: Window, functions: Functions, now: float) -> Aggregation:
        fresh = Aggregation(window, functions, now)
        if self.memory is not None:
            fresh.restore(self.memory, self.number)
            for _, part in self.rows:
                fresh.reopen(deepcopy_of(part))
            for _ in fresh.restored():
                pass
        return fresh


def deepcopy_of(part: Part) -> Part:
    return Part(
        part.bucket,
        deepcopy(part.entries),
        list(part.facts),
        list(part.news),
        list(part.closed),
        list(part.ended),
        list(part.fired),
    )


def restored_in_parts(stored: Stored, kind: str, functions: Functions, now: float, most: int) -> Aggregation:
    """Returns an aggregation that closes so many sessions at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("broadway_py._core.window.session._MOST_AT_ONCE", most)
        return stored.restored(KINDS[kind](), functions, now)


def close_all(aggregation: Aggregation, now: float) -> None:
    """Closes what is due, part by part."""
    while aggregation.has_due:
        aggregation.close_due(now)


STEPS = st.one_of(
    st.tuples(
        st.just("add"),
        st.lists(
            st.tuples(
                st.sampled_from(["k", "l", "m"]),
                st.integers(0, 60),
                st.sampled_from(["", "", "", "", "", "by", "key", "add"]),
            ),
            max_size=6,
        ),
    ),
    st.tuples(st.just("advance"), st.integers(0, 80)),
    st.tuples(st.just("pass"), st.integers(1, 6)),
    st.tuples(st.just("checkpoint"), st.booleans()),
    st.tuples(st.just("close"), st.none() | st.integers(0, 80)),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("functions", [SUMS, LISTS], ids=["sums", "lists"])
@given(steps=st.lists(STEPS, max_size=30), most=st.sampled_from([1, 2, ALL]))
@settings(deadline=None)
def test_a_restart_and_events_that_fail_change_no_result(
    kind: str, functions: Functions, steps: list[tuple[str, Any]], most: int
) -> None:
    now = 100.0
    window = KINDS[kind]()
    plain = Aggregation(window, functions, now)
    stored = Stored()
    tried = restored_in_parts(stored, kind, functions, now, most)
    expected: list[Told] = []
    came: list[Told] = []

    def checkpoint() -> None:
        expected.extend(told_by(plain.checkpoint(now, ALL)))
        made = tried.checkpoint(now, most)
        stored.commit(made)
        came.extend(told_by(made))

    for name, value in steps:
        if name == "add":
            events = [Event(key, float(time), bad) for key, time, bad in value]
            out = tried.add(events, now, WALL)
            usable = {"by"} if window.by is None else set()
            late = {id(event) for event in out.late}
            fails = [event for event in events if event.bad not in {"", *usable} and id(event) not in late]
            assert {id(event) for event, _ in out.failed} == set(map(id, fails))
            good = plain.add([event for event in events if event not in fails and event.bad != "add"], now, WALL)
            assert [id(event) for event in good.added] == [id(event) for event in out.added]
        elif name == "advance":
            plain.advance(value * 1_000_000, now)
            tried.advance(value * 1_000_000, now)
        elif name == "close":
            before = None if value is None else value * 1_000_000
            plain.close(before, now)
            tried.close(before, now)
        elif name == "pass":
            now += value
            plain.tick(now)
            tried.tick(now)
        else:
            checkpoint()
            if value:
                tried = restored_in_parts(stored, kind, functions, now, most)
        assert tried.open == plain.open or tried.has_due
    close_all(tried, now)
    plain.end(now)
    tried.end(now)
    close_all(tried, now)
    checkpoint()
    while tried.due:
        tried = restored_in_parts(stored, kind, functions, now, most)
        checkpoint()
    assert sorted(came, key=repr) == sorted(expected, key=repr)
    assert tried.open == 0
    last: dict[str, int] = {}
    for one in came:
        assert one.firing == last.get(one.id, 0) + 1
        last[one.id] = one.firing
    # Nothing of a closed window stays in the store. The ends of sessions stay until the time is far enough.
    tried.advance(10**12, now)
    for _ in range(64):
        stored.commit(tried.checkpoint(now, ALL))
    assert stored.rows == []


@given(
    events=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.booleans()), max_size=40),
    cuts=st.lists(st.integers(1, 5), max_size=10),
)
@settings(deadline=None)
def test_the_values_are_those_of_brute_force(events: list[tuple[str, int, bool]], cuts: list[int]) -> None:
    tried = Aggregation(Window.fixed(10, by=by, delay=0, max_ahead=None), LISTS, 0.0)
    left = [Event(key, float(time), "add" if bad else "") for key, time, bad in events]
    expected: dict[tuple[str, int], list[float]] = {}
    for event in left:
        if not event.bad:
            expected.setdefault((event.key, int(event.time // 10)), []).append(event.time)
    for cut in [*cuts, len(left)]:
        tried.add(left[:cut], 0.0, WALL)
        left = left[cut:]
        tried.checkpoint(0.0, ALL)
    tried.end(0.0)
    results = told_by(tried.checkpoint(0.0, ALL))
    found = {(one.key, int(one.id.partition("_")[0]) // 10_000_000): one.value for one in results}
    assert found == expected


def add_in_lists(aggregation: Aggregation, events: list[Event]) -> Added:
    return aggregation.add(events, 0.0, WALL)


def test_a_value_that_a_result_has_does_not_change_any_more() -> None:
    aggregation = Aggregation(Window.fixed(10, by=by, delay=0, lateness=20, max_ahead=None), LISTS, 0.0)
    add_in_lists(aggregation, [Event("k", 1.0)])
    aggregation.advance(10_000_000, 0.0)
    add_in_lists(aggregation, [Event("k", 2.0)])
    first, second = told_by(aggregation.checkpoint(0.0, ALL))
    assert (first.value, first.trigger) == ([1.0], "watermark")
    assert (second.value, second.trigger, second.firing) == ([1.0, 2.0], "late", 2)


def test_late_and_future_events_are_told_and_added_nowhere() -> None:
    aggregation = Aggregation(Window.fixed(10, by=by, delay=0, max_ahead=5), SUMS, 0.0)
    aggregation.advance(20_000_000, 0.0)
    late, good, ahead = Event("k", 5.0), Event("k", 25.0), Event("k", 31.0)
    out = aggregation.add([late, good, ahead], 0.0, 25.0)
    assert out.late == [late]
    assert [event for event, _ in out.ahead] == [ahead]
    assert out.added == [good]
    assert out.stamped is not None
    assert (out.stamped.events, out.stamped.times(), out.stamped.high) == ([good], [25_000_000], 25_000_000)
    assert aggregation.open == 1


def test_only_what_changed_is_stored_again() -> None:
    aggregation = Aggregation(Window.fixed(10, by=by, delay=0, max_ahead=None), SUMS, 0.0)
    add_in_lists(aggregation, [Event("k", 1.0), Event("l", 1.0)])
    (first,) = aggregation.checkpoint(0.0, ALL).parts
    assert [entry[0] for entry in first.entries] == ["k", "l"] or [entry[0] for entry in first.entries] == ["l", "k"]
    add_in_lists(aggregation, [Event("l", 2.0)])
    (second,) = aggregation.checkpoint(0.0, ALL).parts
    assert second.entries == [("l", 2, 0, 2)]
    assert aggregation.checkpoint(0.0, ALL).parts == []


def test_a_key_that_cannot_be_stored_fails_its_event_alone() -> None:
    def check_key(key: object) -> None:
        if key == "m":
            raise TypeError("not this one")

    functions = Functions(key_of, int, plus, None, check_key, no_check, json.dumps, in_place=False)
    aggregation = Aggregation(Window.fixed(10, by=by, delay=0, max_ahead=None), functions, 0.0)
    bad, unhashable, good = Event("m", 1.0), Event([], 1.0), Event("k", 1.0)
    out = aggregation.add([bad, unhashable, good], 0.0, WALL)
    assert {id(event) for event, _ in out.failed} == {id(bad), id(unhashable)}
    assert out.added == [good]
    aggregation.end(0.0)
    assert [one.key for one in told_by(aggregation.checkpoint(0.0, ALL))] == ["k"]


def test_the_stored_parts_of_a_long_window_are_bounded() -> None:
    aggregation = Aggregation(Window.fixed(1_000, by=by, delay=0, max_ahead=None), SUMS, 0.0)
    stored = Stored()
    keys = [f"k{number}" for number in range(3_000)]
    most = 0
    for turn in range(60):
        add_in_lists(aggregation, [Event(key, 1.0) for key in keys[turn % 3 :: 3]])
        stored.commit(aggregation.checkpoint(0.0, ALL))
        most = max(most, sum(len(part.entries) for _, part in stored.rows))
    assert most < 4 * 3_000 + 2_000
    again = stored.restored(Window.fixed(1_000, by=by, delay=0, max_ahead=None), SUMS, 0.0)
    again.end(0.0)
    results = told_by(again.checkpoint(0.0, ALL))
    assert len(results) == 3_000
    assert {result.value for result in results} == {20}


@pytest.mark.parametrize("kind", ["count", "session", "fixed"])
def test_an_accumulator_is_stored_at_most_once_by_each_checkpoint(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadway_py._core.aggregation.changes._MOST_REWRITTEN", 2)
    windows = {
        "count": Window.count(1_000),
        "session": Window.session(5, by=by, delay=0, max_ahead=None),
        "fixed": Window.fixed(1_000, by=by, delay=0, max_ahead=None),
    }
    aggregation = Aggregation(windows[kind], SUMS, 0.0)
    for _ in range(20):
        add_in_lists(aggregation, [Event("k", 1.0)])
        parts = aggregation.checkpoint(0.0, ALL).parts
        assert [entry[0] for part in parts for entry in part.entries] == ["k"]


@pytest.mark.parametrize("kind", ["count", "session"])
def test_the_stored_parts_of_many_short_windows_are_bounded(kind: str) -> None:
    window = Window.count(2) if kind == "count" else Window.session(5, by=by, delay=0, max_ahead=None)
    aggregation = Aggregation(window, SUMS, 0.0)
    stored = Stored()
    for turn in range(400):
        add_in_lists(aggregation, [Event(f"k{turn}x{number}", float(turn)) for number in range(20)])
        aggregation.advance(turn * 1_000_000, 0.0)
        if kind == "count":
            add_in_lists(aggregation, [Event(f"k{turn}x{number}", 0.0) for number in range(19)])
        stored.commit(aggregation.checkpoint(0.0, ALL))
    size = sum(len(part.entries) + len(part.closed) + len(part.ended) for _, part in stored.rows)
    assert size < 64 * 2_000 + 4 * aggregation.open + 2_000
    again = stored.restored(window, SUMS, 0.0)
    assert again.open == aggregation.open
    again.end(0.0)
    aggregation.end(0.0)
    assert {one.id: one.value for one in told_by(again.checkpoint(0.0, ALL))} == {
        one.id: one.value for one in told_by(aggregation.checkpoint(0.0, ALL))
    }


def test_a_checkpoint_has_the_value_that_was_given_back_after_an_event_that_failed() -> None:
    aggregation = Aggregation(Window.fixed(10, by=by, delay=0).trigger_every(5), LISTS, 0.0)
    aggregation.add([Event("k", 1.0), Event("k", 2.0, "add")], 0.0, WALL)

    assert aggregation.checkpoint(0.0, ALL).parts[0].entries == [("k", 1, 0, [1.0])]


def test_a_key_whose_only_event_failed_is_not_stored() -> None:
    aggregation = Aggregation(Window.fixed(10, by=by, delay=0, max_ahead=None), SUMS, 0.0)
    aggregation.add([Event("k", 1.0), Event("failed", 2.0, "add"), Event("k", 3.0, "add")], 0.0, WALL)

    assert aggregation.checkpoint(0.0, ALL).parts[0].entries == [("k", 1, 0, 1)]
    assert aggregation.open == 1

    aggregation.add([Event("failed", 4.0, "add"), Event("failed", 5.0), Event("failed", 6.0)], 0.0, WALL)
    assert aggregation.checkpoint(0.0, ALL).parts[0].entries == [("failed", 2, 0, 2)]
    assert aggregation.open == 2


def test_a_window_that_closes_while_it_is_stored_again_gives_all_its_results_in_parts() -> None:
    window = Window.fixed(1_000, by=by, delay=0, max_ahead=None)
    aggregation = Aggregation(window, SUMS, 0.0)
    stored = Stored()
    keys = [f"k{number}" for number in range(5_000)]
    # So many parts of it are stored that it is stored again, 2,000 keys with each checkpoint. It closes before the end.
    for _ in range(5):
        add_in_lists(aggregation, [Event(key, 1.0) for key in keys])
        stored.commit(aggregation.checkpoint(0.0, ALL))
    aggregation.advance(1_000_000_000, 0.0)
    told: list[Told] = []
    while aggregation.due:
        made = aggregation.checkpoint(0.0, 700)
        assert 0 < len(told_by(made)) <= 700
        stored.commit(made)
        told += told_by(made)
        aggregation = stored.restored(window, SUMS, 0.0)
        assert aggregation.due == len(keys) - len(told)
    assert sorted(one.key for one in told) == sorted(keys)
    assert {one.value for one in told} == {5}
    assert stored.rows == []


def test_a_part_of_the_last_results_removes_nothing_and_the_last_part_removes_all() -> None:
    aggregation = Aggregation(Window.fixed(10, by=by, delay=0, max_ahead=None), SUMS, 0.0)
    stored = Stored()
    add_in_lists(aggregation, [Event(key, 1.0) for key in "abc"])
    stored.commit(aggregation.checkpoint(0.0, ALL))
    aggregation.advance(10_000_000, 0.0)
    first = aggregation.checkpoint(0.0, 2)
    assert [one.key for one in told_by(first)] == ["a", "b"]
    assert [(part.entries, part.fired) for part in first.parts] == [([], ["a", "b"])]
    assert first.dropped == []
    assert (aggregation.has_parts, aggregation.due, aggregation.open) == (True, 1, 0)
    second = aggregation.checkpoint(0.0, 2)
    assert [one.key for one in told_by(second)] == ["c"]
    assert (second.parts, second.dropped) == ([], [(0, 4)])
    assert not aggregation.has_parts


LATER = Window.fixed(10, by=by, delay=0, lateness=5, max_ahead=None)


def on_time(keys: str) -> Aggregation:
    """A window with one event of each of *keys*, which has passed its end and stays open."""
    aggregation = Aggregation(LATER, SUMS, 0.0)
    add_in_lists(aggregation, [Event(key, 1.0) for key in keys])
    aggregation.advance(10_000_000, 0.0)
    return aggregation


def facts(checkpoint: Checkpoint) -> list[tuple[Any, int, int, str]]:
    return [(one.key, one.firing, one.value, one.trigger) for one in told_by(checkpoint)]


def test_results_on_time_come_in_parts() -> None:
    aggregation = on_time("abc")
    assert (aggregation.has_parts, aggregation.due, aggregation.open) == (True, 3, 3)
    assert facts(aggregation.checkpoint(0.0, 0)) == []
    assert facts(aggregation.checkpoint(0.0, 2)) == [("a", 1, 1, "watermark"), ("b", 1, 1, "watermark")]
    assert (aggregation.has_parts, aggregation.due) == (True, 1)
    assert facts(aggregation.checkpoint(0.0, 2)) == [("c", 1, 1, "watermark")]
    assert (aggregation.has_parts, aggregation.due, aggregation.open) == (False, 0, 3)


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_a_restart_between_two_parts_of_results_on_time_gives_each_once(parts: int) -> None:
    aggregation, stored = on_time("abcde"), Stored()
    told: list[tuple[Any, int, int, str]] = []
    for most in [0, *[2] * parts]:
        made = aggregation.checkpoint(0.0, most)
        stored.commit(made)
        told += facts(made)
    aggregation = stored.restored(LATER, SUMS, 0.0)
    assert aggregation.due == 5 - len(told)
    told += facts(aggregation.checkpoint(0.0, ALL))
    assert told == [(key, 1, 1, "watermark") for key in "abcde"]
    assert aggregation.due == 0


def test_a_key_whose_turn_has_not_come_gives_its_result_on_time_without_the_events_that_come_now() -> None:
    aggregation = on_time("abcd")
    assert facts(aggregation.checkpoint(0.0, 1)) == [("a", 1, 1, "watermark")]
    # One whose turn was, one whose turn comes, and one that was not there on time.
    add_in_lists(aggregation, [Event(key, 2.0) for key in "acx"])
    assert facts(aggregation.checkpoint(0.0, 0)) == [
        ("c", 1, 1, "watermark"),
        ("a", 2, 2, "late"),
        ("c", 2, 2, "late"),
        ("x", 1, 1, "late"),
    ]
    add_in_lists(aggregation, [Event("x", 3.0)])
    assert facts(aggregation.checkpoint(0.0, ALL)) == [
        ("x", 2, 2, "late"),
        ("b", 1, 1, "watermark"),
        ("d", 1, 1, "watermark"),
    ]


def test_a_window_that_closes_before_the_last_part_has_given_all_results_on_time() -> None:
    aggregation = on_time("abc")
    assert facts(aggregation.checkpoint(0.0, 1)) == [("a", 1, 1, "watermark")]
    add_in_lists(aggregation, [Event("a", 2.0)])
    aggregation.advance(15_000_000, 0.0)
    assert facts(aggregation.checkpoint(0.0, ALL)) == [
        ("b", 1, 1, "watermark"),
        ("c", 1, 1, "watermark"),
        ("a", 2, 2, "late"),
    ]
    assert (aggregation.has_parts, aggregation.due, aggregation.open) == (False, 0, 0)


def test_many_sessions_close_in_parts_and_take_no_event_from_the_first_part_on() -> None:
    aggregation = Aggregation(Window.session(5, by=by, delay=0, max_ahead=None), SUMS, 0.0)
    stored = Stored()
    add_in_lists(aggregation, [Event(number, 1.0) for number in range(2_500)])
    aggregation.advance(6_000_000, 0.0)
    # The last bound counts sessions: a step does not get longer with more of them.
    assert (aggregation.due, aggregation.open, aggregation.has_due) == (1_000, 1_500, True)
    assert len(aggregation.add([Event(number, 5.0) for number in range(2_500)], 0.0, WALL).late) == 2_500
    aggregation.close_due(0.0)
    assert (aggregation.due, aggregation.has_due) == (2_000, True)
    first = aggregation.checkpoint(0.0, ALL)
    stored.commit(first)
    again = stored.restored(Window.session(5, by=by, delay=0, max_ahead=None), SUMS, 0.0)
    assert (again.open, again.has_due) == (500, True)
    again.close_due(0.0)
    assert not again.has_due
    told = [*told_by(first), *told_by(again.checkpoint(0.0, ALL))]
    assert [one.key for one in told] == list(range(2_500))
    assert {(one.value, one.trigger) for one in told} == {(1, "gap")}
