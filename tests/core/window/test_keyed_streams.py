"""Random streams by key: a restart changes nothing, an event that was taken back never came, and peek() was right."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import settings as settings_of_tests
from hypothesis import strategies as st

from broadway_py._core.window.effects import Add, Effect, Merge, OpenWindow, Peek, SideOutput
from tests.core.window.keyed_streams import (
    GIVE,
    OTHER_STEPS,
    Event,
    Given,
    Step,
    Stream,
    numbered,
    restart,
    stored,
    windows,
)

RESTARTS = st.tuples(st.just("restart"), st.integers(1, 3))


@settings_of_tests(max_examples=400)
@given(
    window=windows(), steps=st.lists(st.one_of(GIVE, GIVE, OTHER_STEPS, RESTARTS, RESTARTS), min_size=5, max_size=25)
)
def test_an_engine_that_was_stopped_goes_on_as_if_it_had_not(window: Given, steps: list[Step]) -> None:
    whole, cut = Stream(window), Stream(window)
    count = 0
    for place, step in enumerate(steps):
        match step:
            case ("give", events, demand):
                for stream in (whole, cut):
                    stream.give(numbered(events, place, count), place, demand)
                count += len(events)
            case ("restart", parts):
                before = stored(cut.engine)
                restart(cut.stage, window.window, parts=parts)
                assert stored(cut.engine) == before
            case _:
                for stream in (whole, cut):
                    stream.take(step, place)
        assert cut.told() == whole.told()
        assert cut.engine.next_timer() == whole.engine.next_timer()
        assert cut.engine.ended() == whole.engine.ended()
    for stream in (whole, cut):
        stream.stage.end()

    assert cut.told() == whole.told()
    assert [each.event for each in cut.stage.side] == [each.event for each in whole.stage.side]
    assert (cut.engine.late, cut.engine.ahead) == (whole.engine.late, whole.engine.ahead)


SHARED = ("fixed", "sliding", "calendar", "periodic", "global")
#: Each event, and whether the user's function raises for it.
RAISING = st.lists(st.tuples(st.integers(-15, 10), st.sampled_from("xyz"), st.booleans()), min_size=1, max_size=12)
GIVE_RAISING = st.tuples(st.just("give"), RAISING, st.integers(1, 20))


@settings_of_tests(max_examples=300)
@given(
    window=windows(SHARED, triggers_every=False),
    steps=st.lists(st.one_of(GIVE_RAISING, GIVE_RAISING, OTHER_STEPS, RESTARTS), min_size=5, max_size=25),
)
def test_an_event_that_was_taken_back_has_never_come(window: Given, steps: list[Step]) -> None:
    with_it, without = Stream(window), Stream(window)
    count = 0
    for place, step in enumerate(steps):
        match step:
            case ("give", events, demand):
                all_events = numbered([event[:2] for event in events], place, count)
                count += len(events)
                raising = {event for event, (_, _, raises) in zip(all_events, events, strict=True) if raises}
                for begin in range(0, len(all_events), demand):
                    give_some_raising(with_it, all_events[begin : begin + demand], place, raising)
                without.give([event for event in all_events if event not in raising], place, demand)
            case ("restart", parts):
                restart(with_it.stage, window.window, parts=parts)
            case _:
                for stream in (with_it, without):
                    stream.take(step, place)
        assert with_it.told() == without.told()
        assert keys_by_window(with_it) == keys_by_window(without)
    for stream in (with_it, without):
        stream.stage.end()

    assert with_it.told() == without.told()


def keys_by_window(stream: Stream) -> dict[str, list[Any]]:
    """The keys of each window that has events, with their counts, numbers and news."""
    engine = stream.engine
    return {window.id: sorted(engine.saved(window, None).keys) for window in engine.open_windows() if window.count}


def give_some_raising(stream: Stream, events: list[Event], place: int, raising: set[Event]) -> None:
    """Feeds *events*, as a shell does whose user's function raises for some of them."""
    stage = stream.stage
    stamped = stage.engine.read(events)
    stamped.keys = [event[1] for event in events]
    effects: list[Effect] = []
    for effect in stage.engine.feed(stamped, stage.now, wall=stream.wall(place)):
        if not isinstance(effect, Add):
            effects.append(effect)
            continue
        kept = [place for place, event in enumerate(effect.events) if event not in raising]
        for event in effect.events:
            if event in raising:
                stream.engine.take_back(effect.windows, event[1])
        added = [effect.events[place] for place in kept]
        records = tuple([of_window[place] for place in kept] for of_window in effect.records)
        effects.append(Add(effect.windows, added, [event[1] for event in added], records))
    stage.carry_out(effects)


@settings_of_tests(max_examples=300)
@given(window=windows(), steps=st.lists(st.one_of(GIVE, GIVE, OTHER_STEPS, RESTARTS), min_size=5, max_size=25))
def test_what_peek_says_is_what_feed_does(window: Given, steps: list[Step]) -> None:
    stream = Stream(window)
    count = 0
    for place, step in enumerate(steps):
        match step:
            case ("give", events, _):
                for event in numbered(events, place, count):
                    look_and_feed(stream, event, place, is_timed=window.window.by is not None)
                count += len(events)
            case ("restart", parts):
                restart(stream.stage, window.window, parts=parts)
            case _:
                stream.take(step, place)


def look_and_feed(stream: Stream, event: Event, place: int, *, is_timed: bool) -> None:
    """Compares what the engine says beforehand with what it then does."""
    engine, stage, wall = stream.engine, stream.stage, stream.wall(place)
    stage.carry_out(engine.tick(stage.now))
    stamped = engine.read([event])
    stamped.keys = [event[1]]
    before = stored(engine)
    opened = list(engine.open_windows())

    peek = engine.peek(event[1], stamped.times()[0] if is_timed else None, wall=wall)

    assert stored(engine) == before
    effects = engine.feed(stamped, stage.now, wall=wall)
    assert peek == done(effects, opened)
    stage.carry_out(effects)


def done(effects: list[Effect], opened: list[OpenWindow]) -> Peek:
    """What was done to the windows of an event, which were *opened* before or not."""
    absorbed = [effect.absorbed for effect in effects if isinstance(effect, Merge)]
    for effect in effects:
        match effect:
            case SideOutput():
                return Peek(effect.cause)
            case Add():
                joined = [window for window in effect.windows if window in opened]
                return Peek(None, (*joined, *absorbed), len(effect.windows) - len(joined))
    raise AssertionError(f"the event has gone nowhere: {effects}")
