"""Windows of all kinds by key, and what may happen to them, for tests with random streams."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from hypothesis import strategies as st

from broadway_py._core.window.effects import KeyRecord, OpenWindow
from broadway_py._core.window.keyed import KeyedEngine
from broadway_py._core.window.saved import EngineMemory, SavedWindow, WindowFacts
from broadway_py._core.window.spec import Window
from tests.core.window.stage import Stage

#: (time, key, number). A time counts seconds, or quarters of a day where days are tried.
Event = tuple[int, str, int]
Step = tuple[Any, ...]

_QUARTER_S = 21_600
UNITS_A_STEP = 3


@dataclass(frozen=True)
class Given:
    """A window, and how many seconds a unit of time has for it."""

    window: Window
    unit_s: int = 1


def _seconds(event: Event) -> int:
    return event[0]


def _day(event: Event) -> datetime:
    return datetime.fromtimestamp(event[0] * _QUARTER_S, UTC)


def _shaped(kind: str, size: int, every: int, lateness: int, max_ahead: int | None) -> Given:
    times: dict[str, Any] = {"delay": 0, "lateness": lateness, "max_ahead": max_ahead, "by": _seconds}
    match kind:
        case "fixed":
            return Given(Window.fixed(size, **times))
        case "sliding":
            return Given(Window.sliding(size, min(every, size), **times))
        case "session":
            return Given(Window.session(size, longest=None, **times))
        case "session with a limit":
            return Given(Window.session(size, longest=size + every, **times))
        case "calendar":
            times |= {
                "by": _day,
                "lateness": lateness * _QUARTER_S,
                "max_ahead": None if max_ahead is None else max_ahead * _QUARTER_S,
            }
            return Given(Window.calendar("day", tz="Europe/Berlin", **times), _QUARTER_S)
        case "count":
            return Given(Window.count(size))
        case "periodic":
            return Given(Window.periodic(size))
        case _:
            return Given(Window.global_())


def _with_triggers(given: Given, every: int | None, intervals: list[int]) -> Given:
    window = given.window if every is None else given.window.trigger_every(every)
    for interval in intervals:
        window = window.trigger_periodically(interval)
    return Given(window, given.unit_s)


_TIMED = ["fixed", "sliding", "session", "session with a limit", "calendar"]
_UNTIMED = ["count", "periodic", "global"]


def windows(kinds: Iterable[str] = (*_TIMED, *_UNTIMED), *, triggers_every: bool = True) -> st.SearchStrategy[Given]:
    """Windows with all of their settings."""
    return st.builds(
        _with_triggers,
        st.builds(
            _shaped,
            st.sampled_from(list(kinds)),
            st.integers(1, 12),
            st.integers(1, 12),
            st.sampled_from([0, 0, 1, 5, 20]),
            st.sampled_from([None, None, 5]),
        ),
        st.one_of(st.none(), st.integers(1, 4)) if triggers_every else st.none(),
        st.lists(st.integers(1, 8), max_size=2),
    )


#: (units, key): how far an event is from where time is at this step.
EVENTS = st.lists(st.tuples(st.integers(-15, 10), st.sampled_from("xyz")), min_size=1, max_size=12)
GIVE = st.tuples(st.just("give"), EVENTS, st.integers(1, 20))
OTHER_STEPS = st.one_of(
    st.tuples(st.just("advance"), st.integers(-20, 5)),
    st.tuples(st.just("advance"), st.integers(-20, 5)),
    st.tuples(st.just("wait"), st.integers(1, 9)),
    st.tuples(st.just("fire late")),
    st.tuples(st.just("fire")),
    st.tuples(st.just("close"), st.integers(-20, 5)),
)


class Stream:
    """Takes steps with a stage: each stage of a comparison takes the same ones."""

    def __init__(self, given: Given) -> None:
        self.stage = Stage(
            given.window,
            init=list,
            reduce=lambda events, event: sorted([*events, event]),
            key=lambda event: event[1],
            by_key=True,
        )
        self._unit_s = given.unit_s

    @property
    def engine(self) -> KeyedEngine:
        """The engine of the stage."""
        assert isinstance(self.stage.engine, KeyedEngine)
        return self.stage.engine

    def wall(self, place: int) -> float:
        """The wall clock at the step *place*."""
        return float((UNITS_A_STEP * place - 20) * self._unit_s)

    def give(self, events: list[Event], place: int, demand: int = 1_000) -> None:
        """Feeds *events* in lists of at most *demand*."""
        self.stage.give(events, demand=demand, wall=self.wall(place))

    def take(self, step: Step, place: int) -> None:
        """Takes a step that is no "give"."""
        stage = self.stage
        match step:
            case ("advance", units):
                watermark = round((self.wall(place) + units * self._unit_s) * 1_000_000)
                stage.carry_out(stage.engine.advance(watermark, stage.now))
            case ("close", units):
                before = round((self.wall(place) + units * self._unit_s) * 1_000_000)
                stage.carry_out(self.engine.close(before, stage.now))
            case ("wait", seconds):
                stage.pass_time(seconds)
            case ("fire late",):
                stage.carry_out(stage.engine.fire_late(stage.now))
            case _:
                stage.carry_out(stage.engine.fire("asked", stage.now))

    def told(self) -> list[Any]:
        """All firings so far, with their ids and values. Those of one window at one moment are in the order of keys."""
        stage = self.stage
        told = list(zip(stage.ids, stage.firings, stage.emitted, strict=True))
        found: list[Any] = []
        for _, group in groupby(told, key=lambda each: (each[0], each[1].trigger)):
            found += sorted(group, key=lambda each: (each[1].key, each[1].number))
        return found


def numbered(events: list[tuple[int, str]], place: int, first: int) -> list[Event]:
    """Events with their times and their numbers, at the step *place*. Time begins before 1970."""
    now = UNITS_A_STEP * place - 20
    return [(now + units, key, first + number) for number, (units, key) in enumerate(events)]


def stored(engine: KeyedEngine) -> list[Any]:
    """The memory of *engine*, its windows that have events, and its ended sessions, after a way through JSON."""
    saved = [engine.saved(window, None) for window in engine.open_windows() if window.count]
    saved.sort(key=lambda each: each.facts.serial)
    windows_of_all = [[each.facts, each.key, sorted(each.keys)] for each in saved]
    found: list[Any] = json.loads(json.dumps([asdict(engine.memory()), windows_of_all, dict(engine.ended())]))
    return found


def holders(window: OpenWindow) -> list[tuple[object, KeyRecord | OpenWindow]]:
    """What has the accumulators of *window*, each with a name that no other one has."""
    if window.shared is None:
        return [((window.id, window.key), window)]
    return [((window.id, record.key), record) for record in window.shared.records.values()]


def restart(stage: Stage, window: Window, *, parts: int = 1) -> None:
    """Gives *stage* a new engine with what the old one was, after a way through JSON. Keys come back in *parts*."""
    old = stage.engine
    assert isinstance(old, KeyedEngine)
    states = {name: copy.deepcopy(holder.state) for each in old.open_windows() for name, holder in holders(each)}
    memory, saved, ended = stored(old)
    stage.engine = new = KeyedEngine(window, stage.now)
    new.restore(EngineMemory(**memory))
    new.reopen_ended(ended)
    for facts, key, keys in saved:
        for part in range(parts if keys else 1):
            back = new.reopen(SavedWindow(WindowFacts(*facts), key, keys[part::parts]))
        for name, holder in holders(back):
            holder.state = states[name]
