"""The engine against brute force: all kinds, several upstreams, ends and idle times, any cutting into lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_tests
from hypothesis import strategies as st

from broadway_py._core.window.spec import Window
from tests.core.window.brute_force import BruteForce, Settings
from tests.core.window.stage import Stage

#: (what, …): events of an upstream, seconds that pass, holds, ends.
Step = tuple[Any, ...]

UPSTREAMS = ("a", "b", "c")
#: (seconds, key): how far an event is from where time is at this step, which goes on by some seconds with each.
EVENTS = st.lists(st.tuples(st.integers(-15, 15), st.sampled_from("xyz")), min_size=1, max_size=15)
SECONDS_A_STEP = 3
GIVE = st.tuples(st.just("give"), st.sampled_from(UPSTREAMS), EVENTS, st.integers(1, 20))
STEPS = st.lists(
    st.one_of(
        GIVE,
        GIVE,
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["hold", "resume", "hold", "resume", "leave"]), st.sampled_from(UPSTREAMS)),
    ),
    min_size=5,
    max_size=25,
)
LATENESS = st.sampled_from([0, 0, 1, 5, 20])
TRIGGER_EVERY = st.one_of(st.none(), st.integers(1, 4))
SETTINGS = st.builds(
    lambda shape, every, more, settings: replace(
        settings, **({"gap": every} if shape == "session" else {"size": every + more, "every": every})
    ),
    st.sampled_from(["session", "fixed or sliding"]),
    st.integers(1, 12),
    st.sampled_from([0, 0, 1, 3, 7, 15]),
    st.builds(
        Settings,
        offset=st.integers(-7, 7),
        delay=st.integers(0, 6),
        lateness=LATENESS,
        idle_timeout=st.one_of(st.none(), st.integers(1, 8)),
        on_time=st.booleans(),
        trigger_every=TRIGGER_EVERY,
    ),
)


def window_of(settings: Settings, **times: Any) -> Window:
    def by(event: Any) -> int:
        return int(event[0])

    times |= {"delay": settings.delay, "lateness": settings.lateness}
    if settings.gap:
        window = Window.session(settings.gap, by=by, longest=None, **times)
    elif settings.size == settings.every:
        window = Window.fixed(settings.size, by=by, offset=settings.offset, **times)
    else:
        window = Window.sliding(settings.size, settings.every, by=by, offset=settings.offset, **times)
    if settings.trigger_every is not None:
        window = window.trigger_every(settings.trigger_every)
    return window.trigger_on_time() if settings.on_time else window


def numbered(events: list[tuple[int, str]], step: int, first: int) -> list[tuple[int, str, int]]:
    """Events with their times and their numbers. Time begins before 1970."""
    now = SECONDS_A_STEP * step - 20
    return [(now + seconds, key, first + place) for place, (seconds, key) in enumerate(events)]


def stage_of(window: Window, **more: Any) -> Stage:
    return Stage(
        window, init=list, reduce=lambda events, event: sorted([*events, event]), key=lambda event: event[1], **more
    )


@settings_of_tests(max_examples=300)
@given(settings=SETTINGS, upstreams=st.integers(1, 3), steps=STEPS)
def test_windows_of_a_stage_are_what_the_definitions_say(settings: Settings, upstreams: int, steps: list[Step]) -> None:
    brute = BruteForce(settings)
    here = list(UPSTREAMS[:upstreams])
    stage = stage_of(window_of(settings, idle_timeout=settings.idle_timeout), upstreams=here)
    for upstream in here:
        brute.join(upstream)
    identity = 0
    for place, step in enumerate(steps):
        match step:
            case ("give", upstream, events, demand) if upstream in here:
                given_now = numbered(events, place, identity)
                identity += len(events)
                stage.give(given_now, upstream=upstream, demand=demand)
                for event in given_now:
                    brute.give(event, upstream)
            case ("wait", seconds):
                stage.pass_time(seconds)
                brute.go_to(brute.now + seconds)
            case ("leave", upstream) if upstream in here:
                here.remove(upstream)
                stage.end(upstream)
                brute.leave(upstream)
                if not here:
                    break
            case ("hold" | "resume" as what, upstream) if upstream in here:
                stage.carry_out(getattr(stage.engine, what)(upstream, stage.now))
                getattr(brute, what)(upstream)
        assert stage.story == brute.story
    if here:
        stage.end()
        brute.end()

    assert stage.story == brute.story
    assert stage.engine.late == sum(entry[0] == "late" for entry in brute.story)
    assert list(stage.engine.open_windows()) == []


KEYED_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("give"), EVENTS, st.integers(1, 20)),
        st.tuples(st.just("advance"), st.integers(-20, 5)),
        st.tuples(st.just("fire late")),
    ),
    min_size=5,
    max_size=25,
)


def _by_event(story: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What happened between two firings, by the number of the event: in one list, windows have no order."""
    ordered: list[tuple[Any, ...]] = []
    for is_firing, run in groupby(story, lambda entry: entry[0] == "fire"):
        entries = list(run)
        ordered += entries if is_firing else sorted(entries, key=lambda entry: entry[1][2])
    return ordered


@settings_of_tests(max_examples=300)
@given(settings=SETTINGS, steps=KEYED_STEPS)
def test_windows_by_key_are_what_the_definitions_say(settings: Settings, steps: list[Step]) -> None:
    # The watermark comes from outside, where the delay is already taken off.
    brute = BruteForce(settings, by_key=True)
    stage = stage_of(window_of(settings, max_ahead=None), by_key=True)
    identity = 0
    for place, step in enumerate(steps):
        match step:
            case ("give", events, demand):
                given_now = numbered(events, place, identity)
                identity += len(events)
                stage.give(given_now, demand=demand)
                for event in given_now:
                    brute.give(event)
            case ("advance", seconds):
                watermark = SECONDS_A_STEP * place - 20 + seconds
                stage.carry_out(stage.engine.advance(watermark * 1_000_000, stage.now))
                brute.advance(watermark)
            case _:
                stage.carry_out(stage.engine.fire_late(stage.now))
                brute.fire_late()
        assert _by_event(stage.story) == _by_event(brute.story)
    stage.end()
    brute.end()

    assert _by_event(stage.story) == _by_event(brute.story)
    assert list(stage.engine.open_windows()) == []


@pytest.mark.parametrize("longest", [10, 12, 25])
@given(
    events=st.lists(st.tuples(st.integers(0, 60), st.sampled_from("xy"))),
    lateness=st.sampled_from([0, 10, 100]),
    demand=st.integers(1, 9),
)
def test_sessions_with_a_longest_length_keep_to_it_and_lose_nothing(
    longest: int, events: list[tuple[int, str]], lateness: int, demand: int
) -> None:
    window = Window.session(10, by=lambda event: event[0], longest=longest, lateness=lateness)
    given_events = [(*event, number) for number, event in enumerate(events)]
    stories = []
    for each in (demand, 1_000):
        stage = stage_of(window)
        stage.give(given_events, demand=each)
        stage.end("a")
        stories.append(stage.story)
    assert stories[0] == stories[1]

    sessions: dict[str, list[tuple[float, float]]] = {}
    placed: list[Any] = [side.event for side in stage.side]
    for firing, members in zip(stage.firings, stage.emitted, strict=True):
        assert isinstance(firing.start, float)
        assert isinstance(firing.end, float)
        assert firing.end - firing.start <= longest
        assert all(firing.start <= member[0] < firing.end and member[1] == firing.key for member in members)
        sessions.setdefault(firing.key, []).append((firing.start, firing.end))
        placed += members
    assert sorted(placed, key=lambda event: event[2]) == given_events
    for spans in sessions.values():
        ordered = sorted(spans)
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(ordered))
