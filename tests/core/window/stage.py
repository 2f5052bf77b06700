"""A stage for tests: it carries out what the engine says, with an accumulator per window (or per window and key)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from broadway_py._core.window.effects import (
    Add,
    Close,
    Effect,
    Fire,
    FireKeys,
    FireLast,
    FireOnTime,
    KeyRecord,
    Merge,
    OpenWindow,
    SideOutput,
)
from broadway_py._core.window.engine import Engine
from broadway_py._core.window.firing import MISSING, Firing
from broadway_py._core.window.keyed import KeyedEngine
from broadway_py._core.window.spec import Window

Reduce = Callable[[Any, Any], Any]
OnTrigger = Callable[[Any, Firing], tuple[list[Any], Any]]


def keep(state: Any, firing: Firing) -> tuple[list[Any], Any]:
    """Hands out the accumulator, and keeps it."""
    return [state], state


class Stage:
    """Sums by default, and emits each accumulator with its firing.

    Args:
        window: what to try.
        init, reduce: the accumulator, as in Flow.
        on_trigger: returns what to emit, and the next accumulator.
        merge: joins the accumulators of two sessions.
        key: the key of an event.
        upstreams: those that join at the start.
        by_key: the rules of aggregators.
    """

    def __init__(
        self,
        window: Window,
        *,
        init: Callable[[], Any] = int,
        reduce: Reduce = lambda total, event: total + event,
        on_trigger: OnTrigger = keep,
        merge: Reduce = lambda earlier, later: earlier + later,
        key: Callable[[Any], Hashable] | None = None,
        upstreams: Iterable[Hashable] = ("a",),
        by_key: bool = False,
    ) -> None:
        self.engine = KeyedEngine(window, 0.0) if by_key else Engine(window, 0.0)
        self.now = 0.0
        self.emitted: list[Any] = []
        self.firings: list[Firing] = []
        #: For each firing: the id of its window, and the ids that it replaces.
        self.ids: list[tuple[str, tuple[str, ...]]] = []
        #: Events and their places among the firings: ("add", event), ("late", event) ..., ("fire", trigger).
        self.story: list[tuple[Any, ...]] = []
        self.side: list[SideOutput] = []
        self.closed: list[OpenWindow] = []
        self._init, self._reduce, self._on_trigger, self._merge, self._key = init, reduce, on_trigger, merge, key
        self._is_shared = by_key and window.kind not in ("session", "count")
        if not by_key:
            for upstream in upstreams:
                self.carry_out(self.engine.join(upstream, 0.0))

    def give(
        self, events: Sequence[Any], *, upstream: Hashable = "a", demand: int = 1_000, wall: float | None = None
    ) -> None:
        """Feeds *events* in lists of at most *demand*."""
        for begin in range(0, len(events), demand):
            stamped = self.engine.read(events[begin : begin + demand])
            if stamped.refused:
                raise stamped.refused[0].error
            if self._key is not None:
                stamped.keys = [self._key(event) for event in stamped.events]
            self.carry_out(self.engine.feed(stamped, self.now, upstream=upstream, wall=wall))

    def pass_time(self, seconds: float) -> None:
        """Moves the clock on, and wakes the engine whenever it has asked for it."""
        until = self.now + seconds
        while (moment := self.engine.next_timer()) is not None and moment <= until:
            self.now = moment
            self.carry_out(self.engine.tick(moment))
        self.now = until

    def end(self, *upstreams: Hashable) -> None:
        """Ends the *upstreams*, or the input."""
        for upstream in upstreams:
            self.carry_out(self.engine.leave(upstream, self.now))
        if not upstreams:
            self.carry_out(self.engine.end(self.now))

    def carry_out(self, effects: list[Effect]) -> None:
        """Does what the engine says."""
        for effect in effects:
            match effect:
                case Add():
                    self._add(effect)
                case Fire():
                    self._fire(effect)
                case FireKeys(window, trigger, fired):
                    for record, count, number in fired:
                        fire = Fire(window, record.key, trigger, number, False, count, window.start, window.end)
                        self._fire(fire, record)
                case FireOnTime():
                    self._fire_in_parts(effect)
                case FireLast():
                    self._fire_in_parts(effect)
                    self.closed.append(effect.window)
                case Merge():
                    effect.window.state = self._merge(effect.window.state, effect.absorbed.state)
                case Close():
                    self.closed.append(effect.window)
                    effect.window.state = None
                case SideOutput():
                    self.side.append(effect)
                    self.story.append((effect.cause, effect.event))

    def _add(self, effect: Add) -> None:
        for place, event in enumerate(effect.events):
            for number, window in enumerate(effect.windows):
                self.story.append(("add", event))
                if not self._is_shared:
                    window.state = self._reduce(self._init() if window.state is None else window.state, event)
                    continue
                assert effect.keys is not None
                record = effect.records[number][place]
                assert record.key == effect.keys[place]
                record.state = self._reduce(self._init() if record.state is MISSING else record.state, event)

    def _fire_in_parts(self, effect: FireLast | FireOnTime) -> None:
        window, is_last = effect.window, isinstance(effect, FireLast)
        while effect:
            for record in effect.take(2):
                fire = Fire(
                    window, record.key, effect.trigger, record.number, is_last, record.count, window.start, window.end
                )
                self._fire(fire, record)

    def _fire(self, effect: Fire, record: KeyRecord | None = None) -> None:
        window, firing = effect.window, self.engine.describe(effect)
        if record is not None:
            events, record.state = self._on_trigger(record.state, firing)
        else:
            events, window.state = self._on_trigger(self._init() if window.state is None else window.state, firing)
        self.firings.append(firing)
        self.ids.append((window.id, effect.replaces))
        self.emitted += events
        self.story.append(("fire", firing.trigger, firing.number, firing.final, firing.key, *events))
