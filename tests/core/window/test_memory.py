"""What is kept: nothing of an event whose windows have closed, and nothing of a key that is silent for long."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from broadway_py._core.window.engine import Engine
from broadway_py._core.window.spec import Window

#: Events in a second, each of a key of its own.
STEP = 250


class Event:
    """An event that can be watched."""

    __slots__ = ("__weakref__", "key", "time")

    def __init__(self, time: float, key: int) -> None:
        self.time = time
        self.key = key


def at(event: Event) -> float:
    return event.time


def feed(engine: Engine, events: list[Event], *, by_key: bool) -> None:
    """Hands the events over, and forgets what follows."""
    stamped = engine.read(events)
    stamped.keys = [event.key for event in events]
    engine.feed(stamped, 0.0, upstream="a")
    if by_key:
        engine.advance(stamped.high, 0.0)
        engine.fire_late(0.0)


WINDOWS: list[Callable[..., Window]] = [
    lambda **more: Window.session(10, by=at, longest=None, **more),
    lambda **more: Window.sliding(10, 1, by=at, **more),
    lambda **more: Window.fixed(10, by=at, **more),
    lambda **more: Window.fixed(10, by=at, **more).trigger_every(3).trigger_on_time().trigger_periodically(1),
]


def engine_of(make: Callable[..., Window], *, by_key: bool) -> Engine:
    settings: dict[str, Any] = {"delay": 0, "max_ahead": None} if by_key else {}
    engine = Engine(make(lateness=5, **settings), 0.0, by_key=by_key)
    if not by_key:
        engine.join("a", 0.0)
    return engine


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("make", WINDOWS)
def test_an_endless_stream_of_new_keys_leaves_nothing_behind(make: Callable[..., Window], *, by_key: bool) -> None:
    engine = engine_of(make, by_key=by_key)

    def run(first: int, until: int) -> int:
        for begin in range(first, until, STEP):
            feed(engine, [Event(key / STEP, key) for key in range(begin, begin + STEP)], by_key=by_key)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    run(0, 20 * STEP)
    tracemalloc.start()
    try:
        early = run(20 * STEP, 40 * STEP)
        late = run(40 * STEP, 80 * STEP)
    finally:
        tracemalloc.stop()

    assert late - early < 250_000  # a dict may have grown; 10,000 keys would be more than a megabyte


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("make", WINDOWS)
def test_an_event_is_not_kept_once_it_was_handed_on(make: Callable[..., Window], *, by_key: bool) -> None:
    engine = engine_of(make, by_key=by_key)
    events = [Event(number / 10, number % 7) for number in range(100)]
    watched = [weakref.ref(event) for event in events]

    feed(engine, events, by_key=by_key)
    del events

    assert [each() for each in watched if each() is not None] == []
    assert list(engine.open_windows()) != []
